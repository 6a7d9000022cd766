// The op table's entry that sampling_kernels.cu serves.
#include "kernels/ops/sampling.h"

#include <algorithm>
#include <limits>
#include <vector>

#include "common/base/status.h"
#include "kernels/cuda/cuda_ops.h"
#include "kernels/cuda/cuda_status.h"
#include "kernels/cuda/cuda_stream.h"
#include "kernels/cuda/sampling_kernels.h"
#include "kernels/ops/sampling_math.h"

namespace prism::cuda {
namespace {

static_assert(kSamplingTopMax == kSampleTopMax);

SamplingRow WishOf(const RowSampling& row) {
  return {.temperature = row.temperature,
          .top_p = row.top_p,
          .floor = row.min_p > 0 ? PortableLog(std::max(row.min_p, std::numeric_limits<double>::min()))
                                 : -std::numeric_limits<double>::infinity(),
          .seed = row.seed,
          .top_k = row.top_k,
          .choice = row.choice,
          .token_index = row.token_index,
          .target_id = row.target_id,
          .with_log_sum_exp = row.with_log_sum_exp ? 1 : 0,
          .num_top = row.num_top};
}

RowSample SampleOf(const SamplingResult& result) {
  RowSample sample;
  sample.non_finite_id = result.non_finite_id;
  sample.logit = result.logit;
  if (result.non_finite_id >= 0) return sample;
  sample.token_id = result.token_id;
  sample.log_sum_exp = result.log_sum_exp;
  sample.num_top = result.num_top;
  for (int i = 0; i < result.num_top; ++i) {
    sample.top[static_cast<size_t>(i)] = {result.top[i].id, result.top[i].logit};
  }
  return sample;
}

// Device memory of `count` values of T, gone with the workspace's next Reset().
template <typename T>
absl::StatusOr<TensorView> TakeArray(Stream& stream, int64_t count) {
  return stream.workspace().Take(DType::kU8, Shape{count * static_cast<int64_t>(sizeof(T))});
}

}  // namespace

absl::Status SampleRows(Stream& stream, const SampleRowsArgs& args) {
  const int64_t rows = args.logits.dim(0);
  std::vector<SamplingRow> wishes;
  bool with_selection = false, with_draws = false;
  for (const RowSampling& row : args.rows) {
    wishes.push_back(WishOf(row));
    const bool draws = row.target_id < 0 && row.temperature >= kGreedyBelowTemperature;
    with_draws |= draws;
    with_selection |= row.num_top > 0 || (draws && (row.top_k > 0 || row.top_p < 1));
  }
  PRISM_ASSIGN_OR_RETURN(const TensorView device_wishes, TakeArray<SamplingRow>(stream, rows));
  PRISM_ASSIGN_OR_RETURN(const TensorView parts, TakeArray<SamplingPart>(stream, rows * kSamplingRanges));
  PRISM_ASSIGN_OR_RETURN(const TensorView kept, TakeArray<SamplingKept>(stream, rows));
  PRISM_ASSIGN_OR_RETURN(const TensorView draws, TakeArray<SamplingDraw>(stream, rows * kSamplingRanges));
  PRISM_ASSIGN_OR_RETURN(const TensorView device_results, TakeArray<SamplingResult>(stream, rows));
  PRISM_RETURN_IF_ERROR(
      stream.CopyToDevice(TensorView(wishes.data(), DType::kU8, device_wishes.shape()), device_wishes));
  PRISM_RETURN_IF_ERROR(
      CudaStatus(LaunchSampling({.logits = args.logits.data<float>(),
                                 .wishes = static_cast<const SamplingRow*>(device_wishes.raw()),
                                 .parts = static_cast<SamplingPart*>(parts.raw()),
                                 .kept = static_cast<SamplingKept*>(kept.raw()),
                                 .draws = static_cast<SamplingDraw*>(draws.raw()),
                                 .results = static_cast<SamplingResult*>(device_results.raw()),
                                 .rows = rows,
                                 .vocabulary = args.logits.dim(1),
                                 .with_selection = with_selection,
                                 .with_draws = with_draws},
                                HandleOf(stream)),
                 "SampleRows"));
  std::vector<SamplingResult> results(static_cast<size_t>(rows));
  PRISM_RETURN_IF_ERROR(
      stream.CopyToHost(device_results, TensorView(results.data(), DType::kU8, device_results.shape())));
  for (size_t row = 0; row < results.size(); ++row) args.samples[row] = SampleOf(results[row]);
  return absl::OkStatus();
}

}  // namespace prism::cuda
