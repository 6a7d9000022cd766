#include "services/router/result_store.h"

#include <gtest/gtest.h>

#include "services/router/circuit_breaker.h"
#include "tests/common/base/manual_clock.h"

namespace prism {
namespace {

using std::chrono::milliseconds;
using Lookup = ResultStore::Lookup;
using State = CircuitBreaker::State;

class MemoryResultStoreTest : public testing::Test {
 protected:
  // Room for three entries of a key of 1 byte and a value of 10.
  static constexpr int64_t kEach = MemoryResultStore::kEntryBytes + 11;
  ResultStore::Found Get(const std::string& key) {
    std::optional<ResultStore::Found> found;
    store_.Get(key, [&](const ResultStore::Found& answer) { found = answer; });
    EXPECT_TRUE(found.has_value());
    return *found;
  }
  void Put(const std::string& key, char fill) { store_.Put(key, std::string(10, fill)); }

  ManualClock clock_;
  MemoryResultStore store_{3 * kEach, milliseconds(1000), &clock_};
};

TEST_F(MemoryResultStoreTest, GivesWhatWasPut) {
  EXPECT_EQ(Get("a").lookup, Lookup::kMiss);
  Put("a", 'x');
  EXPECT_EQ(Get("a").lookup, Lookup::kHit);
  EXPECT_EQ(Get("a").value, std::string(10, 'x'));
  Put("a", 'y');
  EXPECT_EQ(Get("a").value, std::string(10, 'y'));
  EXPECT_EQ(store_.bytes(), kEach);
}

TEST_F(MemoryResultStoreTest, TheLeastRecentlyUsedGoesFirst) {
  Put("a", 'a');
  Put("b", 'b');
  Put("c", 'c');
  EXPECT_EQ(Get("a").lookup, Lookup::kHit);
  Put("d", 'd');
  EXPECT_EQ(Get("b").lookup, Lookup::kMiss);
  EXPECT_EQ(Get("a").lookup, Lookup::kHit);
  EXPECT_EQ(store_.bytes(), 3 * kEach);
}

TEST_F(MemoryResultStoreTest, WhatCannotFitDrivesNothingOut) {
  Put("a", 'a');
  store_.Put("b", std::string(3 * kEach, 'b'));
  EXPECT_EQ(Get("a").lookup, Lookup::kHit);
  EXPECT_EQ(Get("b").lookup, Lookup::kMiss);
}

TEST_F(MemoryResultStoreTest, NothingStaysLongerThanItsTime) {
  Put("a", 'a');
  clock_.Advance(milliseconds(999));
  EXPECT_EQ(Get("a").lookup, Lookup::kHit);
  clock_.Advance(milliseconds(1));
  EXPECT_EQ(Get("a").lookup, Lookup::kMiss);
  EXPECT_EQ(store_.bytes(), 0);
}

TEST(CircuitBreakerTest, OpensAfterFailuresInARowAndLetsOneTry) {
  const SteadyTime begin = SteadyTime() + std::chrono::hours(1);
  CircuitBreaker breaker(3, milliseconds(100));
  breaker.Failed(begin);
  breaker.Failed(begin);
  breaker.Succeeded();
  breaker.Failed(begin);
  breaker.Failed(begin);
  EXPECT_TRUE(breaker.Allow(begin)) << "not three in a row yet";
  breaker.Failed(begin);
  EXPECT_EQ(breaker.state(), State::kOpen);
  EXPECT_FALSE(breaker.Allow(begin + milliseconds(99)));
  EXPECT_TRUE(breaker.Allow(begin + milliseconds(100)));
  EXPECT_EQ(breaker.state(), State::kHalfOpen);
  EXPECT_FALSE(breaker.Allow(begin + milliseconds(100))) << "one tries";
  breaker.Failed(begin + milliseconds(150));
  EXPECT_FALSE(breaker.Allow(begin + milliseconds(249)));
  EXPECT_TRUE(breaker.Allow(begin + milliseconds(250)));
  breaker.Succeeded();
  EXPECT_EQ(breaker.state(), State::kClosed);
  EXPECT_TRUE(breaker.Allow(begin + milliseconds(250)));
}

}  // namespace
}  // namespace prism
