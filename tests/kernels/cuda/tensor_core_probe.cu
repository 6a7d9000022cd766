#include <cuda_runtime.h>

#include "kernels/cuda/detail/mma.cuh"
#include "kernels/cuda/detail/wgmma.cuh"
#include "tests/kernels/cuda/tensor_core_probe.h"

namespace prism::cuda {
namespace {

constexpr int kBlockK = 64;

struct ProbeParams {
  const uint16_t* a;
  const uint16_t* b;
  const float* c;  // nullptr: nothing
  float* d;
  int columns;
  int units;
};

__device__ uint32_t TwoNeighbours(const uint16_t* row, int k) {
  return *reinterpret_cast<const uint32_t*>(row + k);
}

// Grid: [problems]. One warp, one tile of 16 x 8 after the other.
__global__ void mma_sync_probe_kernel(const __grid_constant__ ProbeParams p) {
  const uint16_t* a = p.a + int64_t{blockIdx.x} * kProbeRows * kBlockK;
  const uint16_t* b = p.b + int64_t{blockIdx.x} * p.columns * kBlockK;
  const int64_t first = int64_t{blockIdx.x} * kProbeRows * p.columns;
  const int g = threadIdx.x / 4, t = threadIdx.x % 4;
  for (int m = 0; m < kProbeRows; m += 16) {
    for (int n = 0; n < p.columns; n += 8) {
      const int64_t at[2] = {first + int64_t{m + g} * p.columns + n + 2 * t,
                             first + int64_t{m + g + 8} * p.columns + n + 2 * t};
      float d[4] = {};
      if (p.c != nullptr) {
        for (int i = 0; i < 4; ++i) d[i] = p.c[at[i / 2] + i % 2];
      }
      for (int k = 0; k < 16 * p.units; k += 16) {
        const uint16_t* low = a + (m + g) * kBlockK + k;
        const uint16_t* high = low + 8 * kBlockK;
        const uint16_t* column = b + (n + g) * kBlockK + k;
        const uint32_t fa[4] = {TwoNeighbours(low, 2 * t), TwoNeighbours(high, 2 * t),
                                TwoNeighbours(low, 2 * t + 8), TwoNeighbours(high, 2 * t + 8)};
        const uint32_t fb[2] = {TwoNeighbours(column, 2 * t), TwoNeighbours(column, 2 * t + 8)};
        Mma16x8x16(d, fa, fb);
      }
      for (int i = 0; i < 4; ++i) p.d[at[i / 2] + i % 2] = d[i];
    }
  }
}

// Rows of 64 k from global memory into the 128-byte swizzle.
[[maybe_unused]] __device__ void LoadSwizzled(const uint16_t* rows, int count, char* to) {
  for (int i = threadIdx.x; i < count * 8; i += blockDim.x) {
    const int row = i / 8, chunk = i % 8;
    *reinterpret_cast<uint4*>(to + row * 128 + ((chunk ^ (row % 8)) * 16)) =
        *reinterpret_cast<const uint4*>(rows + row * kBlockK + chunk * 8);
  }
}

// Grid: [problems]. One warpgroup.
template <int kColumns>
__global__ void __launch_bounds__(128) sm90_wgmma_probe_kernel(const __grid_constant__ ProbeParams p) {
#ifdef __CUDA_ARCH_FEAT_SM90_ALL
  extern __shared__ __align__(1024) char shared[];
  char* a = shared;
  char* b = shared + kProbeRows * 128;
  LoadSwizzled(p.a + int64_t{blockIdx.x} * kProbeRows * kBlockK, kProbeRows, a);
  LoadSwizzled(p.b + int64_t{blockIdx.x} * kColumns * kBlockK, kColumns, b);
  asm volatile("fence.proxy.async.shared::cta;\n" ::: "memory");
  __syncthreads();

  const int w = threadIdx.x / 32, g = threadIdx.x % 32 / 4, t = threadIdx.x % 4;
  const int64_t first = int64_t{blockIdx.x} * kProbeRows * kColumns;
  float d[kColumns / 2];
#pragma unroll
  for (int i = 0; i < kColumns / 2; ++i) {
    const int row = 16 * w + g + 8 * (i / 2 % 2), column = 8 * (i / 4) + 2 * t + i % 2;
    d[i] = p.c != nullptr ? p.c[first + row * kColumns + column] : 1e30f;
  }
  const uint32_t a_address = static_cast<uint32_t>(__cvta_generic_to_shared(a));
  const uint32_t b_address = static_cast<uint32_t>(__cvta_generic_to_shared(b));
  for (int unit = 0; unit < p.units; ++unit) {
    WgmmaFence();
    Wgmma<kColumns>::Run(d, SwizzledDescriptor(a_address + 32 * unit),
                         SwizzledDescriptor(b_address + 32 * unit), p.c != nullptr || unit > 0);
  }
  WgmmaCommit();
  WgmmaWait<0>();
#pragma unroll
  for (int i = 0; i < kColumns / 2; ++i) {
    const int row = 16 * w + g + 8 * (i / 2 % 2), column = 8 * (i / 4) + 2 * t + i % 2;
    p.d[first + row * kColumns + column] = d[i];
  }
#else
  __trap();  // RunWgmma() takes this kernel on Hopper alone
#endif
}

using Kernel = void (*)(const ProbeParams);

Kernel WgmmaKernel(int columns) {
  switch (columns) {
    case 8:
      return sm90_wgmma_probe_kernel<8>;
    case 16:
      return sm90_wgmma_probe_kernel<16>;
    case 32:
      return sm90_wgmma_probe_kernel<32>;
    case 64:
      return sm90_wgmma_probe_kernel<64>;
    case 128:
      return sm90_wgmma_probe_kernel<128>;
    case 256:
      return sm90_wgmma_probe_kernel<256>;
    default:
      return nullptr;
  }
}

template <typename T>
T* ToDevice(const std::vector<T>& values) {
  T* device = nullptr;
  if (values.empty() || cudaMalloc(&device, values.size() * sizeof(T)) != cudaSuccess) return nullptr;
  cudaMemcpy(device, values.data(), values.size() * sizeof(T), cudaMemcpyHostToDevice);
  return device;
}

std::vector<float> Run(const ProbeBatch& batch, Kernel kernel, int threads, int shared_bytes) {
  int devices = 0;
  if (kernel == nullptr || cudaGetDeviceCount(&devices) != cudaSuccess || devices == 0) return {};
  std::vector<float> d(static_cast<size_t>(batch.problems) * kProbeRows * static_cast<size_t>(batch.columns));
  uint16_t* a = ToDevice(batch.a);
  uint16_t* b = ToDevice(batch.b);
  float* c = ToDevice(batch.c);
  float* out = ToDevice(d);
  const ProbeParams params = {a, b, c, out, batch.columns, batch.units};
  cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, shared_bytes);
  kernel<<<static_cast<unsigned>(batch.problems), static_cast<unsigned>(threads),
           static_cast<size_t>(shared_bytes)>>>(params);
  const bool ran =
      cudaMemcpy(d.data(), out, d.size() * sizeof(float), cudaMemcpyDeviceToHost) == cudaSuccess &&
      cudaGetLastError() == cudaSuccess;
  for (void* memory :
       {static_cast<void*>(a), static_cast<void*>(b), static_cast<void*>(c), static_cast<void*>(out)}) {
    cudaFree(memory);
  }
  return ran ? d : std::vector<float>();
}

}  // namespace

std::vector<float> RunMmaSync(const ProbeBatch& batch) { return Run(batch, mma_sync_probe_kernel, 32, 0); }

std::vector<float> RunWgmma(const ProbeBatch& batch) {
  int major = 0;
  if (cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, 0) != cudaSuccess || major != 9)
    return {};
  return Run(batch, WgmmaKernel(batch.columns), 128, (kProbeRows + batch.columns) * 128);
}

}  // namespace prism::cuda
