#include "services/decoder/sched/step_times.h"

#include <gtest/gtest.h>

namespace prism {
namespace {

TEST(StepTimesTest, KnowsNothingAtFirst) {
  const StepTimes times;
  EXPECT_EQ(times.SecondsOfStep(100), 0);
  EXPECT_EQ(times.SecondsFor(1000, 10), 0);
}

TEST(StepTimesTest, InterpolatesBetweenSizesThatWereSeen) {
  StepTimes times;
  times.Observe(1, 0.010);
  times.Observe(1025, 1.034);
  EXPECT_DOUBLE_EQ(times.SecondsOfStep(1), 0.010);
  EXPECT_DOUBLE_EQ(times.SecondsOfStep(513), 0.522);
  EXPECT_DOUBLE_EQ(times.SecondsOfStep(1025), 1.034);
  EXPECT_DOUBLE_EQ(times.SecondsFor(2 * 1025 + 1, 1025), 2.078);
}

// One that decodes alone for an hour must not make the next prompt look like an hour's work.
TEST(StepTimesTest, TakesLargerStepsThanAnySeenToBeNoSlowerThanThose) {
  StepTimes times;
  for (int i = 0; i < 1000; ++i) times.Observe(1, 0.02);
  EXPECT_DOUBLE_EQ(times.SecondsOfStep(2048), 0.02);
  times.Observe(2048, 0.5);
  for (int i = 0; i < 1000; ++i) times.Observe(1, 0.02);
  EXPECT_DOUBLE_EQ(times.SecondsOfStep(2048), 0.5) << "it is not forgotten meanwhile";
}

TEST(StepTimesTest, SaysHowManyRowsFitATime) {
  StepTimes times;
  EXPECT_EQ(times.RowsWithin(0.1, 1, 2048), 2048) << "nothing speaks against it";
  times.Observe(1, 0.01);
  times.Observe(2048, 2.048);
  EXPECT_EQ(times.RowsWithin(3, 1, 2048), 2048);
  EXPECT_EQ(times.RowsWithin(0.3, 1, 2048), 256);
  EXPECT_EQ(times.RowsWithin(0.3, 600, 2048), 600);
  EXPECT_EQ(times.RowsWithin(0.001, 1, 2048), 1);
}

TEST(StepTimesTest, FollowsAChangeOfSpeed) {
  StepTimes times;
  times.Observe(64, 1);
  for (int i = 0; i < 50; ++i) times.Observe(64, 2);
  EXPECT_NEAR(times.SecondsOfStep(64), 2, 1e-3);
}

}  // namespace
}  // namespace prism
