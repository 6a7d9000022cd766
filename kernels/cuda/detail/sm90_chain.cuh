// Hopper's product of a packed weight of one leaf (the tower's) and many rows, in the one order of summation:
// a chain of units ascending in k, 128 sums a thread.
//
// Two blocks are a cluster: 128 features each by the same 256 rows. A producer thread of each brings its own
// weights by bulk copies (blocks of 64 features x 64 k) and half of the rows by the tensor copy engine, into
// both blocks' shared memory at once. Two consumer warpgroups multiply 64 features each by all 256 rows:
// 87 operations a byte of shared memory filled and 128 a byte read through the L2 cache, twice those of tiles
// of 128 x 128.
#pragma once

#include <cuda.h>
#include <cuda_bf16.h>
#include <cuda_runtime.h>

#include <cstdint>

#include "kernels/cuda/detail/mma.cuh"
#include "kernels/cuda/detail/pipeline.cuh"
#include "kernels/cuda/detail/wgmma.cuh"
#include "kernels/cuda/linear_layout.h"

namespace prism::cuda {

struct ChainParams {
  const void* weight;
  const float* bias;  // [features] or nullptr
  void* y;            // [rows, features]
  bool y_f32;
  int64_t rows;
  int64_t features;  // a multiple of 8
  int row_tiles;     // of 64 features
  int blocks;        // of 64 k
};

struct ChainShape {
  static constexpr int kTokens = 256;  // wgmma's N
  static constexpr int kGroups = 2;    // consumer warpgroups, of 64 features
  static constexpr int kCluster = 2;
  static constexpr int kThreads = 128 * (kGroups + 1);
  static constexpr int kStages = 4;
  static constexpr int kWeightBytes = kGroups * kBlockBytes;
  static constexpr int kRowsEach = kTokens / kCluster;  // that a block of the cluster brings
  static constexpr int kRowsEachBytes = kRowsEach * kBlockK * 2;
  static constexpr int kStageBytes = kWeightBytes + kCluster * kRowsEachBytes;
  static constexpr int kRingBytes = kStages * kStageBytes;
  // Results on their way out: 64 rows of 64 features of each group, padded against bank conflicts.
  static constexpr int kPassRows = 64;
  static constexpr int kPitch = kBlockRows * 2 + 16;
  static constexpr int kStagingBytes = kGroups * kPassRows * kPitch;
  static constexpr int kSharedBytes = kRingBytes + kStagingBytes + 2 * kStages * 8;
  // Of a thread; a block starts with 168.
  static constexpr int kProducerRegisters = 40, kConsumerRegisters = 232;
  static_assert(kProducerRegisters + kGroups * kConsumerRegisters <= 168 * (kGroups + 1));
};

// A box of kBlockK columns by kRowsEach rows into the same place of every block in `blocks`, completing on
// each one's barrier.
__device__ __forceinline__ void TensorCopyToCluster(uint32_t to, const CUtensorMap* map, int column, int row,
                                                    uint32_t barrier, uint16_t blocks) {
  asm volatile(
      "cp.async.bulk.tensor.2d.shared::cluster.global.mbarrier::complete_tx::bytes.multicast::cluster "
      "[%0], [%1, {%2, %3}], [%4], %5;\n" ::"r"(to),
      "l"(map), "r"(column), "r"(row), "r"(barrier), "h"(blocks)
      : "memory");
}

// Four transposed matrices of 8 x 8 to shared memory: lane i gives the address of row i % 8 of matrix i / 8.
__device__ __forceinline__ void StoreMatricesTransposed(uint32_t row_address, const uint32_t (&r)[4]) {
  asm volatile("stmatrix.sync.aligned.m8n8.x4.trans.shared.b16 [%0], {%1, %2, %3, %4};\n" ::"r"(row_address),
               "r"(r[0]), "r"(r[1]), "r"(r[2]), "r"(r[3])
               : "memory");
}

// Grid: any number of blocks, in clusters of two; each takes tiles of 256 features x 256 rows a grid apart.
__global__ void __launch_bounds__(ChainShape::kThreads, 1)
    sm90_chain_kernel(const __grid_constant__ ChainParams p, const __grid_constant__ CUtensorMap x) {
#ifdef __CUDA_ARCH_FEAT_SM90_ALL
  using S = ChainShape;
  extern __shared__ __align__(1024) char shared[];
  const uint32_t ring = SharedAddress(shared);
  const uint32_t staging = ring + S::kRingBytes;
  const uint32_t full = staging + S::kStagingBytes;
  const uint32_t empty = full + 8 * S::kStages;
  const int warp = __shfl_sync(0xFFFFFFFF, threadIdx.x / 32, 0), lane = threadIdx.x % 32;
  const int rank = static_cast<int>(blockIdx.x) % S::kCluster;

  if (threadIdx.x == 0) {
    for (int i = 0; i < S::kStages; ++i) {
      BarrierInit(full + 8 * i, 1);
      BarrierInit(empty + 8 * i, S::kCluster * 4 * S::kGroups);
    }
    BarrierInitFence();
  }
  ClusterSyncArrive();
  ClusterSyncWait();
  LetNextStart();

  constexpr int kRowTiles = S::kCluster * S::kGroups;  // of a cluster's tile
  const int steps = (p.row_tiles + kRowTiles - 1) / kRowTiles;
  const int token_tiles = static_cast<int>((p.rows + S::kTokens - 1) / S::kTokens);
  const int tiles = steps * token_tiles;
  const int first_tile = static_cast<int>(blockIdx.x) / S::kCluster;
  const int tile_step = static_cast<int>(gridDim.x) / S::kCluster;
  // Bands of 8 token tiles, so that tiles at work together share both their rows and their weights.
  constexpr int kBand = 8;
  const auto token_tile_of = [&](int index, int* step) {
    const int band = index / (kBand * steps);
    const int width = min(kBand, token_tiles - band * kBand);
    const int inside = index - band * kBand * steps;
    *step = inside / width;
    return band * kBand + inside % width;
  };

  if (warp < 4) {
    // ---- Producer: one thread ----
    GiveRegisters<S::kProducerRegisters>();
    if (threadIdx.x == 0) {
      WaitForEarlier();
      int stage = 0;
      uint32_t phase = 0;
      const int64_t row_tile_bytes = int64_t{p.blocks} * kBlockBytes;
      for (int index = first_tile; index < tiles; index += tile_step) {
        int step = 0;
        const int token_tile = token_tile_of(index, &step);
        const int row = token_tile * S::kTokens + rank * S::kRowsEach;
        const char* from[S::kGroups];
#pragma unroll
        for (int group = 0; group < S::kGroups; ++group) {
          // Past the last row tile, that one again: its products are not stored.
          const int row_tile = min(step * kRowTiles + rank * S::kGroups + group, p.row_tiles - 1);
          from[group] = static_cast<const char*>(p.weight) + row_tile * row_tile_bytes;
        }
        for (int block = 0; block < p.blocks; ++block) {
          BarrierWait(empty + 8 * stage, phase ^ 1);
          const uint32_t barrier = full + 8 * stage, to = ring + stage * S::kStageBytes;
          BarrierArriveExpect(barrier, S::kStageBytes);
#pragma unroll
          for (int group = 0; group < S::kGroups; ++group) {
            BulkCopy(to + group * kBlockBytes, from[group], kBlockBytes, barrier);
            from[group] += kBlockBytes;
          }
          // Past the last row or column the engine brings zeros.
          TensorCopyToCluster(to + S::kWeightBytes + rank * S::kRowsEachBytes, &x, block * kBlockK, row,
                              barrier, (1 << S::kCluster) - 1);
          if (++stage == S::kStages) {
            stage = 0;
            phase ^= 1;
          }
        }
      }
    }
  } else {
    // ---- Consumers ----
    TakeRegisters<S::kConsumerRegisters>();
    const int group = warp / 4 - 1, part = warp % 4, g = lane / 4, t = lane % 4;
    int stage = 0;
    uint32_t phase = 0;
    const auto give_back = [&](int of_stage) {
      if (lane < S::kCluster) ClusterArrive(ClusterAddress(empty + 8 * of_stage, lane));
    };
    WaitForEarlier();
    const uint32_t staged = staging + group * S::kPassRows * S::kPitch;
    // stmatrix: this lane's row, of the first matrices.
    const uint32_t stored =
        staged + (lane / 16 * 8 + lane % 8) * S::kPitch + (16 * part + lane / 8 % 2 * 8) * 2;
    float sums[S::kTokens / 2];
    for (int index = first_tile; index < tiles; index += tile_step) {
      int step = 0;
      const int token_tile = token_tile_of(index, &step);
#pragma unroll
      for (int i = 0; i < S::kTokens / 2; ++i) sums[i] = 0.0f;
      int last = -1;
      for (int block = 0; block < p.blocks; ++block) {
        BarrierWait(full + 8 * stage, phase);
        const uint32_t a = ring + stage * S::kStageBytes + group * kBlockBytes;
        const uint32_t b = ring + stage * S::kStageBytes + S::kWeightBytes;
        WgmmaFence();
#pragma unroll
        for (int unit = 0; unit < kBlockK / 16; ++unit) {
          Wgmma<S::kTokens>::Run(sums, SwizzledDescriptor(a + 32 * unit), SwizzledDescriptor(b + 32 * unit),
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

      const int64_t first_row = int64_t{token_tile} * S::kTokens;
      const int64_t row_begin = (int64_t{step} * kRowTiles + rank * S::kGroups + group) * kBlockRows;
      const int64_t feature = row_begin + 16 * part + g;
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        if (p.bias == nullptr || feature + 8 * half >= p.features) continue;
        const float bias = p.bias[feature + 8 * half];
#pragma unroll
        for (int j = 0; j < S::kTokens / 8; ++j) {
          sums[4 * j + 2 * half] = __fadd_rn(sums[4 * j + 2 * half], bias);
          sums[4 * j + 2 * half + 1] = __fadd_rn(sums[4 * j + 2 * half + 1], bias);
        }
      }
      if (p.y_f32) {
        float* const y = static_cast<float*>(p.y) + (first_row + 2 * t) * p.features + feature;
#pragma unroll
        for (int j = 0; j < S::kTokens / 8; ++j) {
#pragma unroll
          for (int i = 0; i < 4; ++i) {
            if (first_row + 8 * j + 2 * t + i % 2 < p.rows && feature + i / 2 * 8 < p.features) {
              y[(8 * j + i % 2) * p.features + i / 2 * 8] = sums[4 * j + i];
            }
          }
        }
      } else {
#pragma unroll
        for (int pass = 0; pass < S::kTokens / S::kPassRows; ++pass) {
          NamedBarrier(1 + group, 128);  // what was staged before has left
#pragma unroll
          for (int pair = 0; pair < S::kPassRows / 16; ++pair) {
            const int j = pass * (S::kPassRows / 8) + 2 * pair;
            const uint32_t words[4] = {
                PackRounded(sums[4 * j], sums[4 * j + 1]), PackRounded(sums[4 * j + 2], sums[4 * j + 3]),
                PackRounded(sums[4 * j + 4], sums[4 * j + 5]), PackRounded(sums[4 * j + 6], sums[4 * j + 7])};
            StoreMatricesTransposed(stored + pair * 16 * S::kPitch, words);
          }
          NamedBarrier(1 + group, 128);
#pragma unroll
          for (int i = 0; i < S::kPassRows / 16; ++i) {
            const int row = i * 16 + static_cast<int>(threadIdx.x % 128) / 8, chunk = threadIdx.x % 8;
            const int64_t to_row = first_row + pass * S::kPassRows + row;
            const int64_t to_feature = row_begin + chunk * 8;
            if (to_row < p.rows && to_feature < p.features) {
              *reinterpret_cast<uint4*>(static_cast<__nv_bfloat16*>(p.y) + to_row * p.features + to_feature) =
                  LoadVector(staged + row * S::kPitch + chunk * 16);
            }
          }
        }
      }
    }
  }
  // Neither block leaves while the other may still write into its shared memory.
  __syncwarp();
  ClusterSyncArrive();
  ClusterSyncWait();
#else
  __trap();  // the host takes this kernel on Hopper alone
#endif
}

}  // namespace prism::cuda
