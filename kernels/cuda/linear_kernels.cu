#include <cuda_bf16.h>

#include "kernels/cuda/detail/matmul_forms.h"
#include "kernels/cuda/linear_kernels.h"
#include "kernels/cuda/probe_kernel.h"
#include "kernels/cuda/reference/reference_matmul.h"

namespace prism::cuda {
namespace {

constexpr int kPackThreads = 256;
constexpr int64_t kPackBlocksMax = 8192;
// The tiles of 128 x 128 of a layer.
int64_t Tiles(const LinearParams& params) {
  constexpr int64_t kTile = 128;
  return (params.weight.out_features + kTile - 1) / kTile * ((params.rows + kTile - 1) / kTile);
}

// Streaming wins while a row's products are few, and where large tiles would leave most of the device idle.
bool IsFew(const LinearParams& params) {
  const int64_t tiles = Tiles(params);
  if (params.rows <= 8) return true;
  if (params.rows <= 32) return tiles < 1024;
  if (params.rows <= 64) return tiles < 132;
  return tiles <= 32;
}

// Tiles of 256 x 256 pay once there are enough of them for most of the device.
bool IsChain(const LinearParams& params) {
  constexpr int64_t kChainRows = 1024;
  return params.rows >= kChainRows && HasChainKernel(params);
}

struct PackParams {
  const void* rows;
  uint4* packed;
  int* inexact;
  int64_t features;
  int64_t columns;
  int64_t chunks;  // of 8 k, in all of `packed`
  int leaves;
  int leaf_width;
  int leaf_blocks;
};

// Grid: any; a thread writes chunks a grid apart.
template <typename T>
__global__ void __launch_bounds__(kPackThreads) pack_linear_kernel(const __grid_constant__ PackParams p) {
  const int64_t step = int64_t{gridDim.x} * kPackThreads;
  for (int64_t i = int64_t{blockIdx.x} * kPackThreads + threadIdx.x; i < p.chunks; i += step) {
    const int row = static_cast<int>(i / 8 % kBlockRows);
    const int64_t block = i / (8 * kBlockRows);
    const int leaf = static_cast<int>(block / p.leaf_blocks % p.leaves);
    const int64_t n = block / (int64_t{p.leaf_blocks} * p.leaves) * kBlockRows + row;
    const int k = static_cast<int>(block % p.leaf_blocks) * kBlockK + static_cast<int>(i % 8 ^ row % 8) * 8;
    alignas(16) __nv_bfloat16 values[8];
    for (int j = 0; j < 8; ++j) {
      const int64_t column = int64_t{leaf} * p.leaf_width + k + j;
      const bool inside = n < p.features && k + j < p.leaf_width && column < p.columns;
      const T value = inside ? static_cast<const T*>(p.rows)[n * p.columns + column] : T(0.0f);
      values[j] = __nv_bfloat16(value);
      if (sizeof(T) == 4 && static_cast<float>(values[j]) != static_cast<float>(value)) *p.inexact = 1;
    }
    p.packed[i] = *reinterpret_cast<const uint4*>(values);
  }
}

bool RowsAligned(const void* x, int64_t columns) {
  return columns % 8 == 0 && reinterpret_cast<uintptr_t>(x) % 16 == 0;
}

}  // namespace

cudaError_t LaunchPackLinear(const void* rows, bool f32, const PackedWeight& weight, int* inexact,
                             cudaStream_t stream) {
  const PackParams p = {.rows = rows,
                        .packed = static_cast<uint4*>(const_cast<void*>(weight.data)),
                        .inexact = inexact,
                        .features = weight.out_features,
                        .columns = weight.in_features,
                        .chunks = weight.size_bytes() / 16,
                        .leaves = weight.leaves,
                        .leaf_width = weight.leaf_width,
                        .leaf_blocks = weight.leaf_blocks()};
  if (p.chunks == 0) return cudaSuccess;
  const int64_t blocks = (p.chunks + kPackThreads - 1) / kPackThreads;
  const unsigned grid = static_cast<unsigned>(blocks < kPackBlocksMax ? blocks : kPackBlocksMax);
  if (f32) {
    pack_linear_kernel<float><<<grid, kPackThreads, 0, stream>>>(p);
  } else {
    pack_linear_kernel<__nv_bfloat16><<<grid, kPackThreads, 0, stream>>>(p);
  }
  return cudaGetLastError();
}

bool CanRun(const LinearParams& params, LinearForm form) {
  if (form == LinearForm::kReference || form == LinearForm::kAuto) return true;
  if (form == LinearForm::kChain && !HasChainKernel(params)) return false;
  return RunsHopperCode() && RowsAligned(params.x, params.weight.in_features);
}

cudaError_t LaunchLinear(const LinearParams& params, LinearForm form, cudaStream_t stream) {
  if (params.rows == 0 || params.weight.out_features == 0) return cudaSuccess;
  if (form == LinearForm::kAuto) {
    form = !CanRun(params, LinearForm::kFew) ? LinearForm::kReference
           : IsChain(params)                 ? LinearForm::kChain
           : IsFew(params)                   ? LinearForm::kFew
                                             : LinearForm::kMany;
  }
  switch (form) {
    case LinearForm::kFew:
      return LaunchFewRows(params, stream);
    case LinearForm::kMany:
      return LaunchManyRows(params, stream);
    case LinearForm::kChain:
      return LaunchChain(params, stream);
    default:
      return reference::LaunchLinear(params, stream);
  }
}

bool CanRun(const ExpertsParams& params, LinearForm form) {
  if (form == LinearForm::kReference || form == LinearForm::kAuto) return true;
  if (!RunsHopperCode() || !RowsAligned(params.x, params.gate_up->shape.in_features)) return false;
  const int64_t inner = params.down->shape.in_features;
  return form == LinearForm::kFew ? inner % kBlockRows == 0 : inner % 8 == 0;
}

}  // namespace prism::cuda
