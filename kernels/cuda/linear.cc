// The op table's linear layers and experts: what the kernels of linear_kernels.h serve.
#include <algorithm>
#include <limits>

#include "absl/strings/str_cat.h"
#include "common/base/check.h"
#include "common/base/status.h"
#include "kernels/cuda/cuda_ops.h"
#include "kernels/cuda/cuda_status.h"
#include "kernels/cuda/cuda_stream.h"
#include "kernels/cuda/linear_kernels.h"

namespace prism::cuda {
namespace {

constexpr int64_t kRowsMax = std::numeric_limits<int32_t>::max();

// How many leaves columns [begin, begin + size) of `total` are: the largest tree that fits, since leaves past
// the end of K are empty, and adding their zeros here or on the next rank gives the same sum.
int LeavesHeld(int64_t total, int64_t begin, int64_t size) {
  for (const int count : {4, 2, 1}) {
    for (int first = 0; first < kNumLeaves; first += count) {
      if (LeafRange(total, first).begin == begin && LeafRange(total, first + count - 1).end == begin + size) {
        return count;
      }
    }
  }
  PRISM_CHECK(false);
  return 0;
}

PackedWeight PackedOf(const LinearWeight& weight, const void* data) {
  PackedWeight packed = {
      .data = data, .out_features = weight.out_features, .in_features = weight.in_features};
  if (weight.order == SumOrder::kChain) {
    packed.leaf_width = static_cast<int>((weight.in_features + kSumUnit - 1) / kSumUnit * kSumUnit);
  } else {
    packed.leaves = LeavesHeld(weight.in_total, weight.in_begin, weight.in_features);
    packed.leaf_width = static_cast<int>(LeafWidth(weight.in_total));
  }
  return packed;
}

PackedWeight PackedOf(const LinearWeight& weight) { return PackedOf(weight, weight.packed.view().raw()); }

// The quarters held, as the tree that adds them.
struct Quarters {
  int first = 0;
  int count = 1;
};

Quarters QuartersHeld(int64_t num_experts, int64_t begin, int64_t size) {
  if (size == 0) return {};
  for (const int count : {4, 2, 1}) {
    for (int first = 0; first < kExpertQuarters; first += count) {
      if (ExpertQuarter(num_experts, first).begin == begin &&
          ExpertQuarter(num_experts, first + count - 1).end == begin + size) {
        return {first, count};
      }
    }
  }
  PRISM_CHECK(false);
  return {};
}

absl::Status CheckAtMost(absl::string_view op, absl::string_view what, int64_t value, int64_t bound) {
  if (value <= bound) return absl::OkStatus();
  return absl::InvalidArgumentError(absl::StrCat(op, ": ", value, " ", what, ", the most is ", bound));
}

}  // namespace

absl::Status PackLinear(Stream& stream, const PackLinearArgs& args) {
  LinearWeight weight;
  weight.out_features = args.weight.dim(0);
  weight.in_features = args.weight.dim(1);
  weight.in_total = args.in_total;
  weight.in_begin = args.in_begin;
  weight.dtype = DType::kBF16;
  weight.order = args.order;
  const PackedWeight shape = PackedOf(weight, nullptr);
  PRISM_ASSIGN_OR_RETURN(weight.packed, stream.Allocate(DType::kBF16, {shape.size_bytes() / 2}));
  // The rows as they are, and behind them a word that says whether all of them fit bf16.
  const bool copied = args.memory == WeightMemory::kHost;
  const int64_t rows_bytes = copied ? (args.weight.size_bytes() + 255) / 256 * 256 : 0;
  PRISM_ASSIGN_OR_RETURN(void* const scratch, static_cast<CudaStream&>(stream).Scratch(rows_bytes + 256));
  TensorView rows = args.weight;
  if (copied) {
    rows = TensorView(scratch, args.weight.dtype(), args.weight.shape());
    PRISM_RETURN_IF_ERROR(stream.CopyToDevice(args.weight, rows));
  }
  int32_t flag = 0;
  const TensorView host_flag(&flag, DType::kI32, {1});
  const bool f32 = args.weight.dtype() == DType::kF32;
  const TensorView inexact(static_cast<char*>(scratch) + rows_bytes, DType::kI32, {1});
  if (f32) PRISM_RETURN_IF_ERROR(stream.CopyToDevice(host_flag, inexact));
  PRISM_RETURN_IF_ERROR(CudaStatus(
      LaunchPackLinear(rows.raw(), f32, PackedOf(weight), inexact.data<int32_t>(), HandleOf(stream)),
      "PackLinear"));
  if (f32) PRISM_RETURN_IF_ERROR(stream.CopyToHost(inexact, host_flag));
  // A linear layer's kernel may read its weight before the kernels queued ahead of it are done.
  PRISM_RETURN_IF_ERROR(stream.Synchronize());
  if (flag != 0) {
    return absl::InvalidArgumentError(
        "PackLinear: the f32 weight has values that are not bf16; CUDA keeps weights in bf16");
  }
  *args.out = std::move(weight);
  return absl::OkStatus();
}

absl::Status Linear(Stream& stream, const LinearArgs& args) {
  PRISM_RETURN_IF_ERROR(CheckAtMost("Linear", "rows", args.x.dim(0), kRowsMax));
  const LinearParams params = {.x = args.x.raw(),
                               .weight = PackedOf(*args.weight),
                               .bias = args.bias.present() ? args.bias.data<float>() : nullptr,
                               .y = args.y.raw(),
                               .y_f32 = args.y.dtype() == DType::kF32,
                               .rows = args.x.dim(0)};
  return CudaStatus(LaunchLinear(params, LinearForm::kAuto, HandleOf(stream)), "Linear");
}

absl::Status MoeRouter(Stream& stream, const MoeRouterArgs& args) {
  PRISM_RETURN_IF_ERROR(CheckAtMost("MoeRouter", "experts", args.logits.dim(1), kRoutedMax));
  PRISM_RETURN_IF_ERROR(CheckAtMost("MoeRouter", "experts chosen", args.ids.dim(1), kChosenMax));
  const RouterParams params = {.logits = args.logits.data<float>(),
                               .ids = args.ids.data<int32_t>(),
                               .weights = args.weights.data<float>(),
                               .tokens = args.logits.dim(0),
                               .experts = static_cast<int>(args.logits.dim(1)),
                               .chosen = static_cast<int>(args.ids.dim(1))};
  return CudaStatus(LaunchMoeRouter(params, HandleOf(stream)), "MoeRouter");
}

absl::Status MoeExperts(Stream& stream, const MoeExpertsArgs& args) {
  const int64_t held = static_cast<int64_t>(args.experts.size());
  PRISM_RETURN_IF_ERROR(CheckAtMost("MoeExperts", "experts held", held, kExpertsMax));
  PRISM_RETURN_IF_ERROR(CheckAtMost("MoeExperts", "experts chosen", args.ids.dim(1), kChosenMax));
  PRISM_RETURN_IF_ERROR(
      CheckAtMost("MoeExperts", "tokens times experts chosen", args.ids.num_elements(), kRowsMax));
  if (args.y.num_elements() == 0) return absl::OkStatus();
  if (held == 0) {
    return CudaStatus(
        cudaMemsetAsync(args.y.raw(), 0, static_cast<size_t>(args.y.size_bytes()), HandleOf(stream)),
        "MoeExperts");
  }
  ExpertWeights gate_up = {.shape = PackedOf(args.experts[0].gate_up)};
  ExpertWeights down = {.shape = PackedOf(args.experts[0].down)};
  for (int64_t e = 0; e < held; ++e) {
    gate_up.data[e] = args.experts[static_cast<size_t>(e)].gate_up.packed.view().raw();
    down.data[e] = args.experts[static_cast<size_t>(e)].down.packed.view().raw();
  }
  const Quarters quarters = QuartersHeld(args.num_experts, args.first_expert, held);
  ExpertsParams params = {.x = args.x.raw(),
                          .ids = args.ids.data<int32_t>(),
                          .weights = args.weights.data<float>(),
                          .gate_up = &gate_up,
                          .down = &down,
                          .y = args.y.data<float>(),
                          .tokens = args.x.dim(0),
                          .chosen = static_cast<int>(args.ids.dim(1)),
                          .first_expert = static_cast<int>(args.first_expert),
                          .held = static_cast<int>(held),
                          .num_experts = static_cast<int>(args.num_experts),
                          .first_quarter = quarters.first,
                          .quarters = quarters.count};
  PRISM_ASSIGN_OR_RETURN(params.scratch,
                         static_cast<CudaStream&>(stream).Scratch(ExpertsScratchBytes(params)));
  return CudaStatus(LaunchMoeExperts(params, LinearForm::kAuto, HandleOf(stream)), "MoeExperts");
}

}  // namespace prism::cuda
