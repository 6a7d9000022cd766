// One block of the vision tower, and its patch mergers (qwen3-vl.md 3.5, 3.6).
#pragma once

#include <string>

#include "absl/status/statusor.h"
#include "kernels/layers/linear_layer.h"
#include "kernels/layers/residual.h"
#include "kernels/layers/weight_loader.h"

namespace prism {

inline constexpr float kVisionNormEpsilon = 1e-6f;

// weight and bias of a LayerNorm.
struct LayerNormWeights {
  Tensor weight;  // [C] f32
  Tensor bias;    // [C] f32
};
absl::StatusOr<LayerNormWeights> LoadLayerNorm(WeightLoader& loader, const std::string& name);
// A linear layer with bias, as one ascending chain. A weight of more than two axes is [N, the rest].
absl::StatusOr<LinearLayer> LoadVisionLinear(WeightLoader& loader, const std::string& name);

// What all blocks of one pass share.
struct VisionStep {
  TensorView cos;             // [P, head_dim / 2] f32
  TensorView sin;             // [P, head_dim / 2] f32
  TensorView segment_starts;  // [S + 1] i32
};

// Scratch that every block of one pass uses in turn.
struct VisionScratch {
  TensorView y;    // [P, C] A
  TensorView att;  // [P, C] A
  TensorView qkv;  // [P, 3 C] A
  TensorView h;    // [P, I] A
  TensorView z;    // [P, C] f32
};

class VisionBlock {
 public:
  static absl::StatusOr<VisionBlock> Load(WeightLoader& loader, int64_t block);

  // x += proj(attention(rope(qkv(norm1(x)))));  x += fc2(gelu_tanh(fc1(norm2(x)))), which stays a term, in
  // s.z;   x [P, C] f32
  absl::Status Forward(Stream& stream, const VisionStep& step, const VisionScratch& s,
                       Residual& residual) const;

 private:
  int64_t num_heads_ = 0;
  float scale_ = 0;  // head_dim^-0.5
  LayerNormWeights norm1_, norm2_;
  LinearLayer qkv_, proj_, fc1_, fc2_;
};

// Four neighbouring patches to one token.
class PatchMerger {
 public:
  enum class NormPlace {
    kBeforeShuffle,  // over C, on each patch (the main merger)
    kAfterShuffle,   // over 4 C, on the four together (DeepStack)
  };
  // `name` is "merger" or "deepstack_merger_list.k".
  static absl::StatusOr<PatchMerger> Load(WeightLoader& loader, const std::string& name, NormPlace place);

  // y = fc2(gelu_erf(fc1(shuffle and norm of x)));  x [P, C] f32, y [P / 4, D] A
  absl::Status Forward(Stream& stream, const TensorView& x, const TensorView& y) const;

 private:
  NormPlace place_ = NormPlace::kBeforeShuffle;
  LayerNormWeights norm_;
  LinearLayer fc1_, fc2_;
};

}  // namespace prism
