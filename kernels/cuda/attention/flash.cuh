// Attention for many rows on Hopper: the kernel behind prompt chunks and the vision tower.
//
// A block has two or three working warpgroups of 64 rows each, which share the tiles of keys and values, and
// one warpgroup that brings them. A warpgroup's rows lie on the M side of wgmma: scores of 64 rows by 64 keys
// from shared memory, then the weights from registers times the values. A thread holds two rows: elements 2 t
// and 2 t + 1 of each group of 8 (t = lane % 4), so that its row sums by token mod 8 are its own two and
// everything of a row stays in four lanes.
#pragma once

#include <cuda_bf16.h>

#include <cstdint>

#include "kernels/cuda/attention/order.cuh"
#include "kernels/cuda/detail/mma.cuh"
#include "kernels/cuda/detail/pipeline.cuh"
#include "kernels/cuda/detail/wgmma.cuh"

namespace prism::cuda {

inline constexpr int kWarpgroup = 128;
inline constexpr int kRowsPerWorker = 64;

// Threads, registers and shared memory of the kernel for one head size. Shared memory holds Q of each
// worker, then stages of K and V, each as chunks of 8 elements by 64 rows.
template <int kHeadSizeOf, int kWorkersOf, int kStagesOf, int kChunkStrideOf>
struct FlashLayout {
  static constexpr int kHeadSize = kHeadSizeOf;
  static constexpr int kWorkers = kWorkersOf;  // warpgroups that compute
  static constexpr int kThreads = (kWorkers + 1) * kWarpgroup;
  static constexpr int kRows = kWorkers * kRowsPerWorker;
  // Of 65536 registers, in steps of 8.
  static constexpr int kProducerRegisters = kWorkers == 2 ? 40 : 32;
  static constexpr int kWorkerRegisters = kWorkers == 2 ? 232 : 160;
  static constexpr int kStages = kStagesOf;
  static constexpr int kChunks = kHeadSize / kChunk;
  static constexpr int kUnits = (kHeadSize + kUnit - 1) / kUnit;
  static constexpr int kFilledChunks = kUnits * kUnit / kChunk;  // with those of zeros
  // Rows of 16 bytes lie side by side in a chunk. A stride that is an odd number of rows lets a
  // thread write neighbouring chunks of a row without conflict.
  static constexpr int kChunkStride = kChunkStrideOf;
  static constexpr int kQueryStride = 65 * 16;
  static constexpr int kQueryBytes = kFilledChunks * kQueryStride;
  static constexpr int kKeyBytes = (kFilledChunks * kChunkStride + 127) / 128 * 128;
  static constexpr int kValueBytes = (kChunks * kChunkStride + 127) / 128 * 128;
  static constexpr int kStageBytes = kKeyBytes + kValueBytes;
  static constexpr int kQueriesBytes = (kWorkers * kQueryBytes + 127) / 128 * 128;
  static constexpr int kBytes = kQueriesBytes + kStages * kStageBytes;
};

template <int kStages>
struct FlashBarriers {
  alignas(8) uint64_t key_full[kStages];
  alignas(8) uint64_t key_empty[kStages];
  alignas(8) uint64_t value_full[kStages];
  alignas(8) uint64_t value_empty[kStages];
};

// A place in a ring of stages, and the parity of its round.
template <int kStages>
struct RingPlace {
  int stage = 0;
  uint32_t parity = 0;
  __device__ __forceinline__ void Next() {
    if (++stage == kStages) {
      stage = 0;
      parity ^= 1;
    }
  }
};

// What a worker needs to know of its rows.
struct WorkerRows {
  int visible[2];  // keys that this thread's rows g and g + 8 see
  int num_tiles;   // of the block, >= 1
  int barrier;     // of the worker's threads
};

// Where a worker is in the ring of stages, and what it tells the producer.
template <typename Layout>
struct FlashStages {
  uint32_t stages;  // address
  FlashBarriers<Layout::kStages>* barriers;
  bool signals;  // one thread of each warp

