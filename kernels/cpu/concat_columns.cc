#include <algorithm>
#include <cstring>

#include "kernels/cpu/cpu_ops.h"

namespace prism::cpu {

absl::Status ConcatColumns(Stream&, const ConcatColumnsArgs& args) {
  const int64_t ranks = args.parts.dim(0), rows = args.parts.dim(1), width = args.parts.dim(2);
  const int64_t columns = args.y.dim(1);
  const float* parts = args.parts.data<float>();
  float* y = args.y.data<float>();
  for (int64_t r = 0; r < ranks; ++r) {
    const int64_t kept = std::clamp<int64_t>(columns - r * width, 0, width);
    for (int64_t t = 0; t < rows; ++t) {
      std::memcpy(y + t * columns + r * width, parts + (r * rows + t) * width,
                  static_cast<size_t>(kept) * sizeof(float));
    }
  }
  return absl::OkStatus();
}

}  // namespace prism::cpu
