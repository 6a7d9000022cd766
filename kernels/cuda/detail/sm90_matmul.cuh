// Hopper's product of a packed weight and rows of activations, in the one order of summation, for one token
// or thousands, for a layer or for the experts that tokens chose.
//
// A block has one producer warpgroup and kGroups consumer warpgroups. Producer warp 0 streams the weight's
// blocks of 64 features x 64 k by bulk copies; producer warps 1 to 3 bring the same 64 k of kTokens rows of x
// (gathered, zeros past the ends) by 16-byte copies; both into a ring of kStages. A consumer warpgroup
// multiplies 64 features by all the tokens, weights as wgmma's A: d[feature, token] is a chain of units
// ascending in k, started anew at a leaf.
//
//   kSplit:  the leaves are the blocks of a cluster. Each sends its sums into the shared memory of the block
//   that owns
//            the features, which adds the tree: few rows, where the weights' bytes are the time.
//   else:    a block computes all leaves one after the other and keeps the tree in registers: many rows, or
//   few k.
#pragma once

#include <cuda_bf16.h>
#include <cuda_runtime.h>

#include <cstdint>

#include "kernels/cuda/detail/experts_plan.h"
#include "kernels/cuda/detail/pipeline.cuh"
#include "kernels/cuda/detail/wgmma.cuh"
#include "kernels/cuda/elementwise_math.cuh"
#include "kernels/cuda/linear_layout.h"

namespace prism::cuda {

struct MatmulParams {
  const __nv_bfloat16* x;  // [.., columns]
  const void* weight;      // of a layer; of experts: ExpertPointers
  const float* bias;       // [features] or nullptr
  void* y;                 // [.., features]; gated: [.., features / 2]
  ExpertsPlan plan;        // of experts
  bool gather;             // experts: a pair's row of x is its token's, else its own
  bool y_f32;
  int64_t rows;  // of a layer
  int64_t features;
  int64_t columns;  // K held
  int row_tiles;    // of 64 features, all of them
  int leaves;
  int leaf_width;
  int leaf_blocks;
};

template <bool kExperts>
struct ExpertPointers {};
template <>
struct ExpertPointers<true> {
  const void* data[kExpertsMax];
};

// A kernel's form. The ring has as many stages of 64 k as fit into kRingKilobytes, and 16 at most.
template <int kTokensOfTile, int kGroupsOfBlock, bool kSplitLeaves, bool kGatedProduct, bool kOfExperts,
          int kRingKilobytes, int kBlocksOfMultiprocessor>
struct MatmulShape {
  static constexpr int kTokens = kTokensOfTile;   // wgmma's N
  static constexpr int kGroups = kGroupsOfBlock;  // of 64 features
  static constexpr bool kSplit = kSplitLeaves;
  static constexpr bool kGated = kGatedProduct;  // group 0 is gate, group 1 up, and y = silu(gate) up
  static constexpr bool kExperts = kOfExperts;
  static constexpr int kBlocksEach = kBlocksOfMultiprocessor;
  static_assert(!kGated || kGroups == 2);

  static constexpr int kThreads = 128 * (kGroups + 1);
  static constexpr int kRowThreads = 128;
  static constexpr int kWeightBytes = kGroups * kBlockBytes;
  static constexpr int kStageBytes = kWeightBytes + kTokens * kBlockK * 2;
  static constexpr int kFitting = kRingKilobytes * 1024 / kStageBytes;
  static constexpr int kStages = kFitting < 16 ? kFitting : 16;
  static constexpr int kRingBytes = kStages * kStageBytes;
  // Split: the sums that other blocks of the cluster send, [group][leaf][token][features owned, padded]; the
  // most is for four leaves of 16 features. They take the ring's place where they are large.
  static constexpr int kSentBytes = kSplit ? kGroups * 4 * kTokens * (16 + 4) * 4 : 0;
  static constexpr bool kSentIntoRing = kSplit && kTokens >= 32;
  // A block owns as many sums of all leaves as it makes of its own.
  static constexpr int kSentToEach = kGroups * 128 * (kTokens / 2) * 4;
  // Gated and not split: the half of its values that a thread sends to its like in the other group, in words.
  static constexpr int kTraded = kTokens / 8;
  static constexpr int kStagingBytes = kSplit   ? (kSentIntoRing ? 0 : kSentBytes)
                                       : kGated ? 2 * 128 * kTraded * 4
                                                : 0;
  static constexpr int kStagingBegin = kSentIntoRing ? 0 : kRingBytes;
  static constexpr int kBarrierBytes = (2 * kStages + 1) * 8;
  static constexpr int kSharedBytes = kRingBytes + kStagingBytes + kBarrierBytes;
  static_assert(kStages >= 3 && (!kSentIntoRing || kSentBytes <= kRingBytes));

