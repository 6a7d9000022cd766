#include "common/checkpoint/tp_shard.h"

#include <gtest/gtest.h>

#include <set>

#include "absl/strings/str_cat.h"

namespace prism {
namespace {

TextConfig Text(int64_t heads, int64_t kv_heads) {
  TextConfig text;
  text.vocab_size = 1024;
  text.hidden_size = 128;
  text.num_attention_heads = heads;
  text.num_key_value_heads = kv_heads;
  text.head_dim = 128;
  text.intermediate_size = 256;
  text.num_experts = 12;
  return text;
}

TpShard Shard(const TextConfig& text, int rank, int num_ranks) {
  const auto shard = ShardFor(text, {rank, num_ranks});
  EXPECT_TRUE(shard.ok()) << shard.status();
  return *shard;
}

TEST(TpShardTest, OneRankHoldsEverything) {
  const TpShard shard = Shard(Text(4, 2), 0, 1);
  EXPECT_EQ(shard.heads, (IndexRange{0, 4}));
  EXPECT_EQ(shard.kv_heads, (IndexRange{0, 2}));
  EXPECT_EQ(shard.q_rows, (IndexRange{0, 512}));
  EXPECT_EQ(shard.kv_rows, (IndexRange{0, 256}));
  EXPECT_EQ(shard.intermediate, (IndexRange{0, 256}));
  EXPECT_EQ(shard.experts, (IndexRange{0, 12}));
  EXPECT_EQ(shard.vocabulary, (IndexRange{0, 1024}));
}

TEST(TpShardTest, FourRanksOfThePublishedMixtureHoldAQuarterEach) {
  TextConfig text = Text(32, 4);
  text.vocab_size = 151936;
  text.num_experts = 128;
  text.intermediate_size = 6144;
  const TpShard shard = Shard(text, 3, 4);
  EXPECT_EQ(shard.heads, (IndexRange{24, 32}));
  EXPECT_EQ(shard.kv_heads, (IndexRange{3, 4}));
  EXPECT_EQ(shard.q_rows, (IndexRange{3072, 4096}));
  EXPECT_EQ(shard.kv_rows, (IndexRange{384, 512}));
  EXPECT_EQ(shard.intermediate, (IndexRange{4608, 6144}));
  EXPECT_EQ(shard.experts, (IndexRange{96, 128}));
  EXPECT_EQ(shard.vocabulary, (IndexRange{113952, 151936}));
}

TEST(TpShardTest, FewerKeyValueHeadsThanRanksAreReplicated) {
  EXPECT_EQ(Shard(Text(4, 1), 0, 4).kv_heads, (IndexRange{0, 1}));
  EXPECT_EQ(Shard(Text(4, 1), 3, 4).kv_heads, (IndexRange{0, 1}));
  EXPECT_EQ(Shard(Text(4, 2), 1, 4).kv_heads, (IndexRange{0, 1}));
  EXPECT_EQ(Shard(Text(4, 2), 2, 4).kv_heads, (IndexRange{1, 2}));
}

TEST(TpShardTest, RanksTileEverythingAndEveryHeadFindsItsKeyValueHead) {
  for (const auto& [heads, kv_heads] :
       {std::pair<int64_t, int64_t>{4, 1}, {4, 2}, {4, 4}, {8, 4}, {64, 8}, {32, 4}, {16, 8}}) {
    const TextConfig text = Text(heads, kv_heads);
    for (const int num_ranks : {1, 2, 4}) {
      TpShard last;
      std::set<int64_t> kv_seen;
      for (int rank = 0; rank < num_ranks; ++rank) {
        const TpShard shard = Shard(text, rank, num_ranks);
        EXPECT_EQ(shard.heads.begin, last.heads.end);
        EXPECT_EQ(shard.intermediate.begin, last.intermediate.end);
        EXPECT_EQ(shard.experts.begin, last.experts.end);
        EXPECT_EQ(shard.vocabulary.begin, last.vocabulary.end);
        EXPECT_EQ(shard.q_rows, RankRange(text.q_size(), rank, num_ranks));
        for (int64_t head = shard.heads.begin; head < shard.heads.end; ++head) {
          EXPECT_TRUE(shard.kv_heads.Contains(head / (heads / kv_heads)));
        }
        for (int64_t kv = shard.kv_heads.begin; kv < shard.kv_heads.end; ++kv) kv_seen.insert(kv);
        last = shard;
      }
      EXPECT_EQ(last.heads.end, heads);
      EXPECT_EQ(last.intermediate.end, 256);
      EXPECT_EQ(last.experts.end, 12);
      EXPECT_EQ(last.vocabulary.end, 1024);
      EXPECT_EQ(static_cast<int64_t>(kv_seen.size()), kv_heads);
    }
  }
}

TEST(TpShardTest, EveryExpertIsCutIntoSlicesWhereThatIsAskedFor) {
  TextConfig text = Text(4, 4);
  for (const int64_t size : {int64_t{96}, int64_t{768}, int64_t{64}}) {
    text.moe_intermediate_size = size;
    for (const int num_ranks : {1, 2, 4}) {
      int64_t end = 0;
      for (int rank = 0; rank < num_ranks; ++rank) {
        const auto shard = ShardFor(text, {rank, num_ranks}, MoeShard::kIntermediate);
        ASSERT_TRUE(shard.ok()) << shard.status();
        EXPECT_EQ(shard->experts, (IndexRange{0, 12}));
        EXPECT_EQ(shard->expert_intermediate.begin, end);
        EXPECT_GT(shard->expert_intermediate.size(), 0);
        EXPECT_EQ(shard->expert_intermediate.end % kSumUnit, 0);
        end = shard->expert_intermediate.end;
      }
      EXPECT_EQ(end, size);
    }
  }
  EXPECT_EQ(Shard(text, 1, 2).expert_intermediate, (IndexRange{0, 64})) << "whole experts unless asked";
  for (const int64_t size : {48, 72}) {
    text.moe_intermediate_size = size;
    EXPECT_EQ(ShardFor(text, {0, 4}, MoeShard::kIntermediate).status().message(),
              absl::StrCat("moe_intermediate_size ", size,
                           " is not a multiple of 16 of at least 64, one slice a rank"));
  }
}

TEST(TpShardTest, SlicedExpertsHaveNumericsOfTheirOwn) {
  TextConfig text = Text(4, 4);
  EXPECT_EQ(NumericsSuffix(text, MoeShard::kIds, 4), "");
  EXPECT_EQ(NumericsSuffix(text, MoeShard::kIntermediate, 1), "");
  EXPECT_EQ(NumericsSuffix(text, MoeShard::kIntermediate, 2), "-moe-intermediate-2");
  text.num_experts = 0;
  EXPECT_EQ(NumericsSuffix(text, MoeShard::kIntermediate, 2), "") << "nothing is sliced";
  EXPECT_EQ(ParseMoeShard("ids").value(), MoeShard::kIds);
  EXPECT_EQ(ParseMoeShard("intermediate").value(), MoeShard::kIntermediate);
  EXPECT_EQ(ParseMoeShard("heads").status().message(), "MoE shard is \"heads\", want ids or intermediate");
}

TEST(TpShardTest, ADenseModelHasNoExperts) {
  TextConfig text = Text(4, 2);
  text.num_experts = 0;
  EXPECT_TRUE(Shard(text, 0, 2).experts.empty());
}

TEST(TpShardTest, WhatDoesNotDivideIsRefusedWithTheNumbers) {
  EXPECT_EQ(CheckTensorParallel(Text(6, 2), 4).message(),
            "num_attention_heads 6 is not a multiple of tensor-parallel size 4");
  EXPECT_EQ(CheckTensorParallel(Text(12, 6), 4).message(),
            "num_key_value_heads 6 is not a multiple of tensor-parallel size 4");
  EXPECT_EQ(CheckTensorParallel(Text(12, 3), 4).message(),
            "tensor-parallel size 4 is not a multiple of num_key_value_heads 3");
  EXPECT_EQ(CheckTensorParallel(Text(8, 8), 3).message(), "tensor-parallel size is 3, want 1, 2 or 4");
  EXPECT_EQ(CheckTensorParallel(Text(8, 8), 0).message(), "tensor-parallel size is 0, want 1, 2 or 4");
  EXPECT_EQ(CheckTensorParallel(Text(8, 8), 8).message(), "tensor-parallel size is 8, want 1, 2 or 4");
  EXPECT_EQ(ShardFor(Text(8, 8), {4, 4}).status().message(), "rank is 4, want a number in [0, 4)");
  EXPECT_EQ(ShardFor(Text(8, 8), {-1, 4}).status().message(), "rank is -1, want a number in [0, 4)");
}

TEST(TpShardTest, HeadsThatAreNotTheLeavesOfTheirSumAreRefused) {
  TextConfig text = Text(4, 4);
  text.head_dim = 24;  // K = 96 is padded to 128, so that leaves are 32 wide and not 24
  EXPECT_EQ(CheckTensorParallel(text, 4).message(),
            "num_attention_heads 4 x head_dim 24: rank 0 of 4 has columns [0, 24) of o_proj by its heads but "
            "[0, 32) by "
            "the order of sums");
  EXPECT_TRUE(CheckTensorParallel(text, 1).ok());
}

TEST(TpShardTest, SixHeadsAreTwoRanksOfThree) {
  const TpShard shard = Shard(Text(6, 2), 1, 2);
  EXPECT_EQ(shard.heads, (IndexRange{3, 6}));
  EXPECT_EQ(shard.kv_heads, (IndexRange{1, 2}));
}

}  // namespace
}  // namespace prism