  __device__ __forceinline__ uint32_t Keys(const RingPlace<Layout::kStages>& place) const {
    BarrierWait(SharedAddress(&barriers->key_full[place.stage]), place.parity);
    return stages + place.stage * Layout::kStageBytes;
  }
  __device__ __forceinline__ void ReleaseKeys(const RingPlace<Layout::kStages>& place) const {
    if (signals) BarrierArrive(SharedAddress(&barriers->key_empty[place.stage]));
  }
  __device__ __forceinline__ uint32_t Values(const RingPlace<Layout::kStages>& place) const {
    BarrierWait(SharedAddress(&barriers->value_full[place.stage]), place.parity);
    return stages + place.stage * Layout::kStageBytes + Layout::kKeyBytes;
  }
  __device__ __forceinline__ void ReleaseValues(const RingPlace<Layout::kStages>& place) const {
    if (signals) BarrierArrive(SharedAddress(&barriers->value_empty[place.stage]));
  }
};

// Queues the scores of 64 rows by 64 keys.
template <typename Layout>
__device__ __forceinline__ void QueueScores(float (&s)[32], uint32_t query, uint32_t keys) {
  WgmmaFence();
  const uint64_t a = MatrixDescriptor(query, Layout::kQueryStride, 128);
  const uint64_t b = MatrixDescriptor(keys, Layout::kChunkStride, 128);
#pragma unroll
  for (int u = 0; u < Layout::kUnits; ++u) {
    Wgmma<64>::Run(s, Further(a, 2 * u * Layout::kQueryStride), Further(b, 2 * u * Layout::kChunkStride),
                   u > 0);
  }
  WgmmaCommit();
}

// Queues o += p V of 64 keys.
template <typename Layout, int kOut>
__device__ __forceinline__ void QueueValues(float (&o)[kOut], const uint32_t (&p)[4][4], uint32_t values) {
  WgmmaFence();
  const uint64_t b = MatrixDescriptor(values, 128, Layout::kChunkStride);
#pragma unroll
  for (int u = 0; u < kTile / kUnit; ++u) {
    Wgmma<2 * kOut>::Add(o, p[u], Further(b, u * kUnit * 16));
  }
  WgmmaCommit();
}

// The running maxima and sums of one thread's two rows through a leaf: row r has the registers i
// with i / 2 % 2 = r.
struct LeafRows {
  float maximum[2] = {-INFINITY, -INFINITY};
  float l[2][2] = {};  // by token mod 8 = 2 t and 2 t + 1

  // Scores become weights; the factors are for o.
  __device__ __forceinline__ void Softmax(float (&s)[32], float (&factor)[2], float scale_log2) {
#pragma unroll
    for (int r = 0; r < 2; ++r) {
      float largest = -INFINITY;
#pragma unroll
      for (int j = 0; j < 8; ++j) largest = fmaxf(largest, fmaxf(s[4 * j + 2 * r], s[4 * j + 2 * r + 1]));
      largest = fmaxf(largest, __shfl_xor_sync(0xffffffffu, largest, 1));
      largest = fmaxf(largest, __shfl_xor_sync(0xffffffffu, largest, 2));
      const float after = MaximumAfter(maximum[r], largest, scale_log2);
      const float subtrahend = Subtrahend(after);
      factor[r] = Rescale(maximum[r], subtrahend);
      maximum[r] = after;
      float sum[2] = {0.0f, 0.0f};
#pragma unroll
      for (int j = 0; j < 8; ++j) {
#pragma unroll
        for (int e = 0; e < 2; ++e) {
          float& p = s[4 * j + 2 * r + e];
          p = Weight(p, scale_log2, subtrahend);
          sum[e] = __fadd_rn(sum[e], p);
        }
      }
#pragma unroll
      for (int e = 0; e < 2; ++e) l[r][e] = __fmaf_rn(l[r][e], factor[r], sum[e]);
    }
  }
};

// The leaves before, of one thread's two rows.
template <int kOut>
struct MergedRows {
  float o[kOut] = {};
  float l[2] = {0.0f, 0.0f};
  float maximum[2] = {-INFINITY, -INFINITY};
  MergeFactors factors[2];  // of the leaf being merged

