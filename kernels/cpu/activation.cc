#include "kernels/cpu/activation_kernels.h"
#include "kernels/cpu/cpu_ops.h"
#include "kernels/cpu/parallel_rows.h"

namespace prism::cpu {

absl::Status SiluMul(Stream& stream, const SiluMulArgs& args) {
  const int64_t columns = args.y.dim(1);
  const float* x = args.x.data<float>();
  float* y = args.y.data<float>();
  ParallelRows(stream, args.x.dim(0), columns, [&](int64_t begin, int64_t end) {
    for (int64_t t = begin; t < end; ++t) {
      const float* gate = x + t * 2 * columns;
      SiluMulRange(gate, gate + columns, columns, y + t * columns);
    }
  });
  return absl::OkStatus();
}

absl::Status Gelu(Stream& stream, const GeluArgs& args) {
  float* x = args.x.data<float>();
  ParallelRows(stream, args.x.num_elements(), 1, [&](int64_t begin, int64_t end) {
    if (args.form == GeluForm::kTanh) {
      GeluTanhRange(x + begin, end - begin);
    } else {
      GeluErfRange(x + begin, end - begin);
    }
  });
  return absl::OkStatus();
}

}  // namespace prism::cpu
