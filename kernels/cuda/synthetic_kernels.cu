#include "kernels/cuda/synthetic_kernels.h"

namespace prism::cuda {
namespace {

constexpr int kThreads = 256;
constexpr int kBlocksPerMultiprocessor = 8;

// common/tensor/synthetic_fill.h, with every operation rounded on its own.
__device__ __forceinline__ uint32_t ElementBits(uint64_t x, double mean, double amplitude) {
  x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9ull;
  x = (x ^ (x >> 27)) * 0x94D049BB133111EBull;
  x ^= x >> 31;
  // u / 2^23 - 1 is exact: 24 bits and a power of two.
  const double centred = static_cast<double>(static_cast<int32_t>(x >> 40)) * 0x1p-23 - 1.0;
  const double value = __dadd_rn(mean, __dmul_rn(amplitude, centred));
  const uint32_t bits = __float_as_uint(__double2float_rn(value));
  return (bits + 0x7FFFu + ((bits >> 16) & 1u)) >> 16;
}

// Grid: any; a thread makes kWidth neighbouring elements of a row at a time.
template <int kWidth>
__global__ void __launch_bounds__(kThreads) synthetic_fill_kernel(const __grid_constant__ SyntheticParams p) {
  const int64_t per_row = p.columns / kWidth;
  const int64_t total = p.rows * per_row;
  for (int64_t i = int64_t{blockIdx.x} * kThreads + threadIdx.x; i < total;
       i += int64_t{gridDim.x} * kThreads) {
    const int64_t row = i / per_row;
    const int64_t column = (i - row * per_row) * kWidth;
    uint64_t state =
        p.state + static_cast<uint64_t>(row) * p.row_step + static_cast<uint64_t>(column) * p.column_step;
    if constexpr (kWidth == 8) {
      uint32_t words[4];
#pragma unroll
      for (int j = 0; j < 4; ++j) {
        const uint32_t low = ElementBits(state, p.mean, p.amplitude);
        const uint32_t high = ElementBits(state + p.column_step, p.mean, p.amplitude);
        words[j] = low | (high << 16);
        state += 2 * p.column_step;
      }
      *reinterpret_cast<uint4*>(p.out + row * p.columns + column) =
          make_uint4(words[0], words[1], words[2], words[3]);
    } else {
      p.out[row * p.columns + column] = static_cast<uint16_t>(ElementBits(state, p.mean, p.amplitude));
    }
  }
}

}  // namespace

cudaError_t LaunchSyntheticFill(const SyntheticParams& params, int num_multiprocessors, cudaStream_t stream) {
  const bool wide = params.columns % 8 == 0 && reinterpret_cast<uintptr_t>(params.out) % 16 == 0;
  const int64_t pieces = params.rows * params.columns / (wide ? 8 : 1);
  if (pieces == 0) return cudaSuccess;
  const int64_t blocks_wanted = (pieces + kThreads - 1) / kThreads;
  const int64_t blocks_max = int64_t{num_multiprocessors} * kBlocksPerMultiprocessor;
  const auto blocks = static_cast<unsigned>(blocks_wanted < blocks_max ? blocks_wanted : blocks_max);
  if (wide) {
    synthetic_fill_kernel<8><<<blocks, kThreads, 0, stream>>>(params);
  } else {
    synthetic_fill_kernel<1><<<blocks, kThreads, 0, stream>>>(params);
  }
  return cudaGetLastError();
}

}  // namespace prism::cuda
