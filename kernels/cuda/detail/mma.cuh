// mma.sync m16n8k16: 16 rows of A times 8 columns of B over 16 consecutive k, bf16 with float32 sums. The
// unit of every sum of the CUDA backend (docs/numerics.md). From sm_80 on.
//
// Lane i holds, with g = i / 4, t = i % 4 (each 32-bit word is two neighbouring k, the lower in the low
// half):
//   a: row g k 2t | row g+8 k 2t | row g k 2t+8 | row g+8 k 2t+8        b: column g k 2t | column g k 2t+8
//   d: row g columns 2t, 2t+1 | row g+8 columns 2t, 2t+1
#pragma once

#include <cuda_bf16.h>

#include <cstdint>

namespace prism::cuda {

// d += a b.
__device__ __forceinline__ void Mma16x8x16(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]) {
  asm volatile(
      "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 "
      "{%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};\n"
      : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}

// Two bf16 values as such a word.
__device__ __forceinline__ uint32_t PackPair(__nv_bfloat16 low, __nv_bfloat16 high) {
  return static_cast<uint32_t>(__bfloat16_as_ushort(low)) | static_cast<uint32_t>(__bfloat16_as_ushort(high))
                                                                << 16;
}
// Two floats rounded to nearest bf16.
__device__ __forceinline__ uint32_t PackRounded(float low, float high) {
  uint32_t pair;
  asm("cvt.rn.bf16x2.f32 %0, %1, %2;\n" : "=r"(pair) : "f"(high), "f"(low));
  return pair;
}

// Four matrices of 8 rows of 16 bytes in shared memory; lane i gives the address of row i % 8 of matrix i / 8
// and gets a word of row i / 4 of each, or, transposed, of column i / 4.
__device__ __forceinline__ void LoadMatrices(uint32_t (&r)[4], uint32_t row_address) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];\n"
               : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
               : "r"(row_address)
               : "memory");
}
__device__ __forceinline__ void LoadMatricesTransposed(uint32_t (&r)[4], uint32_t row_address) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];\n"
               : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
               : "r"(row_address)
               : "memory");
}

}  // namespace prism::cuda
