// Attention of a block of queries over tiles of 64 keys, one copy for each instruction set; the
// order of sums is that of kernels/ops/attention.h for each query, whatever the block.
#pragma once

#include <cstdint>

#include "absl/types/span.h"
#include "kernels/ops/attention.h"

namespace prism::cpu {

// The most queries of a block: enough to pay for a tile's way from the second-level cache.
inline constexpr int64_t kQueryBlock = 48;

// Rows of values are multiples of this many floats inside the kernels.
inline constexpr int64_t kHeadPadding = 16;
constexpr int64_t PaddedHeadSize(int64_t head_size) {
  return (head_size + kHeadPadding - 1) / kHeadPadding * kHeadPadding;
}

// Where the keys and values of one head lie: tile t at k + tiles[t] * stride and v + tiles[t] *
// stride, or at t itself where `tiles` is null.
struct KeyValueTiles {
  const float* k;     // [D, 64] each
  const float* v;     // [64, v_columns] each
  int64_t stride;     // floats
  int64_t v_columns;  // D, or D padded with zeros to PaddedHeadSize()
  const int32_t* tiles;
};

// One query, its number of keys, and where its output goes.
struct Query {
  const float* q;    // [D]
  int64_t num_keys;  // >= 1: keys [0, num_keys)
  float* out;        // [D]
};

struct AttentionBlock {
  absl::Span<const Query> queries;  // at most kQueryBlock, their numbers of keys ascending
  KeyValueTiles kv;
  int64_t head_size;  // D
  float scale;
  float* scratch;  // AttentionScratchSize(D) floats, aligned to 64 bytes
};

int64_t AttentionScratchSize(int64_t head_size);

// out = softmax(q K^T scale) V for each query. Reads no key or value past a query's own into its result.
void AttendBlock(const AttentionBlock& block);

// Keys that are packed together: a cache line of a tile.
inline constexpr int64_t kKeysTurned = 16;

// Rows of keys and values that become a part of a tile.
struct PackedRows {
  const float* k;  // [count, D], `stride` between rows
  const float* v;  // likewise
  int64_t stride;
  int64_t count;      // at most kKeysTurned; the keys after them become zero
  int64_t head_size;  // D
  float* k_tile;      // columns of [D, 64]
  float* v_tile;      // rows of [64, padded D]
};
void PackKeysAndValues(const PackedRows& rows);

}  // namespace prism::cpu
