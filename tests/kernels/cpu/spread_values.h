// Values whose sums show any change of order, and the scalar sums they are compared with.
#pragma once

#include <cmath>
#include <cstdint>
#include <random>
#include <vector>

#include "common/tensor/float_types.h"
#include "common/tensor/sum_order.h"
#include "hwy/targets.h"
#include "kernels/ops/linear.h"

namespace prism::test {

// Random signs, mantissas and exponents: neighbours differ by up to 2^24, so nearly every addition
// rounds. Every value is a bf16 too if `narrow`.
inline std::vector<float> SpreadFloats(int64_t count, uint32_t seed, bool narrow = false) {
  std::mt19937 generator(seed);
  std::uniform_real_distribution<float> mantissa(1.0f, 2.0f);
  std::uniform_int_distribution<int> exponent(-12, 12);
  std::vector<float> values(static_cast<size_t>(count));
  for (float& value : values) {
    value = std::ldexp(mantissa(generator), exponent(generator)) * (generator() % 2 == 0 ? 1.0f : -1.0f);
    if (narrow) value = static_cast<float>(BFloat16(value));
  }
  return values;
}

// Whether the linear layer's products are fused on this CPU; before AVX2 they are not.
inline bool HasFusedMultiplyAdd() {
#if HWY_ARCH_X86
  return (hwy::SupportedTargets() & HWY_TARGETS & (HWY_AVX2 | HWY_AVX3)) != 0;
#else
  return true;
#endif
}

// One ascending chain from zero over [range), of strides 1.
inline float Chain(const float* x, const float* w, IndexRange range, bool fused) {
  float sum = 0.0f;
  for (int64_t k = range.begin; k < range.end; ++k) {
    if (fused) {
      sum = std::fma(x[k], w[k], sum);
    } else {
      const float product = x[k] * w[k];
      sum = sum + product;
    }
  }
  return sum;
}

// y = x W^T (+ bias) in the order of kernels/ops/linear.h, one scalar after the other.
inline std::vector<float> ScalarLinear(const std::vector<float>& x, const std::vector<float>& w,
                                       const std::vector<float>& bias, int64_t rows, int64_t out_features,
                                       int64_t in_features, SumOrder order) {
  const bool fused = HasFusedMultiplyAdd();
  std::vector<float> y(static_cast<size_t>(rows * out_features));
  for (int64_t t = 0; t < rows; ++t) {
    for (int64_t n = 0; n < out_features; ++n) {
      const float* x_row = x.data() + t * in_features;
      const float* w_row = w.data() + n * in_features;
      float sum;
      if (order == SumOrder::kChain) {
        sum = Chain(x_row, w_row, {0, in_features}, fused);
      } else {
        float leaves[kNumLeaves];
        for (int i = 0; i < kNumLeaves; ++i)
          leaves[i] = Chain(x_row, w_row, LeafRange(in_features, i), fused);
        sum = AddLeaves(leaves[0], leaves[1], leaves[2], leaves[3]);
      }
      if (!bias.empty()) sum += bias[static_cast<size_t>(n)];
      y[static_cast<size_t>(t * out_features + n)] = sum;
    }
  }
  return y;
}

}  // namespace prism::test
