// Rotary tables, the rotation, and AttentionPrepare: norms of q and k, their rotation and the write
// of keys and values in one pass with one rounding.
#include "kernels/cuda/attention/order.cuh"
#include "kernels/cuda/detail/launch.cuh"
#include "kernels/cuda/detail/pipeline.cuh"
#include "kernels/cuda/norm/norm.h"
#include "kernels/cuda/norm/order.cuh"

namespace prism::cuda {
namespace {

constexpr int kThreads = 256;

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
  LetNextStart();
  WaitForEarlier();
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

// The rotation of four neighbours and their partners, rounded.
__device__ __forceinline__ void Rotate(const float (&a)[4], const float (&b)[4], const float4& cos,
                                       const float4& sin, uint2& low, uint2& high) {
  low = make_uint2(Rounded(RotatedLow(a[0], b[0], cos.x, sin.x), RotatedLow(a[1], b[1], cos.y, sin.y)),
                   Rounded(RotatedLow(a[2], b[2], cos.z, sin.z), RotatedLow(a[3], b[3], cos.w, sin.w)));
  high = make_uint2(Rounded(RotatedHigh(a[0], b[0], cos.x, sin.x), RotatedHigh(a[1], b[1], cos.y, sin.y)),
                    Rounded(RotatedHigh(a[2], b[2], cos.z, sin.z), RotatedHigh(a[3], b[3], cos.w, sin.w)));
}

// Grid: [T heads half / 4 / threads]. One thread rotates four neighbours and their four partners.
__global__ void __launch_bounds__(kThreads) rope_apply_kernel(const __grid_constant__ RopeApplyParams p) {
  LetNextStart();
  WaitForEarlier();
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
  Rotate({a0.x, a0.y, a1.x, a1.y}, {b0.x, b0.y, b1.x, b1.y}, cos, sin, *low_pairs, *high_pairs);
}

// Grid: [T (heads + 2 G) 16 / threads]. Half a warp prepares one head of q, of k or of v; a lane has
// kQuads times four neighbours and their partners.
template <int kQuads>
__global__ void __launch_bounds__(kThreads)
    attention_prepare_kernel(const __grid_constant__ AttentionPrepareParams p) {
  LetNextStart();
  WaitForEarlier();
  const uint32_t heads = p.num_heads + 2 * p.num_kv_heads;
  const uint32_t index = (blockIdx.x * kThreads + threadIdx.x) / kHeadLanes;
  const bool exists = index < static_cast<uint32_t>(p.num_rows) * heads;
  const int64_t row = exists ? index / heads : 0;
  const int head = static_cast<int>(index % heads);
  const int lane = threadIdx.x % kHeadLanes;
  const int half = p.head_size / 2;
  __nv_bfloat16* x = p.qkv + row * p.columns + head * p.head_size;
  // Where the head's elements go to: those of q stay, those of k and v go to the page.
  const bool is_query = head < p.num_heads;
  const bool is_value = head >= p.num_heads + p.num_kv_heads;
  const int slot = !exists ? -1 : is_query ? 0 : p.slots[row];
  const bool stores = slot >= 0;
  uint2 low[kQuads], high[kQuads];
  float sum = 0.0f;
#pragma unroll
  for (int i = 0; i < kQuads; ++i) {
    const int m = (i * kHeadLanes + lane) * kNormVector;
    const bool here = stores && m < half;
    low[i] = here ? *reinterpret_cast<const uint2*>(x + m) : make_uint2(0u, 0u);
    high[i] = here ? *reinterpret_cast<const uint2*>(x + half + m) : make_uint2(0u, 0u);
    const float2 a0 = Widened(low[i].x), a1 = Widened(low[i].y);
    const float2 b0 = Widened(high[i].x), b1 = Widened(high[i].y);
    sum = AddSquare(AddSquare(AddSquare(AddSquare(sum, a0.x), a0.y), a1.x), a1.y);
    sum = AddSquare(AddSquare(AddSquare(AddSquare(sum, b0.x), b0.y), b1.x), b1.y);
  }
  const float scale = InverseRoot(LaneTree<kHeadLanes>(sum), p.head_size, p.epsilon);
  if (!stores) return;
  __nv_bfloat16* page = nullptr;
  if (!is_query) {
    const int kv_head = head - p.num_heads - (is_value ? p.num_kv_heads : 0);
    page = (is_value ? p.v : p.k) +
           (static_cast<int64_t>(slot / kTile) * p.num_kv_heads + kv_head) * kTile * p.head_size;
  }
#pragma unroll
  for (int i = 0; i < kQuads; ++i) {
    const int m = (i * kHeadLanes + lane) * kNormVector;
    if (m >= half) break;
    if (!is_value) {
      const float* weight = is_query ? p.q_weight : p.k_weight;
      const float4 cos = *reinterpret_cast<const float4*>(p.cos + row * half + m);
      const float4 sin = *reinterpret_cast<const float4*>(p.sin + row * half + m);
      const float4 u = *reinterpret_cast<const float4*>(weight + m);
      const float4 v = *reinterpret_cast<const float4*>(weight + half + m);
      const float2 a0 = Widened(low[i].x), a1 = Widened(low[i].y);
      const float2 b0 = Widened(high[i].x), b1 = Widened(high[i].y);
      const float a[4] = {RmsScaled(a0.x, scale, u.x), RmsScaled(a0.y, scale, u.y),
                          RmsScaled(a1.x, scale, u.z), RmsScaled(a1.y, scale, u.w)};
      const float b[4] = {RmsScaled(b0.x, scale, v.x), RmsScaled(b0.y, scale, v.y),
                          RmsScaled(b1.x, scale, v.z), RmsScaled(b1.y, scale, v.w)};
      Rotate(a, b, cos, sin, low[i], high[i]);
    }
    __nv_bfloat16* low_to = is_query ? x + m : page + PageOffset(slot % kTile, m);
    __nv_bfloat16* high_to = is_query ? x + half + m : page + PageOffset(slot % kTile, half + m);
    *reinterpret_cast<uint2*>(low_to) = low[i];
    *reinterpret_cast<uint2*>(high_to) = high[i];
  }
}

unsigned int Blocks(int64_t count, int64_t each) {
  return static_cast<unsigned int>((count + each - 1) / each);
}

}  // namespace

cudaError_t LaunchRopeTable(const RopeTableParams& params, cudaStream_t stream) {
  const int64_t count = static_cast<int64_t>(params.num_rows) * params.num_angles;
  if (count == 0) return cudaSuccess;
  return LaunchAfter(rope_table_kernel, dim3(Blocks(count, kThreads)), kThreads, 0, stream, params);
}

cudaError_t LaunchRopeApply(const RopeApplyParams& params, cudaStream_t stream) {
  const int64_t count = static_cast<int64_t>(params.num_rows) * params.num_heads * (params.half / 4);
  const bool aligned = params.half % 4 == 0 && params.columns % 4 == 0 && IsAligned(params.x, 8) &&
                       IsAligned(params.cos, 16) && IsAligned(params.sin, 16);
  if (!aligned) return reference::LaunchRopeApply(params, stream);
  if (count == 0) return cudaSuccess;
  return LaunchAfter(rope_apply_kernel, dim3(Blocks(count, kThreads)), kThreads, 0, stream, params);
}

cudaError_t LaunchAttentionPrepare(const AttentionPrepareParams& params, cudaStream_t stream) {
  const int64_t count = static_cast<int64_t>(params.num_rows) * (params.num_heads + 2 * params.num_kv_heads);
  if (count == 0) return cudaSuccess;
  const bool aligned = params.head_size % 8 == 0 && params.columns % 4 == 0 && IsAligned(params.qkv, 8) &&
                       IsAligned(params.k, 8) && IsAligned(params.v, 8) && IsAligned(params.cos, 16) &&
                       IsAligned(params.sin, 16) && IsAligned(params.q_weight, 16) &&
                       IsAligned(params.k_weight, 16);
  if (!aligned) return reference::LaunchAttentionPrepare(params, stream);
  if (count * kHeadLanes > INT32_MAX) return cudaErrorInvalidValue;
  const auto kernel = params.head_size <= 128 ? attention_prepare_kernel<1> : attention_prepare_kernel<2>;
  return LaunchAfter(kernel, dim3(Blocks(count * kHeadLanes, kThreads)), kThreads, 0, stream, params);
}

}  // namespace prism::cuda
