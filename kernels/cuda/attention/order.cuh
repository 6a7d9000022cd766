// The order of attention's sums on CUDA (numerics.md 7), in the device functions that the reference
// and the fast kernels share.
//
// For one query and head, over keys in ascending order, tiles of 64 at absolute positions, leaves
// of 4 tiles:
//
//   score s[j]   units of 16 consecutive elements of the head on the tensor cores, ascending from
//                zero; the last unit is filled with zeros; the scores of keys not seen are -inf
//   m            running maximum of s * scale * log2(e) through a leaf, from -inf
//   factor       2^(m before - m after), applied at every tile
//   p[j]         2^(s[j] * scale * log2(e) - m), one fused multiply-add below the exponential
//   l[i]         i = j mod 8: factor l[i] + (p[i] + p[i + 8] + ... ascending in the tile)
//   o[d]         factor o[d], then units of 16 keys of p rounded to bf16 times v on the tensor cores
//
// A leaf gives m, ((l0 + l1) + (l2 + l3)) + ((l4 + l5) + (l6 + l7)) and o; leaves merge left to
// right. A tile of which a query sees nothing changes no bit of its state, nor does a unit whose
// weights are all zero, so a kernel may compute either or skip it.
#pragma once

#include <cuda_bf16.h>

#include <cstdint>

namespace prism::cuda {

inline constexpr int kTile = 64;
inline constexpr int kTilesPerLeaf = 4;
inline constexpr int kLeaf = kTile * kTilesPerLeaf;
inline constexpr int kUnit = 16;  // consecutive k of one tensor-core operation
inline constexpr int kChunk = 8;  // elements of 16 bytes
inline constexpr int kRowSums = 8;

// Where element d of token j lies in one head's page of K or of V: [D / 8][64][8]. Eight tokens of
// eight elements are 128 bytes side by side, which is what ldmatrix and wgmma read.
__host__ __device__ __forceinline__ int64_t PageOffset(int token, int d) {
  return (static_cast<int64_t>(d / kChunk) * kTile + token) * kChunk + d % kChunk;
}

// 2^x, as the hardware has it: the one exponential of attention.
__device__ __forceinline__ float Exp2(float x) {
  float y;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
}

// What is subtracted below the exponential for a running maximum that may still be -inf.
__device__ __forceinline__ float Subtrahend(float maximum) { return maximum == -INFINITY ? 0.0f : maximum; }

// The running maximum after a tile whose largest score is `largest`.
__device__ __forceinline__ float MaximumAfter(float before, float largest, float scale_log2) {
  return fmaxf(before, __fmul_rn(largest, scale_log2));
}

// What sums made under the maximum `before` are multiplied with.
__device__ __forceinline__ float Rescale(float before, float subtrahend) {
  return Exp2(__fsub_rn(before, subtrahend));
}

__device__ __forceinline__ float Weight(float score, float scale_log2, float subtrahend) {
  return Exp2(__fmaf_rn(score, scale_log2, -subtrahend));
}

// The two factors of a merge: of the leaves before, and of the next one.
struct MergeFactors {
  float maximum;
  float before;
  float next;
};
__device__ __forceinline__ MergeFactors Merge(float maximum_before, float maximum_next) {
  const float maximum = fmaxf(maximum_before, maximum_next);
  const float subtrahend = Subtrahend(maximum);
  return {maximum, Rescale(maximum_before, subtrahend), Rescale(maximum_next, subtrahend)};
}
__device__ __forceinline__ float Merged(float before, float next, const MergeFactors& factors) {
  return __fmaf_rn(before, factors.before, __fmul_rn(next, factors.next));
}

// 1 / l, or 0 for a query without keys.
__device__ __forceinline__ float Inverse(float l) { return l == 0.0f ? 0.0f : __frcp_rn(l); }

// One element of the result; the sum with zero makes -0 the same as 0.
__device__ __forceinline__ float Normalized(float o, float inverse) {
  return __fadd_rn(__fmul_rn(o, inverse), 0.0f);
}

}  // namespace prism::cuda
