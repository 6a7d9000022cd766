// What one rank of a tensor-parallel group holds, as pure arithmetic over a TextConfig. The borders
// of sums come from sum_order.h, so that 1, 2 and 4 ranks add in the same order.
//
// Thread safety: free functions and plain values.
#pragma once

#include <cstdint>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "common/checkpoint/model_config.h"
#include "common/tensor/sum_order.h"

namespace prism {

struct TpRank {
  int rank = 0;
  int num_ranks = 1;  // 1, 2 or 4
};

// How ranks share the experts of a layer. By id, whole quarters of the ids: the same bits on 1, 2 and 4
// ranks. By the intermediate size, a slice of every expert: each rank reads its part of whichever experts
// are chosen, but rounds its own part of their outputs, so that the bits depend on the number of ranks.
enum class MoeShard { kIds, kIntermediate };

// "ids" or "intermediate". InvalidArgument for other names.
absl::StatusOr<MoeShard> ParseMoeShard(absl::string_view name);

// What distinguishes the bits of a group: "" or, behind a numerics id, "-moe-intermediate-2".
std::string NumericsSuffix(const TextConfig& text, MoeShard moe_shard, int num_ranks);

// The share of a rank. Ranges are of the whole model's indices.
struct TpShard {
  TpRank rank;
  IndexRange heads;     // attention heads
  IndexRange kv_heads;  // at least one; shared by neighbours where ranks outnumber KV heads
  IndexRange q_rows;    // rows of q_proj; also the columns of o_proj
  IndexRange kv_rows;   // rows of k_proj and of v_proj
  // Rows of gate_proj and up_proj, columns of down_proj, in a layer with a dense MLP. May be empty.
  IndexRange intermediate;
  IndexRange experts;  // expert ids; may be empty
  // Rows of each expert's gate and of its up, columns of its down. All of them with MoeShard::kIds.
  IndexRange expert_intermediate;
  IndexRange vocabulary;  // rows of lm_head whose logits the rank computes
};

// InvalidArgument, with the numbers, where the group is not of 1, 2 or 4 ranks, the heads do not
// divide, the KV heads neither divide nor are divided, a rank's heads are not the columns of
// o_proj that the order of sums gives it, or experts have fewer slices of kSumUnit than there are ranks.
absl::StatusOr<TpShard> ShardFor(const TextConfig& text, TpRank rank, MoeShard moe_shard = MoeShard::kIds);

// Whether ShardFor() accepts a group of `num_ranks`; its message if not.
absl::Status CheckTensorParallel(const TextConfig& text, int num_ranks);

}  // namespace prism
