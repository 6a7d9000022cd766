#include <cmath>

#include "kernels/cpu/cpu_ops.h"
#include "kernels/cpu/parallel_rows.h"

namespace prism::cpu {
namespace {

// Elements that one exponential costs like.
constexpr int64_t kExpCost = 4;

float Silu(float z) { return z / (1.0f + std::exp(-z)); }

// z (1 + tanh u) / 2 = z / (1 + exp(-2 u))
float GeluTanh(float z) {
  const float u = 0.7978845608028654f * (z + 0.044715f * z * z * z);
  return z / (1.0f + std::exp(-2.0f * u));
}

float GeluErf(float z) { return 0.5f * z * (1.0f + std::erf(z * 0.7071067811865476f)); }

}  // namespace

absl::Status SiluMul(Stream& stream, const SiluMulArgs& args) {
  const int64_t columns = args.y.dim(1);
  const float* x = args.x.data<float>();
  float* y = args.y.data<float>();
  ParallelRows(stream, args.x.dim(0), kExpCost * columns, [&](int64_t begin, int64_t end) {
    for (int64_t t = begin; t < end; ++t) {
      const float* gate = x + t * 2 * columns;
      const float* up = gate + columns;
      for (int64_t i = 0; i < columns; ++i) y[t * columns + i] = Silu(gate[i]) * up[i];
    }
  });
  return absl::OkStatus();
}

absl::Status Gelu(Stream& stream, const GeluArgs& args) {
  float* x = args.x.data<float>();
  ParallelRows(stream, args.x.num_elements(), kExpCost, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      x[i] = args.form == GeluForm::kTanh ? GeluTanh(x[i]) : GeluErf(x[i]);
    }
  });
  return absl::OkStatus();
}

}  // namespace prism::cpu
