// Bodies of POST /v1/chat/completions: whatever the bytes, an answer that is a request within its
// bounds or an InvalidArgument, never anything else.
#include <cstddef>
#include <cstdint>
#include <string>

#include "common/base/check.h"
#include "common/text/stop_matcher.h"
#include "common/wire/request_limits.h"
#include "services/gateway/api_error.h"
#include "services/gateway/chat_request.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string body(reinterpret_cast<const char*>(data), size);
  const auto parsed = prism::ParseChatCompletion(body, {.media_bytes_max = 4096});
  if (!parsed.ok()) {
    PRISM_CHECK(absl::IsInvalidArgument(parsed.status()));
    const prism::ApiError error = prism::ApiErrorFrom(parsed.status());
    PRISM_CHECK(error.http_status == 400 || error.http_status == 413);
    PRISM_CHECK(!prism::ErrorBody(error).empty());
    return 0;
  }
  const prism::v1::ChatRequest& request = parsed->request;
  PRISM_CHECK(request.messages_size() >= 1 &&
              request.messages_size() <= static_cast<int>(prism::kMessagesMax));
  PRISM_CHECK(request.num_choices() <= prism::kChoicesMax);
  PRISM_CHECK(request.stop_size() <= static_cast<int>(prism::kStopStringsMax));
  for (const prism::v1::ChatMessage& message : request.messages()) {
    for (const prism::v1::ContentPart& part : message.content()) {
      if (part.has_image())
        PRISM_CHECK(!part.image().inline_data().empty() && part.image().inline_data().size() <= 4096);
    }
  }
  // What is sent on must be a message: protobuf refuses text that is not UTF-8.
  std::string wire;
  PRISM_CHECK(request.SerializeToString(&wire));
  PRISM_CHECK(prism::v1::ChatRequest().ParseFromString(wire));
  return 0;
}
