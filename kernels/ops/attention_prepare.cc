#include "kernels/ops/attention_prepare.h"

#include "common/base/status.h"
#include "common/tensor/shape_check.h"
#include "kernels/ops/op_table.h"

namespace prism {

absl::Status AttentionPrepare(Stream& stream, const AttentionPrepareArgs& args) {
  const DType a = ActivationType(stream);
  ShapeCheck check("AttentionPrepare");
  check.Bind('W', kAttentionTile)
      .Match("qkv", args.qkv, "TC")
      .Type(a)
      .Match("q_weight", args.q_weight, "D")
      .Type(DType::kF32)
      .Match("k_weight", args.k_weight, "D")
      .Type(DType::kF32)
      .Match("cos", args.cos, "TH")
      .Type(DType::kF32)
      .Match("sin", args.sin, "TH")
      .Type(DType::kF32)
      .Match("slots", args.slots, "T")
      .Type(DType::kI32)
      .Match("kv.k", args.kv.k, "PGDW")
      .Type(a)
      .Match("kv.v", args.kv.v, "PGWD")
      .Type(a)
      .Require(check.size('D') == 2 * check.size('H'), "cos must have half as many columns as a head")
      .Require(
          args.num_heads >= 1 && check.size('C') == (args.num_heads + 2 * check.size('G')) * check.size('D'),
          "qkv must have the columns of its heads")
      .Require(args.epsilon > 0, "epsilon must be above 0");
  PRISM_RETURN_IF_ERROR(check.status());
  return RunOp(stream, &OpTable::attention_prepare, "AttentionPrepare", args);
}

}  // namespace prism
