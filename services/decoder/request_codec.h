// From the wire to the engine and back: GenerateRequest and ScoreRequest become a checked
// GenerationRequest, engine events become GenerateEvents.
//
// Thread safety: functions only.
#pragma once

#include <cstdint>
#include <vector>

#include "absl/status/statusor.h"
#include "common/base/clock.h"
#include "services/decoder/embeddings/embedding_ref.h"
#include "services/decoder/engine/generation.h"
#include "services/decoder/engine/generation_request.h"

namespace prism::v1 {
class GenerateEvent;
class GenerateRequest;
class ScoreRequest;
}  // namespace prism::v1

namespace prism {

// What one request may ask for, besides what the model and common/wire/request_limits.h bound.
inline constexpr int kHandlesMax = 64;
inline constexpr int kSpansMax = 4096;
inline constexpr uint32_t kObjectiveMsMax = 3600000;

// What the model takes.
struct ModelLimits {
  int64_t vocab_size = 0;
  int64_t model_length_max = 0;  // prompt and answer, tokens
  int64_t image_token_id = -1;   // placeholders
  int64_t video_token_id = -1;
  std::vector<int32_t> end_token_ids;
  EmbeddingLimits embeddings;
};

// InvalidArgument naming the field, its value and the bound (with BadRequest); with reason
// CONTEXT_LENGTH if prompt and answer are longer than the context.
absl::StatusOr<GenerationRequest> ParseGenerate(const v1::GenerateRequest& proto, const ModelLimits& limits,
                                                SteadyTime deadline);
// The same for a score; its ids are at least two.
absl::StatusOr<GenerationRequest> ParseScore(const v1::ScoreRequest& proto, const ModelLimits& limits,
                                             SteadyTime deadline);

// REQUIRES: not a ScoredEvent
v1::GenerateEvent ToProto(const GenerationEvent& event);

}  // namespace prism
