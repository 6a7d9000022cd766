#include "common/base/thread.h"

#include <gtest/gtest.h>
#include <pthread.h>

#include <atomic>
#include <string>
#include <vector>

#include "common/base/clock.h"

namespace prism {
namespace {

TEST(NamedThreadTest, TheKernelShowsTheFirstFifteenBytesOfTheName) {
  std::string shown;
  {
    NamedThread thread("prism-compute-pool-7", [&] {
      char name[32];
      pthread_getname_np(pthread_self(), name, sizeof(name));
      shown = name;
    });
  }
  EXPECT_EQ(shown, "prism-compute-p");
}

TEST(NamedThreadTest, AssigningJoinsTheThreadBefore) {
  std::atomic<int> ran{0};
  NamedThread thread("a", [&] { ++ran; });
  thread = NamedThread("b", [&] { ran += 10; });
  EXPECT_GE(ran, 1);
  thread.Join();
  EXPECT_EQ(ran, 11);
  thread.Join();
}

TEST(AvailableCpusTest, IsAtLeastOne) { EXPECT_GE(AvailableCpus(), 1); }

TEST(ParallelPoolTest, EveryPartRunsOnceOnAThreadOfThePool) {
  for (const int num_threads : {1, 2, 3, 8}) {
    ParallelPool pool(num_threads);
    EXPECT_EQ(pool.num_threads(), num_threads);
    for (const int64_t num_parts : {0, 1, 2, 7, 1000}) {
      std::vector<std::atomic<int>> ran(static_cast<size_t>(num_parts));
      pool.Run(num_parts, [&](int64_t part, int thread) {
        EXPECT_GE(thread, 0);
        EXPECT_LT(thread, num_threads);
        ++ran[static_cast<size_t>(part)];
      });
      for (const std::atomic<int>& times : ran) EXPECT_EQ(times, 1);
    }
  }
}

TEST(ParallelPoolTest, WhatThePartsWroteIsSeenWhenRunReturns) {
  ParallelPool pool(4);
  std::vector<int64_t> squares(64);
  for (int round = 0; round < 500; ++round) {
    pool.Run(64, [&](int64_t part, int) { squares[static_cast<size_t>(part)] = part * part + round; });
    for (int64_t part = 0; part < 64; ++part)
      ASSERT_EQ(squares[static_cast<size_t>(part)], part * part + round);
  }
}

TEST(ParallelPoolTest, AThreadIndexIsHeldByOnePartAtATime) {
  ParallelPool pool(4);
  std::vector<std::atomic<bool>> busy(4);
  pool.Run(2000, [&](int64_t, int thread) {
    EXPECT_FALSE(busy[static_cast<size_t>(thread)].exchange(true));
    busy[static_cast<size_t>(thread)] = false;
  });
}

TEST(ParallelPoolTest, PoolsOfTwoOwnersDoNotWaitForEachOther) {
  std::atomic<int64_t> total{0};
  const auto owner = [&] {
    ParallelPool pool(2);
    for (int i = 0; i < 200; ++i) pool.Run(8, [&](int64_t part, int) { total += part; });
  };
  {
    NamedThread a("a", owner);
    NamedThread b("b", owner);
  }
  EXPECT_EQ(total, 2 * 200 * 28);
}

TEST(ParallelPoolDeathTest, NeedsAThread) { EXPECT_DEATH(ParallelPool(0), "num_threads >= 1"); }

// Lets one task at a time through.
class Gate {
 public:
  void Open() {
    MutexLock lock(&mutex_);
    open_ = true;
    opened_.NotifyAll();
  }
  void Pass() {
    MutexLock lock(&mutex_);
    while (!open_) opened_.Wait(&mutex_);
  }

 private:
  Mutex mutex_;
  CondVar opened_;
  bool open_ ABSL_GUARDED_BY(mutex_) = false;
};

TEST(TaskPoolTest, RunsWhatIsQueuedBeforeItIsGone) {
  std::atomic<int> ran{0};
  {
    TaskPool pool("tasks", 3, 100);
    for (int i = 0; i < 100; ++i) ASSERT_TRUE(pool.TrySubmit([&] { ++ran; }).ok());
  }
  EXPECT_EQ(ran, 100);
}

TEST(TaskPoolTest, AFullQueueRefusesAtOnce) {
  Gate running, gate;
  std::atomic<int> ran{0};
  {
    TaskPool pool("tasks", 1, 2);
    ASSERT_TRUE(pool.TrySubmit([&] {
                      running.Open();
                      gate.Pass();
                      ++ran;
                    })
                    .ok());
    running.Pass();  // the worker holds the first task, so the queue is empty
    ASSERT_TRUE(pool.TrySubmit([&] { ++ran; }).ok());
    ASSERT_TRUE(pool.TrySubmit([&] { ++ran; }).ok());
    EXPECT_EQ(pool.queued(), 2u);
    EXPECT_EQ(pool.TrySubmit([&] { ++ran; }).code(), absl::StatusCode::kResourceExhausted);
    gate.Open();
  }
  EXPECT_EQ(ran, 3);
}

TEST(TaskPoolTest, AStoppedPoolRefusesAndStillRunsWhatItHolds) {
  Gate gate;
  std::atomic<int> ran{0};
  {
    TaskPool pool("tasks", 1, 8);
    for (int i = 0; i < 3; ++i) {
      ASSERT_TRUE(pool.TrySubmit([&] {
                        gate.Pass();
                        ++ran;
                      })
                      .ok());
    }
    pool.Stop();
    EXPECT_EQ(pool.TrySubmit([&] { ++ran; }).code(), absl::StatusCode::kCancelled);
    gate.Open();
  }
  EXPECT_EQ(ran, 3);
}

TEST(ClockTest, TheRealClockDoesNotGoBack) {
  const SteadyTime before = Clock::Real().Now();
  EXPECT_GE(SecondsBetween(before, Clock::Real().Now()), 0.0);
  EXPECT_EQ(SecondsBetween(before, before + std::chrono::milliseconds(250)), 0.25);
}

}  // namespace
}  // namespace prism
