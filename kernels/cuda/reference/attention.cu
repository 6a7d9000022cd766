// Attention in its order, as plainly as tensor cores allow: one warp for one row and head, operands
// gathered element by element, everything that is not a tensor-core unit in shared memory.
#include "kernels/cuda/attention/attention.h"
#include "kernels/cuda/attention/order.cuh"
#include "kernels/cuda/detail/mma.cuh"

namespace prism::cuda::reference {
namespace {

// Keys and values of one KV head behind a page table.
struct PagedKeys {
  const __nv_bfloat16* k;
  const __nv_bfloat16* v;
  const int32_t* pages;
  int64_t page_stride;
  __device__ int64_t Offset(int token, int d) const {
    return pages[token / kTile] * page_stride + PageOffset(token % kTile, d);
  }
  __device__ __nv_bfloat16 Key(int token, int d) const { return k[Offset(token, d)]; }
  __device__ __nv_bfloat16 Value(int token, int d) const { return v[Offset(token, d)]; }
};

// Keys and values of one head of a segment, row by row.
struct SegmentKeys {
  const __nv_bfloat16* k;
  const __nv_bfloat16* v;
  int64_t columns;
  __device__ __nv_bfloat16 Key(int token, int d) const { return k[token * columns + d]; }
  __device__ __nv_bfloat16 Value(int token, int d) const { return v[token * columns + d]; }
};

struct Shared {
  float scores[kTile];
  __nv_bfloat16 weights[kTile];
  float l[kRowSums];
  float o[kHeadSizeMax];
  float o_before[kHeadSizeMax];
};

// One warp: out = softmax(q K^T) V over keys [0, num_keys).
template <typename Keys>
__device__ void Attend(const Keys& keys, const __nv_bfloat16* q, int num_keys, int head_size,
                       float scale_log2, __nv_bfloat16* out) {
  __shared__ Shared s;
  const int lane = threadIdx.x;
  const int g = lane / 4;
  const int t = lane % 4;
  const __nv_bfloat16 zero = __float2bfloat16(0.0f);

  float maximum_before = -INFINITY;
  float l_before = 0.0f;
  for (int d = lane; d < kHeadSizeMax; d += 32) s.o_before[d] = 0.0f;
  for (int leaf = 0; leaf < num_keys; leaf += kLeaf) {
    float maximum = -INFINITY;
    if (lane < kRowSums) s.l[lane] = 0.0f;
    for (int d = lane; d < kHeadSizeMax; d += 32) s.o[d] = 0.0f;
    for (int tile = leaf; tile < min(leaf + kLeaf, num_keys); tile += kTile) {
      const auto key = [&](int token, int d) {
        return token < num_keys && d < head_size ? keys.Key(token, d) : zero;
      };
      const auto value = [&](int d, int token) {
        return token < num_keys && d < head_size ? keys.Value(token, d) : zero;
      };
      // Scores: 16 keys by 16 elements, the query in the first of eight columns.
      for (int j = 0; j < kTile; j += 16) {
        float sum[4] = {};
        for (int d = 0; d < head_size; d += kUnit) {
          uint32_t a[4], b[2];
          for (int i = 0; i < 4; ++i) {
            const int token = tile + j + g + 8 * (i % 2);
            const int column = d + 2 * t + 8 * (i / 2);
            a[i] = PackPair(key(token, column), key(token, column + 1));
          }
          for (int i = 0; i < 2; ++i) {
            const int column = d + 2 * t + 8 * i;
            const bool in_query = g == 0 && column < head_size;
            b[i] = in_query ? PackPair(q[column], q[column + 1]) : 0u;
          }
          Mma16x8x16(sum, a, b);
        }
        if (t == 0) {
          s.scores[j + g] = tile + j + g < num_keys ? sum[0] : -INFINITY;
          s.scores[j + g + 8] = tile + j + g + 8 < num_keys ? sum[2] : -INFINITY;
        }
      }
      __syncwarp();

      float largest = -INFINITY;
      for (int j = 0; j < kTile; ++j) largest = fmaxf(largest, s.scores[j]);
      const float maximum_after = MaximumAfter(maximum, largest, scale_log2);
      const float subtrahend = Subtrahend(maximum_after);
      const float factor = Rescale(maximum, subtrahend);
      maximum = maximum_after;
      if (lane < kRowSums) {
        float sum = 0.0f;
        for (int j = lane; j < kTile; j += kRowSums) {
          const float p = Weight(s.scores[j], scale_log2, subtrahend);
          sum = __fadd_rn(sum, p);
          s.weights[j] = __float2bfloat16_rn(p);
        }
        s.l[lane] = __fmaf_rn(s.l[lane], factor, sum);
      }
      __syncwarp();

      // Values: 16 elements by 16 keys, the weights in the first of eight columns.
      for (int d = 0; d < head_size; d += 16) {
        float sum[4] = {};
        if (t == 0) {
          sum[0] = __fmul_rn(s.o[d + g], factor);
          sum[2] = __fmul_rn(s.o[d + g + 8], factor);
        }
        for (int j = 0; j < kTile; j += kUnit) {
          uint32_t a[4], b[2];
          for (int i = 0; i < 4; ++i) {
            const int row = d + g + 8 * (i % 2);
            const int token = tile + j + 2 * t + 8 * (i / 2);
            a[i] = PackPair(value(row, token), value(row, token + 1));
          }
          for (int i = 0; i < 2; ++i) {
            const int token = j + 2 * t + 8 * i;
            b[i] = g == 0 ? PackPair(s.weights[token], s.weights[token + 1]) : 0u;
          }
          Mma16x8x16(sum, a, b);
        }
        if (t == 0) {
          s.o[d + g] = sum[0];
          s.o[d + g + 8] = sum[2];
        }
      }
      __syncwarp();
    }
    const float l = __fadd_rn(__fadd_rn(__fadd_rn(s.l[0], s.l[1]), __fadd_rn(s.l[2], s.l[3])),
                              __fadd_rn(__fadd_rn(s.l[4], s.l[5]), __fadd_rn(s.l[6], s.l[7])));
    const MergeFactors factors = Merge(maximum_before, maximum);
    maximum_before = factors.maximum;
    l_before = Merged(l_before, l, factors);
    for (int d = lane; d < head_size; d += 32) s.o_before[d] = Merged(s.o_before[d], s.o[d], factors);
    __syncwarp();
  }
  const float inverse = Inverse(l_before);
  for (int d = lane; d < head_size; d += 32) out[d] = __float2bfloat16_rn(Normalized(s.o_before[d], inverse));
}

// The sequence that owns `row`.
__device__ int SequenceOf(const int32_t* starts, int row) {
  int s = 0;
  while (starts[s + 1] <= row) ++s;
  return s;
}

// Grid: [T, heads]. One warp for one row and head.
__global__ void __launch_bounds__(32) attention_paged_kernel(const __grid_constant__ AttentionPagedParams p) {
  const int row = blockIdx.x;
  const int head = blockIdx.y;
  const int s = SequenceOf(p.query_starts, row);
  const int kv_head = head / (p.num_heads / p.num_kv_heads);
  const int64_t head_elements = static_cast<int64_t>(kTile) * p.head_size;
  const PagedKeys keys = {.k = p.k + kv_head * head_elements,
                          .v = p.v + kv_head * head_elements,
                          .pages = p.page_tables + static_cast<int64_t>(s) * p.pages_max,
                          .page_stride = p.num_kv_heads * head_elements};
  Attend(keys, p.qkv + row * p.columns + head * p.head_size,
         p.context_lengths[s] - p.query_starts[s + 1] + row + 1, p.head_size, p.scale_log2,
         p.out + (static_cast<int64_t>(row) * p.num_heads + head) * p.head_size);
}

// Grid: [T, heads]. One warp for one row and head.
__global__ void __launch_bounds__(32)
    attention_varlen_kernel(const __grid_constant__ AttentionVarlenParams p) {
  const int row = blockIdx.x;
  const int head = blockIdx.y;
  const int s = SequenceOf(p.segment_starts, row);
  const int64_t width = static_cast<int64_t>(p.num_heads) * p.head_size;
  const int first = p.segment_starts[s];
  const __nv_bfloat16* head_rows = p.qkv + head * p.head_size;
  const SegmentKeys keys = {.k = head_rows + first * 3 * width + width,
                            .v = head_rows + first * 3 * width + 2 * width,
                            .columns = 3 * width};
  Attend(keys, head_rows + row * 3 * width, p.segment_starts[s + 1] - first, p.head_size, p.scale_log2,
         p.out + row * width + head * p.head_size);
}

}  // namespace

cudaError_t LaunchAttentionPaged(const AttentionPagedParams& params, cudaStream_t stream) {
  if (params.num_rows == 0) return cudaSuccess;
  attention_paged_kernel<<<dim3(params.num_rows, params.num_heads), 32, 0, stream>>>(params);
  return cudaGetLastError();
}

cudaError_t LaunchAttentionVarlen(const AttentionVarlenParams& params, cudaStream_t stream) {
  if (params.num_rows == 0) return cudaSuccess;
  attention_varlen_kernel<<<dim3(params.num_rows, params.num_heads), 32, 0, stream>>>(params);
  return cudaGetLastError();
}

}  // namespace prism::cuda::reference
