#include "kernels/ops/moe.h"

#include "common/base/status.h"
#include "common/tensor/shape_check.h"
#include "kernels/ops/op_table.h"

namespace prism {

absl::Status MoeRouter(Stream& stream, const MoeRouterArgs& args) {
  ShapeCheck check("MoeRouter");
  check.Match("logits", args.logits, "TE")
      .Type(DType::kF32)
      .Match("ids", args.ids, "TJ")
      .Type(DType::kI32)
      .Match("weights", args.weights, "TJ")
      .Type(DType::kF32)
      .Require(check.size('J') >= 1 && check.size('J') <= check.size('E'),
               "more experts chosen than there are");
  PRISM_RETURN_IF_ERROR(check.status());
  return RunOp(stream, &OpTable::moe_router, "MoeRouter", args);
}

absl::Status MoeExperts(Stream& stream, const MoeExpertsArgs& args) {
  ShapeCheck check("MoeExperts");
  check.Match("x", args.x, "TH")
      .Type(ActivationType(stream))
      .Match("ids", args.ids, "TJ")
      .Type(DType::kI32)
      .Match("weights", args.weights, "TJ")
      .Type(DType::kF32)
      .Match("y", args.y, "TH")
      .Type(DType::kF32);
  for (const MoeExpert& expert : args.experts) {
    check.Bind('H', expert.gate_up.in_features)
        .Bind('H', expert.down.out_features)
        .Bind('I', expert.down.in_features)
        .Require(expert.gate_up.out_features == 2 * expert.down.in_features,
                 "gate_up must have twice the rows of down's columns");
  }
  check.Require(args.first_expert >= 0 &&
                    args.first_expert + static_cast<int64_t>(args.experts.size()) <= args.num_experts,
                "experts held reach past the last id");
  PRISM_RETURN_IF_ERROR(check.status());
  return RunOp(stream, &OpTable::moe_experts, "MoeExperts", args);
}

}  // namespace prism
