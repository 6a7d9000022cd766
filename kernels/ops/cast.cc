#include "kernels/ops/cast.h"

#include "common/base/status.h"
#include "common/tensor/shape_check.h"
#include "kernels/ops/op_table.h"

namespace prism {

absl::Status Cast(Stream& stream, const CastArgs& args) {
  const DType a = ActivationType(stream);
  ShapeCheck check("Cast");
  check.Match("x", args.x, "TC").Type(a, DType::kF32).Match("y", args.y, "TC").Type(a, DType::kF32);
  PRISM_RETURN_IF_ERROR(check.status());
  return RunOp(stream, &OpTable::cast, "Cast", args);
}

}  // namespace prism
