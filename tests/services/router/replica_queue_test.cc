#include "services/router/replica_queue.h"

#include <gtest/gtest.h>

#include <memory>
#include <string>
#include <vector>

#include "common/base/log.h"

namespace prism {
namespace {

// The queue in front of replicas whose room the test decides; no use is ever real.
class ReplicaQueueTest : public testing::Test {
 protected:
  static void SetUpTestSuite() { InitLog("test", "error"); }

  std::shared_ptr<ReplicaQueue::Waiter> Add(const std::string& name, const Share& share) {
    return queue_.Add(
        share,
        [this]() -> absl::StatusOr<ReplicaUse> {
          if (!replicas_.ok()) return replicas_;
          if (room_ == 0) return absl::ResourceExhaustedError("full");
          --room_;
          return ReplicaUse();
        },
        [this, name](absl::StatusOr<ReplicaUse> use) {
          ended_.push_back(use.ok() ? name : name + " " + absl::StatusCodeToString(use.status().code()));
          if (then_) then_();
        });
  }
  // Makes room and lets the queue know, as the set does: through a piece of work that comes.
  void Room(int room) {
    room_ = room;
    const auto poke = queue_.Add(
        {.urgent = true}, [] { return absl::UnavailableError("poke"); },
        [](const absl::StatusOr<ReplicaUse>&) {});
  }

  ReplicaSet set_{{.role = ReplicaRole::kDecoder}};
  ReplicaQueue queue_{&set_, Gauge()};
  absl::Status replicas_;
  int room_ = 0;
  std::vector<std::string> ended_;
  std::function<void()> then_;
};

using Names = std::vector<std::string>;

TEST_F(ReplicaQueueTest, WhereThereIsRoomNobodyWaits) {
  room_ = 1;
  Add("a", {});
  EXPECT_EQ(ended_, Names({"a"}));
  EXPECT_EQ(queue_.waiting(), 0u);
}

TEST_F(ReplicaQueueTest, TenantsTakeTurnsAndTheUrgentGoFirst) {
  for (int i = 0; i < 4; ++i) Add("flood", {.tenant = "flood"});
  Add("calm", {.tenant = "calm"});
  Add("again", {.tenant = "flood", .urgent = true});
  EXPECT_EQ(queue_.waiting(), 6u);
  Room(3);
  EXPECT_EQ(ended_, Names({"again", "flood", "calm"}));
  EXPECT_EQ(queue_.waiting(), 3u);
}

TEST_F(ReplicaQueueTest, WhatIsCancelledIsToldSoOnceAndTakesNoRoom) {
  const auto first = Add("first", {});
  Add("second", {});
  first->Cancel();
  first->Cancel();
  EXPECT_EQ(ended_, Names({"first CANCELLED"}));
  Room(1);
  EXPECT_EQ(ended_, Names({"first CANCELLED", "second"}));
}

TEST_F(ReplicaQueueTest, WithoutReplicasEverybodyIsTold) {
  Add("a", {});
  Add("b", {});
  replicas_ = absl::UnavailableError("none is ready");
  Room(0);
  EXPECT_EQ(ended_, Names({"a UNAVAILABLE", "b UNAVAILABLE"}));
}

TEST_F(ReplicaQueueTest, ACallbackMayAddAndCancel) {
  room_ = 0;
  const auto last = Add("last", {});
  Add("first", {.urgent = true});
  int calls = 0;
  then_ = [&] {
    if (calls++ > 0) return;
    last->Cancel();
    Add("new", {});
  };
  Room(2);
  EXPECT_EQ(ended_, Names({"first", "last CANCELLED", "new"}));
}

}  // namespace
}  // namespace prism
