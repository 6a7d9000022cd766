// The body of POST /v1/chat/completions, checked and turned into the router's request.
//
// Every field is checked for type and range before anything is sent on; what is wrong is named with
// its path, value and bound. Fields we do not know are counted and ignored; fields we know and do not
// do, and that would change the answer, are refused.
//
// Thread safety: functions only.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>

#include "absl/status/statusor.h"
#include "prism/v1/router.pb.h"

namespace prism {

// Nesting of arrays and objects, and values in all, of a body; checked before any value is read.
inline constexpr size_t kJsonDepthMax = 64;
inline constexpr size_t kJsonNodesMax = 50'000;

inline constexpr size_t kMessagesMax = 64;
inline constexpr size_t kToolsMax = 128;
inline constexpr size_t kToolCallsMax = 128;  // of one message

// ErrorInfo.reason of a picture beyond ChatLimits.media_bytes_max: HTTP 413.
inline constexpr char kReasonTooLarge[] = "TOO_LARGE";

struct ChatLimits {
  uint64_t media_bytes_max = 32u << 20;  // of one picture's file, or of a clip's frames together
};

struct ChatCompletion {
  v1::ChatRequest request;  // pictures and clips inline, whatever their size
  bool stream = false;
  bool include_usage = false;  // stream_options.include_usage
  bool logprobs = false;
  bool prompt_logprobs = false;
  bool return_token_ids = false;
  std::string form_field;      // the path of the field that request.grammar came of; empty without
  int num_pictures = 0;        // and clips
  int num_unknown_fields = 0;  // at the top level
};

// InvalidArgument with BadRequest (the path of the field) or, for what is no JSON, without; or with
// ErrorInfo TOO_LARGE and the path in its metadata under "param".
absl::StatusOr<ChatCompletion> ParseChatCompletion(const std::string& body, const ChatLimits& limits);

}  // namespace prism
