#include "common/checkpoint/tp_shard.h"

#include "absl/strings/str_cat.h"
#include "common/base/status.h"

namespace prism {
namespace {

IndexRange Scaled(IndexRange range, int64_t by) { return {range.begin * by, range.end * by}; }

absl::Status ShardExperts(const TextConfig& text, MoeShard moe_shard, TpShard* shard) {
  const int64_t rank = shard->rank.rank, num_ranks = shard->rank.num_ranks;
  if (moe_shard == MoeShard::kIds) {
    shard->experts = RankExperts(text.num_experts, shard->rank.rank, shard->rank.num_ranks);
    shard->expert_intermediate = {0, text.moe_intermediate_size};
    return absl::OkStatus();
  }
  const int64_t units = text.moe_intermediate_size / kSumUnit;
  if (text.moe_intermediate_size % kSumUnit != 0 || units < num_ranks) {
    return absl::InvalidArgumentError(absl::StrCat("moe_intermediate_size ", text.moe_intermediate_size,
                                                   " is not a multiple of ", kSumUnit, " of at least ",
                                                   kSumUnit * num_ranks, ", one slice a rank"));
  }
  shard->experts = {0, text.num_experts};
  shard->expert_intermediate = Scaled({units * rank / num_ranks, units * (rank + 1) / num_ranks}, kSumUnit);
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<MoeShard> ParseMoeShard(absl::string_view name) {
  if (name == "ids") return MoeShard::kIds;
  if (name == "intermediate") return MoeShard::kIntermediate;
  return absl::InvalidArgumentError(absl::StrCat("MoE shard is \"", name, "\", want ids or intermediate"));
}

std::string NumericsSuffix(const TextConfig& text, MoeShard moe_shard, int num_ranks) {
  if (moe_shard == MoeShard::kIds || num_ranks == 1 || text.num_experts == 0) return "";
  return absl::StrCat("-moe-intermediate-", num_ranks);
}

absl::Status CheckTensorParallel(const TextConfig& text, int num_ranks) {
  if (num_ranks != 1 && num_ranks != 2 && num_ranks != 4) {
    return absl::InvalidArgumentError(
        absl::StrCat("tensor-parallel size is ", num_ranks, ", want 1, 2 or 4"));
  }
  const int64_t heads = text.num_attention_heads;
  const int64_t kv_heads = text.num_key_value_heads;
  if (heads % num_ranks != 0) {
    return absl::InvalidArgumentError(absl::StrCat("num_attention_heads ", heads,
                                                   " is not a multiple of tensor-parallel size ", num_ranks));
  }
  if (kv_heads >= num_ranks && kv_heads % num_ranks != 0) {
    return absl::InvalidArgumentError(absl::StrCat("num_key_value_heads ", kv_heads,
                                                   " is not a multiple of tensor-parallel size ", num_ranks));
  }
  if (kv_heads < num_ranks && num_ranks % kv_heads != 0) {
    return absl::InvalidArgumentError(absl::StrCat("tensor-parallel size ", num_ranks,
                                                   " is not a multiple of num_key_value_heads ", kv_heads));
  }
  for (int rank = 0; rank < num_ranks; ++rank) {
    const int64_t each = text.q_size() / num_ranks;
    const IndexRange by_heads = {rank * each, (rank + 1) * each};
    const IndexRange by_leaves = RankRange(text.q_size(), rank, num_ranks);
    if (!(by_heads == by_leaves)) {
      return absl::InvalidArgumentError(absl::StrCat(
          "num_attention_heads ", heads, " x head_dim ", text.head_dim, ": rank ", rank, " of ", num_ranks,
          " has columns [", by_heads.begin, ", ", by_heads.end, ") of o_proj by its heads but [",
          by_leaves.begin, ", ", by_leaves.end, ") by the order of sums"));
    }
  }
  return absl::OkStatus();
}

absl::StatusOr<TpShard> ShardFor(const TextConfig& text, TpRank rank, MoeShard moe_shard) {
  PRISM_RETURN_IF_ERROR(CheckTensorParallel(text, rank.num_ranks));
  if (rank.rank < 0 || rank.rank >= rank.num_ranks) {
    return absl::InvalidArgumentError(
        absl::StrCat("rank is ", rank.rank, ", want a number in [0, ", rank.num_ranks, ")"));
  }
  TpShard shard;
  shard.rank = rank;
  const int64_t heads_each = text.num_attention_heads / rank.num_ranks;
  shard.heads = {rank.rank * heads_each, (rank.rank + 1) * heads_each};
  // A KV head serves `group` neighbouring heads; with fewer KV heads than ranks several ranks keep
  // the same one.
  const int64_t group = text.num_attention_heads / text.num_key_value_heads;
  shard.kv_heads = {shard.heads.begin / group, (shard.heads.end - 1) / group + 1};
  shard.q_rows = Scaled(shard.heads, text.head_dim);
  shard.kv_rows = Scaled(shard.kv_heads, text.head_dim);
  shard.intermediate = RankRange(text.intermediate_size, rank.rank, rank.num_ranks);
  if (text.num_experts > 0) {
    PRISM_RETURN_IF_ERROR(ShardExperts(text, moe_shard, &shard));
  }
  shard.vocabulary = RankVocabulary(text.vocab_size, rank.rank, rank.num_ranks);
  return shard;
}

}  // namespace prism
