// The op table's entries of the norms, the rotation and AttentionPrepare.
#include "absl/strings/str_cat.h"
#include "kernels/cuda/cuda_ops.h"
#include "kernels/cuda/cuda_status.h"
#include "kernels/cuda/cuda_stream.h"
#include "kernels/cuda/norm/norm.h"

namespace prism::cuda {
namespace {

__nv_bfloat16* Bf16(const TensorView& view) { return static_cast<__nv_bfloat16*>(view.raw()); }

NormParams ParamsOf(const TensorView& x, const TensorView& weight, const float* bias, const TensorView& y,
                    float epsilon, const TensorView& add) {
  const bool f32 = y.dtype() == DType::kF32;
  return {.x = x.data<float>(),
          .weight = weight.data<float>(),
          .bias = bias,
          .y = {.bf16 = f32 ? nullptr : Bf16(y), .f32 = f32 ? y.data<float>() : nullptr},
          .num_rows = static_cast<int32_t>(x.dim(0)),
          .columns = static_cast<int32_t>(x.dim(1)),
          .epsilon = epsilon,
          .add = add.present() ? add.data<float>() : nullptr};
}

}  // namespace

absl::Status RmsNorm(Stream& stream, const RmsNormArgs& args) {
  return CudaStatus(
      LaunchRmsNorm(ParamsOf(args.x, args.weight, nullptr, args.y, args.epsilon, args.add), HandleOf(stream)),
      "RmsNorm");
}

absl::Status LayerNorm(Stream& stream, const LayerNormArgs& args) {
  return CudaStatus(
      LaunchLayerNorm(ParamsOf(args.x, args.weight, args.bias.data<float>(), args.y, args.epsilon, args.add),
                      HandleOf(stream)),
      "LayerNorm");
}

absl::Status RopeTable(Stream& stream, const RopeTableArgs& args) {
  return CudaStatus(LaunchRopeTable({.positions = args.positions.data<int32_t>(),
                                     .axis = args.axis.data<int32_t>(),
                                     .frequency = args.frequency.data<float>(),
                                     .cos = args.cos.data<float>(),
                                     .sin = args.sin.data<float>(),
                                     .num_axes = static_cast<int32_t>(args.positions.dim(0)),
                                     .num_rows = static_cast<int32_t>(args.positions.dim(1)),
                                     .num_angles = static_cast<int32_t>(args.axis.dim(0))},
                                    HandleOf(stream)),
                    "RopeTable");
}

absl::Status RopeApply(Stream& stream, const RopeApplyArgs& args) {
  return CudaStatus(LaunchRopeApply({.x = Bf16(args.x) + args.column,
                                     .columns = args.x.dim(1),
                                     .cos = args.cos.data<float>(),
                                     .sin = args.sin.data<float>(),
                                     .num_rows = static_cast<int32_t>(args.x.dim(0)),
                                     .num_heads = static_cast<int32_t>(args.num_heads),
                                     .half = static_cast<int32_t>(args.cos.dim(1))},
                                    HandleOf(stream)),
                    "RopeApply");
}

absl::Status AttentionPrepare(Stream& stream, const AttentionPrepareArgs& args) {
  const int64_t head_size = args.q_weight.dim(0);
  if (head_size % 16 != 0 || head_size > kPreparedHeadSizeMax) {
    return absl::UnimplementedError(absl::StrCat("AttentionPrepare: heads of ", head_size,
                                                 " elements, want a multiple of 16 up to ",
                                                 kPreparedHeadSizeMax));
  }
  return CudaStatus(LaunchAttentionPrepare({.qkv = Bf16(args.qkv),
                                            .columns = args.qkv.dim(1),
                                            .q_weight = args.q_weight.data<float>(),
                                            .k_weight = args.k_weight.data<float>(),
                                            .cos = args.cos.data<float>(),
                                            .sin = args.sin.data<float>(),
                                            .slots = args.slots.data<int32_t>(),
                                            .k = Bf16(args.kv.k),
                                            .v = Bf16(args.kv.v),
                                            .num_rows = static_cast<int32_t>(args.qkv.dim(0)),
                                            .num_heads = static_cast<int32_t>(args.num_heads),
                                            .num_kv_heads = static_cast<int32_t>(args.kv.k.dim(1)),
                                            .head_size = static_cast<int32_t>(head_size),
                                            .epsilon = args.epsilon},
                                           HandleOf(stream)),
                    "AttentionPrepare");
}

}  // namespace prism::cuda
