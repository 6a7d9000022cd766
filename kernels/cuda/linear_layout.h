// How CUDA keeps a linear layer's weight: blocks of 64 output features by 64 k, each 8 KiB as the tensor
// cores read it from shared memory (rows of 128 bytes, 16-byte chunks exchanged by row: the 128-byte
// swizzle), so that one bulk copy brings a block and none needs a tensor map.
//
//   [row tile of 64 features][leaf][block of 64 k][feature 0 .. 63][chunk of 8 k, at chunk ^ feature % 8]
//
// Every leaf starts a block; what is missing in a leaf's last block and in the last row tile is zeros, and a
// unit of zeros changes no sum (tensor_core_test).
#pragma once

#include <cstdint>

#include "common/tensor/sum_order.h"

#ifdef __CUDACC__
#define PRISM_HOST_DEVICE __host__ __device__
#else
#define PRISM_HOST_DEVICE
#endif

namespace prism::cuda {

inline constexpr int kBlockRows = 64;
inline constexpr int kBlockK = 64;
inline constexpr int kBlockBytes = kBlockRows * kBlockK * 2;

// A packed weight on the device, bf16.
struct PackedWeight {
  const void* data = nullptr;
  int64_t out_features = 0;  // N
  int64_t in_features = 0;   // K, the columns held
  int leaves = 1;            // summed on their own: 1, 2 or 4
  int leaf_width = 0;        // columns of a leaf before it is clipped to K; a multiple of 16

  PRISM_HOST_DEVICE int64_t row_tiles() const { return (out_features + kBlockRows - 1) / kBlockRows; }
  PRISM_HOST_DEVICE int leaf_blocks() const { return (leaf_width + kBlockK - 1) / kBlockK; }
  PRISM_HOST_DEVICE int64_t size_bytes() const { return row_tiles() * leaves * leaf_blocks() * kBlockBytes; }
};

// The element of feature `n` and column `k` of leaf `leaf`, counted from the leaf's first.
PRISM_HOST_DEVICE constexpr int64_t PackedIndex(int64_t n, int leaf, int k, int leaves, int leaf_blocks) {
  const int64_t block = (n / kBlockRows * leaves + leaf) * leaf_blocks + k / kBlockK;
  const int row = static_cast<int>(n % kBlockRows);
  const int chunk = (k % kBlockK / 8) ^ (row % 8);
  return (block * kBlockRows + row) * kBlockK + chunk * 8 + k % 8;
}

}  // namespace prism::cuda
