// Attention, in leaves of 256 keys and tiles of 64 (numerics.md 7).
//
// For one query and head, over keys in ascending order: tiles of kAttentionTile keys at absolute
// positions, leaves of kAttentionLeaf. Inside a leaf a running maximum m, eight running sums
// l[key mod 8] and an output o go from tile to tile, rescaled unconditionally at each tile;
// leaves are merged left to right. A score is one ascending chain over the head's elements.
#pragma once

#include "absl/status/status.h"
#include "common/tensor/sum_order.h"
#include "kernels/device/backend.h"

namespace prism {

// The KV memory of one layer on one rank; a page holds kAttentionTile tokens. Keys lie transposed
// inside a page, so that 64 scores are 64 neighbouring elements; a device may arrange the elements
// of one head's page otherwise, since only its own kernels read them.
struct KvLayer {
  TensorView k;  // [pages, G, D, kAttentionTile] A
  TensorView v;  // [pages, G, kAttentionTile, D] A
};

// Stores the keys and values of new rows: slot = page * kAttentionTile + place in the page. A
// negative slot stores nothing (padding).
struct KvWriteArgs {
  TensorView qkv;    // [T, C] A
  int64_t k_column;  // head g's key is columns [k_column + g D, k_column + (g + 1) D)
  int64_t v_column;  // likewise its value
  TensorView slots;  // [T] i32, distinct
  KvLayer kv;
};
absl::Status KvWrite(Stream& stream, const KvWriteArgs& args);

// out = softmax(q K^T scale) V, causal by sequence index, over paged keys and values.
//
// Sequence s owns rows [query_starts[s], query_starts[s + 1]) of q; these are its last tokens, so
// row i of n stands at index context_lengths[s] - n + i and sees keys up to its own. Key j of s
// lies in page page_tables[s, j / kAttentionTile]. Query head h uses KV head h / (num_heads / G).
// Nothing outside a sequence's own context is read into its result.
struct AttentionPagedArgs {
  TensorView qkv;              // [T, C] A; head h's query is columns [h D, (h + 1) D)
  int64_t num_heads;           // a multiple of G
  KvLayer kv;                  // G, D
  TensorView query_starts;     // [S + 1] i32, ascending, from 0 to T
  TensorView context_lengths;  // [S] i32, tokens of s in the cache, its new rows included
  TensorView page_tables;      // [S, P] i32; entries past a context are not read
  TensorView out;              // [T, num_heads D] A; must not overlap qkv
  float scale;
};
absl::Status AttentionPaged(Stream& stream, const AttentionPagedArgs& args);

// out = softmax(q k^T scale) v inside each segment: rows [segment_starts[s], segment_starts[s + 1])
// see each other and nothing else. Columns of qkv: q [0, H D), k [H D, 2 H D), v [2 H D, 3 H D).
// Tiles and leaves count from the segment's start.
struct AttentionVarlenArgs {
  TensorView qkv;  // [T, C] A, C = 3 num_heads D
  int64_t num_heads;
  TensorView segment_starts;  // [S + 1] i32, ascending, from 0 to T
  TensorView out;             // [T, num_heads D] A; must not overlap qkv
  float scale;
};
absl::Status AttentionVarlen(Stream& stream, const AttentionVarlenArgs& args);

}  // namespace prism
