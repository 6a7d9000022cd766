#include "kernels/ops/rope.h"

#include "common/base/status.h"
#include "common/tensor/shape_check.h"
#include "kernels/ops/op_table.h"

namespace prism {

absl::Status RopeTable(Stream& stream, const RopeTableArgs& args) {
  ShapeCheck check("RopeTable");
  check.Match("positions", args.positions, "AT")
      .Type(DType::kI32)
      .Match("axis", args.axis, "D")
      .Type(DType::kI32)
      .Match("frequency", args.frequency, "D")
      .Type(DType::kF32)
      .Match("cos", args.cos, "TD")
      .Type(DType::kF32)
      .Match("sin", args.sin, "TD")
      .Type(DType::kF32);
  PRISM_RETURN_IF_ERROR(check.status());
  return RunOp(stream, &OpTable::rope_table, "RopeTable", args);
}

absl::Status RopeApply(Stream& stream, const RopeApplyArgs& args) {
  ShapeCheck check("RopeApply");
  check.Match("x", args.x, "TC")
      .Type(ActivationType(stream))
      .Match("cos", args.cos, "TD")
      .Type(DType::kF32)
      .Match("sin", args.sin, "TD")
      .Type(DType::kF32)
      .Require(args.column >= 0 && args.num_heads >= 0 &&
                   args.column + args.num_heads * 2 * check.size('D') <= check.size('C'),
               "heads reach past the last column");
  PRISM_RETURN_IF_ERROR(check.status());
  return RunOp(stream, &OpTable::rope_apply, "RopeApply", args);
}

}  // namespace prism
