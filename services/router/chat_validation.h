// What a chat request may say: checked before any work, every error naming its field.
//
// Thread safety: functions only.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "common/checkpoint/model_config.h"
#include "common/text/chat_format.h"
#include "prism/v1/router.pb.h"
#include "services/router/options.h"

namespace prism {

// InvalidArgument with BadRequest naming the field ("messages.0.content.1", "sampling.top_p");
// NotFound for another model. What ChatFormat::Render() checks is left to it.
absl::Status ValidateChat(const v1::ChatRequest& request, const RouterOptions& options, int64_t vocab_size);

// The messages as the chat format takes them; parts and tool calls keep their places.
std::vector<ChatMessage> MessagesOf(const v1::ChatRequest& request);

struct SamplingBounds {
  int64_t prompt_tokens = 0;
  int64_t length_max = 0;   // prompt plus answer
  uint64_t drawn_seed = 0;  // used where the request has none
};

// The sampling parameters with every default filled in: the checkpoint's where the request is
// silent, its greedy flag as temperature 0, all of the remaining context as max_tokens.
// InvalidArgument with reason CONTEXT_LENGTH and the numbers when prompt and max_tokens do not fit; naming
// sampling.prompt_logprobs when the prompt is too long for them.
absl::StatusOr<v1::SamplingParameters> CompleteSampling(const v1::SamplingParameters& asked,
                                                        const GenerationDefaults& defaults,
                                                        const SamplingBounds& bounds);

// An InvalidArgument whose message begins with the path of a field, "PATH: DESCRIPTION", gets the
// BadRequest that says so; every other status stays.
absl::Status WithFieldPath(const absl::Status& status);

}  // namespace prism
