// GenerateLog writes the one log line of a Generate call, when the call is over:
//
//   "message":"generate" with the generation's id and attempt, the trace that the router's line "chat" and
//   the encoders' lines "encode" are of, how it ended, tokens, and the seconds of its stages
//
// Seconds are 0 of stages that it did not reach; between them is what it took to prepare its grammar.
//
// Thread safety: thread-compatible.
#pragma once

#include <cstdint>
#include <string>

#include "absl/status/status.h"
#include "common/base/clock.h"
#include "common/rpc/trace_context.h"
#include "prism/v1/decoder.pb.h"
#include "services/decoder/engine/generation.h"

namespace prism {

class GenerateLog {
 public:
  // `request` as it came, checked or not.
  GenerateLog(const v1::GenerateRequest& request, TraceContext trace, SteadyTime arrival);

  // How it ended; without a report it never began.
  void SetEnd(const absl::Status& status, const GenerationReport& report = {}) {
    code_ = status.code();
    report_ = report;
  }
  void Write(SteadyTime now) const;

 private:
  const TraceContext trace_;
  const SteadyTime arrival_;
  const std::string generation_id_;  // empty: it was none
  const uint32_t attempt_;
  const int64_t prompt_tokens_;
  const int64_t num_choices_;
  const int64_t num_pictures_;
  int64_t num_visual_tokens_ = 0;
  absl::StatusCode code_ = absl::StatusCode::kUnknown;
  GenerationReport report_;
};

}  // namespace prism
