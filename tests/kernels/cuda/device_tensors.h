// What the tests of CUDA ops share: device tensors between poison.
#pragma once

#include <algorithm>
#include <bit>
#include <cstring>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "common/tensor/tensor.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "kernels/device/backend.h"
#include "tests/kernels/cuda/cuda_test.h"

namespace prism::test {

// Uniform in [-bound, bound).
inline std::vector<float> RandomValues(int64_t count, uint32_t seed, float bound = 1.0f) {
  std::mt19937 generator(seed);
  std::uniform_real_distribution<float> distribution(-bound, bound);
  std::vector<float> values(static_cast<size_t>(count));
  for (float& value : values) value = distribution(generator);
  return values;
}

// The nearest bf16 values.
inline std::vector<float> Rounded(std::vector<float> values) {
  for (float& value : values) value = static_cast<float>(BFloat16(value));
  return values;
}

// A device tensor with poison before and after, which must still be there at the end. The guard is
// odd, so that nothing leans on alignment, or wide, so that vectors are used.
class OnDevice {
 public:
  static constexpr int64_t kOddGuard = 37;
  static constexpr int64_t kWideGuard = 256;

  OnDevice(Stream& stream, DType dtype, Shape shape, int64_t guard = kWideGuard)
      : stream_(stream), shape_(std::move(shape)), guard_(guard) {
    const int64_t total = shape_.num_elements() + 2 * guard_;
    memory_ = stream.Allocate(dtype, {total}).value();
    const Tensor poison = Tensor::Host(dtype, {total});
    std::memset(poison.view().raw(), 0xFF, static_cast<size_t>(poison.view().size_bytes()));
    EXPECT_TRUE(stream.CopyToDevice(poison.view(), memory_.view()).ok());
  }
  // f32 or bf16 (rounded)
  OnDevice(Stream& stream, DType dtype, Shape shape, const std::vector<float>& values,
           int64_t guard = kWideGuard)
      : OnDevice(stream, dtype, std::move(shape), guard) {
    EXPECT_EQ(static_cast<int64_t>(values.size()), shape_.num_elements());
    const Tensor host = Tensor::Host(dtype, shape_);
    if (dtype == DType::kF32) {
      std::copy(values.begin(), values.end(), host.data<float>());
    } else {
      std::transform(values.begin(), values.end(), host.data<BFloat16>(),
                     [](float v) { return BFloat16(v); });
    }
    EXPECT_TRUE(stream.CopyToDevice(host.view(), view()).ok());
  }
  OnDevice(Stream& stream, Shape shape, const std::vector<int32_t>& values)
      : OnDevice(stream, DType::kI32, std::move(shape)) {
    EXPECT_EQ(static_cast<int64_t>(values.size()), shape_.num_elements());
    EXPECT_TRUE(stream.CopyToDevice(TensorView(values.data(), shape_), view()).ok());
  }

  TensorView view() const {
    const TensorView whole = memory_.view().Rows(guard_, shape_.num_elements());
    return whole.Reshape(shape_);
  }
  // As float32; the first error of what was queued fails the test.
  std::vector<float> Values() const {
    const Tensor host = Fetch(view());
    std::vector<float> values(static_cast<size_t>(shape_.num_elements()));
    for (size_t i = 0; i < values.size(); ++i) {
      values[i] = host.dtype() == DType::kF32   ? host.data<float>()[i]
                  : host.dtype() == DType::kI32 ? static_cast<float>(host.data<int32_t>()[i])
                                                : static_cast<float>(host.data<BFloat16>()[i]);
    }
    return values;
  }
  std::vector<int32_t> Ints() const {
    const Tensor host = Fetch(view());
    return {host.data<int32_t>(), host.data<int32_t>() + shape_.num_elements()};
  }
  bool Intact() const {
    for (const int64_t begin : {int64_t{0}, guard_ + shape_.num_elements()}) {
      const Tensor host = Fetch(memory_.view().Rows(begin, guard_));
      const auto* bytes = static_cast<const uint8_t*>(host.view().raw());
      if (std::any_of(bytes, bytes + host.view().size_bytes(), [](uint8_t byte) { return byte != 0xFF; })) {
        return false;
      }
    }
    return true;
  }

 private:
  Tensor Fetch(const TensorView& from) const {
    Tensor host = Tensor::Host(from.dtype(), from.shape());
    const absl::Status status = stream_.CopyToHost(from, host.view());
    EXPECT_TRUE(status.ok()) << status;
    return host;
  }

  Stream& stream_;
  Shape shape_;
  const int64_t guard_;
  Tensor memory_;
};

// Equal bit for bit.
inline bool SameBits(const std::vector<float>& a, const std::vector<float>& b) {
  return std::equal(a.begin(), a.end(), b.begin(), b.end(), [](float left, float right) {
    return std::bit_cast<uint32_t>(left) == std::bit_cast<uint32_t>(right);
  });
}

}  // namespace prism::test
