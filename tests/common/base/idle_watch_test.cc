#include "common/base/idle_watch.h"

#include <gtest/gtest.h>

#include <atomic>
#include <thread>
#include <vector>

namespace prism {
namespace {

using std::chrono::milliseconds;

// A limit that no test waits for.
constexpr milliseconds kNever{3'600'000};

TEST(IdleWatchTest, TellsOnceWhatHasNotMoved) {
  IdleWatch watch("idle", milliseconds(20));
  std::atomic<int> told{0};
  const SteadyTime start = Clock::Real().Now();
  const int64_t id = watch.Add([&] { told.fetch_add(1); });
  while (told.load() == 0) std::this_thread::yield();
  EXPECT_GE(Clock::Real().Now() - start, watch.limit());
  EXPECT_FALSE(watch.Remove(id));
  EXPECT_EQ(told.load(), 1);
}

TEST(IdleWatchTest, TellsNothingOfWhatWasTakenBack) {
  std::atomic<int> told{0};
  {
    IdleWatch watch("idle", kNever);
    const int64_t id = watch.Add([&] { told.fetch_add(1); });
    EXPECT_TRUE(watch.Remove(id));
    EXPECT_FALSE(watch.Remove(id));
  }
  EXPECT_EQ(told.load(), 0);
}

// The second to be watched is told first, because the first has moved in between.
TEST(IdleWatchTest, CountsFromTheLastMovement) {
  IdleWatch watch("idle", milliseconds(300));
  std::atomic<int> order{0};
  int first_place = 0;
  int second_place = 0;
  const SteadyTime start = Clock::Real().Now();
  const int64_t first = watch.Add([&] { first_place = order.fetch_add(1) + 1; });
  const int64_t second = watch.Add([&] { second_place = order.fetch_add(1) + 1; });
  watch.Touch(first);
  const bool in_time = Clock::Real().Now() - start < watch.limit();
  while (order.load() < 2) std::this_thread::yield();
  EXPECT_FALSE(watch.Remove(first));
  EXPECT_FALSE(watch.Remove(second));
  if (!in_time) GTEST_SKIP() << "the machine stood still for longer than the limit";
  EXPECT_EQ(second_place, 1);
  EXPECT_EQ(first_place, 2);
  watch.Touch(first);
}

// What a function uses may go as soon as Remove() has returned.
TEST(IdleWatchTest, RemoveWaitsForAFunctionThatRuns) {
  IdleWatch watch("idle", milliseconds(1));
  std::atomic<bool> entered{false};
  std::atomic<bool> leave{false};
  bool left = false;
  const int64_t id = watch.Add([&] {
    entered = true;
    while (!leave.load()) std::this_thread::yield();
    left = true;
  });
  while (!entered.load()) std::this_thread::yield();
  std::thread remover([&] {
    EXPECT_FALSE(watch.Remove(id));
    EXPECT_TRUE(left);
  });
  leave = true;
  remover.join();
}

TEST(IdleWatchTest, AFunctionMayEndItsOwnWatch) {
  IdleWatch watch("idle", milliseconds(1));
  std::atomic<int> told{0};
  int64_t id = -1;
  std::atomic<bool> named{false};
  id = watch.Add([&] {
    while (!named.load()) std::this_thread::yield();
    EXPECT_FALSE(watch.Remove(id));
    told.fetch_add(1);
  });
  named = true;
  while (told.load() == 0) std::this_thread::yield();
}

TEST(IdleWatchTest, ManyThreadsWatchAtOnce) {
  IdleWatch watch("idle", milliseconds(1));
  std::atomic<int> told{0};
  std::atomic<int> taken_back{0};
  std::vector<std::thread> threads;
  constexpr int kThreads = 4;
  constexpr int kWatches = 500;
  for (int t = 0; t < kThreads; ++t) {
    threads.emplace_back([&] {
      for (int i = 0; i < kWatches; ++i) {
        const int64_t id = watch.Add([&] { told.fetch_add(1); });
        watch.Touch(id);
        if (watch.Remove(id)) taken_back.fetch_add(1);
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(told.load() + taken_back.load(), kThreads * kWatches);
}

}  // namespace
}  // namespace prism
