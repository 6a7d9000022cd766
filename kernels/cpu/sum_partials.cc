#include <algorithm>

#include "kernels/cpu/cpu_ops.h"
#include "kernels/cpu/cpu_stream.h"

namespace prism::cpu {
namespace {

constexpr int64_t kElementsPerPart = 16384;

}  // namespace

absl::Status SumPartials(Stream& stream, const SumPartialsArgs& args) {
  const int64_t ranks = args.partials.dim(0);
  const int64_t size = args.y.num_elements();
  const float* p = args.partials.data<float>();
  float* y = args.y.data<float>();
  PoolOf(stream).Run((size + kElementsPerPart - 1) / kElementsPerPart, [&](int64_t part, int) {
    const int64_t end = std::min(size, (part + 1) * kElementsPerPart);
    for (int64_t i = part * kElementsPerPart; i < end; ++i) {
      if (ranks == 1) {
        y[i] = p[i];
      } else if (ranks == 2) {
        y[i] = p[i] + p[size + i];
      } else {
        y[i] = (p[i] + p[size + i]) + (p[2 * size + i] + p[3 * size + i]);
      }
    }
  });
  return absl::OkStatus();
}

}  // namespace prism::cpu
