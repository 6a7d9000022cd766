#include "kernels/ops/linear.h"

#include "absl/strings/str_cat.h"
#include "common/base/status.h"
#include "common/tensor/shape_check.h"
#include "common/tensor/sum_order.h"
#include "kernels/ops/op_table.h"

namespace prism {
namespace {

// Whether [begin, begin + size) of `total` columns is one, two or four whole leaves that a tree of
// pairs can hold: {0..3}, {0,1}, {2,3} or a single one.
bool IsRunOfLeaves(int64_t begin, int64_t size, int64_t total) {
  for (const int count : {1, 2, 4}) {
    for (int first = 0; first < kNumLeaves; first += count) {
      const IndexRange low = LeafRange(total, first);
      const IndexRange high = LeafRange(total, first + count - 1);
      if (low.begin == begin && high.end == begin + size) return true;
    }
  }
  return false;
}

}  // namespace

absl::Status PackLinear(Stream& stream, const PackLinearArgs& args) {
  ShapeCheck check("PackLinear");
  check.Match("weight", args.weight, "NK")
      .Require(args.weight.dtype() == DType::kBF16 || args.weight.dtype() == DType::kF32,
               "weight must be bf16 or f32");
  PRISM_RETURN_IF_ERROR(check.status());
  const int64_t in_features = check.size('K');
  if (args.order == SumOrder::kChain ? args.in_begin != 0 || args.in_total != in_features
                                     : !IsRunOfLeaves(args.in_begin, in_features, args.in_total)) {
    return absl::InvalidArgumentError(absl::StrCat("PackLinear: columns [", args.in_begin, ", ",
                                                   args.in_begin + in_features, ") of ", args.in_total,
                                                   " are not a run of whole leaves"));
  }
  return RunOp(stream, &OpTable::pack_linear, "PackLinear", args);
}

absl::Status Linear(Stream& stream, const LinearArgs& args) {
  ShapeCheck check("Linear");
  const DType a = ActivationType(stream);
  check.Bind('N', args.weight->out_features)
      .Bind('K', args.weight->in_features)
      .Match("x", args.x, "TK")
      .Type(a)
      .MatchOptional("bias", args.bias, "N")
      .Type(DType::kF32)
      .Match("y", args.y, "TN")
      .Type(a, DType::kF32);
  PRISM_RETURN_IF_ERROR(check.status());
  return RunOp(stream, &OpTable::linear, "Linear", args);
}

absl::Status SumPartials(Stream& stream, const SumPartialsArgs& args) {
  ShapeCheck check("SumPartials");
  check.Match("partials", args.partials, "RTC")
      .Type(DType::kF32)
      .Match("y", args.y, "TC")
      .Type(DType::kF32)
      .Require(check.size('R') == 1 || check.size('R') == 2 || check.size('R') == 4,
               "partials must be of 1, 2 or 4 ranks");
  PRISM_RETURN_IF_ERROR(check.status());
  return RunOp(stream, &OpTable::sum_partials, "SumPartials", args);
}

}  // namespace prism
