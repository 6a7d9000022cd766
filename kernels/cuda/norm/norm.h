// Norms, rotary embedding and what stands before attention on CUDA: parameters of the kernels and
// what launches them. Nothing here allocates or waits; pointers are to device memory.
#pragma once

#include <cuda_bf16.h>
#include <cuda_runtime_api.h>

#include <cstdint>

namespace prism::cuda {

// What a norm reads or writes: one of the two, the other null.
struct RowsOut {
  __nv_bfloat16* bf16;
  float* f32;
};

// As RmsNormArgs (no bias) and LayerNormArgs (kernels/ops/norm.h).
struct NormParams {
  float* x;             // [T, C]; changed if there is something to add
  const float* weight;  // [C]
  const float* bias;    // [C]; LayerNorm alone
  RowsOut y;            // [T, C]
  int32_t num_rows;
  int32_t columns;  // C
  float epsilon;
  const float* add = nullptr;  // [T, C]: x += add first; nullptr: nothing
};

// As RopeTableArgs (kernels/ops/rope.h).
struct RopeTableParams {
  const int32_t* positions;  // [A, T]
  const int32_t* axis;       // [D]
  const float* frequency;    // [D]
  float* cos;                // [T, D]
  float* sin;                // [T, D]
  int32_t num_axes;          // A
  int32_t num_rows;          // T
  int32_t num_angles;        // D
};

// As RopeApplyArgs; `x` is at column 0 of the first head.
struct RopeApplyParams {
  __nv_bfloat16* x;
  int64_t columns;   // between rows of x
  const float* cos;  // [T, half]
  const float* sin;  // [T, half]
  int32_t num_rows;
  int32_t num_heads;
  int32_t half;  // elements of a head / 2
};

// As AttentionPrepareArgs (kernels/ops/attention_prepare.h).
struct AttentionPrepareParams {
  __nv_bfloat16* qkv;     // [T, C]
  int64_t columns;        // C
  const float* q_weight;  // [D]
  const float* k_weight;  // [D]
  const float* cos;       // [T, D / 2]
  const float* sin;       // [T, D / 2]
  const int32_t* slots;   // [T]
  __nv_bfloat16* k;       // [pages, G, D / 8, 64, 8]
  __nv_bfloat16* v;       // likewise
  int32_t num_rows;
  int32_t num_heads;
  int32_t num_kv_heads;  // G
  int32_t head_size;     // D, a multiple of 16, at most kPreparedHeadSizeMax
  float epsilon;
};
inline constexpr int kPreparedHeadSizeMax = 256;

// Whether vectors of that many bytes may be read and written there.
inline bool IsAligned(const void* pointer, int bytes) {
  return reinterpret_cast<uintptr_t>(pointer) % bytes == 0;
}

// The specification: plain loops in the order of sums, for any alignment.
namespace reference {
cudaError_t LaunchRmsNorm(const NormParams& params, cudaStream_t stream);
cudaError_t LaunchLayerNorm(const NormParams& params, cudaStream_t stream);
cudaError_t LaunchRopeApply(const RopeApplyParams& params, cudaStream_t stream);
cudaError_t LaunchAttentionPrepare(const AttentionPrepareParams& params, cudaStream_t stream);
}  // namespace reference

cudaError_t LaunchRmsNorm(const NormParams& params, cudaStream_t stream);
cudaError_t LaunchLayerNorm(const NormParams& params, cudaStream_t stream);
cudaError_t LaunchRopeTable(const RopeTableParams& params, cudaStream_t stream);
cudaError_t LaunchRopeApply(const RopeApplyParams& params, cudaStream_t stream);
cudaError_t LaunchAttentionPrepare(const AttentionPrepareParams& params, cudaStream_t stream);

}  // namespace prism::cuda
