#include "kernels/ops/norm.h"

#include "common/base/status.h"
#include "common/tensor/shape_check.h"
#include "kernels/ops/op_table.h"

namespace prism {

absl::Status RmsNorm(Stream& stream, const RmsNormArgs& args) {
  ShapeCheck check("RmsNorm");
  check.Match("x", args.x, "TC")
      .Type(DType::kF32)
      .Match("weight", args.weight, "C")
      .Type(DType::kF32)
      .Match("y", args.y, "TC")
      .Type(ActivationType(stream), DType::kF32)
      .MatchOptional("add", args.add, "TC")
      .Type(DType::kF32)
      .Require(args.epsilon > 0, "epsilon must be above 0");
  PRISM_RETURN_IF_ERROR(check.status());
  return RunOp(stream, &OpTable::rms_norm, "RmsNorm", args);
}

absl::Status HeadRmsNorm(Stream& stream, const HeadRmsNormArgs& args) {
  ShapeCheck check("HeadRmsNorm");
  check.Match("x", args.x, "TC")
      .Type(ActivationType(stream))
      .Match("weight", args.weight, "D")
      .Type(DType::kF32)
      .Require(args.epsilon > 0, "epsilon must be above 0")
      .Require(args.column >= 0 && args.num_heads >= 0 &&
                   args.column + args.num_heads * check.size('D') <= check.size('C'),
               "heads reach past the last column");
  PRISM_RETURN_IF_ERROR(check.status());
  return RunOp(stream, &OpTable::head_rms_norm, "HeadRmsNorm", args);
}

absl::Status LayerNorm(Stream& stream, const LayerNormArgs& args) {
  ShapeCheck check("LayerNorm");
  check.Match("x", args.x, "TC")
      .Type(DType::kF32)
      .Match("weight", args.weight, "C")
      .Type(DType::kF32)
      .Match("bias", args.bias, "C")
      .Type(DType::kF32)
      .Match("y", args.y, "TC")
      .Type(ActivationType(stream), DType::kF32)
      .MatchOptional("add", args.add, "TC")
      .Type(DType::kF32)
      .Require(args.epsilon > 0, "epsilon must be above 0");
  PRISM_RETURN_IF_ERROR(check.status());
  return RunOp(stream, &OpTable::layer_norm, "LayerNorm", args);
}

}  // namespace prism
