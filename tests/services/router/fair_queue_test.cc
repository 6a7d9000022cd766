#include "services/router/fair_queue.h"

#include <gtest/gtest.h>

#include <map>
#include <string>

namespace prism {
namespace {

TEST(FairQueueTest, OneFlowIsFirstComeFirstServed) {
  FairQueue<int> queue;
  for (int i = 0; i < 5; ++i) queue.Push("a", 1, 10 - i, i);
  for (int i = 0; i < 5; ++i) EXPECT_EQ(queue.Pop(), i);
  EXPECT_TRUE(queue.empty());
}

// A flow that pushed a thousand before the others came takes no more than its share from then on.
TEST(FairQueueTest, AFloodWaitsBehindItself) {
  FairQueue<std::string> queue;
  for (int i = 0; i < 1000; ++i) queue.Push("flood", 1, 1, "flood");
  for (int i = 0; i < 10; ++i) queue.Push("calm", 1, 1, "calm");
  std::map<std::string, int> served;
  for (int i = 0; i < 20; ++i) ++served[queue.Pop()];
  EXPECT_EQ(served["calm"], 10);
  EXPECT_EQ(served["flood"], 10);
}

TEST(FairQueueTest, SharesFollowWeightsAndCosts) {
  FairQueue<std::string> queue;
  for (int i = 0; i < 1000; ++i) {
    queue.Push("light", 1, 1, "light");
    queue.Push("heavy", 3, 1, "heavy");
    queue.Push("costly", 1, 4, "costly");
  }
  std::map<std::string, int> served;
  for (int i = 0; i < 850; ++i) ++served[queue.Pop()];
  // Work done: 200 x 1 / 1 = 600 x 1 / 3 = 50 x 4 / 1; two flows differ by at most an item each.
  EXPECT_NEAR(served["light"], 200, 4);
  EXPECT_NEAR(served["heavy"], 600, 4);
  EXPECT_NEAR(served["costly"], 50, 2);
}

TEST(FairQueueTest, IdlenessEarnsNoCredit) {
  FairQueue<std::string> queue;
  for (int i = 0; i < 100; ++i) queue.Push("busy", 1, 1, "busy");
  for (int i = 0; i < 50; ++i) queue.Pop();
  for (int i = 0; i < 50; ++i) queue.Push("late", 1, 1, "late");
  std::map<std::string, int> served;
  for (int i = 0; i < 20; ++i) ++served[queue.Pop()];
  EXPECT_EQ(served["late"], 10);
}

TEST(FairQueueTest, WhatIsRemovedCostsItsFlowNothing) {
  FairQueue<int> queue;
  const auto gone = queue.Push("a", 1, 1000, 1);
  queue.Push("a", 1, 1, 2);
  queue.Push("b", 1, 1, 3);
  EXPECT_EQ(queue.Remove(gone), 1);
  EXPECT_EQ(queue.Remove(gone), std::nullopt);
  EXPECT_EQ(queue.Pop(), 2);
  EXPECT_EQ(queue.Pop(), 3);
}

TEST(FairQueueTest, TheFrontIsWhatIsPopped) {
  FairQueue<int> queue;
  EXPECT_EQ(queue.Front(), nullptr);
  queue.Push("a", 1, 1, 7);
  ASSERT_NE(queue.Front(), nullptr);
  EXPECT_EQ(*queue.Front(), 7);
  EXPECT_EQ(queue.Pop(), 7);
}

TEST(FairQueueTest, FlowsThatAreGoneAreForgotten) {
  FairQueue<int> queue;
  for (int i = 0; i < 10'000; ++i) {
    queue.Push("steady", 1, 1, 0);
    queue.Push("user " + std::to_string(i), 1, 1, i);
    queue.Pop();
    queue.Pop();
    ASSERT_LE(queue.num_flows(), 3u);
  }
}

}  // namespace
}  // namespace prism
