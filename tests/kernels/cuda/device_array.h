// Device memory for tests, with poison before and after that must still be there at the end.
#pragma once

#include <cuda_runtime_api.h>

#include <cstring>
#include <vector>

#include "common/tensor/float_types.h"
#include "common/tensor/tensor.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "kernels/cuda/cuda_stream.h"

namespace prism::test {

// The tensor core cuts each of a unit's 17 terms below 2^-25 of the largest and the sum below 2^-23 of itself
// (tensor_core_test): with the sum of all magnitudes for both, this share of it for each unit.
inline constexpr double kUnitError = 17 * 0x1p-25 + 0x1p-23;

// Every byte of the guards, and of an array not yet written, is 0xFF: a NaN in bf16 and in f32, -1 as an id.
template <typename T>
class DeviceArray {
 public:
  static constexpr size_t kGuardBytes = 512;

  explicit DeviceArray(size_t count) : count_(count) {
    EXPECT_EQ(cudaMalloc(&memory_, Bytes()), cudaSuccess);
    EXPECT_EQ(cudaMemset(memory_, 0xFF, Bytes()), cudaSuccess);
    EXPECT_EQ(cudaDeviceSynchronize(), cudaSuccess);  // streams that do not block do not wait for it
  }
  explicit DeviceArray(const std::vector<T>& values) : DeviceArray(values.size()) {
    EXPECT_EQ(cudaMemcpy(data(), values.data(), values.size() * sizeof(T), cudaMemcpyHostToDevice),
              cudaSuccess);
  }
  ~DeviceArray() { cudaFree(memory_); }
  DeviceArray(const DeviceArray&) = delete;
  DeviceArray& operator=(const DeviceArray&) = delete;

  T* data() const { return reinterpret_cast<T*>(static_cast<char*>(memory_) + kGuardBytes); }
  TensorView view(Shape shape) const { return TensorView(data(), std::move(shape)); }

  // Waits for the device. The guards must be whole.
  std::vector<T> Read() const {
    std::vector<char> bytes(Bytes());
    EXPECT_EQ(cudaDeviceSynchronize(), cudaSuccess);
    EXPECT_EQ(cudaMemcpy(bytes.data(), memory_, Bytes(), cudaMemcpyDeviceToHost), cudaSuccess);
    for (size_t i = 0; i < kGuardBytes; ++i) {
      if (bytes[i] != '\xFF' || bytes[Bytes() - 1 - i] != '\xFF') {
        ADD_FAILURE() << "wrote outside the array";
        break;
      }
    }
    std::vector<T> values(count_);
    std::memcpy(values.data(), bytes.data() + kGuardBytes, count_ * sizeof(T));
    return values;
  }

 private:
  size_t Bytes() const { return count_ * sizeof(T) + 2 * kGuardBytes; }

  size_t count_;
  void* memory_ = nullptr;
};

inline std::vector<BFloat16> ToBFloat16(const std::vector<float>& values) {
  std::vector<BFloat16> narrow(values.size());
  for (size_t i = 0; i < values.size(); ++i) narrow[i] = BFloat16(values[i]);
  return narrow;
}

// How many elements differ in any bit.
template <typename T>
int64_t Differences(const std::vector<T>& a, const std::vector<T>& b) {
  int64_t different = a.size() == b.size() ? 0 : 1;
  for (size_t i = 0; i < std::min(a.size(), b.size()); ++i)
    different += std::memcmp(&a[i], &b[i], sizeof(T)) != 0;
  return different;
}

}  // namespace prism::test
