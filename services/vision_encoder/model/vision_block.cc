#include "services/vision_encoder/model/vision_block.h"

#include <cmath>

#include "absl/strings/str_cat.h"
#include "common/base/status.h"
#include "kernels/ops/activation.h"
#include "kernels/ops/attention.h"
#include "kernels/ops/norm.h"
#include "kernels/ops/rope.h"

namespace prism {
namespace {

std::string VisualName(absl::string_view name) { return absl::StrCat("model.visual.", name); }

}  // namespace

absl::StatusOr<LayerNormWeights> LoadLayerNorm(WeightLoader& loader, const std::string& name) {
  LayerNormWeights norm;
  PRISM_ASSIGN_OR_RETURN(norm.weight, loader.LoadF32(VisualName(name + ".weight")));
  PRISM_ASSIGN_OR_RETURN(norm.bias, loader.LoadF32(VisualName(name + ".bias")));
  return norm;
}

absl::StatusOr<LinearLayer> LoadVisionLinear(WeightLoader& loader, const std::string& name) {
  return loader.LoadLinear(VisualName(name + ".weight"), VisualName(name + ".bias"), SumOrder::kChain);
}

absl::StatusOr<VisionBlock> VisionBlock::Load(WeightLoader& loader, int64_t block) {
  const VisionConfig& vision = loader.checkpoint().config().vision;
  const std::string prefix = absl::StrCat("blocks.", block, ".");
  VisionBlock b;
  b.num_heads_ = vision.num_heads;
  b.scale_ = static_cast<float>(1.0 / std::sqrt(static_cast<double>(vision.head_dim())));
  PRISM_ASSIGN_OR_RETURN(b.norm1_, LoadLayerNorm(loader, prefix + "norm1"));
  PRISM_ASSIGN_OR_RETURN(b.norm2_, LoadLayerNorm(loader, prefix + "norm2"));
  PRISM_ASSIGN_OR_RETURN(b.qkv_, LoadVisionLinear(loader, prefix + "attn.qkv"));
  PRISM_ASSIGN_OR_RETURN(b.proj_, LoadVisionLinear(loader, prefix + "attn.proj"));
  PRISM_ASSIGN_OR_RETURN(b.fc1_, LoadVisionLinear(loader, prefix + "mlp.linear_fc1"));
  PRISM_ASSIGN_OR_RETURN(b.fc2_, LoadVisionLinear(loader, prefix + "mlp.linear_fc2"));
  return b;
}

absl::Status VisionBlock::Forward(Stream& stream, const VisionStep& step, const VisionScratch& s,
                                  Residual& residual) const {
  const TensorView& x = residual.x;
  // y = norm1(x += term)                                   [P, C]
  PRISM_RETURN_IF_ERROR(LayerNorm(stream, {.x = x,
                                           .weight = norm1_.weight.view(),
                                           .bias = norm1_.bias.view(),
                                           .y = s.y,
                                           .epsilon = kVisionNormEpsilon,
                                           .add = residual.term}));
  // qkv = y Wqkv^T + b                                     [P, 3 C]
  PRISM_RETURN_IF_ERROR(qkv_.Forward(stream, s.y, s.qkv));
  // q, k = rope(q, k): neighbours, so one call             in place
  PRISM_RETURN_IF_ERROR(RopeApply(
      stream, {.x = s.qkv, .cos = step.cos, .sin = step.sin, .column = 0, .num_heads = 2 * num_heads_}));
  // att = softmax(q k^T scale) v, one temporal patch at a time [P, C]
  PRISM_RETURN_IF_ERROR(AttentionVarlen(stream, {.qkv = s.qkv,
                                                 .num_heads = num_heads_,
                                                 .segment_starts = step.segment_starts,
                                                 .out = s.att,
                                                 .scale = scale_}));
  // z = att Wproj^T + b                                    [P, C]
  PRISM_RETURN_IF_ERROR(proj_.Forward(stream, s.att, s.z));
  // y = norm2(x += z)                                      [P, C]
  PRISM_RETURN_IF_ERROR(LayerNorm(stream, {.x = x,
                                           .weight = norm2_.weight.view(),
                                           .bias = norm2_.bias.view(),
                                           .y = s.y,
                                           .epsilon = kVisionNormEpsilon,
                                           .add = s.z}));
  // h = gelu_tanh(y Wfc1^T + b)                            [P, I]
  PRISM_RETURN_IF_ERROR(fc1_.Forward(stream, s.y, s.h));
  PRISM_RETURN_IF_ERROR(Gelu(stream, {.x = s.h, .form = GeluForm::kTanh}));
  // term = h Wfc2^T + b                                    [P, C]
  residual.term = s.z;
  return fc2_.Forward(stream, s.h, s.z);
}

absl::StatusOr<PatchMerger> PatchMerger::Load(WeightLoader& loader, const std::string& name,
                                              NormPlace place) {
  PatchMerger merger;
  merger.place_ = place;
  PRISM_ASSIGN_OR_RETURN(merger.norm_, LoadLayerNorm(loader, name + ".norm"));
  PRISM_ASSIGN_OR_RETURN(merger.fc1_, LoadVisionLinear(loader, name + ".linear_fc1"));
  PRISM_ASSIGN_OR_RETURN(merger.fc2_, LoadVisionLinear(loader, name + ".linear_fc2"));
  return merger;
}

absl::Status PatchMerger::Forward(Stream& stream, const TensorView& x, const TensorView& y) const {
  const int64_t tokens = x.dim(0) / 4;
  const Shape merged{tokens, 4 * x.dim(1)};
  PRISM_ASSIGN_OR_RETURN(const TensorView normed, stream.workspace().Take(y.dtype(), merged));
  PRISM_ASSIGN_OR_RETURN(const TensorView h, stream.workspace().Take(y.dtype(), merged));
  // Four neighbouring rows of [P, C] are one row of [P / 4, 4 C]: the shuffle moves nothing.
  const Shape& norm_shape = place_ == NormPlace::kBeforeShuffle ? x.shape() : merged;
  PRISM_RETURN_IF_ERROR(LayerNorm(stream, {.x = x.Reshape(norm_shape),
                                           .weight = norm_.weight.view(),
                                           .bias = norm_.bias.view(),
                                           .y = normed.Reshape(norm_shape),
                                           .epsilon = kVisionNormEpsilon}));
  // y = gelu_erf(normed Wfc1^T + b) Wfc2^T + b             [P / 4, D]
  PRISM_RETURN_IF_ERROR(fc1_.Forward(stream, normed, h));
  PRISM_RETURN_IF_ERROR(Gelu(stream, {.x = h, .form = GeluForm::kErf}));
  return fc2_.Forward(stream, h, y);
}

}  // namespace prism
