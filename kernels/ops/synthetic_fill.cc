#include "kernels/ops/synthetic_fill.h"

#include "common/base/status.h"
#include "common/tensor/shape_check.h"
#include "kernels/ops/op_table.h"

namespace prism {

absl::Status SyntheticFill(Stream& stream, const SyntheticFillArgs& args) {
  ShapeCheck check("SyntheticFill");
  check.Match("out", args.out, "NK")
      .Type(DType::kBF16)
      .Require(args.first >= 0 && args.row_stride >= 0 && args.column_stride >= 0,
               "first and strides must not be negative");
  PRISM_RETURN_IF_ERROR(check.status());
  return RunOp(stream, &OpTable::synthetic_fill, "SyntheticFill", args);
}

}  // namespace prism
