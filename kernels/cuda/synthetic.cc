// The op table's entry that synthetic_kernels.cu serves.
#include "kernels/cuda/cuda_ops.h"
#include "kernels/cuda/cuda_status.h"
#include "kernels/cuda/cuda_stream.h"
#include "kernels/cuda/synthetic_kernels.h"

namespace prism::cuda {

absl::Status SyntheticFill(Stream& stream, const SyntheticFillArgs& args) {
  const auto step = [](int64_t elements) { return static_cast<uint64_t>(elements) * kSyntheticStep; };
  return CudaStatus(
      LaunchSyntheticFill({.state = args.tensor.base + step(args.first),
                           .row_step = step(args.row_stride),
                           .column_step = step(args.column_stride),
                           .mean = args.tensor.mean,
                           .amplitude = args.tensor.amplitude,
                           .out = static_cast<uint16_t*>(args.out.raw()),
                           .rows = args.out.dim(0),
                           .columns = args.out.dim(1)},
                          static_cast<CudaStream&>(stream).num_multiprocessors(), HandleOf(stream)),
      "SyntheticFill");
}

}  // namespace prism::cuda
