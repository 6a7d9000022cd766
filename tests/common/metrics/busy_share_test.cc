#include "common/metrics/busy_share.h"

#include <gtest/gtest.h>

namespace prism {
namespace {

using std::chrono::seconds;

// Sums of a few powers of two, each rounded once.
constexpr double kRounding = 1e-12;

class BusyShareTest : public testing::Test {
 protected:
  SteadyTime At(int s) const { return start_ + seconds(s); }
  const SteadyTime start_ = SteadyTime() + std::chrono::hours(1);
  BusyShare share_{start_};
};

TEST_F(BusyShareTest, NothingWorkedYet) {
  EXPECT_EQ(share_.AtEnd(), 0);
  EXPECT_EQ(share_.At(At(100)), 0);
}

TEST_F(BusyShareTest, IsHalfAfterAHalfLifeOfWorkAndHalfOfThatAfterOneOfRest) {
  share_.Observe(At(0), At(15));
  EXPECT_NEAR(share_.AtEnd(), 0.5, kRounding);
  EXPECT_NEAR(share_.At(At(15)), 0.5, kRounding);
  EXPECT_NEAR(share_.At(At(30)), 0.25, kRounding);
  share_.Observe(At(30), At(45));
  EXPECT_NEAR(share_.AtEnd(), 0.625, kRounding);
}

TEST_F(BusyShareTest, ApproachesThePartThatWorks) {
  for (int i = 0; i < 100; ++i) share_.Observe(At(15 * i), At(15 * (i + 1)), 0.25);
  EXPECT_NEAR(share_.AtEnd(), 0.25, kRounding);
}

TEST_F(BusyShareTest, DoesNotDependOnHowTheTimeIsCut) {
  BusyShare whole(start_);
  whole.Observe(At(3), At(33), 0.75);
  for (int s = 3; s < 33; ++s) share_.Observe(At(s), At(s + 1), 0.75);
  EXPECT_NEAR(share_.AtEnd(), whole.AtEnd(), kRounding);
}

}  // namespace
}  // namespace prism
