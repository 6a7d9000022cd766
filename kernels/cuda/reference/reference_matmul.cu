#include <cuda_bf16.h>

#include "kernels/cuda/detail/mma.cuh"
#include "kernels/cuda/reference/reference_matmul.h"

namespace prism::cuda::reference {
namespace {

constexpr int kTileFeatures = 16;
constexpr int kGridMax = 65535;

struct MatmulParams {
  const __nv_bfloat16* x;
  const __nv_bfloat16* weight;  // of a layer
  const float* bias;
  void* y;
  bool y_f32;
  bool gather;
  int64_t rows;
  int64_t features;
  int64_t columns;
  int leaves;
  int leaf_width;
  int leaf_blocks;
  ExpertsPlan plan;
};

template <bool kExperts>
struct Pointers {};
template <>
struct Pointers<true> {
  const void* data[kExpertsMax];
};

__device__ uint32_t Pair(__nv_bfloat16 low, __nv_bfloat16 high) {
  return static_cast<uint32_t>(__bfloat16_as_ushort(low)) | static_cast<uint32_t>(__bfloat16_as_ushort(high))
                                                                << 16;
}

// Grid: [feature tiles, row tiles or tasks], a warp each; row tiles past the grid are taken a grid apart.
template <bool kExperts>
__global__ void __launch_bounds__(32) matmul_kernel(const __grid_constant__ MatmulParams p,
                                                    const __grid_constant__ Pointers<kExperts> experts) {
  const int g = threadIdx.x / 4, t = threadIdx.x % 4;
  const int64_t n0 = int64_t{blockIdx.x} * kTileFeatures;
  const int64_t row_tiles = kExperts ? *p.plan.task_count : (p.rows + kTileRows - 1) / kTileRows;
  for (int64_t tile = blockIdx.y; tile < row_tiles; tile += gridDim.y) {
    int64_t first = tile * kTileRows;
    int count = static_cast<int>(min(int64_t{kTileRows}, p.rows - first));
    const __nv_bfloat16* weight = p.weight;
    if constexpr (kExperts) {
      const ExpertTask task = p.plan.tasks[tile];
      first = task.first;
      count = task.count;
      weight = static_cast<const __nv_bfloat16*>(experts.data[task.expert]);
    }
    int64_t x_row = g < count ? first + g : -1;
    if (kExperts && p.gather && x_row >= 0) x_row = p.plan.pair_token[x_row];

    float tree[4] = {}, third[4] = {};
    for (int leaf = 0; leaf < p.leaves; ++leaf) {
      const int64_t begin = int64_t{leaf} * p.leaf_width;
      const auto x_at = [&](int k) {
        return x_row >= 0 && begin + k < p.columns ? p.x[x_row * p.columns + begin + k]
                                                   : __float2bfloat16_rn(0.0f);
      };
      const auto w_at = [&](int row, int k) {
        return *reinterpret_cast<const uint32_t*>(weight +
                                                  PackedIndex(n0 + row, leaf, k, p.leaves, p.leaf_blocks));
      };
      float sum[4] = {};
      for (int k = 0; k < p.leaf_width; k += 16) {
        const uint32_t a[4] = {w_at(g, k + 2 * t), w_at(g + 8, k + 2 * t), w_at(g, k + 2 * t + 8),
                               w_at(g + 8, k + 2 * t + 8)};
        const uint32_t b[2] = {Pair(x_at(k + 2 * t), x_at(k + 2 * t + 1)),
                               Pair(x_at(k + 2 * t + 8), x_at(k + 2 * t + 9))};
        Mma16x8x16(sum, a, b);
      }
      for (int i = 0; i < 4; ++i) {
        if (leaf == 0) tree[i] = sum[i];
        if (leaf == 1) tree[i] = __fadd_rn(tree[i], sum[i]);
        if (leaf == 2) third[i] = sum[i];
        if (leaf == 3) tree[i] = __fadd_rn(tree[i], __fadd_rn(third[i], sum[i]));
      }
    }
    for (int i = 0; i < 4; ++i) {
      const int64_t n = n0 + g + i / 2 * 8;
      const int row = 2 * t + i % 2;
      if (n >= p.features || row >= count) continue;
      float value = tree[i];
      if (p.bias != nullptr) value = __fadd_rn(value, p.bias[n]);
      const int64_t at = (first + row) * p.features + n;
      if (p.y_f32) {
        static_cast<float*>(p.y)[at] = value;
      } else {
        static_cast<__nv_bfloat16*>(p.y)[at] = __float2bfloat16_rn(value);
      }
    }
  }
}

MatmulParams ParamsOf(const PackedWeight& weight) {
  MatmulParams p = {};
  p.features = weight.out_features;
  p.columns = weight.in_features;
  p.leaves = weight.leaves;
  p.leaf_width = weight.leaf_width;
  p.leaf_blocks = weight.leaf_blocks();
  return p;
}

dim3 GridOf(int64_t features, int64_t row_tiles) {
  return dim3(static_cast<unsigned>((features + kTileFeatures - 1) / kTileFeatures),
              static_cast<unsigned>(row_tiles < kGridMax ? row_tiles : kGridMax));
}

}  // namespace

cudaError_t LaunchLinear(const LinearParams& params, cudaStream_t stream) {
  if (params.rows == 0 || params.weight.out_features == 0) return cudaSuccess;
  MatmulParams p = ParamsOf(params.weight);
  p.x = static_cast<const __nv_bfloat16*>(params.x);
  p.weight = static_cast<const __nv_bfloat16*>(params.weight.data);
  p.bias = params.bias;
  p.y = params.y;
  p.y_f32 = params.y_f32;
  p.rows = params.rows;
  matmul_kernel<false><<<GridOf(p.features, (p.rows + kTileRows - 1) / kTileRows), 32, 0, stream>>>(p, {});
  return cudaGetLastError();
}

cudaError_t LaunchExpertsMatmul(const ExpertsMatmul& params, cudaStream_t stream) {
  if (params.tasks_max == 0) return cudaSuccess;
  MatmulParams p = ParamsOf(params.weights->shape);
  p.x = static_cast<const __nv_bfloat16*>(params.x);
  p.gather = params.gather;
  p.y = params.y;
  p.plan = params.plan;
  Pointers<true> pointers;
  for (int i = 0; i < kExpertsMax; ++i) pointers.data[i] = params.weights->data[i];
  matmul_kernel<true><<<GridOf(p.features, params.tasks_max), 32, 0, stream>>>(p, pointers);
  return cudaGetLastError();
}

}  // namespace prism::cuda::reference
