#include "kernels/ops/embedding_gather.h"

#include "common/base/status.h"
#include "common/tensor/shape_check.h"
#include "kernels/ops/op_table.h"

namespace prism {

absl::Status EmbeddingGather(Stream& stream, const EmbeddingGatherArgs& args) {
  ShapeCheck check("EmbeddingGather");
  check.Match("table", args.table, "VC")
      .Require(args.table.dtype() == DType::kF32 || args.table.dtype() == DType::kBF16,
               "table must be f32 or bf16")
      .Match("ids", args.ids, "T")
      .Type(DType::kI32)
      .Match("y", args.y, "TC")
      .Type(DType::kF32);
  PRISM_RETURN_IF_ERROR(check.status());
  return RunOp(stream, &OpTable::embedding_gather, "EmbeddingGather", args);
}

}  // namespace prism
