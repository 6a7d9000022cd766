// RmsNorm and LayerNorm at the speed of memory: a block of 128 threads keeps a row in registers.
#include "kernels/cuda/detail/launch.cuh"
#include "kernels/cuda/detail/pipeline.cuh"
#include "kernels/cuda/norm/norm.h"
#include "kernels/cuda/norm/order.cuh"

namespace prism::cuda {
namespace {

// Adds the lanes of a row; every thread gets the sum. `s` is used by this sum alone.
__device__ __forceinline__ float BlockTree(float sum, float (&s)[kNormGroups]) {
  sum = LaneTree<32>(sum);
  if (threadIdx.x % 32 == 0) s[threadIdx.x / 32] = sum;
  __syncthreads();
  return GroupTree(s);
}

__device__ __forceinline__ void StoreVector(const RowsOut& y, int64_t index, const float (&v)[kNormVector]) {
  if (y.bf16 != nullptr) {
    const __nv_bfloat162 low = __floats2bfloat162_rn(v[0], v[1]);
    const __nv_bfloat162 high = __floats2bfloat162_rn(v[2], v[3]);
    uint2 packed;
    packed.x = *reinterpret_cast<const uint32_t*>(&low);
    packed.y = *reinterpret_cast<const uint32_t*>(&high);
    *reinterpret_cast<uint2*>(y.bf16 + index) = packed;
  } else {
    *reinterpret_cast<float4*>(y.f32 + index) = make_float4(v[0], v[1], v[2], v[3]);
  }
}

// Grid: [T]. One block normalises one row of at most 512 kVectors columns, a multiple of 4.
template <int kVectors, bool kLayer>
__global__ void __launch_bounds__(kNormLanes) norm_kernel(const __grid_constant__ NormParams p) {
  __shared__ float sums[2][kNormGroups];
  LetNextStart();
  WaitForEarlier();
  const int64_t row = static_cast<int64_t>(blockIdx.x) * p.columns;
  float x[kVectors][kNormVector];
#pragma unroll
  for (int i = 0; i < kVectors; ++i) {
    const int c = (i * kNormLanes + static_cast<int>(threadIdx.x)) * kNormVector;
    if (c >= p.columns) break;
    float4 v = *reinterpret_cast<const float4*>(p.x + row + c);
    if (p.add != nullptr) {
      const float4 term = *reinterpret_cast<const float4*>(p.add + row + c);
      v = make_float4(__fadd_rn(v.x, term.x), __fadd_rn(v.y, term.y), __fadd_rn(v.z, term.z),
                      __fadd_rn(v.w, term.w));
      *reinterpret_cast<float4*>(p.x + row + c) = v;
    }
    x[i][0] = v.x;
    x[i][1] = v.y;
    x[i][2] = v.z;
    x[i][3] = v.w;
  }
  // The sum of add(sum, x) over the row.
  const auto row_sum = [&](float(&s)[kNormGroups], const auto& add) {
    float sum = 0.0f;
#pragma unroll
    for (int i = 0; i < kVectors; ++i) {
      if ((i * kNormLanes + static_cast<int>(threadIdx.x)) * kNormVector >= p.columns) break;
#pragma unroll
      for (int j = 0; j < kNormVector; ++j) sum = add(sum, x[i][j]);
    }
    return BlockTree(sum, s);
  };
  float mean = 0.0f;
  float scale;
  if constexpr (kLayer) {
    mean = __fdiv_rn(row_sum(sums[0], [](float s, float v) { return __fadd_rn(s, v); }),
                     static_cast<float>(p.columns));
    const float sum = row_sum(sums[1], [mean](float s, float v) { return AddSquaredDeviation(s, v, mean); });
    scale = InverseRoot(sum, p.columns, p.epsilon);
  } else {
    scale =
        InverseRoot(row_sum(sums[0], [](float s, float v) { return AddSquare(s, v); }), p.columns, p.epsilon);
  }
#pragma unroll
  for (int i = 0; i < kVectors; ++i) {
    const int c = (i * kNormLanes + static_cast<int>(threadIdx.x)) * kNormVector;
    if (c >= p.columns) break;
    const float4 w = *reinterpret_cast<const float4*>(p.weight + c);
    float v[kNormVector];
    if constexpr (kLayer) {
      const float4 b = *reinterpret_cast<const float4*>(p.bias + c);
      v[0] = LayerScaled(x[i][0], mean, scale, w.x, b.x);
      v[1] = LayerScaled(x[i][1], mean, scale, w.y, b.y);
      v[2] = LayerScaled(x[i][2], mean, scale, w.z, b.z);
      v[3] = LayerScaled(x[i][3], mean, scale, w.w, b.w);
    } else {
      v[0] = RmsScaled(x[i][0], scale, w.x);
      v[1] = RmsScaled(x[i][1], scale, w.y);
      v[2] = RmsScaled(x[i][2], scale, w.z);
      v[3] = RmsScaled(x[i][3], scale, w.w);
    }
    StoreVector(p.y, row + c, v);
  }
}

template <bool kLayer>
cudaError_t Launch(const NormParams& params, cudaStream_t stream) {
  if (params.num_rows == 0) return cudaSuccess;
  const int vectors = (params.columns + kNormLanes * kNormVector - 1) / (kNormLanes * kNormVector);
  const bool aligned = IsAligned(params.x, 16) && IsAligned(params.weight, 16) &&
                       (!kLayer || IsAligned(params.bias, 16)) && IsAligned(params.y.bf16, 8) &&
                       IsAligned(params.y.f32, 16) && IsAligned(params.add, 16);
  if (params.columns % kNormVector != 0 || vectors > 16 || !aligned) {
    return kLayer ? reference::LaunchLayerNorm(params, stream) : reference::LaunchRmsNorm(params, stream);
  }
  const dim3 grid(static_cast<unsigned>(params.num_rows));
  const auto launch = [&](auto kernel) { return LaunchAfter(kernel, grid, kNormLanes, 0, stream, params); };
  if (vectors == 1) return launch(norm_kernel<1, kLayer>);
  if (vectors == 2) return launch(norm_kernel<2, kLayer>);
  if (vectors == 3) return launch(norm_kernel<3, kLayer>);
  if (vectors == 4) return launch(norm_kernel<4, kLayer>);
  if (vectors <= 8) return launch(norm_kernel<8, kLayer>);
  return launch(norm_kernel<16, kLayer>);
}

}  // namespace

cudaError_t LaunchRmsNorm(const NormParams& params, cudaStream_t stream) {
  return Launch<false>(params, stream);
}
cudaError_t LaunchLayerNorm(const NormParams& params, cudaStream_t stream) {
  return Launch<true>(params, stream);
}

}  // namespace prism::cuda
