#include "services/decoder/sched/positions.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <vector>

namespace prism {
namespace {

using testing::ElementsAre;

std::vector<int32_t> Axis(const PromptPositions& walk, size_t axis) {
  std::vector<int32_t> values;
  for (const Position& position : walk.positions) values.push_back(position[axis]);
  return values;
}

TEST(WalkPositionsTest, CountsTextOnAllAxes) {
  const PromptPositions walk = WalkPositions(3, {});
  for (size_t axis = 0; axis < 3; ++axis) EXPECT_THAT(Axis(walk, axis), ElementsAre(0, 1, 2));
  EXPECT_EQ(walk.delta, 0);
}

TEST(WalkPositionsTest, StartsHeightAndWidthOfAPictureWhereItsTimeStands) {
  const VisualSpan picture{.offset = 3, .num_tokens = 6, .grid_h = 4, .grid_w = 6};
  const PromptPositions walk = WalkPositions(11, {&picture, 1});
  EXPECT_THAT(Axis(walk, 0), ElementsAre(0, 1, 2, 3, 3, 3, 3, 3, 3, 6, 7));
  EXPECT_THAT(Axis(walk, 1), ElementsAre(0, 1, 2, 3, 3, 3, 4, 4, 4, 6, 7));
  EXPECT_THAT(Axis(walk, 2), ElementsAre(0, 1, 2, 3, 4, 5, 3, 4, 5, 6, 7));
  EXPECT_EQ(walk.delta, -3);
}

TEST(WalkPositionsTest, TakesEachTemporalPatchOfAVideoAsAPicture) {
  const std::vector<VisualSpan> patches = {{.offset = 4, .num_tokens = 4, .grid_h = 4, .grid_w = 4},
                                           {.offset = 11, .num_tokens = 4, .grid_h = 4, .grid_w = 4}};
  const PromptPositions walk = WalkPositions(17, patches);
  EXPECT_THAT(Axis(walk, 0), ElementsAre(0, 1, 2, 3, 4, 4, 4, 4, 6, 7, 8, 9, 9, 9, 9, 11, 12));
  EXPECT_THAT(Axis(walk, 1), ElementsAre(0, 1, 2, 3, 4, 4, 5, 5, 6, 7, 8, 9, 9, 10, 10, 11, 12));
  EXPECT_THAT(Axis(walk, 2), ElementsAre(0, 1, 2, 3, 4, 5, 4, 5, 6, 7, 8, 9, 10, 9, 10, 11, 12));
  EXPECT_EQ(walk.delta, -4);
}

TEST(WalkPositionsTest, LetsAPictureStandFirstAndLast) {
  const VisualSpan picture{.offset = 0, .num_tokens = 2, .grid_h = 2, .grid_w = 4};
  const PromptPositions walk = WalkPositions(2, {&picture, 1});
  EXPECT_THAT(Axis(walk, 0), ElementsAre(0, 0));
  EXPECT_THAT(Axis(walk, 2), ElementsAre(0, 1));
  EXPECT_EQ(walk.delta, 0);
}

TEST(WalkPositionsDeathTest, StopsAtASpanWhoseGridIsNotItsTokens) {
  const VisualSpan picture{.offset = 0, .num_tokens = 5, .grid_h = 4, .grid_w = 4};
  EXPECT_DEATH(WalkPositions(9, {&picture, 1}), "num_tokens");
}

}  // namespace
}  // namespace prism
