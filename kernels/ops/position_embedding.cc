#include "kernels/ops/position_embedding.h"

#include "common/base/status.h"
#include "common/tensor/shape_check.h"
#include "kernels/ops/op_table.h"

namespace prism {

absl::Status PositionEmbedding(Stream& stream, const PositionEmbeddingArgs& args) {
  ShapeCheck check("PositionEmbedding");
  check.Match("table", args.table, "SC")
      .Require(args.table.dtype() == DType::kF32 || args.table.dtype() == DType::kBF16,
               "table must be f32 or bf16")
      .Match("index", args.index, "4P")
      .Type(DType::kI32)
      .Match("weight", args.weight, "4P")
      .Type(DType::kF32)
      .Match("x", args.x, "PC")
      .Type(DType::kF32);
  PRISM_RETURN_IF_ERROR(check.status());
  return RunOp(stream, &OpTable::position_embedding, "PositionEmbedding", args);
}

}  // namespace prism
