// What one rank of a tensor-parallel group holds, as pure arithmetic over a TextConfig. The borders
// of sums come from sum_order.h, so that 1, 2 and 4 ranks add in the same order.
//
// Thread safety: free functions and plain values.
#pragma once

#include <cstdint>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "common/checkpoint/model_config.h"
#include "common/tensor/sum_order.h"

namespace prism {

struct TpRank {
  int rank = 0;
  int num_ranks = 1;  // 1, 2 or 4
};

// The share of a rank. Ranges are of the whole model's indices.
struct TpShard {
  TpRank rank;
  IndexRange heads;     // attention heads
  IndexRange kv_heads;  // at least one; shared by neighbours where ranks outnumber KV heads
  IndexRange q_rows;    // rows of q_proj; also the columns of o_proj
  IndexRange kv_rows;   // rows of k_proj and of v_proj
  // Rows of gate_proj and up_proj, columns of down_proj, in a layer with a dense MLP. May be empty.
  IndexRange intermediate;
  IndexRange experts;     // expert ids; may be empty
  IndexRange vocabulary;  // rows of lm_head whose logits the rank computes
};

// InvalidArgument, with the numbers, where the group is not of 1, 2 or 4 ranks, the heads do not
// divide, the KV heads neither divide nor are divided, or a rank's heads are not the columns of
// o_proj that the order of sums gives it.
absl::StatusOr<TpShard> ShardFor(const TextConfig& text, TpRank rank);

// Whether ShardFor() accepts a group of `num_ranks`; its message if not.
absl::Status CheckTensorParallel(const TextConfig& text, int num_ranks);

}  // namespace prism
