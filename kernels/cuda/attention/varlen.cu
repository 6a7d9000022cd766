// Variable-length attention of the vision tower: every row of a segment sees all of it.
#include "kernels/cuda/attention/attention.h"
#include "kernels/cuda/attention/flash.cuh"
#include "kernels/cuda/detail/launch.cuh"
#include "kernels/cuda/probe_kernel.h"

namespace prism::cuda {
namespace {

// Loads of K and V that a producer thread keeps under way before it waits for the oldest.
constexpr int kLoadsAhead = 3;
constexpr int kStages = 4;

template <int kHeadSize>
using Layout = FlashLayout<kHeadSize, 3, kStages, 65 * 16>;

// The pieces of 16 bytes that one producer thread copies of every tile.
template <typename L>
class TilePieces {
 public:
  // `columns` elements lie between rows.
  __device__ __forceinline__ TilePieces(int thread, int columns) : thread_(thread) {
#pragma unroll
    for (int k = 0; k < kCount; ++k) {
      const int row = (thread + k * kWarpgroup) / L::kChunks;
      const int chunk = (thread + k * kWarpgroup) % L::kChunks;
      to_[k] = chunk * L::kChunkStride + row * 16;
      from_[k] = row * columns + chunk * kChunk;
    }
  }
  // From the tile's first row to shared memory; rows from num_rows on become zeros.
  __device__ __forceinline__ void Copy(const __nv_bfloat16* from, uint32_t to, int num_rows) const {
#pragma unroll
    for (int k = 0; k < kCount; ++k) {
      const int piece = thread_ + k * kWarpgroup;
      if (piece >= kTile * L::kChunks) break;
      const bool read = piece < num_rows * L::kChunks;
      CopyOrZero(to + to_[k], from + (read ? from_[k] : 0), read ? 16 : 0);
    }
  }

 private:
  static constexpr int kCount = (kTile * L::kChunks + kWarpgroup - 1) / kWarpgroup;
  const int thread_;
  uint32_t to_[kCount];
  uint32_t from_[kCount];
};

// Grid: [blocks of 192 rows, heads]. Three warpgroups compute 64 rows each, the fourth brings keys and
// values row by row.
template <int kHeadSize>
__global__ void __launch_bounds__(Layout<kHeadSize>::kThreads, 1)
    sm90_attention_varlen_kernel(const __grid_constant__ AttentionVarlenParams p) {
#ifdef __CUDA_ARCH_FEAT_SM90_ALL
  using L = Layout<kHeadSize>;
  extern __shared__ __align__(128) uint8_t shared[];
  __shared__ FlashBarriers<kStages> barriers;
  __shared__ RowBlock found;
  const uint32_t queries = SharedAddress(shared);
  const uint32_t stages = queries + L::kQueriesBytes;
  LetNextStart();
  WaitForEarlier();
  if (threadIdx.x < 32) {
    const RowBlock block = FindBlock<L::kRows>(
        blockIdx.x, p.num_segments, [&](int s) { return p.segment_starts[s + 1] - p.segment_starts[s]; });
    if (threadIdx.x == 0) {
      found = block;
      InitBarriers<L>(barriers, kWarpgroup);
    }
  }
  FillLastUnit<L>(stages);
  AsyncProxyFence();
  __syncthreads();
  if (found.sequence < 0) return;
  const int first = p.segment_starts[found.sequence];
  const int num_rows = p.segment_starts[found.sequence + 1] - first;
  const int num_tiles = (num_rows + kTile - 1) / kTile;
  const int64_t width = static_cast<int64_t>(p.num_heads) * kHeadSize;
  const __nv_bfloat16* rows = p.qkv + first * 3 * width + blockIdx.y * kHeadSize;

  if (threadIdx.x < kWarpgroup) {
    GiveRegisters<L::kProducerRegisters>();
    // Load 2 i brings tile i's keys, load 2 i + 1 its values. A load is announced when it has come,
    // some loads later.
    const auto barrier_of = [&](int load, bool full) {
      const int stage = load / 2 % kStages;
      if (load % 2 == 0) return SharedAddress(full ? &barriers.key_full[stage] : &barriers.key_empty[stage]);
      return SharedAddress(full ? &barriers.value_full[stage] : &barriers.value_empty[stage]);
    };
    const TilePieces<L> pieces(threadIdx.x, 3 * static_cast<int>(width));
    const int64_t tile_elements = kTile * 3 * width;
    const int num_loads = 2 * num_tiles;
    for (int load = 0; load < num_loads + kLoadsAhead; ++load) {
      if (load < num_loads) {
        const int tile = load / 2;
        BarrierWait(barrier_of(load, false), 1 ^ (tile / kStages % 2));
        const uint32_t to = stages + tile % kStages * L::kStageBytes + (load % 2 == 0 ? 0 : L::kKeyBytes);
        pieces.Copy(rows + tile * tile_elements + (1 + load % 2) * width, to, num_rows - tile * kTile);
      }
      CopyCommit();
      if (load >= kLoadsAhead) {
        CopyWait<kLoadsAhead>();
        AsyncProxyFence();
        BarrierArrive(barrier_of(load - kLoadsAhead, true));
      }
    }
    return;
  }
  TakeRegisters<L::kWorkerRegisters>();
  const int worker = __shfl_sync(0xffffffffu, threadIdx.x / kWarpgroup, 0) - 1;  // the same for all of a warp
  const int first_row = found.first + worker * kRowsPerWorker;
  const uint32_t query = queries + worker * L::kQueryBytes;
  LoadQueries<L>(query, rows, [&](int i) {
    return first_row + i < num_rows ? rows + (first_row + i) * 3 * width : nullptr;
  });
  NamedBarrier(1 + worker, kWarpgroup);
  const WorkerRows mine = {.visible = {num_rows, num_rows}, .num_tiles = num_tiles, .barrier = 1 + worker};
  FlashWork<L>(query, {stages, &barriers, threadIdx.x % 32 == 0}, mine, p.scale_log2,
               [&](int i) -> __nv_bfloat16* {
                 const int row = first_row + i;
                 return row < num_rows ? p.out + (first + row) * width + blockIdx.y * kHeadSize : nullptr;
               });
#else
  __trap();  // the host takes this kernel on Hopper alone
#endif
}

template <int kHeadSize>
cudaError_t Launch(const AttentionVarlenParams& params, cudaStream_t stream) {
  const auto kernel = sm90_attention_varlen_kernel<kHeadSize>;
  using L = Layout<kHeadSize>;
  constexpr int kBytes = L::kBytes;
  const cudaError_t error = cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, kBytes);
  if (error != cudaSuccess) return error;
  // No more blocks than this can have rows, whatever the segments.
  const int blocks = (params.num_rows + L::kRows - 1) / L::kRows + params.num_segments;
  return LaunchAfter(kernel, dim3(static_cast<unsigned>(blocks), static_cast<unsigned>(params.num_heads)),
                     L::kThreads, kBytes, stream, params);
}

}  // namespace

bool HasVarlenKernel(const AttentionVarlenParams& params) {
  return (params.head_size == 64 || params.head_size == 72) && IsAligned(params.qkv) &&
         IsAligned(params.out) && RunsHopperCode();
}

cudaError_t LaunchAttentionVarlen(const AttentionVarlenParams& params, cudaStream_t stream) {
  if (params.num_rows == 0) return cudaSuccess;
  return params.head_size == 64 ? Launch<64>(params, stream) : Launch<72>(params, stream);
}

}  // namespace prism::cuda
