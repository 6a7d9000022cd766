#include "common/tensor/sum_order.h"

#include <gtest/gtest.h>

namespace prism {
namespace {

static_assert(LeafRange(2048, 0) == IndexRange{0, 512});
static_assert(LeafRange(96, 3) == IndexRange{96, 96});

TEST(SumOrderTest, LeavesOfThePublishedSizesAreTheQuartersOfK) {
  for (const int64_t k : {2048, 2560, 4096, 5120, 6144, 9728, 12288, 25600, 768, 1536}) {
    for (int leaf = 0; leaf < kNumLeaves; ++leaf) {
      EXPECT_EQ(LeafRange(k, leaf), (IndexRange{k / 4 * leaf, k / 4 * (leaf + 1)})) << k;
      EXPECT_EQ(LeafRange(k, leaf).size() % kSumUnit, 0) << k;
    }
  }
}

TEST(SumOrderTest, AnOddKIsPaddedToSixtyFourBeforeItIsQuartered) {
  EXPECT_EQ(LeafRange(96, 0), (IndexRange{0, 32}));
  EXPECT_EQ(LeafRange(96, 2), (IndexRange{64, 96}));
  EXPECT_TRUE(LeafRange(96, 3).empty());
  EXPECT_EQ(LeafRange(1, 0), (IndexRange{0, 1}));
  EXPECT_TRUE(LeafRange(1, 1).empty());
}

TEST(SumOrderTest, LeavesAndRanksTileEveryKInOrder) {
  for (int64_t k = 0; k <= 700; ++k) {
    int64_t next = 0;
    for (int leaf = 0; leaf < kNumLeaves; ++leaf) {
      const IndexRange range = LeafRange(k, leaf);
      ASSERT_EQ(range.begin, next) << k;
      ASSERT_GE(range.end, range.begin) << k;
      next = range.end;
    }
    ASSERT_EQ(next, k);
    ASSERT_EQ(LeafWidth(k) % kSumUnit, 0);
    for (const int ranks : {1, 2, 4}) {
      for (int rank = 0; rank < ranks; ++rank) {
        const IndexRange leaves = RankLeaves(rank, ranks);
        ASSERT_EQ(RankRange(k, rank, ranks).begin, LeafRange(k, static_cast<int>(leaves.begin)).begin);
        ASSERT_EQ(RankRange(k, rank, ranks).end, LeafRange(k, static_cast<int>(leaves.end) - 1).end);
      }
    }
  }
}

TEST(SumOrderTest, EveryExpertIsInTheQuarterThatNamesIt) {
  for (int64_t experts = 1; experts <= 130; ++experts) {
    int64_t next = 0;
    for (int quarter = 0; quarter < kExpertQuarters; ++quarter) {
      const IndexRange ids = ExpertQuarter(experts, quarter);
      ASSERT_EQ(ids.begin, next);
      next = ids.end;
      for (int64_t id = ids.begin; id < ids.end; ++id) ASSERT_EQ(QuarterOfExpert(experts, id), quarter);
    }
    ASSERT_EQ(next, experts);
    EXPECT_EQ(RankExperts(experts, 1, 2).begin, ExpertQuarter(experts, 2).begin);
    EXPECT_EQ(RankExperts(experts, 3, 4), ExpertQuarter(experts, 3));
  }
  EXPECT_EQ(ExpertQuarter(12, 1), (IndexRange{3, 6}));
  EXPECT_EQ(ExpertQuarter(5, 2), (IndexRange{4, 5}));
  EXPECT_TRUE(ExpertQuarter(5, 3).empty());
}

TEST(SumOrderTest, TheVocabularyHasEightRangesOfWholeUnits) {
  EXPECT_EQ(VocabularyRange(151936, 1), (IndexRange{18992, 37984}));
  EXPECT_EQ(VocabularyRange(1024, 7), (IndexRange{896, 1024}));
  for (int64_t size = 1; size <= 400; ++size) {
    int64_t next = 0;
    for (int range = 0; range < kVocabularyRanges; ++range) {
      ASSERT_EQ(VocabularyRange(size, range).begin, next);
      next = VocabularyRange(size, range).end;
    }
    ASSERT_EQ(next, size);
    ASSERT_EQ(RankVocabulary(size, 3, 4).begin, VocabularyRange(size, 6).begin);
    ASSERT_EQ(RankVocabulary(size, 0, 1), (IndexRange{0, size}));
  }
}

TEST(SumOrderTest, LeavesAreAddedInPairs) {
  // In float32 1e8 + 1 - 1e8 + 1 is 1 as (a + b) + (c + d) with b and d lost only in this order.
  EXPECT_EQ(AddLeaves(1e8f, 1.0f, -1e8f, 1.0f), (1e8f + 1.0f) + (-1e8f + 1.0f));
  const float sums[8] = {1e8f, 1, -1e8f, 1, 3, 5, 7, 9};
  EXPECT_EQ(AddRowSums(sums), ((1e8f + 1.0f) + (-1e8f + 1.0f)) + ((3.0f + 5.0f) + (7.0f + 9.0f)));
}

}  // namespace
}  // namespace prism
