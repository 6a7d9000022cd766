#include "common/base/bounded_queue.h"

#include <gtest/gtest.h>

#include <atomic>
#include <memory>
#include <thread>
#include <vector>

namespace prism {
namespace {

using std::chrono::milliseconds;
using std::chrono::steady_clock;

TEST(BoundedQueueTest, ValuesComeOutInOrder) {
  BoundedQueue<int> queue(3);
  for (int value : {1, 2, 3}) ASSERT_TRUE(queue.TryPush(value).ok());
  EXPECT_EQ(queue.size(), 3u);
  EXPECT_EQ(queue.capacity(), 3u);
  EXPECT_EQ(queue.Pop(), 1);
  EXPECT_EQ(queue.TryPop(), 2);
  EXPECT_EQ(queue.PopUntil(steady_clock::now()), 3) << "a value at hand wins over a past deadline";
  EXPECT_EQ(queue.TryPop(), std::nullopt);
}

TEST(BoundedQueueTest, AFullQueueRefusesAtOnceAndLeavesTheValueWithTheCaller) {
  BoundedQueue<std::unique_ptr<int>> queue(1);
  auto first = std::make_unique<int>(1);
  auto second = std::make_unique<int>(2);
  ASSERT_TRUE(queue.TryPush(first).ok());
  EXPECT_EQ(first, nullptr);
  EXPECT_EQ(queue.TryPush(second).code(), absl::StatusCode::kResourceExhausted);
  ASSERT_NE(second, nullptr);
  EXPECT_EQ(*second, 2);
  EXPECT_EQ(**queue.Pop(), 1);
  EXPECT_TRUE(queue.TryPush(second).ok());
}

TEST(BoundedQueueTest, AClosedQueueRefusesPushesAndStillGivesWhatItHolds) {
  BoundedQueue<int> queue(4);
  int value = 7;
  ASSERT_TRUE(queue.TryPush(value).ok());
  EXPECT_FALSE(queue.closed());
  queue.Close();
  EXPECT_TRUE(queue.closed());
  EXPECT_EQ(queue.TryPush(value).code(), absl::StatusCode::kCancelled);
  EXPECT_EQ(queue.Pop(), 7);
  EXPECT_EQ(queue.Pop(), std::nullopt);
  EXPECT_EQ(queue.PopUntil(steady_clock::now() + std::chrono::hours(1)), std::nullopt)
      << "closed: no need to wait";
}

TEST(BoundedQueueTest, PopUntilWaitsForItsDeadlineAndNoLessThanThat) {
  BoundedQueue<int> queue(1);
  const auto deadline = steady_clock::now() + milliseconds(30);
  EXPECT_EQ(queue.PopUntil(deadline), std::nullopt);
  EXPECT_GE(steady_clock::now(), deadline);
}

TEST(BoundedQueueTest, AWaitingConsumerWakesForAValueAndForClose) {
  BoundedQueue<int> queue(1);
  std::optional<int> got;
  std::thread consumer([&] { got = queue.Pop(); });
  int value = 5;
  ASSERT_TRUE(queue.TryPush(value).ok());
  consumer.join();
  EXPECT_EQ(got, 5);
  std::thread idle([&] { got = queue.Pop(); });
  queue.Close();
  idle.join();
  EXPECT_EQ(got, std::nullopt);
}

TEST(BoundedQueueTest, ManyProducersAndConsumersLoseNothingAndNeverPassTheCapacity) {
  constexpr int kEach = 2000, kThreads = 4;
  BoundedQueue<int> queue(8);
  std::atomic<int64_t> sum{0};
  std::atomic<int> count{0};
  std::vector<std::thread> producers, consumers;
  for (int t = 0; t < kThreads; ++t) {
    consumers.emplace_back([&] {
      while (const std::optional<int> value = queue.Pop()) {
        sum += *value;
        ++count;
      }
    });
    producers.emplace_back([&, t] {
      for (int i = 0; i < kEach; ++i) {
        int value = t * kEach + i;
        while (!queue.TryPush(value).ok()) std::this_thread::yield();
        EXPECT_LE(queue.size(), queue.capacity());
      }
    });
  }
  for (std::thread& thread : producers) thread.join();
  queue.Close();
  for (std::thread& thread : consumers) thread.join();
  constexpr int64_t kTotal = int64_t{kEach} * kThreads;
  EXPECT_EQ(count, kTotal);
  EXPECT_EQ(sum, kTotal * (kTotal - 1) / 2);
}

TEST(BoundedQueueDeathTest, HasRoomForOneAtLeast) { EXPECT_DEATH(BoundedQueue<int>(0), "capacity > 0"); }

}  // namespace
}  // namespace prism
