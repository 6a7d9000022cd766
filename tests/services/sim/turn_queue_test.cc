#include "services/sim/turn_queue.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <vector>

namespace prism::sim {
namespace {

using testing::ElementsAre;
using testing::IsEmpty;

class TurnQueueTest : public testing::Test {
 protected:
  int64_t room_ = 0;
  std::vector<uint64_t> turns_;
  TurnQueue queue_{[this](uint64_t work) {
    if (room_ == 0) return false;
    --room_;
    turns_.push_back(work);
    if (work == 7) queue_.Remove(3);  // a turn may take others out
    return true;
  }};
};

TEST_F(TurnQueueTest, GivesTurnsAsFarAsThereIsRoomUrgentOnesFirst) {
  queue_.Push(1, "flood", 1, 1);
  queue_.Push(2, "flood", 1, 1);
  queue_.Push(3, "calm", 1, 1);
  queue_.PushUrgent(4);
  queue_.Pump();
  EXPECT_THAT(turns_, IsEmpty());
  room_ = 3;
  queue_.Pump();
  EXPECT_THAT(turns_, ElementsAre(4, 1, 3));
  EXPECT_EQ(queue_.size(), 1u);
}

TEST_F(TurnQueueTest, WhatIsRemovedGetsNoTurn) {
  queue_.PushUrgent(7);
  queue_.Push(3, "a", 1, 1);
  queue_.Push(5, "a", 1, 1);
  queue_.Remove(5);
  queue_.Remove(6);
  room_ = 9;
  queue_.Pump();
  EXPECT_THAT(turns_, ElementsAre(7));
  EXPECT_EQ(queue_.size(), 0u);
}

}  // namespace
}  // namespace prism::sim
