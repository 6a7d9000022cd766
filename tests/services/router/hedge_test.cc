#include "services/router/hedge.h"

#include <gtest/gtest.h>

namespace prism {
namespace {

using std::chrono::milliseconds;

TEST(HedgePolicyTest, WithoutExperienceNothingIsSlow) {
  HedgePolicy policy;
  for (size_t i = 0; i + 1 < kHedgeKnown; ++i) policy.Record(1);
  EXPECT_EQ(policy.Delay(), std::nullopt);
  policy.Record(1);
  EXPECT_EQ(policy.Delay(), milliseconds(2000));
}

TEST(HedgePolicyTest, SlowIsAMultipleOfTheRecent95thPercentile) {
  HedgePolicy policy;
  for (size_t i = 0; i < kHedgeWindow; ++i) policy.Record(50);  // long ago
  for (size_t i = 0; i < kHedgeWindow; ++i) policy.Record(i % 25 == 0 ? 10 : 0.1);
  EXPECT_EQ(policy.Delay(), milliseconds(200)) << "one in 25 is beyond the percentile";
}

TEST(HedgePolicyTest, QuickCallsHaveALeastDelay) {
  HedgePolicy policy;
  for (size_t i = 0; i < kHedgeWindow; ++i) policy.Record(0.001);
  EXPECT_EQ(policy.Delay(), kHedgeDelayMin);
}

TEST(HedgePolicyTest, AtMostOneInSoManyIsHedged) {
  HedgePolicy policy;
  EXPECT_FALSE(policy.Take());
  int hedged = 0;
  for (int i = 0; i < 1000; ++i) {
    policy.Record(1);
    hedged += policy.Take() ? 1 : 0;
  }
  EXPECT_EQ(hedged, 1000 / kHedgeEvery);
}

}  // namespace
}  // namespace prism
