// Traces of chats: when each came, how long its prompt and answer were, what its prompt shared with others,
// which pictures it had. Comma-separated, a header line, a line a chat:
//
//   arrival_ms,tenant,prefix_id,prefix_tokens,prompt_tokens,pictures,picture_tokens,output_tokens
//   0,school,17,512,640,,0,200
//   12.5,school,17,640,700,4;9,256,150
//
// Prompts with the same prefix_id begin alike, as far as both go with it. prompt_tokens are those of text,
// the shared beginning included; pictures are numbers separated by ';', equal ones being the same picture,
// each of picture_tokens tokens.
//
// Thread safety: plain values and functions.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "services/sim/workload.h"

namespace prism::sim {

inline constexpr size_t kTraceChatsMax = 1'000'000;
inline constexpr int64_t kTraceTokensMax = 262'144;  // of a prompt's text, a picture, an answer
inline constexpr size_t kTracePicturesMax = 64;      // of a chat

struct TraceChat {
  double arrival_ms = 0;  // since the first; not less than the one before
  std::string tenant;
  uint64_t prefix_id = 0;
  int64_t prefix_tokens = 0;  // <= prompt_tokens
  int64_t prompt_tokens = 1;
  std::vector<uint64_t> pictures;
  int64_t picture_tokens = 0;  // of each
  int64_t output_tokens = 1;
};

// InvalidArgument naming line, field, value and bound.
absl::StatusOr<std::vector<TraceChat>> ParseTrace(absl::string_view text);

// The trace as chats.
class TraceSource final : public ChatSource {
 public:
  // `trace` outlives it.
  explicit TraceSource(const std::vector<TraceChat>* trace) : trace_(*trace) {}

  std::shared_ptr<const ChatSpec> Next(SimTime now) override;
  std::optional<SimTime> NextGap() override;

 private:
  const std::vector<TraceChat>& trace_;
  size_t next_ = 0;
  SimTime last_ = 0;
};

}  // namespace prism::sim
