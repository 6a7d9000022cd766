// Rotary tables, the rotation, and AttentionPrepare: norms of q and k, their rotation and the write
// of keys and values in one pass with one rounding.
#include "kernels/cuda/attention/order.cuh"
#include "kernels/cuda/norm/norm.h"
#include "kernels/cuda/norm/order.cuh"

namespace prism::cuda {
namespace {

constexpr int kThreads = 256;
constexpr int kWarps = kThreads / 32;

__device__ __forceinline__ float2 Widened(uint32_t pair) {
  return __bfloat1622float2(*reinterpret_cast<const __nv_bfloat162*>(&pair));
}
__device__ __forceinline__ uint32_t Rounded(float low, float high) {
  const __nv_bfloat162 pair = __floats2bfloat162_rn(low, high);
  return *reinterpret_cast<const uint32_t*>(&pair);
}

// Grid: [T D / threads]. One thread makes one angle: rounded to float32 as the reference model has
// it, its sine and cosine in double precision.
__global__ void __launch_bounds__(kThreads) rope_table_kernel(const __grid_constant__ RopeTableParams p) {
  const int64_t index = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x;
  if (index >= static_cast<int64_t>(p.num_rows) * p.num_angles) return;
  const int row = static_cast<int>(index / p.num_angles);
  const int i = static_cast<int>(index % p.num_angles);
  const int axis = min(max(p.axis[i], 0), p.num_axes - 1);
  const float position = static_cast<float>(p.positions[static_cast<int64_t>(axis) * p.num_rows + row]);
  double sine, cosine;
  sincos(static_cast<double>(__fmul_rn(position, p.frequency[i])), &sine, &cosine);
  p.cos[index] = static_cast<float>(cosine);
  p.sin[index] = static_cast<float>(sine);
}

// Grid: [T heads half / 4 / threads]. One thread rotates four neighbours and their four partners.
__global__ void __launch_bounds__(kThreads) rope_apply_kernel(const __grid_constant__ RopeApplyParams p) {
  const int quads = p.half / 4;
  const int per_row = p.num_heads * quads;
  const int64_t index = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x;
  if (index >= static_cast<int64_t>(p.num_rows) * per_row) return;
  const int64_t row = index / per_row;
  const int rest = static_cast<int>(index % per_row);
  const int m = rest % quads * 4;
  __nv_bfloat16* low = p.x + row * p.columns + static_cast<int64_t>(rest / quads) * 2 * p.half + m;
  uint2* low_pairs = reinterpret_cast<uint2*>(low);
  uint2* high_pairs = reinterpret_cast<uint2*>(low + p.half);
  const uint2 a = *low_pairs;
  const uint2 b = *high_pairs;
  const float4 cos = *reinterpret_cast<const float4*>(p.cos + row * p.half + m);
  const float4 sin = *reinterpret_cast<const float4*>(p.sin + row * p.half + m);
  const float2 a0 = Widened(a.x), a1 = Widened(a.y), b0 = Widened(b.x), b1 = Widened(b.y);
  *low_pairs =
      make_uint2(Rounded(RotatedLow(a0.x, b0.x, cos.x, sin.x), RotatedLow(a0.y, b0.y, cos.y, sin.y)),
                 Rounded(RotatedLow(a1.x, b1.x, cos.z, sin.z), RotatedLow(a1.y, b1.y, cos.w, sin.w)));
  *high_pairs =
      make_uint2(Rounded(RotatedHigh(a0.x, b0.x, cos.x, sin.x), RotatedHigh(a0.y, b0.y, cos.y, sin.y)),
                 Rounded(RotatedHigh(a1.x, b1.x, cos.z, sin.z), RotatedHigh(a1.y, b1.y, cos.w, sin.w)));
}

// Grid: [T (heads + 2 G) / warps]. One warp prepares one head of q, of k or of v; kPairs pairs of
// elements of each half a lane.
template <int kPairs>
__global__ void __launch_bounds__(kThreads)
    attention_prepare_kernel(const __grid_constant__ AttentionPrepareParams p) {
  const int heads = p.num_heads + 2 * p.num_kv_heads;
  const int64_t index = static_cast<int64_t>(blockIdx.x) * kWarps + threadIdx.x / 32;
  if (index >= static_cast<int64_t>(p.num_rows) * heads) return;
  const int64_t row = index / heads;
  const int head = static_cast<int>(index % heads);
  const int lane = threadIdx.x % 32;
  const int half = p.head_size / 2;
  uint32_t* low_pairs = reinterpret_cast<uint32_t*>(p.qkv + row * p.columns + head * p.head_size);
  uint32_t* high_pairs = low_pairs + half / 2;
  uint32_t low[kPairs], high[kPairs];
#pragma unroll
  for (int i = 0; i < kPairs; ++i) {
    const int pair = i * 32 + lane;
    low[i] = 2 * pair < half ? low_pairs[pair] : 0u;
    high[i] = 2 * pair < half ? high_pairs[pair] : 0u;
  }
  // Where the head's elements go to: pairs of q stay, those of k and v go to the page.
  const bool is_query = head < p.num_heads;
  const bool is_value = head >= p.num_heads + p.num_kv_heads;
  const int slot = is_query ? 0 : p.slots[row];
  if (slot < 0) return;
  __nv_bfloat16* page = nullptr;
  if (!is_query) {
    const int kv_head = head - p.num_heads - (is_value ? p.num_kv_heads : 0);
    page = (is_value ? p.v : p.k) +
           (static_cast<int64_t>(slot / kTile) * p.num_kv_heads + kv_head) * kTile * p.head_size;
  }
  if (!is_value) {
    const float* weight = is_query ? p.q_weight : p.k_weight;
    float sum = 0.0f;
#pragma unroll
    for (int i = 0; i < kPairs; ++i) {
      const float2 a = Widened(low[i]), b = Widened(high[i]);
      sum = AddSquare(AddSquare(AddSquare(AddSquare(sum, a.x), a.y), b.x), b.y);
    }
    const float scale = InverseRoot(WarpTree(sum), p.head_size, p.epsilon);
#pragma unroll
    for (int i = 0; i < kPairs; ++i) {
      const int m = 2 * (i * 32 + lane);
      if (m >= half) break;
      const float2 cos = *reinterpret_cast<const float2*>(p.cos + row * half + m);
      const float2 sin = *reinterpret_cast<const float2*>(p.sin + row * half + m);
      const float2 low_weight = *reinterpret_cast<const float2*>(weight + m);
      const float2 high_weight = *reinterpret_cast<const float2*>(weight + half + m);
      const float2 a = Widened(low[i]), b = Widened(high[i]);
      const float a0 = RmsScaled(a.x, scale, low_weight.x), a1 = RmsScaled(a.y, scale, low_weight.y);
      const float b0 = RmsScaled(b.x, scale, high_weight.x), b1 = RmsScaled(b.y, scale, high_weight.y);
      low[i] = Rounded(RotatedLow(a0, b0, cos.x, sin.x), RotatedLow(a1, b1, cos.y, sin.y));
      high[i] = Rounded(RotatedHigh(a0, b0, cos.x, sin.x), RotatedHigh(a1, b1, cos.y, sin.y));
    }
  }
#pragma unroll
  for (int i = 0; i < kPairs; ++i) {
    const int pair = i * 32 + lane;
    if (2 * pair >= half) break;
    if (is_query) {
      low_pairs[pair] = low[i];
      high_pairs[pair] = high[i];
    } else {
      *reinterpret_cast<uint32_t*>(page + PageOffset(slot % kTile, 2 * pair)) = low[i];
      *reinterpret_cast<uint32_t*>(page + PageOffset(slot % kTile, 2 * pair + half)) = high[i];
    }
  }
}

unsigned int Blocks(int64_t count, int64_t each) {
  return static_cast<unsigned int>((count + each - 1) / each);
}

}  // namespace

cudaError_t LaunchRopeTable(const RopeTableParams& params, cudaStream_t stream) {
  const int64_t count = static_cast<int64_t>(params.num_rows) * params.num_angles;
  if (count == 0) return cudaSuccess;
  rope_table_kernel<<<Blocks(count, kThreads), kThreads, 0, stream>>>(params);
  return cudaGetLastError();
}

cudaError_t LaunchRopeApply(const RopeApplyParams& params, cudaStream_t stream) {
  const int64_t count = static_cast<int64_t>(params.num_rows) * params.num_heads * (params.half / 4);
  const bool aligned =
      params.half % 4 == 0 && params.columns % 4 == 0 && reinterpret_cast<uintptr_t>(params.x) % 8 == 0;
  if (!aligned) return reference::LaunchRopeApply(params, stream);
  if (count == 0) return cudaSuccess;
  rope_apply_kernel<<<Blocks(count, kThreads), kThreads, 0, stream>>>(params);
  return cudaGetLastError();
}

cudaError_t LaunchAttentionPrepare(const AttentionPrepareParams& params, cudaStream_t stream) {
  const int64_t count = static_cast<int64_t>(params.num_rows) * (params.num_heads + 2 * params.num_kv_heads);
  if (count == 0) return cudaSuccess;
  if (params.head_size <= 128) {
    attention_prepare_kernel<1><<<Blocks(count, kWarps), kThreads, 0, stream>>>(params);
  } else {
    attention_prepare_kernel<2><<<Blocks(count, kWarps), kThreads, 0, stream>>>(params);
  }
  return cudaGetLastError();
}

}  // namespace prism::cuda
