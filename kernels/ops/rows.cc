#include "kernels/ops/rows.h"

#include "common/base/status.h"
#include "common/tensor/shape_check.h"
#include "kernels/ops/op_table.h"

namespace prism {
namespace {

absl::Status CheckRows(absl::string_view op, Stream& stream, const TensorView& all, const TensorView& rows,
                       const TensorView& picked) {
  ShapeCheck check(op);
  check.Match("x", all, "TC").Type(DType::kF32).Match("rows", rows, "N").Type(DType::kI32);
  check.Match("y", picked, "NC").Type(ActivationType(stream), DType::kF32);
  return check.status();
}

}  // namespace

absl::Status GatherRows(Stream& stream, const GatherRowsArgs& args) {
  PRISM_RETURN_IF_ERROR(CheckRows("GatherRows", stream, args.x, args.rows, args.y));
  return RunOp(stream, &OpTable::gather_rows, "GatherRows", args);
}

absl::Status ScatterRows(Stream& stream, const ScatterRowsArgs& args) {
  PRISM_RETURN_IF_ERROR(CheckRows("ScatterRows", stream, args.x, args.rows, args.y));
  return RunOp(stream, &OpTable::scatter_rows, "ScatterRows", args);
}

absl::Status AddRows(Stream& stream, const AddRowsArgs& args) {
  PRISM_RETURN_IF_ERROR(CheckRows("AddRows", stream, args.x, args.rows, args.y));
  return RunOp(stream, &OpTable::add_rows, "AddRows", args);
}

}  // namespace prism
