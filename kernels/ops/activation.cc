#include "kernels/ops/activation.h"

#include "common/base/status.h"
#include "common/tensor/shape_check.h"
#include "kernels/ops/op_table.h"

namespace prism {

absl::Status SiluMul(Stream& stream, const SiluMulArgs& args) {
  ShapeCheck check("SiluMul");
  check.Match("x", args.x, "TJ")
      .Type(ActivationType(stream))
      .Match("y", args.y, "TI")
      .Type(ActivationType(stream))
      .Require(check.size('J') == 2 * check.size('I'), "x must have twice the columns of y");
  PRISM_RETURN_IF_ERROR(check.status());
  return RunOp(stream, &OpTable::silu_mul, "SiluMul", args);
}

absl::Status Gelu(Stream& stream, const GeluArgs& args) {
  ShapeCheck check("Gelu");
  check.Match("x", args.x, "TC").Type(ActivationType(stream));
  PRISM_RETURN_IF_ERROR(check.status());
  return RunOp(stream, &OpTable::gelu, "Gelu", args);
}

}  // namespace prism
