// Attention on CUDA: parameters of its kernels and what launches them. Nothing here allocates or
// waits; pointers are to device memory.
#pragma once

#include <cuda_bf16.h>
#include <cuda_runtime_api.h>

#include <cstdint>

namespace prism::cuda {

// As AttentionPagedArgs (kernels/ops/attention.h). query_starts and context_lengths are read before the
// kernels ahead in the stream have ended: only copies may write them.
struct AttentionPagedParams {
  const __nv_bfloat16* qkv;
  int64_t columns;                 // of qkv
  const __nv_bfloat16* k;          // [pages, G, D / 8, 64, 8]
  const __nv_bfloat16* v;          // likewise
  const int32_t* query_starts;     // [S + 1]
  const int32_t* context_lengths;  // [S]
  const int32_t* page_tables;      // [S, P]
  __nv_bfloat16* out;              // [T, num_heads D]
  int32_t num_rows;                // T
  int32_t num_sequences;           // S
  int32_t pages_max;               // P
  int32_t num_heads;
  int32_t num_kv_heads;  // G
  int32_t head_size;     // D, a multiple of 8, at most kHeadSizeMax
  float scale_log2;      // scale * log2(e), > 0
};

// As AttentionVarlenArgs.
struct AttentionVarlenParams {
  const __nv_bfloat16* qkv;       // [T, 3 num_heads D]
  const int32_t* segment_starts;  // [S + 1]
  __nv_bfloat16* out;             // [T, num_heads D]
  int32_t num_rows;               // T
  int32_t num_segments;           // S
  int32_t num_heads;
  int32_t head_size;  // D, a multiple of 8, at most kHeadSizeMax
  float scale_log2;
};

inline constexpr int kHeadSizeMax = 256;

// Whether vectors of 16 bytes may be read and written there.
inline bool IsAligned(const void* pointer) { return reinterpret_cast<uintptr_t>(pointer) % 16 == 0; }

// The specification, which runs from sm_80 on: one warp a row and head, every sum written down in its order.
namespace reference {
cudaError_t LaunchAttentionPaged(const AttentionPagedParams& params, cudaStream_t stream);
cudaError_t LaunchAttentionVarlen(const AttentionVarlenParams& params, cudaStream_t stream);
}  // namespace reference

// How the keys of generated rows are shared out.
enum class DecodeSplit {
  kAuto,    // by what the contexts turn out to be, on the device
  kLeaves,  // every leaf on its own; the block that brings a row's last one merges them
  kWhole,   // all leaves of a row and KV head by one block: no workspace, best with many rows
};

// Where leaves meet; not for kWhole.
struct DecodeWorkspace {
  float* partials;     // DecodeWorkspaceBytes()
  uint32_t* counters;  // DecodeCounters(); zero before, and zero again afterwards
};

// Rows of sequences that bring at most `rows_max` new rows, each row on its own. REQUIRES:
// HasDecodeKernel().
bool HasDecodeKernel(const AttentionPagedParams& params);
int64_t DecodeWorkspaceBytes(const AttentionPagedParams& params, int rows_max);
int64_t DecodeCounters(const AttentionPagedParams& params, int rows_max);
cudaError_t LaunchAttentionDecode(const AttentionPagedParams& params, int rows_max, DecodeSplit split,
                                  const DecodeWorkspace& workspace, cudaStream_t stream);

// Rows of sequences that bring more than `rows_min` new rows. REQUIRES: HasPromptKernel().
bool HasPromptKernel(const AttentionPagedParams& params);
cudaError_t LaunchAttentionPrompt(const AttentionPagedParams& params, int rows_min, cudaStream_t stream);

// REQUIRES: HasVarlenKernel()
bool HasVarlenKernel(const AttentionVarlenParams& params);
cudaError_t LaunchAttentionVarlen(const AttentionVarlenParams& params, cudaStream_t stream);

}  // namespace prism::cuda
