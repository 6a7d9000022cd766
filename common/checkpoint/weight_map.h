// The names and shapes of a checkpoint: what a configuration implies, under which other names
// converters store it, and the comparison of the two.
//
// Thread safety: free functions and plain values.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"
#include "common/checkpoint/model_config.h"
#include "common/tensor/tensor.h"

namespace prism {

// The half of a checkpoint a program needs.
enum class CheckpointPart { kVision, kText, kWhole };

// "vision", "text", "whole".
absl::string_view Name(CheckpointPart part);

// One tensor in the published layout.
struct WeightSpec {
  std::string name;
  Shape shape;
};

// Every tensor of `part` in the published layout: names under "model.visual." and
// "model.language_model.", experts fused and input-major ([E, H, 2M] and [E, M, H]), lm_head.weight
// only if `with_head`. Vision first, then text, in the order of the model.
std::vector<WeightSpec> PublishedWeights(const ModelConfig& config, CheckpointPart part, bool with_head);

// The sum of the elements of `weights`.
int64_t CountParameters(absl::Span<const WeightSpec> weights);

// The published spelling of a stored name: "visual.x", "model.layers.x", "model.embed_tokens.x",
// "model.norm.x", "language_model.model.x" and "language_model.lm_head.x" are known aliases. Other
// names are returned as they are.
std::string CanonicalName(absl::string_view stored);

// The half that a canonical name belongs to: kVision or kText.
CheckpointPart PartOfName(absl::string_view canonical);

// How a layer's experts are stored.
enum class ExpertLayout {
  kInputMajor,   // published: gate_up [E, H, 2M], down [E, M, H]
  kOutputMajor,  // gate_up [E, 2M, H], down [E, H, M]
  kUnfused,      // experts.{e}.{gate,up}_proj.weight [M, H], down_proj.weight [H, M]
};

// The names of a layer's expert tensors.
std::string GateUpName(int64_t layer);
std::string DownName(int64_t layer);
// `matrix` is "gate_proj", "up_proj" or "down_proj".
std::string UnfusedExpertName(int64_t layer, int64_t expert, absl::string_view matrix);

// One tensor of a file set.
struct StoredWeight {
  std::string name;  // as stored
  DType dtype = DType::kF32;
  Shape shape;
};

// How a file set satisfies a configuration.
struct WeightMatch {
  // Canonical name -> position in the list of stored weights.
  std::map<std::string, size_t> stored;
  // By layer; meaningful for layers with experts.
  std::vector<ExpertLayout> expert_layouts;
  // The head is the embedding matrix: no lm_head.weight is stored and the configuration ties it.
  bool head_is_tied = false;
};

// The most names of each kind in the message of MatchWeights(); counts are exact.
inline constexpr size_t kMismatchesNamed = 20;

// Compares stored weights with what `part` of `config` needs. All missing, extra, misshapen,
// mistyped (other than f32, f16, bf16) and repeated tensors of the part are reported at once, as
// InvalidArgument beginning with `what` (the folder). Stored weights of the other half are passed over.
absl::StatusOr<WeightMatch> MatchWeights(absl::string_view what, const ModelConfig& config,
                                         CheckpointPart part, absl::Span<const StoredWeight> stored);

}  // namespace prism
