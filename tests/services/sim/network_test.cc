#include "services/sim/network.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <vector>

namespace prism::sim {
namespace {

constexpr ProcessId kServer = 2;

class NetworkTest : public testing::Test {
 protected:
  // What still arrives, in its order.
  std::vector<Event> Arrivals() {
    std::vector<Event> arrived;
    while (!world_.queue().empty()) {
      world_.AdvanceTo(world_.queue().next_time());
      Event event = world_.queue().Pop();
      if (network_.Arrives(event)) arrived.push_back(std::move(event));
    }
    return arrived;
  }
  static int64_t Count(const std::vector<Event>& events, EventKind kind) {
    return std::count_if(events.begin(), events.end(),
                         [kind](const Event& event) { return event.kind == kind; });
  }

  World world_{1, 4, Plant::kNone};
  Network network_{{.delay_mean_us = 1000, .spike_chance = 0.2, .late_chance = 0}, &world_};
};

TEST_F(NetworkTest, KeepsTheOrderWithinAStream) {
  const StreamId stream = network_.Open(kRouter, kServer, {.kind = EventKind::kGenerate});
  for (int64_t i = 0; i < 100; ++i) network_.ToClient(stream, {.kind = EventKind::kToken, .index = i});
  network_.End(stream, EndCode::kOk);
  network_.ToClient(stream, {.kind = EventKind::kToken, .index = 100});  // after its last word
  int64_t next = 0;
  for (const Event& event : Arrivals()) {
    if (event.kind != EventKind::kToken) continue;
    EXPECT_EQ(event.index, next++);
  }
  EXPECT_EQ(next, 100);
  EXPECT_EQ(network_.num_open(), 0u);
}

TEST_F(NetworkTest, MixesTheOrderBetweenStreams) {
  std::vector<StreamId> streams;
  for (int i = 0; i < 100; ++i) {
    streams.push_back(network_.Open(kRouter, kServer, {.kind = EventKind::kGenerate}));
  }
  std::vector<StreamId> arrived;
  for (const Event& event : Arrivals()) arrived.push_back(event.stream);
  EXPECT_EQ(arrived.size(), streams.size());
  EXPECT_NE(arrived, streams);
}

TEST_F(NetworkTest, TellsBothSidesOfABrokenConnectionAndLosesWhatIsUnderWay) {
  const StreamId stream = network_.Open(kRouter, kServer, {.kind = EventKind::kGenerate});
  network_.ToClient(stream, {.kind = EventKind::kToken});
  network_.End(stream, EndCode::kOk);  // the last word is lost, too
  network_.Break(kServer, kRouter);
  const std::vector<Event> events = Arrivals();
  EXPECT_EQ(Count(events, EventKind::kToken), 0);
  EXPECT_EQ(Count(events, EventKind::kEnd), 1);
  ASSERT_FALSE(events.empty());
  for (const Event& event : events) {
    if (event.kind != EventKind::kEnd) continue;
    EXPECT_EQ(event.code, EndCode::kConnectionLost);
  }
}

TEST_F(NetworkTest, ACancelReachesTheServerAndNothingTheClient) {
  const StreamId stream = network_.Open(kRouter, kServer, {.kind = EventKind::kGenerate});
  network_.ToClient(stream, {.kind = EventKind::kToken});
  network_.Cancel(stream);
  const std::vector<Event> events = Arrivals();
  EXPECT_EQ(Count(events, EventKind::kGenerate), 1);
  EXPECT_EQ(Count(events, EventKind::kCancel), 1);
  EXPECT_EQ(Count(events, EventKind::kToken), 0);
}

TEST_F(NetworkTest, TheDeathOfAServerEndsItsStreamsOnce) {
  network_.Open(kRouter, kServer, {.kind = EventKind::kGenerate});
  network_.Open(kServer, 3, {.kind = EventKind::kFetch});
  world_.Kill(kServer);
  network_.Died(kServer);
  network_.Open(kRouter, kServer, {.kind = EventKind::kGenerate});  // refused
  const std::vector<Event> events = Arrivals();
  EXPECT_EQ(Count(events, EventKind::kGenerate), 0);
  EXPECT_EQ(Count(events, EventKind::kEnd), 2);
  EXPECT_EQ(Count(events, EventKind::kCancel), 1);  // of what it had asked for
}

}  // namespace
}  // namespace prism::sim
