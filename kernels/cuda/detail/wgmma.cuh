// wgmma m64nNk16: 64 rows of A times N columns of B over 16 consecutive k, bf16 with float32 sums. Hopper
// alone.
//
// B lies in shared memory and A there or in registers. Thread i of the warpgroup holds, with w = i / 32,
// g = i % 32 / 4, t = i % 4:
//   d[4 j + 0], d[4 j + 1]: row 16 w + g,     columns 8 j + 2 t, 8 j + 2 t + 1
//   d[4 j + 2], d[4 j + 3]: row 16 w + g + 8, the same columns
#pragma once

#include <cstdint>

namespace prism::cuda {

// The registers of an instruction's sums by number, and as operands.
#define PRISM_SUMS_4 "%0, %1, %2, %3"
#define PRISM_SUMS_8 PRISM_SUMS_4 ", %4, %5, %6, %7"
#define PRISM_SUMS_16 PRISM_SUMS_8 ", %8, %9, %10, %11, %12, %13, %14, %15"
#define PRISM_SUMS_32 \
  PRISM_SUMS_16 ", %16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31"
#define PRISM_SUMS_36 PRISM_SUMS_32 ", %32, %33, %34, %35"
#define PRISM_SUMS_64                                                                \
  PRISM_SUMS_32                                                                      \
  ", %32, %33, %34, %35, %36, %37, %38, %39, %40, %41, %42, %43, %44, %45, %46, %47" \
  ", %48, %49, %50, %51, %52, %53, %54, %55, %56, %57, %58, %59, %60, %61, %62, %63"
#define PRISM_SUMS_128                                                                           \
  PRISM_SUMS_64                                                                                  \
  ", %64, %65, %66, %67, %68, %69, %70, %71, %72, %73, %74, %75, %76, %77, %78, %79"             \
  ", %80, %81, %82, %83, %84, %85, %86, %87, %88, %89, %90, %91, %92, %93, %94, %95"             \
  ", %96, %97, %98, %99, %100, %101, %102, %103, %104, %105, %106, %107, %108, %109, %110, %111" \
  ", %112, %113, %114, %115, %116, %117, %118, %119, %120, %121, %122, %123, %124, %125, %126, %127"
#define PRISM_OPERANDS_4(d, i) "+f"(d[i]), "+f"(d[(i) + 1]), "+f"(d[(i) + 2]), "+f"(d[(i) + 3])
#define PRISM_OPERANDS_8(d, i) PRISM_OPERANDS_4(d, i), PRISM_OPERANDS_4(d, (i) + 4)
#define PRISM_OPERANDS_16(d, i) PRISM_OPERANDS_8(d, i), PRISM_OPERANDS_8(d, (i) + 8)
#define PRISM_OPERANDS_32(d, i) PRISM_OPERANDS_16(d, i), PRISM_OPERANDS_16(d, (i) + 16)
#define PRISM_OPERANDS_36(d, i) PRISM_OPERANDS_32(d, i), PRISM_OPERANDS_4(d, (i) + 32)
#define PRISM_OPERANDS_64(d, i) PRISM_OPERANDS_32(d, i), PRISM_OPERANDS_32(d, (i) + 32)
#define PRISM_OPERANDS_128(d, i) PRISM_OPERANDS_64(d, i), PRISM_OPERANDS_64(d, (i) + 64)

// An instruction whose A lies in shared memory: of `columns`, with its sums, and then its operands a, b and
// accumulate, by number.
#define PRISM_WGMMA(columns, sums, operands, a_b, add)                                 \
  asm volatile(                                                                        \
      "{\n"                                                                            \
      ".reg .pred p;\n"                                                                \
      "setp.ne.b32 p, " add                                                            \
      ", 0;\n"                                                                         \
      "wgmma.mma_async.sync.aligned.m64n" columns "k16.f32.bf16.bf16 {" sums "}, " a_b \
      ", p, 1, 1, 0, 0;\n"                                                             \
      "}\n"                                                                            \
      : operands                                                                       \
      : "l"(a), "l"(b), "r"(static_cast<int>(accumulate)))

// One whose A lies in registers, and B with its columns side by side.
#define PRISM_WGMMA_REGISTERS(columns, sums, operands, a_registers, b_descriptor)                        \
  asm volatile("wgmma.mma_async.sync.aligned.m64n" columns "k16.f32.bf16.bf16 {" sums "}, {" a_registers \
               "}, " b_descriptor ", 1, 1, 1, 1;\n"                                                      \
               : operands                                                                                \
               : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b))

// Run(): d = a b + (accumulate ? d : 0), with a and b in shared memory, both with k side by side.
// Add(): d += a b, with a in the registers of mma.cuh's 16 rows (warp w: rows 16 w to 16 w + 15), and b in
// shared memory with its columns side by side.
template <int kColumns>
struct Wgmma;

template <>
struct Wgmma<8> {
  static __device__ __forceinline__ void Run(float (&d)[4], uint64_t a, uint64_t b, bool accumulate) {
    PRISM_WGMMA("8", PRISM_SUMS_4, PRISM_OPERANDS_4(d, 0), "%4, %5", "%6");
  }
};

template <>
struct Wgmma<16> {
  static __device__ __forceinline__ void Run(float (&d)[8], uint64_t a, uint64_t b, bool accumulate) {
    PRISM_WGMMA("16", PRISM_SUMS_8, PRISM_OPERANDS_8(d, 0), "%8, %9", "%10");
  }
};

