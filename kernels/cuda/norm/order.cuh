// The order of the norms' sums on CUDA (numerics.md 8), and the arithmetic around them.
//
// A row has 128 lanes: lane i has columns 4 i .. 4 i + 3 and those 512, 1024, ... further. A lane
// sums its terms ascending from zero in fused multiply-adds. Lanes are added in a tree: neighbours
// 1, 2, 4, 8, 16 apart, then the four groups of 32 likewise 1, 2 apart.
//
// A head has 16 lanes over its two halves: lane i has elements 4 i .. 4 i + 3 of the low half, the
// same of the high half, and those 64, 128, ... further; terms ascending within that, lanes in the
// same tree.
#pragma once

#include <cstdint>

namespace prism::cuda {

inline constexpr int kNormLanes = 128;
inline constexpr int kNormGroups = kNormLanes / 32;
inline constexpr int kHeadLanes = 16;
inline constexpr int kNormVector = 4;

// Adds kLanes neighbouring lanes of a warp; each of them gets the sum. The two terms of an addition
// commute, so all have the same bits.
template <int kLanes>
__device__ __forceinline__ float LaneTree(float sum) {
#pragma unroll
  for (int apart = 1; apart < kLanes; apart *= 2)
    sum = __fadd_rn(sum, __shfl_xor_sync(0xffffffffu, sum, apart));
  return sum;
}

// Adds the groups' sums.
__device__ __forceinline__ float GroupTree(const float (&s)[kNormGroups]) {
  return __fadd_rn(__fadd_rn(s[0], s[1]), __fadd_rn(s[2], s[3]));
}

// 1 / sqrt(sum / n + epsilon)
__device__ __forceinline__ float InverseRoot(float sum, int n, float epsilon) {
  return __frcp_rn(__fsqrt_rn(__fadd_rn(__fdiv_rn(sum, static_cast<float>(n)), epsilon)));
}

__device__ __forceinline__ float AddSquare(float sum, float x) { return __fmaf_rn(x, x, sum); }
__device__ __forceinline__ float AddSquaredDeviation(float sum, float x, float mean) {
  const float deviation = __fsub_rn(x, mean);
  return __fmaf_rn(deviation, deviation, sum);
}

__device__ __forceinline__ float RmsScaled(float x, float scale, float weight) {
  return __fmul_rn(__fmul_rn(x, scale), weight);
}
__device__ __forceinline__ float LayerScaled(float x, float mean, float scale, float weight, float bias) {
  return __fmaf_rn(__fmul_rn(__fsub_rn(x, mean), scale), weight, bias);
}

// The rotation of elements m and m + half of a head.
__device__ __forceinline__ float RotatedLow(float low, float high, float cos, float sin) {
  return __fmaf_rn(low, cos, -__fmul_rn(high, sin));
}
__device__ __forceinline__ float RotatedHigh(float low, float high, float cos, float sin) {
  return __fmaf_rn(high, cos, __fmul_rn(low, sin));
}

}  // namespace prism::cuda
