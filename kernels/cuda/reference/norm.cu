// The norms, the rotation and AttentionPrepare as their definition reads: one warp a row or head,
// which goes through the lanes of the order one after the other.
#include "kernels/cuda/attention/order.cuh"
#include "kernels/cuda/elementwise_kernels.h"
#include "kernels/cuda/norm/norm.h"
#include "kernels/cuda/norm/order.cuh"

namespace prism::cuda::reference {
namespace {

__device__ void Store(const RowsOut& y, int64_t index, float value) {
  if (y.bf16 != nullptr) {
    y.bf16[index] = __float2bfloat16_rn(value);
  } else {
    y.f32[index] = value;
  }
}

// The row's sum of add(sum, x) in the order of a row.
template <typename AddTerm>
__device__ float RowSum(const float* x, int columns, const AddTerm& add) {
  float groups[kNormGroups];
  for (int group = 0; group < kNormGroups; ++group) {
    float sum = 0.0f;
    const int lane = group * 32 + static_cast<int>(threadIdx.x);
    for (int first = lane * kNormVector; first < columns; first += kNormLanes * kNormVector) {
      for (int c = first; c < min(first + kNormVector, columns); ++c) sum = add(sum, x[c]);
    }
    groups[group] = LaneTree<32>(sum);
  }
  return GroupTree(groups);
}

// Grid: [T]. One warp normalises one row.
__global__ void __launch_bounds__(32) rms_norm_kernel(const __grid_constant__ NormParams p) {
  const int64_t row = static_cast<int64_t>(blockIdx.x) * p.columns;
  const float sum = RowSum(p.x + row, p.columns, [](float s, float x) { return AddSquare(s, x); });
  const float scale = InverseRoot(sum, p.columns, p.epsilon);
  __syncwarp();
  for (int c = threadIdx.x; c < p.columns; c += 32) {
    Store(p.y, row + c, RmsScaled(p.x[row + c], scale, p.weight[c]));
  }
}

// Grid: [T]. One warp normalises one row.
__global__ void __launch_bounds__(32) layer_norm_kernel(const __grid_constant__ NormParams p) {
  const int64_t row = static_cast<int64_t>(blockIdx.x) * p.columns;
  const float* x = p.x + row;
  const float mean = __fdiv_rn(RowSum(x, p.columns, [](float s, float v) { return __fadd_rn(s, v); }),
                               static_cast<float>(p.columns));
  const float sum =
      RowSum(x, p.columns, [mean](float s, float v) { return AddSquaredDeviation(s, v, mean); });
  const float scale = InverseRoot(sum, p.columns, p.epsilon);
  __syncwarp();
  for (int c = threadIdx.x; c < p.columns; c += 32) {
    Store(p.y, row + c, LayerScaled(x[c], mean, scale, p.weight[c], p.bias[c]));
  }
}

// Grid: [T, heads]. One warp rotates one head.
__global__ void __launch_bounds__(32) rope_apply_kernel(const __grid_constant__ RopeApplyParams p) {
  const int64_t row = blockIdx.x;
  __nv_bfloat16* low = p.x + row * p.columns + static_cast<int64_t>(blockIdx.y) * 2 * p.half;
  for (int m = threadIdx.x; m < p.half; m += 32) {
    const float cos = p.cos[row * p.half + m];
    const float sin = p.sin[row * p.half + m];
    const float a = __bfloat162float(low[m]);
    const float b = __bfloat162float(low[m + p.half]);
    low[m] = __float2bfloat16_rn(RotatedLow(a, b, cos, sin));
    low[m + p.half] = __float2bfloat16_rn(RotatedHigh(a, b, cos, sin));
  }
}

// Grid: [T, heads + 2 G]. One warp prepares one head of q, of k or of v.
__global__ void __launch_bounds__(32)
    attention_prepare_kernel(const __grid_constant__ AttentionPrepareParams p) {
  const int64_t row = blockIdx.x;
  const int head = blockIdx.y;
  const int lane = threadIdx.x;
  const int half = p.head_size / 2;
  __nv_bfloat16* x = p.qkv + row * p.columns + head * p.head_size;
  const int kv_head = (head - p.num_heads) % p.num_kv_heads;
  const int slot = p.slots[row];
  const int64_t page = (static_cast<int64_t>(slot / kTile) * p.num_kv_heads + kv_head) * kTile * p.head_size;
  if (head >= p.num_heads + p.num_kv_heads) {  // a value
    for (int d = lane; d < p.head_size && slot >= 0; d += 32) p.v[page + PageOffset(slot % kTile, d)] = x[d];
    return;
  }
  const bool is_query = head < p.num_heads;
  const float* weight = is_query ? p.q_weight : p.k_weight;

  float sum = 0.0f;
  constexpr int kStep = kHeadLanes * kNormVector;
  for (int first = kNormVector * (lane % kHeadLanes); first < half; first += kStep) {
    const int end = min(first + kNormVector, half);
    for (int m = first; m < end; ++m) sum = AddSquare(sum, __bfloat162float(x[m]));
    for (int m = first; m < end; ++m) sum = AddSquare(sum, __bfloat162float(x[m + half]));
  }
  const float scale = InverseRoot(LaneTree<kHeadLanes>(sum), p.head_size, p.epsilon);
  for (int m = lane; m < half; m += 32) {
    const float cos = p.cos[row * half + m];
    const float sin = p.sin[row * half + m];
    const float a = RmsScaled(__bfloat162float(x[m]), scale, weight[m]);
    const float b = RmsScaled(__bfloat162float(x[m + half]), scale, weight[m + half]);
    const __nv_bfloat16 low = __float2bfloat16_rn(RotatedLow(a, b, cos, sin));
    const __nv_bfloat16 high = __float2bfloat16_rn(RotatedHigh(a, b, cos, sin));
    if (is_query) {
      x[m] = low;
      x[m + half] = high;
    } else if (slot >= 0) {
      p.k[page + PageOffset(slot % kTile, m)] = low;
      p.k[page + PageOffset(slot % kTile, m + half)] = high;
    }
  }
}

// x += add
cudaError_t AddFirst(const NormParams& params, cudaStream_t stream) {
  if (params.add == nullptr) return cudaSuccess;
  return LaunchAdd(params.x, params.add, static_cast<int64_t>(params.num_rows) * params.columns, stream);
}

}  // namespace

cudaError_t LaunchRmsNorm(const NormParams& params, cudaStream_t stream) {
  if (params.num_rows == 0) return cudaSuccess;
  if (const cudaError_t error = AddFirst(params, stream); error != cudaSuccess) return error;
  rms_norm_kernel<<<params.num_rows, 32, 0, stream>>>(params);
  return cudaGetLastError();
}

cudaError_t LaunchLayerNorm(const NormParams& params, cudaStream_t stream) {
  if (params.num_rows == 0) return cudaSuccess;
  if (const cudaError_t error = AddFirst(params, stream); error != cudaSuccess) return error;
  layer_norm_kernel<<<params.num_rows, 32, 0, stream>>>(params);
  return cudaGetLastError();
}

cudaError_t LaunchRopeApply(const RopeApplyParams& params, cudaStream_t stream) {
  if (params.num_rows == 0 || params.num_heads == 0) return cudaSuccess;
  rope_apply_kernel<<<dim3(params.num_rows, params.num_heads), 32, 0, stream>>>(params);
  return cudaGetLastError();
}

cudaError_t LaunchAttentionPrepare(const AttentionPrepareParams& params, cudaStream_t stream) {
  if (params.num_rows == 0) return cudaSuccess;
  attention_prepare_kernel<<<dim3(params.num_rows, params.num_heads + 2 * params.num_kv_heads), 32, 0,
                             stream>>>(params);
  return cudaGetLastError();
}

}  // namespace prism::cuda::reference
