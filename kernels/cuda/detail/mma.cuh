// mma.sync m16n8k16: 16 rows of A times 8 columns of B over 16 consecutive k, bf16 with float32 sums. The
// unit of every sum of the CUDA backend (docs/numerics.md). From sm_80 on.
//
// Lane i holds, with g = i / 4, t = i % 4 (each 32-bit word is two neighbouring k, the lower in the low
// half):
//   a: row g k 2t | row g+8 k 2t | row g k 2t+8 | row g+8 k 2t+8        b: column g k 2t | column g k 2t+8
//   d: row g columns 2t, 2t+1 | row g+8 columns 2t, 2t+1
#pragma once

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

}  // namespace prism::cuda
