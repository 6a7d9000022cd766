// Attention of prompt chunks over paged keys and values, causal by place in the sequence.
//
// The heads that share a KV head go together: row i of a block is query head i % group of token
// i / group, so that a chunk's tokens pass over the pages once for a whole group.
#include "kernels/cuda/attention/attention.h"
#include "kernels/cuda/attention/flash.cuh"
#include "kernels/cuda/detail/launch.cuh"
#include "kernels/cuda/probe_kernel.h"

namespace prism::cuda {
namespace {

constexpr int kStages = 4;

// A page is copied as it lies, so chunks are 64 rows apart.
template <int kHeadSize>
using Layout = FlashLayout<kHeadSize, 2, kStages, kTile * 16>;

// Grid: [blocks of 128 rows of a group, G]. Two warpgroups compute 64 rows each, a warp of the third
// has the copy engine bring pages.
template <int kHeadSize>
__global__ void __launch_bounds__(Layout<kHeadSize>::kThreads, 1)
    sm90_attention_prompt_kernel(const __grid_constant__ AttentionPagedParams p, int rows_min) {
#ifdef __CUDA_ARCH_FEAT_SM90_ALL
  using L = Layout<kHeadSize>;
  constexpr uint32_t kTileBytes = kTile * kHeadSize * 2;
  extern __shared__ __align__(128) uint8_t shared[];
  __shared__ FlashBarriers<kStages> barriers;
  __shared__ RowBlock found;
  const uint32_t queries = SharedAddress(shared);
  const uint32_t stages = queries + L::kQueriesBytes;
  const int group = p.num_heads / p.num_kv_heads;
  LetNextStart();
  WaitForEarlier();
  if (threadIdx.x < 32) {
    const RowBlock block = FindBlock<L::kRows>(blockIdx.x, p.num_sequences, [&](int s) {
      const int rows = p.query_starts[s + 1] - p.query_starts[s];
      return rows > rows_min ? rows * group : 0;
    });
    if (threadIdx.x == 0) {
      found = block;
      InitBarriers<L>(barriers, 1);
    }
  }
  FillLastUnit<L>(stages);
  AsyncProxyFence();
  __syncthreads();
  if (found.sequence < 0) return;
  const int s = found.sequence;
  const int first = p.query_starts[s];
  const int num_tokens = p.query_starts[s + 1] - first;
  const int context = p.context_lengths[s];
  const int last_token = min((found.first + L::kRows - 1) / group, num_tokens - 1);
  const int num_keys = context - num_tokens + last_token + 1;  // that the block's last row sees
  const int num_tiles = (num_keys + kTile - 1) / kTile;
  const auto out_of = [&](int row) -> __nv_bfloat16* {
    const int token = row / group;
    const int head = blockIdx.y * group + row % group;
    return token < num_tokens ? p.out + (static_cast<int64_t>(first + token) * p.num_heads + head) * kHeadSize
                              : nullptr;
  };
  if (num_keys <= 0) {  // padding
    for (int i = threadIdx.x; i < L::kRows * kHeadSize; i += L::kThreads) {
      __nv_bfloat16* out = out_of(found.first + i / kHeadSize);
      if (out != nullptr) out[i % kHeadSize] = __float2bfloat16(0.0f);
    }
    return;
  }

  if (threadIdx.x < kWarpgroup) {
    GiveRegisters<L::kProducerRegisters>();
    if (threadIdx.x >= 32) return;
    const int lane = threadIdx.x;
    const int32_t* pages = p.page_tables + static_cast<int64_t>(s) * p.pages_max;
    const int64_t head_elements = static_cast<int64_t>(kTile) * kHeadSize;
    RingPlace<kStages> place;
    int page_of_lane = 0;
    for (int tile = 0; tile < num_tiles; ++tile) {
      if (tile % 32 == 0 && tile + lane < num_tiles) page_of_lane = pages[tile + lane];
      const int page = __shfl_sync(0xffffffffu, page_of_lane, tile % 32);
      const int64_t offset = (static_cast<int64_t>(page) * p.num_kv_heads + blockIdx.y) * head_elements;
      const uint32_t keys = stages + place.stage * L::kStageBytes;
      const uint32_t key_full = SharedAddress(&barriers.key_full[place.stage]);
      BarrierWait(SharedAddress(&barriers.key_empty[place.stage]), place.parity ^ 1);
      if (lane == 0) {
        BarrierArriveExpect(key_full, kTileBytes);
        BulkCopy(keys, p.k + offset, kTileBytes, key_full);
      }
      const uint32_t values = keys + L::kKeyBytes;
      const uint32_t value_full = SharedAddress(&barriers.value_full[place.stage]);
      BarrierWait(SharedAddress(&barriers.value_empty[place.stage]), place.parity ^ 1);
      const int count = min(kTile, context - tile * kTile);
      if (count == kTile) {
        if (lane == 0) {
          BarrierArriveExpect(value_full, kTileBytes);
          BulkCopy(values, p.v + offset, kTileBytes, value_full);
        }
      } else {
        // What lies past the context is no value: zero weights would not undo a NaN.
        for (int i = lane; i < L::kChunks * (kTile - count); i += 32) {
          const int chunk = i / (kTile - count);
          StoreZeros(values + chunk * L::kChunkStride + (count + i % (kTile - count)) * 16);
        }
        AsyncProxyFence();
        __syncwarp();
        if (lane == 0) BarrierArriveExpect(value_full, L::kChunks * count * 16);
        __syncwarp();
        if (lane < L::kChunks) {
          BulkCopy(values + lane * L::kChunkStride, p.v + offset + lane * kTile * kChunk, count * 16,
                   value_full);
        }
      }
      place.Next();
    }
    return;
  }
  TakeRegisters<L::kWorkerRegisters>();
  const int worker = __shfl_sync(0xffffffffu, threadIdx.x / kWarpgroup, 0) - 1;  // the same for all of a warp
  const int first_row = found.first + worker * kRowsPerWorker;
  const uint32_t query = queries + worker * L::kQueryBytes;
  LoadQueries<L>(query, p.qkv, [&](int i) -> const __nv_bfloat16* {
    const int token = (first_row + i) / group;
    if (token >= num_tokens) return nullptr;
    const int head = blockIdx.y * group + (first_row + i) % group;
    return p.qkv + (first + token) * p.columns + head * kHeadSize;
  });
  NamedBarrier(1 + worker, kWarpgroup);
  WorkerRows mine = {.visible = {0, 0}, .num_tiles = num_tiles, .barrier = 1 + worker};
#pragma unroll
  for (int r = 0; r < 2; ++r) {
    const int row = first_row + threadIdx.x % kWarpgroup / 32 * 16 + threadIdx.x % 32 / 4 + 8 * r;
    const int token = row / group;
    mine.visible[r] = token < num_tokens ? context - num_tokens + token + 1 : 0;
  }
  FlashWork<L>(query, {stages, &barriers, threadIdx.x % 32 == 0}, mine, p.scale_log2,
               [&](int i) { return out_of(first_row + i); });
#else
  __trap();  // the host takes this kernel on Hopper alone
#endif
}

template <int kHeadSize>
cudaError_t Launch(const AttentionPagedParams& params, int rows_min, cudaStream_t stream) {
  const auto kernel = sm90_attention_prompt_kernel<kHeadSize>;
  using L = Layout<kHeadSize>;
  constexpr int kBytes = L::kBytes;
  const cudaError_t error = cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, kBytes);
  if (error != cudaSuccess) return error;
  // No more blocks than this can have rows, however they are shared out.
  const int64_t rows = static_cast<int64_t>(params.num_rows) * (params.num_heads / params.num_kv_heads);
  const int64_t blocks = (rows + L::kRows - 1) / L::kRows + params.num_sequences;
  return LaunchAfter(kernel, dim3(static_cast<unsigned>(blocks), static_cast<unsigned>(params.num_kv_heads)),
                     L::kThreads, kBytes, stream, params, rows_min);
}

}  // namespace

bool HasPromptKernel(const AttentionPagedParams& params) {
  return (params.head_size == 64 || params.head_size == 128) && params.columns % kChunk == 0 &&
         IsAligned(params.qkv) && IsAligned(params.k) && IsAligned(params.v) && IsAligned(params.out) &&
         RunsHopperCode();
}

cudaError_t LaunchAttentionPrompt(const AttentionPagedParams& params, int rows_min, cudaStream_t stream) {
  if (params.num_rows == 0) return cudaSuccess;
  return params.head_size == 64 ? Launch<64>(params, rows_min, stream)
                                : Launch<128>(params, rows_min, stream);
}

}  // namespace prism::cuda
