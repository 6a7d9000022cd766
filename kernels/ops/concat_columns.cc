#include "kernels/ops/concat_columns.h"

#include "common/base/status.h"
#include "common/tensor/shape_check.h"
#include "kernels/ops/op_table.h"

namespace prism {

absl::Status ConcatColumns(Stream& stream, const ConcatColumnsArgs& args) {
  ShapeCheck check("ConcatColumns");
  check.Match("parts", args.parts, "RTW")
      .Type(DType::kF32)
      .Match("y", args.y, "TC")
      .Type(DType::kF32)
      .Require(check.size('C') <= check.size('R') * check.size('W'),
               "y has more columns than the parts together");
  PRISM_RETURN_IF_ERROR(check.status());
  return RunOp(stream, &OpTable::concat_columns, "ConcatColumns", args);
}

}  // namespace prism
