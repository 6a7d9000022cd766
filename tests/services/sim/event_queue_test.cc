#include "services/sim/event_queue.h"

#include <gtest/gtest.h>

#include <vector>

namespace prism::sim {
namespace {

TEST(EventQueueTest, GivesTheEarliestFirstAndOfOneTimeTheOnePushedFirst) {
  EventQueue queue;
  queue.Push(20, {.index = 3});
  queue.Push(10, {.index = 1});
  queue.Push(10, {.index = 2});
  queue.Push(30, {.index = 4});
  std::vector<int64_t> order;
  std::vector<SimTime> times;
  while (!queue.empty()) {
    times.push_back(queue.next_time());
    order.push_back(queue.Pop().index);
    // A place that became free is used again, whatever its order was.
    if (order.size() == 2) queue.Push(20, {.index = 5});
  }
  EXPECT_EQ(order, (std::vector<int64_t>{1, 2, 3, 5, 4}));
  EXPECT_EQ(times, (std::vector<SimTime>{10, 10, 20, 20, 30}));
}

}  // namespace
}  // namespace prism::sim
