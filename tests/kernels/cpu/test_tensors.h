// What the tests of CPU ops share: streams, tensors of random values, and poison.
#pragma once

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>
#include <limits>
#include <memory>
#include <random>
#include <vector>

#include "common/tensor/tensor.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "kernels/cpu/cpu_backend.h"

namespace prism::test {

inline constexpr float kPoison = std::numeric_limits<float>::quiet_NaN();
// One rounding to nearest of float32 errs by at most this share.
inline constexpr double kRounding = 0x1p-24;

inline std::unique_ptr<Stream> MakeStream(Backend& backend, int num_threads = 1) {
  return backend.CreateStream({.num_threads = num_threads}).value();
}

// Uniform in [-bound, bound).
inline std::vector<float> RandomFloats(int64_t count, uint32_t seed, float bound = 1.0f) {
  std::mt19937 generator(seed);
  std::uniform_real_distribution<float> distribution(-bound, bound);
  std::vector<float> values(static_cast<size_t>(count));
  for (float& value : values) value = distribution(generator);
  return values;
}

// An f32 array with poison before and after, which must still be there at the end.
class Guarded {
 public:
  static constexpr int64_t kGuard = 32;

  explicit Guarded(int64_t count, float fill = kPoison)
      : values_(static_cast<size_t>(count + 2 * kGuard), kPoison), count_(count) {
    std::fill_n(data(), count, fill);
  }
  explicit Guarded(const std::vector<float>& values) : Guarded(static_cast<int64_t>(values.size())) {
    std::copy(values.begin(), values.end(), data());
  }
  float* data() { return values_.data() + kGuard; }
  TensorView view(Shape shape) {
    EXPECT_EQ(shape.num_elements(), count_);
    return TensorView(data(), std::move(shape));
  }
  float operator[](int64_t i) const { return values_[static_cast<size_t>(kGuard + i)]; }
  std::vector<float> values() { return std::vector<float>(data(), data() + count_); }
  bool Intact() const {
    for (int64_t i = 0; i < kGuard; ++i) {
      if (!std::isnan(values_[static_cast<size_t>(i)])) return false;
      if (!std::isnan(values_[static_cast<size_t>(kGuard + count_ + i)])) return false;
    }
    return true;
  }

 private:
  std::vector<float> values_;
  int64_t count_;
};

// The largest |out - want|; a NaN where one is.
inline double WorstError(const std::vector<float>& out, const std::vector<double>& want) {
  EXPECT_EQ(out.size(), want.size());
  double worst = 0.0;
  for (size_t i = 0; i < out.size(); ++i) {
    const double error = std::abs(static_cast<double>(out[i]) - want[i]);
    worst = error <= worst ? worst : error;
  }
  return worst;
}

// Equal bit for bit (and so different for a NaN of another kind).
inline bool SameBits(const std::vector<float>& a, const std::vector<float>& b) {
  return std::equal(a.begin(), a.end(), b.begin(), b.end(), [](float left, float right) {
    return std::bit_cast<uint32_t>(left) == std::bit_cast<uint32_t>(right);
  });
}

}  // namespace prism::test