template <>
struct Wgmma<32> {
  static __device__ __forceinline__ void Run(float (&d)[16], uint64_t a, uint64_t b, bool accumulate) {
    PRISM_WGMMA("32", PRISM_SUMS_16, PRISM_OPERANDS_16(d, 0), "%16, %17", "%18");
  }
};

template <>
struct Wgmma<64> {
  static __device__ __forceinline__ void Run(float (&d)[32], uint64_t a, uint64_t b, bool accumulate) {
    PRISM_WGMMA("64", PRISM_SUMS_32, PRISM_OPERANDS_32(d, 0), "%32, %33", "%34");
  }
  static __device__ __forceinline__ void Add(float (&d)[32], const uint32_t (&a)[4], uint64_t b) {
    PRISM_WGMMA_REGISTERS("64", PRISM_SUMS_32, PRISM_OPERANDS_32(d, 0), "%32, %33, %34, %35", "%36");
  }
};

template <>
struct Wgmma<72> {
  static __device__ __forceinline__ void Add(float (&d)[36], const uint32_t (&a)[4], uint64_t b) {
    PRISM_WGMMA_REGISTERS("72", PRISM_SUMS_36, PRISM_OPERANDS_36(d, 0), "%36, %37, %38, %39", "%40");
  }
};

template <>
struct Wgmma<128> {
  static __device__ __forceinline__ void Run(float (&d)[64], uint64_t a, uint64_t b, bool accumulate) {
    PRISM_WGMMA("128", PRISM_SUMS_64, PRISM_OPERANDS_64(d, 0), "%64, %65", "%66");
  }
  static __device__ __forceinline__ void Add(float (&d)[64], const uint32_t (&a)[4], uint64_t b) {
    PRISM_WGMMA_REGISTERS("128", PRISM_SUMS_64, PRISM_OPERANDS_64(d, 0), "%64, %65, %66, %67", "%68");
  }
};

template <>
struct Wgmma<256> {
  static __device__ __forceinline__ void Run(float (&d)[128], uint64_t a, uint64_t b, bool accumulate) {
    PRISM_WGMMA("256", PRISM_SUMS_128, PRISM_OPERANDS_128(d, 0), "%128, %129", "%130");
  }
};

#undef PRISM_WGMMA
#undef PRISM_WGMMA_REGISTERS
#undef PRISM_SUMS_4
#undef PRISM_SUMS_8
#undef PRISM_SUMS_16
#undef PRISM_SUMS_32
#undef PRISM_SUMS_36
#undef PRISM_SUMS_64
#undef PRISM_SUMS_128
#undef PRISM_OPERANDS_4
#undef PRISM_OPERANDS_8
#undef PRISM_OPERANDS_16
#undef PRISM_OPERANDS_32
#undef PRISM_OPERANDS_36
#undef PRISM_OPERANDS_64
#undef PRISM_OPERANDS_128

// Orders this warpgroup's registers and shared memory before its next wgmma.
__device__ __forceinline__ void WgmmaFence() { asm volatile("wgmma.fence.sync.aligned;\n" ::: "memory"); }
__device__ __forceinline__ void WgmmaCommit() {
  asm volatile("wgmma.commit_group.sync.aligned;\n" ::: "memory");
}
// Waits until at most kPending committed groups are unfinished.
template <int kPending>
__device__ __forceinline__ void WgmmaWait() {
  asm volatile("wgmma.wait_group.sync.aligned %0;\n" ::"n"(kPending) : "memory");
}

// Keeps the compiler from touching sums before the wait that stands ahead of this.
template <int kCount>
__device__ __forceinline__ void WgmmaHold(float (&d)[kCount]) {
#pragma unroll
  for (int i = 0; i < kCount; ++i) asm volatile("" : "+f"(d[i])::"memory");
}

// The descriptor of a matrix in shared memory without swizzle: groups of 8 rows of 16 bytes lie side by side
// (128 bytes). `leading` and `stride` are the bytes between groups:
//   k side by side in a row:        leading from 8 of k to the next, stride from 8 rows to the next
//   columns side by side in a row:  leading from 8 of k to the next, stride from 8 columns to the next
__device__ __forceinline__ uint64_t MatrixDescriptor(uint32_t address, uint32_t leading, uint32_t stride) {
  return static_cast<uint64_t>((address & 0x3FFFF) >> 4) | static_cast<uint64_t>(leading >> 4) << 16 |
         static_cast<uint64_t>(stride >> 4) << 32;
}
// The same matrix some bytes further on.
__device__ __forceinline__ uint64_t Further(uint64_t descriptor, uint32_t bytes) {
  return descriptor + (bytes >> 4);
}

// The descriptor of rows of 64 k (128 bytes) in the 128-byte swizzle, 1024 bytes from eight rows to the next
// eight. `address` is in shared memory: that of the tile, a multiple of 1024, plus 32 bytes for each unit of
// 16 k into it.
__device__ __forceinline__ uint64_t SwizzledDescriptor(uint32_t address) {
  constexpr uint64_t kSwizzle128 = uint64_t{1} << 62;
  constexpr uint32_t kLeading = 16;  // not used by this layout
  return kSwizzle128 | MatrixDescriptor(address, kLeading, 1024);
}

}  // namespace prism::cuda