  // Merges all of a leaf but its o, which may still be under way.
  __device__ __forceinline__ void Add(const LeafRows& leaf) {
#pragma unroll
    for (int r = 0; r < 2; ++r) {
      float sum = __fadd_rn(leaf.l[r][0], leaf.l[r][1]);
      sum = __fadd_rn(sum, __shfl_xor_sync(0xffffffffu, sum, 1));
      sum = __fadd_rn(sum, __shfl_xor_sync(0xffffffffu, sum, 2));
      factors[r] = Merge(maximum[r], leaf.maximum[r]);
      maximum[r] = factors[r].maximum;
      l[r] = Merged(l[r], sum, factors[r]);
    }
  }
  __device__ __forceinline__ void AddOutput(const float (&leaf_o)[kOut]) {
#pragma unroll
    for (int i = 0; i < kOut; ++i) o[i] = Merged(o[i], leaf_o[i], factors[i / 2 % 2]);
  }
};

// One worker: softmax(q K^T) V of its 64 rows over the block's tiles. Q lies at `query`, ready for
// the tensor cores; row i's result goes to out_of(i), nowhere if null.
//
// The tensor cores always have the next thing to do: the scores of tile i + 1 are queued before the
// values of tile i, whose sums run while the scores of i + 1 are made weights.
template <typename Layout, typename OutOf>
__device__ __forceinline__ void FlashWork(uint32_t query, const FlashStages<Layout>& stages,
                                          const WorkerRows& rows, float scale_log2, const OutOf& out_of) {
  constexpr int kOut = Layout::kHeadSize / 2;
  const int t = threadIdx.x % 4;
  const int visible_least = min(rows.visible[0], rows.visible[1]);

  float s[32];
  float o[kOut] = {};
  float factor[2];
  uint32_t p[4][4];
  MergedRows<kOut> merged;
  LeafRows leaf;
  // Scores of a tile, ready in s, become weights.
  const auto softmax = [&](int tile) {
    if ((tile + 1) * kTile > visible_least) {
#pragma unroll
      for (int i = 0; i < 32; ++i) {
        const int token = tile * kTile + 8 * (i / 4) + 2 * t + i % 2;
        if (token >= rows.visible[i / 2 % 2]) s[i] = -INFINITY;
      }
    }
    leaf.Softmax(s, factor, scale_log2);
  };
  const auto pack = [&] {
#pragma unroll
    for (int u = 0; u < 4; ++u) {
#pragma unroll
      for (int i = 0; i < 4; ++i) p[u][i] = PackRounded(s[8 * u + 2 * i], s[8 * u + 2 * i + 1]);
    }
  };

  RingPlace<Layout::kStages> place;
  QueueScores<Layout>(s, query, stages.Keys(place));
  WgmmaWait<0>();
  WgmmaHold(s);
  stages.ReleaseKeys(place);
  softmax(0);
  pack();
  for (int tile = 1; tile < rows.num_tiles; ++tile) {
    // Here p and factor are those of the tile before, whose values are still to be added.
    const RingPlace<Layout::kStages> before = place;
    place.Next();
    QueueScores<Layout>(s, query, stages.Keys(place));
#pragma unroll
    for (int i = 0; i < kOut; ++i) o[i] = __fmul_rn(o[i], factor[i / 2 % 2]);
    QueueValues<Layout>(o, p, stages.Values(before));
    WgmmaWait<1>();
    WgmmaHold(s);
    stages.ReleaseKeys(place);
    const bool starts_leaf = tile % kTilesPerLeaf == 0;
    if (starts_leaf) {
      merged.Add(leaf);
      leaf = LeafRows();
    }
    softmax(tile);
    WgmmaWait<0>();
    WgmmaHold(o);
    stages.ReleaseValues(before);
    if (starts_leaf) {
      merged.AddOutput(o);
#pragma unroll
      for (int i = 0; i < kOut; ++i) o[i] = 0.0f;
    }
    pack();
  }
#pragma unroll
  for (int i = 0; i < kOut; ++i) o[i] = __fmul_rn(o[i], factor[i / 2 % 2]);
  QueueValues<Layout>(o, p, stages.Values(place));
  WgmmaWait<0>();
  WgmmaHold(o);
  merged.Add(leaf);
  merged.AddOutput(o);

  // Through the memory of Q, so that a row's results leave side by side.
  const int lane = threadIdx.x % 32;
  const int first_row = threadIdx.x % kWarpgroup / 32 * 16;
  NamedBarrier(rows.barrier, kWarpgroup);
#pragma unroll
  for (int r = 0; r < 2; ++r) {
    const float inverse = Inverse(merged.l[r]);
#pragma unroll
    for (int j = 0; j < Layout::kChunks; ++j) {
      const int i = 4 * j + 2 * r;
      StoreWord(query + j * Layout::kQueryStride + (first_row + lane / 4 + 8 * r) * 16 + 4 * t,
                PackRounded(Normalized(merged.o[i], inverse), Normalized(merged.o[i + 1], inverse)));
    }
  }
  __syncwarp();
  for (int i = lane; i < 16 * Layout::kChunks; i += 32) {
    const int row = first_row + i / Layout::kChunks;
    const int chunk = i % Layout::kChunks;
    __nv_bfloat16* to = out_of(row);
    if (to != nullptr) {
      *reinterpret_cast<uint4*>(to + chunk * kChunk) =
          LoadVector(query + chunk * Layout::kQueryStride + row * 16);
    }
  }
}

// Brings a worker's 64 rows of Q into shared memory; row i comes from source(i), null for none. `any`
// is memory that is there.
template <typename Layout, typename Source>
__device__ __forceinline__ void LoadQueries(uint32_t query, const __nv_bfloat16* any, const Source& source) {
  for (int i = threadIdx.x % kWarpgroup; i < kRowsPerWorker * Layout::kFilledChunks; i += kWarpgroup) {
    const int row = i / Layout::kFilledChunks;
    const int chunk = i % Layout::kFilledChunks;
    const __nv_bfloat16* from = source(row);
    const bool read = from != nullptr && chunk < Layout::kChunks;
    CopyOrZero(query + chunk * Layout::kQueryStride + row * 16, read ? from + chunk * kChunk : any,
               read ? 16 : 0);
  }
  CopyCommit();
  CopyWait<0>();
  AsyncProxyFence();
}

// Zeros in the chunks of K that fill the last unit, in every stage.
template <typename Layout>
__device__ __forceinline__ void FillLastUnit(uint32_t stages) {
  constexpr int kFill = Layout::kFilledChunks - Layout::kChunks;
  if constexpr (kFill > 0) {
    for (int i = threadIdx.x; i < Layout::kStages * kFill * kTile; i += Layout::kThreads) {
      const int stage = i / (kFill * kTile);
      const int chunk = Layout::kChunks + i / kTile % kFill;
      StoreZeros(stages + stage * Layout::kStageBytes + chunk * Layout::kChunkStride + i % kTile * 16);
    }
  }
}

// Readies the barriers; `producers` threads arrive at a full one, every worker's warps at an empty one.
template <typename Layout>
__device__ __forceinline__ void InitBarriers(FlashBarriers<Layout::kStages>& barriers, int producers) {
  for (int i = 0; i < Layout::kStages; ++i) {
    BarrierInit(SharedAddress(&barriers.key_full[i]), producers);
    BarrierInit(SharedAddress(&barriers.value_full[i]), producers);
    BarrierInit(SharedAddress(&barriers.key_empty[i]), Layout::kWorkers * kWarpgroup / 32);
    BarrierInit(SharedAddress(&barriers.value_empty[i]), Layout::kWorkers * kWarpgroup / 32);
  }
  BarrierInitFence();
}

// A block of rows of one sequence.
struct RowBlock {
  int sequence;  // -1: no such block
  int first;     // row of the sequence's
};

// Finds block `index` of kRows rows among sequences of count(s) rows each: a sequence's last blocks come
// first, since they see the most keys. By one whole warp.
template <int kRows, typename Count>
__device__ __forceinline__ RowBlock FindBlock(int index, int num_sequences, const Count& count) {
  const int lane = threadIdx.x % 32;
  int before = 0;
  for (int base = 0; base < num_sequences; base += 32) {
    const int s = base + lane;
    const int blocks = s < num_sequences ? (count(s) + kRows - 1) / kRows : 0;
    int through = blocks;
#pragma unroll
    for (int apart = 1; apart < 32; apart *= 2) {
      const int other = __shfl_up_sync(0xffffffffu, through, apart);
      if (lane >= apart) through += other;
    }
    const bool here = index >= before + through - blocks && index < before + through;
    const uint32_t found = __ballot_sync(0xffffffffu, here);
    if (found != 0) {
      const int owner = __ffs(found) - 1;
      const int last = __shfl_sync(0xffffffffu, through, owner) + before - 1 - index;
      return {base + owner, last * kRows};
    }
    before += __shfl_sync(0xffffffffu, through, 31);
  }
  return {-1, 0};
}

}  // namespace prism::cuda
