#include "kernels/cpu/cpu_ops.h"
#include "kernels/cpu/parallel_rows.h"

namespace prism::cpu {

absl::Status Add(Stream& stream, const AddArgs& args) {
  float* x = args.x.data<float>();
  const float* y = args.y.data<float>();
  ParallelRows(stream, args.x.num_elements(), 1, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) x[i] += y[i];
  });
  return absl::OkStatus();
}

}  // namespace prism::cpu
