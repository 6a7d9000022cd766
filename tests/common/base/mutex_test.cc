#include "common/base/mutex.h"

#include <gtest/gtest.h>

#include <thread>
#include <vector>

namespace prism {
namespace {

using std::chrono::milliseconds;
using std::chrono::steady_clock;

TEST(MutexTest, OneThreadAtATimeHoldsIt) {
  Mutex mutex;
  int64_t count = 0;
  std::vector<std::thread> threads;
  for (int t = 0; t < 4; ++t) {
    threads.emplace_back([&] {
      for (int i = 0; i < 10000; ++i) {
        MutexLock lock(&mutex);
        ++count;
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(count, 40000);
}

TEST(CondVarTest, WaitUntilSaysFalseAfterItsDeadlineAndNotBefore) {
  Mutex mutex;
  CondVar condition;
  const auto deadline = steady_clock::now() + milliseconds(30);
  MutexLock lock(&mutex);
  while (condition.WaitUntil(&mutex, deadline)) {
    ASSERT_LT(steady_clock::now(), deadline + std::chrono::seconds(10)) << "woke spuriously without end";
  }
  EXPECT_GE(steady_clock::now(), deadline);
}

TEST(CondVarTest, APastDeadlineDoesNotBlock) {
  Mutex mutex;
  CondVar condition;
  MutexLock lock(&mutex);
  EXPECT_FALSE(condition.WaitUntil(&mutex, steady_clock::now() - std::chrono::hours(1)));
}

TEST(CondVarTest, ADeadlineThatNeverComesIsOne) {
  Mutex mutex;
  CondVar condition;
  bool ready = false;
  std::thread waiter([&] {
    MutexLock lock(&mutex);
    while (!ready) EXPECT_TRUE(condition.WaitUntil(&mutex, steady_clock::time_point::max()));
  });
  {
    MutexLock lock(&mutex);
    ready = true;
    condition.NotifyOne();
  }
  waiter.join();
}

TEST(CondVarTest, TheLockIsHeldAfterEveryWait) {
  Mutex mutex;
  CondVar condition;
  bool ready = false, seen = false;
  std::thread waiter([&] {
    MutexLock lock(&mutex);
    while (!ready) condition.Wait(&mutex);
    seen = true;
  });
  {
    MutexLock lock(&mutex);
    ready = true;
    condition.NotifyOne();
  }
  waiter.join();
  EXPECT_TRUE(seen);
}

TEST(CondVarTest, NotifyAllWakesEveryWaiterBeforeItsDeadline) {
  Mutex mutex;
  CondVar condition;
  bool ready = false;
  int in_time = 0;
  std::vector<std::thread> waiters;
  for (int t = 0; t < 3; ++t) {
    waiters.emplace_back([&] {
      const auto deadline = steady_clock::now() + std::chrono::seconds(60);
      MutexLock lock(&mutex);
      while (!ready) {
        if (!condition.WaitUntil(&mutex, deadline)) return;
      }
      ++in_time;
    });
  }
  {
    MutexLock lock(&mutex);
    ready = true;
    condition.NotifyAll();
  }
  for (std::thread& thread : waiters) thread.join();
  EXPECT_EQ(in_time, 3);
}

}  // namespace
}  // namespace prism
