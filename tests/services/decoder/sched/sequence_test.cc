#include "services/decoder/sched/sequence.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace prism {
namespace {

TEST(SequenceTest, GoesOnWithTextPositionsAfterThePicture) {
  Sequence sequence({.id = 1,
                     .token_ids = {5, 9, 9, 9, 9, 6},
                     .prompt_length = 6,
                     .limit = 8,
                     .spans = {{.offset = 1, .num_tokens = 4, .grid_h = 4, .grid_w = 4}}});
  EXPECT_EQ(sequence.PositionOf(5), (Position{3, 3, 3}));
  sequence.Append(7);
  EXPECT_EQ(sequence.PositionOf(6), (Position{4, 4, 4}));
}

TEST(SequenceTest, ResumesWithTheSamePositionsAsIfItHadGeneratedThem) {
  const std::vector<VisualSpan> spans = {{.offset = 1, .num_tokens = 2, .grid_h = 2, .grid_w = 4}};
  Sequence whole({.id = 1, .token_ids = {5, 9, 9, 6}, .prompt_length = 4, .limit = 9, .spans = spans});
  whole.Append(7);
  whole.Append(8);
  const Sequence resumed(
      {.id = 2, .token_ids = {5, 9, 9, 6, 7, 8}, .prompt_length = 4, .limit = 9, .spans = spans});
  for (int64_t i = 0; i < 6; ++i) EXPECT_EQ(whole.PositionOf(i), resumed.PositionOf(i)) << i;
}

TEST(SequenceDeathTest, StopsWhenItWouldPassItsLimit) {
  Sequence sequence({.id = 1, .token_ids = {5}, .prompt_length = 1, .limit = 2});
  sequence.Append(6);
  EXPECT_DEATH(sequence.Append(7), "limit");
}

}  // namespace
}  // namespace prism
