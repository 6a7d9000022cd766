// What the tests of CUDA kernels share: device memory between guards, bf16 on the host, and random
// values.
#pragma once

#include <cuda_bf16.h>
#include <cuda_runtime_api.h>

#include <bit>
#include <cmath>
#include <cstdint>
#include <random>
#include <vector>

#include "gtest/gtest.h"
#include "kernels/cuda/probe_kernel.h"

namespace prism::cuda::test {

// Skips the test where there is no device.
#define PRISM_NEEDS_CUDA_DEVICE()                                                                  \
  do {                                                                                             \
    int count = 0;                                                                                 \
    if (cudaGetDeviceCount(&count) != cudaSuccess || count == 0) GTEST_SKIP() << "no CUDA device"; \
  } while (false)

// Skips a test of kernels that hold no code for what runs here.
#define PRISM_NEEDS_HOPPER_CODE()                                                          \
  do {                                                                                     \
    if (!RunsHopperCode()) GTEST_SKIP() << "no code of this build for a Hopper runs here"; \
  } while (false)

inline void Check(cudaError_t error) { ASSERT_EQ(error, cudaSuccess) << cudaGetErrorString(error); }

// Bytes of every guard and of fresh memory: as bf16 and as f32 they are NaN.
inline constexpr int kPoisonByte = 0xff;

// An array on the device with poison before and after it, and in it until it is set.
template <typename T>
class GuardedArray {
 public:
  explicit GuardedArray(int64_t count) : count_(count) {
    const size_t bytes = static_cast<size_t>(count) * sizeof(T) + 2 * kGuardBytes;
    Check(cudaMalloc(&memory_, bytes));
    Check(cudaMemset(memory_, kPoisonByte, bytes));
  }
  explicit GuardedArray(const std::vector<T>& values) : GuardedArray(static_cast<int64_t>(values.size())) {
    Set(values);
  }
  ~GuardedArray() { cudaFree(memory_); }
  GuardedArray(const GuardedArray&) = delete;
  GuardedArray& operator=(const GuardedArray&) = delete;

  T* data() { return reinterpret_cast<T*>(static_cast<char*>(memory_) + kGuardBytes); }
  void Set(const std::vector<T>& values) {
    Check(cudaMemcpy(data(), values.data(), values.size() * sizeof(T), cudaMemcpyHostToDevice));
  }
  void Poison() { Check(cudaMemset(data(), kPoisonByte, static_cast<size_t>(count_) * sizeof(T))); }
  std::vector<T> Get() {
    std::vector<T> values(static_cast<size_t>(count_));
    Check(cudaMemcpy(values.data(), data(), values.size() * sizeof(T), cudaMemcpyDeviceToHost));
    return values;
  }
  // Nothing was written outside.
  bool Intact() {
    std::vector<uint8_t> guard(kGuardBytes);
    for (const char* from : {static_cast<char*>(memory_), reinterpret_cast<char*>(data() + count_)}) {
      Check(cudaMemcpy(guard.data(), from, kGuardBytes, cudaMemcpyDeviceToHost));
      for (const uint8_t byte : guard) {
        if (byte != kPoisonByte) return false;
      }
    }
    return true;
  }

 private:
  static constexpr size_t kGuardBytes = 1024;  // keeps the data's alignment
  const int64_t count_;
  void* memory_ = nullptr;
};

// bf16 as its bits.
using Bf16 = uint16_t;
inline constexpr Bf16 kPoison = 0xffff;

inline Bf16 RoundToBf16(float value) {
  const uint32_t bits = std::bit_cast<uint32_t>(value);
  return static_cast<Bf16>((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}
inline float Widen(Bf16 value) { return std::bit_cast<float>(static_cast<uint32_t>(value) << 16); }

inline __nv_bfloat16* AsBf16(GuardedArray<Bf16>& array) {
  return reinterpret_cast<__nv_bfloat16*>(array.data());
}

// Normal values of the given deviation.
inline std::vector<float> RandomFloats(int64_t count, uint32_t seed, float deviation = 1.0f) {
  std::mt19937 generator(seed);
  std::normal_distribution<float> distribution(0.0f, deviation);
  std::vector<float> values(static_cast<size_t>(count));
  for (float& value : values) value = distribution(generator);
  return values;
}
inline std::vector<Bf16> RandomBf16(int64_t count, uint32_t seed, float deviation = 1.0f) {
  std::vector<Bf16> values;
  values.reserve(static_cast<size_t>(count));
  for (const float value : RandomFloats(count, seed, deviation)) values.push_back(RoundToBf16(value));
  return values;
}

// How many elements differ in their bits.
inline int64_t NumDifferent(const std::vector<Bf16>& a, const std::vector<Bf16>& b) {
  if (a.size() != b.size()) return -1;
  int64_t count = 0;
  for (size_t i = 0; i < a.size(); ++i) count += a[i] != b[i] ? 1 : 0;
  return count;
}
inline int64_t NumDifferent(const std::vector<float>& a, const std::vector<float>& b) {
  if (a.size() != b.size()) return -1;
  int64_t count = 0;
  for (size_t i = 0; i < a.size(); ++i) {
    count += std::bit_cast<uint32_t>(a[i]) != std::bit_cast<uint32_t>(b[i]) ? 1 : 0;
  }
  return count;
}

}  // namespace prism::cuda::test
