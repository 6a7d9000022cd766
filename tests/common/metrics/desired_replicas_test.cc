#include "common/metrics/desired_replicas.h"

#include <gtest/gtest.h>

namespace prism {
namespace {

TEST(DesiredReplicasTest, CountsWhatIsInUseAndWhatIsQueued) {
  EXPECT_EQ(DesiredReplicas(0, 0), 1u);
  EXPECT_EQ(DesiredReplicas(kInUseTarget, 0), 1u);
  EXPECT_EQ(DesiredReplicas(1, 0), 2u);
  EXPECT_EQ(DesiredReplicas(1, 2 * kDrainTargetS), 4u);  // 1 / 0.7 + 2, rounded up
  EXPECT_EQ(DesiredReplicas(1, 1e12), kDesiredReplicasMax);
}

}  // namespace
}  // namespace prism
