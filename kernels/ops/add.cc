#include "kernels/ops/add.h"

#include "common/base/status.h"
#include "common/tensor/shape_check.h"
#include "kernels/ops/op_table.h"

namespace prism {

absl::Status Add(Stream& stream, const AddArgs& args) {
  ShapeCheck check("Add");
  check.Match("x", args.x, "TC").Type(DType::kF32).Match("y", args.y, "TC").Type(DType::kF32);
  PRISM_RETURN_IF_ERROR(check.status());
  return RunOp(stream, &OpTable::add, "Add", args);
}

}  // namespace prism
