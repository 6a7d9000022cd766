// The functions of one element that more than one kernel needs: one definition, so that a fused
// kernel and the op it stands for give the same bits.
#pragma once

#include <cuda_bf16.h>

namespace prism::cuda {

__device__ __forceinline__ float ToFloat(float value) { return value; }
__device__ __forceinline__ float ToFloat(__nv_bfloat16 value) { return __bfloat162float(value); }

// Rounded to nearest, ties to even.
template <typename T>
__device__ __forceinline__ T FromFloat(float value);
template <>
__device__ __forceinline__ float FromFloat<float>(float value) {
  return value;
}
template <>
__device__ __forceinline__ __nv_bfloat16 FromFloat<__nv_bfloat16>(float value) {
  return __float2bfloat16_rn(value);
}

// silu(gate) * up in float32, not rounded further: z / (1 + exp(-z)) times up.
__device__ __forceinline__ float SiluMul(float gate, float up) {
  return __fmul_rn(__fdiv_rn(gate, __fadd_rn(1.0f, expf(-gate))), up);
}

// 0.5 z (1 + tanh(sqrt(2 / pi) (z + 0.044715 z^3)))
__device__ __forceinline__ float GeluTanh(float z) {
  const float cube = __fmul_rn(__fmul_rn(z, z), z);
  const float inner = __fmul_rn(0.7978845608028654f, __fmaf_rn(0.044715f, cube, z));
  return __fmul_rn(__fmul_rn(0.5f, z), __fadd_rn(1.0f, tanhf(inner)));
}

// 0.5 z (1 + erf(z / sqrt 2))
__device__ __forceinline__ float GeluErf(float z) {
  return __fmul_rn(__fmul_rn(0.5f, z), __fadd_rn(1.0f, erff(__fmul_rn(z, 0.7071067811865476f))));
}

}  // namespace prism::cuda