  // What the warpgroups trade where a consumer keeps three sets of sums. A block starts with 168 a thread:
  // more cannot be had, and a consumer would wait for it for ever.
  static constexpr bool kManyRegisters = !kSplit && kTokens >= 128;
  static constexpr int kProducerRegisters = 40, kConsumerRegisters = 232;
  static_assert(!kManyRegisters || kProducerRegisters + kGroups * kConsumerRegisters <= 168 * (kGroups + 1));
};

// One tile of work: kGroups row tiles by up to kTokens rows.
struct MatmulTile {
  int64_t first;  // row of y
  int count;      // rows
  int row_tile;   // of group 0, in steps of kGroups (gated: of the gate)
  int expert;
};

// The features of a group of warps: which row tile it multiplies.
template <int kGroups, bool kGated>
__device__ __forceinline__ int RowTileOf(const MatmulParams& p, const MatmulTile& tile, int group) {
  if (kGated) return tile.row_tile + group * (p.row_tiles / 2);
  return tile.row_tile * kGroups + group;
}

// Grid, split: [leaves, row tiles / kGroups, token tiles or tasks], in clusters of the leaves.
// Else: any number of blocks, which take tiles a grid apart.
template <typename S>
__global__ void __launch_bounds__(S::kThreads, S::kBlocksEach)
    sm90_matmul_kernel(const __grid_constant__ MatmulParams p,
                       const __grid_constant__ ExpertPointers<S::kExperts> experts) {
#ifdef __CUDA_ARCH_FEAT_SM90_ALL
  constexpr int kTokens = S::kTokens, kGroups = S::kGroups;
  constexpr bool kSplit = S::kSplit, kGated = S::kGated, kExperts = S::kExperts;
  extern __shared__ __align__(1024) char shared[];
  const uint32_t ring = SharedAddress(shared);
  const uint32_t staging = ring + S::kStagingBegin;
  const uint32_t full = ring + S::kRingBytes + S::kStagingBytes;
  const uint32_t empty = full + 8 * S::kStages;
  const uint32_t ready = empty + 8 * S::kStages;
  const int warp = __shfl_sync(0xFFFFFFFF, threadIdx.x / 32, 0), lane = threadIdx.x % 32;
  const int rank = kSplit ? blockIdx.x : 0;  // the leaf

  if (threadIdx.x == 0) {
    for (int i = 0; i < S::kStages; ++i) {
      BarrierInit(full + 8 * i, 1 + S::kRowThreads);
      BarrierInit(empty + 8 * i, 4 * kGroups);
    }
    BarrierInit(ready, 1);
    BarrierInitFence();
    if (kSplit) BarrierArriveExpect(ready, S::kSentToEach);
  }
  __syncthreads();
  // Before a block sends sums to another, that must have set up its barriers and, where they take the ring's
  // place, be done with the ring.
  if (kSplit && !S::kSentIntoRing) ClusterSyncArrive();
  // The first of the experts' products reads the plan that the kernel before it makes, so it waits now. The
  // second starts when all of the first's blocks have got past here: it may read the plan at once, and wait
  // for its x later.
  const bool wait_now = kExperts && p.gather;
  if (wait_now) WaitForEarlier();
  LetNextStart();

  const int steps = (p.row_tiles + (kGated ? 2 : kGroups) - 1) / (kGated ? 2 : kGroups);
  const int token_tiles =
      kExperts ? __ldcg(p.plan.task_count) : static_cast<int>((p.rows + kTokens - 1) / kTokens);
  const int64_t tiles =
      kSplit ? (static_cast<int>(blockIdx.z) < token_tiles ? 1 : 0) : int64_t{steps} * token_tiles;
  const int64_t first_tile = kSplit ? 0 : blockIdx.x;
  const int64_t tile_step = kSplit ? 1 : gridDim.x;
  const int leaves_here = kSplit ? 1 : p.leaves;

  const auto tile_at = [&](int64_t index) {
    int token_tile = blockIdx.z;
    int row_tile = blockIdx.y;
    if (!kSplit && kExperts) {
      token_tile = static_cast<int>(index / steps);
      row_tile = static_cast<int>(index % steps);
    } else if (!kSplit) {
      // Bands of 8 token tiles, so that tiles at work together share both their rows and their weights.
      constexpr int kBand = 8;
      const int64_t band = index / (int64_t{kBand} * steps);
      const int width = min(kBand, token_tiles - static_cast<int>(band) * kBand);
      const int inside = static_cast<int>(index - band * kBand * steps);
      token_tile = static_cast<int>(band) * kBand + inside % width;
      row_tile = inside / width;
    }
    MatmulTile tile;
    tile.row_tile = row_tile;
    if (kExperts) {
      const int4 task = __ldcg(reinterpret_cast<const int4*>(p.plan.tasks + token_tile));
      tile.expert = task.x;
      tile.first = task.y;
      tile.count = task.z;
    } else {
      tile.first = int64_t{token_tile} * kTokens;
      tile.count = static_cast<int>(min(int64_t{kTokens}, p.rows - tile.first));
      tile.expert = 0;
    }
    return tile;
  };

  if (warp < 4) {
    // ---- Producers: thread 0 brings the weights; each thread chunk `chunk` of every sixteenth row of x ----
    if (S::kManyRegisters) GiveRegisters<S::kProducerRegisters>();
    const int blocks = leaves_here * p.leaf_blocks;
    const char* from[kGroups] = {};
    const auto find_weights = [&](const MatmulTile& tile) {
      const char* base = static_cast<const char*>(p.weight);
      if constexpr (kExperts) base = static_cast<const char*>(experts.data[tile.expert]);
      const int64_t row_tile_bytes = int64_t{p.leaves} * p.leaf_blocks * kBlockBytes;
#pragma unroll
      for (int group = 0; group < kGroups; ++group) {
        // Past the last row tile, that one again: its products are not stored.
        const int row_tile = min(RowTileOf<kGroups, kGated>(p, tile, group), p.row_tiles - 1);
        from[group] = base + row_tile * row_tile_bytes + int64_t{rank} * p.leaf_blocks * kBlockBytes;
      }
    };
    const auto bring_weights = [&](int to_stage) {
      const uint32_t barrier = full + 8 * to_stage, to = ring + to_stage * S::kStageBytes;
      BarrierArriveExpect(barrier, S::kWeightBytes);
#pragma unroll
      for (int group = 0; group < kGroups; ++group) {
        BulkCopy(to + group * kBlockBytes, from[group], kBlockBytes, barrier);
        from[group] += kBlockBytes;
      }
    };

    // Weights depend on no earlier kernel: the first ringful is on its way before the wait for x.
    const bool brings_weights = threadIdx.x == 0;
    const int ahead = blocks < S::kStages ? blocks : S::kStages;
    if (brings_weights && first_tile < tiles) {
      find_weights(tile_at(first_tile));
      for (int i = 0; i < ahead; ++i) bring_weights(i);
    }
    if (!wait_now) WaitForEarlier();

    constexpr int kRowStep = S::kRowThreads / 8;
    static_assert(kRowStep % 8 == 0, "a thread's rows are swizzled alike");
    constexpr int kRowsEach = (kTokens + kRowStep - 1) / kRowStep;
    const int first_row = threadIdx.x / 8, chunk = threadIdx.x % 8;
    const uint32_t to_row = ring + S::kWeightBytes + first_row * 128 + ((chunk ^ (first_row % 8)) * 16);
    int stage = 0;
    uint32_t phase = 0;
    for (int64_t index = first_tile; index < tiles; index += tile_step) {
      const MatmulTile tile = tile_at(index);
      if (brings_weights && index != first_tile) find_weights(tile);
      // Rows past the last are left as they are: their products are not stored.
      const char* x_row[kRowsEach];
      int rows_here = 0;  // of this thread
#pragma unroll
      for (int i = 0; i < kRowsEach; ++i) {
        const int row = first_row + i * kRowStep;
        int64_t from_row = 0;
        if (row < tile.count) {
          from_row = tile.first + row;
          if (kExperts && p.gather) from_row = p.plan.pair_token[from_row];
          rows_here = i + 1;
        }
        x_row[i] = reinterpret_cast<const char*>(p.x + from_row * p.columns);
      }
      int block = 0;
      for (int leaf = 0; leaf < leaves_here; ++leaf) {
        const int leaf_begin = (kSplit ? rank : leaf) * p.leaf_width;
        for (int in_leaf = 0; in_leaf < p.leaf_blocks; ++in_leaf, ++block) {
          const int k = in_leaf * kBlockK + chunk * 8;
          const bool inside = k < p.leaf_width && leaf_begin + k < p.columns;
          const uint32_t bytes = inside ? 16 : 0;
          const int64_t column_bytes = inside ? int64_t{leaf_begin + k} * 2 : 0;
          BarrierWait(empty + 8 * stage, phase ^ 1);
          if (brings_weights && (index != first_tile || block >= ahead)) bring_weights(stage);
          const uint32_t to = to_row + stage * S::kStageBytes;
#pragma unroll
          for (int i = 0; i < kRowsEach; ++i) {
            if (i < rows_here) CopyOrZero(to + i * kRowStep * 128, x_row[i] + column_bytes, bytes);
          }
          // No proxy fence: the tensor cores see what copies brought before they arrived on the barrier, and
          // a fence waits for every copy on its way to the block (1 us a stage).
          BarrierArriveWhenCopied(full + 8 * stage);
          if (++stage == S::kStages) {
            stage = 0;
            phase ^= 1;
          }
        }
      }
    }
    if (kSplit) {
      __syncwarp();
      if (S::kSentIntoRing) ClusterSyncArrive();
      ClusterSyncWait();
    }
  } else {
    // ---- Consumers ----
    if (S::kManyRegisters) TakeRegisters<S::kConsumerRegisters>();
    const int group = warp / 4 - 1, part = warp % 4, g = lane / 4, t = lane % 4;
    int stage = 0;
    uint32_t phase = 0;
    const auto give_back = [&](int of_stage) {
      if (lane == 0) BarrierArrive(empty + 8 * of_stage);
    };
    float sums[kTokens / 2];
    for (int64_t index = first_tile; index < tiles; index += tile_step) {
      const MatmulTile tile = tile_at(index);
      constexpr int kKept = kSplit ? 1 : kTokens / 2;
      float tree[kKept], third[kKept];
      // sums = the next leaf: one chain of units from zero.
      const auto sum_leaf = [&] {
#pragma unroll
        for (int i = 0; i < kTokens / 2; ++i) sums[i] = 0.0f;
        int last = -1;
        for (int block = 0; block < p.leaf_blocks; ++block) {
          BarrierWait(full + 8 * stage, phase);
          const uint32_t a = ring + stage * S::kStageBytes + group * kBlockBytes;
          const uint32_t b = ring + stage * S::kStageBytes + S::kWeightBytes;
          WgmmaFence();
#pragma unroll
          for (int unit = 0; unit < kBlockK / 16; ++unit) {
            Wgmma<kTokens>::Run(sums, SwizzledDescriptor(a + 32 * unit), SwizzledDescriptor(b + 32 * unit),
                                true);
          }
          WgmmaCommit();
          if (last >= 0) {
            WgmmaWait<1>();
            give_back(last);
          }
          last = stage;
          if (++stage == S::kStages) {
            stage = 0;
            phase ^= 1;
          }
        }
        WgmmaWait<0>();
        WgmmaHold(sums);
        give_back(last);
      };
      sum_leaf();
      // (L0 + L1) + (L2 + L3), as far as there are leaves.
      if constexpr (!kSplit) {
#pragma unroll
        for (int i = 0; i < kTokens / 2; ++i) tree[i] = sums[i];
        if (p.leaves >= 2) {
          sum_leaf();
#pragma unroll
          for (int i = 0; i < kTokens / 2; ++i) tree[i] = __fadd_rn(tree[i], sums[i]);
        }
        if (p.leaves == 4) {
          sum_leaf();
#pragma unroll
          for (int i = 0; i < kTokens / 2; ++i) third[i] = sums[i];
          sum_leaf();
#pragma unroll
          for (int i = 0; i < kTokens / 2; ++i) tree[i] = __fadd_rn(tree[i], __fadd_rn(third[i], sums[i]));
        }
      }

      if constexpr (kSplit) {
        // Features are owned by the cluster's blocks in turn: 64 / leaves each.
        const int owned = kBlockRows / p.leaves, pitch = owned + 4;
        const int owner = part * p.leaves / 4;
        if (S::kSentIntoRing) ClusterSyncArrive();
        ClusterSyncWait();
        const uint32_t to = ClusterAddress(
            staging + 4 * ((group * p.leaves + rank) * kTokens * pitch + 16 * part - owner * owned + g),
            owner);
        const uint32_t owner_ready = ClusterAddress(ready, owner);
#pragma unroll
        for (int i = 0; i < kTokens / 2; ++i) {
          const int token = i / 4 * 8 + 2 * t + i % 2;
          ClusterStore(to + 4 * (token * pitch + i / 2 % 2 * 8), sums[i], owner_ready);
        }
        BarrierWait(ready, 0);
        if (!wait_now) WaitForEarlier();
        const float* partial = reinterpret_cast<const float*>(shared + S::kStagingBegin);
        const auto sum_of = [&](int of_group, int token, int row) {
          const float* leaf = partial + (of_group * p.leaves * kTokens + token) * pitch + row;
          const int next = kTokens * pitch;
          if (p.leaves == 1) return leaf[0];
          if (p.leaves == 2) return __fadd_rn(leaf[0], leaf[next]);
          return __fadd_rn(__fadd_rn(leaf[0], leaf[next]), __fadd_rn(leaf[2 * next], leaf[3 * next]));
        };
        constexpr int kConsumers = 128 * kGroups;
        const int size = owned * tile.count * (kGated ? 1 : kGroups);
        for (int i = threadIdx.x - 128; i < size; i += kConsumers) {
          const int row = i % owned, token = i / owned % tile.count;
          if constexpr (kGated) {
            // gate_up is rounded, then the product is: as two ops would.
            const float gate = __bfloat162float(__float2bfloat16_rn(sum_of(0, token, row)));
            const float up = __bfloat162float(__float2bfloat16_rn(sum_of(1, token, row)));
            const int64_t n = int64_t{tile.row_tile} * kBlockRows + rank * owned + row;
            static_cast<__nv_bfloat16*>(p.y)[(tile.first + token) * (p.features / 2) + n] =
                __float2bfloat16_rn(SiluMul(gate, up));
          } else {
            const int of_group = i / (owned * tile.count);
            const int64_t n = (int64_t{tile.row_tile} * kGroups + of_group) * kBlockRows + rank * owned + row;
            if (n >= p.features) continue;
            float value = sum_of(of_group, token, row);
            if (p.bias != nullptr) value = __fadd_rn(value, p.bias[n]);
            const int64_t at = (tile.first + token) * p.features + n;
            if (p.y_f32) {
              static_cast<float*>(p.y)[at] = value;
            } else {
              static_cast<__nv_bfloat16*>(p.y)[at] = __float2bfloat16_rn(value);
            }
          }
        }
      } else {
        if (!wait_now && index == first_tile) WaitForEarlier();
        // Two lanes of neighbouring features trade, so that each has both features of one token, and store
        // them.
        const int64_t width = kGated ? p.features / 2 : p.features;
        const int64_t row_begin =
            (int64_t{tile.row_tile} * (kGated ? 1 : kGroups) + (kGated ? 0 : group)) * kBlockRows;
        const bool paired = width % 2 == 0;
        const auto store = [&](int j, int half, float low, float high) {
          const bool odd = g % 2 != 0;
          const float other = __shfl_xor_sync(0xFFFFFFFF, odd ? low : high, 4);
          const int token = 8 * j + 2 * t + odd;
          const float first = odd ? other : low, second = odd ? high : other;
          const int64_t even = row_begin + 16 * part + 8 * half + g - odd;
          if (token >= tile.count || even >= width) return;
          const int64_t at = (tile.first + token) * width + even;
          if (p.y_f32) {
            float* y = static_cast<float*>(p.y) + at;
            if (paired) {
              *reinterpret_cast<float2*>(y) = make_float2(first, second);
            } else {
              y[0] = first;
              if (even + 1 < width) y[1] = second;
            }
          } else {
            __nv_bfloat16* y = static_cast<__nv_bfloat16*>(p.y) + at;
            if (paired) {
              *reinterpret_cast<__nv_bfloat162*>(y) = __floats2bfloat162_rn(first, second);
            } else {
              y[0] = __float2bfloat16_rn(first);
              if (even + 1 < width) y[1] = __float2bfloat16_rn(second);
            }
          }
        };
        if constexpr (kGated) {
          // A thread of the gate's group and its like in up's hold the same features and tokens. Each sends
          // the other what it has of one half of the tokens, rounded as gate_up is, and finishes the other
          // half.
          constexpr int kHalf = kTokens / 16;
          __nv_bfloat162* const traded =
              reinterpret_cast<__nv_bfloat162*>(shared + S::kStagingBegin) + threadIdx.x % 128;
          const auto word = [&](int j, int half) {
            return __floats2bfloat162_rn(tree[4 * j + 2 * half], tree[4 * j + 2 * half + 1]);
          };
          const auto finish = [&](int j, int half, __nv_bfloat162 gate, __nv_bfloat162 up) {
            store(j, half, SiluMul(__low2float(gate), __low2float(up)),
                  SiluMul(__high2float(gate), __high2float(up)));
          };
          constexpr int kAllConsumers = 128 * kGroups;
          if (group == 0) {
#pragma unroll
            for (int i = 0; i < 2 * kHalf; ++i) traded[128 * i] = word(kHalf + i / 2, i % 2);
          } else {
#pragma unroll
            for (int i = 0; i < 2 * kHalf; ++i) traded[128 * (2 * kHalf + i)] = word(i / 2, i % 2);
          }
          NamedBarrier(1, kAllConsumers);
          if (group == 0) {
#pragma unroll
            for (int i = 0; i < 2 * kHalf; ++i)
              finish(i / 2, i % 2, word(i / 2, i % 2), traded[128 * (2 * kHalf + i)]);
          } else {
#pragma unroll
            for (int i = 0; i < 2 * kHalf; ++i) {
              finish(kHalf + i / 2, i % 2, traded[128 * i], word(kHalf + i / 2, i % 2));
            }
          }
          NamedBarrier(1, kAllConsumers);  // all is read before the next tile's is written
        } else {
#pragma unroll
          for (int half = 0; half < 2; ++half) {
            const int64_t n = row_begin + 16 * part + 8 * half + g;
            const float bias = p.bias != nullptr && n < p.features ? p.bias[n] : 0.0f;
#pragma unroll
            for (int j = 0; j < kTokens / 8; ++j) {
              float low = tree[4 * j + 2 * half], high = tree[4 * j + 2 * half + 1];
              if (p.bias != nullptr) {
                low = __fadd_rn(low, bias);
                high = __fadd_rn(high, bias);
              }
              store(j, half, low, high);
            }
          }
        }
      }
    }
    if (kSplit && tiles == 0) {
      if (S::kSentIntoRing) ClusterSyncArrive();
      ClusterSyncWait();
    }
  }
#else
  __trap();  // the host takes this kernel on Hopper alone
#endif
}

// Queues the kernel. `token_tiles`: of split kernels, the grid's.
template <typename S>
cudaError_t LaunchMatmul(const MatmulParams& params, const ExpertPointers<S::kExperts>& experts,
                         int64_t token_tiles, int multiprocessors, cudaStream_t stream) {
  const auto kernel = sm90_matmul_kernel<S>;
  const cudaError_t error =
      cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, S::kSharedBytes);
  if (error != cudaSuccess) return error;
  const int each = S::kGated ? 2 : S::kGroups;
  const int64_t steps = (params.row_tiles + each - 1) / each;
  if (steps == 0 || token_tiles == 0) return cudaSuccess;
  cudaLaunchConfig_t config = {};
  config.blockDim = dim3(S::kThreads);
  config.dynamicSmemBytes = S::kSharedBytes;
  config.stream = stream;
  if (S::kSplit) {
    config.gridDim = dim3(static_cast<unsigned>(params.leaves), static_cast<unsigned>(steps),
                          static_cast<unsigned>(token_tiles));
  } else {
    const int64_t tiles = steps * token_tiles, blocks = int64_t{multiprocessors} * S::kBlocksEach;
    config.gridDim = dim3(static_cast<unsigned>(tiles < blocks ? tiles : blocks));
  }
  cudaLaunchAttribute attributes[2] = {};
  attributes[0].id = cudaLaunchAttributeProgrammaticStreamSerialization;
  attributes[0].val.programmaticStreamSerializationAllowed = 1;
  attributes[1].id = cudaLaunchAttributeClusterDimension;
  attributes[1].val.clusterDim.x = static_cast<unsigned>(params.leaves);
  attributes[1].val.clusterDim.y = 1;
  attributes[1].val.clusterDim.z = 1;
  config.attrs = attributes;
  config.numAttrs = S::kSplit ? 2 : 1;
  return cudaLaunchKernelEx(&config, kernel, params, experts);
}

}  // namespace prism::cuda
