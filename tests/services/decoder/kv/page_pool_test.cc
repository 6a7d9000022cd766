#include "services/decoder/kv/page_pool.h"

#include <gtest/gtest.h>

#include <random>
#include <set>
#include <vector>

namespace prism {
namespace {

TEST(PagesForTest, RoundsUpToWholePages) {
  EXPECT_EQ(PagesFor(0), 0);
  EXPECT_EQ(PagesFor(1), 1);
  EXPECT_EQ(PagesFor(64), 1);
  EXPECT_EQ(PagesFor(65), 2);
}

TEST(PagePoolTest, StartsWithEveryPageFree) {
  PagePool pool(5);
  EXPECT_EQ(pool.total(), 5);
  EXPECT_EQ(pool.free(), 5);
  EXPECT_EQ(pool.used(), 0);
  EXPECT_EQ(pool.reserved(), 0);
}

TEST(PagePoolTest, RefusesToReserveMoreThanIsFreeAndChangesNothing) {
  PagePool pool(3);
  ASSERT_TRUE(pool.TryReserve(2));
  EXPECT_FALSE(pool.TryReserve(2));
  EXPECT_EQ(pool.free(), 1);
  EXPECT_EQ(pool.reserved(), 2);
}

TEST(PagePoolTest, HandsOutEachPageOnceUntilItIsFreed) {
  PagePool pool(4);
  ASSERT_TRUE(pool.TryReserve(4));
  std::set<PageIndex> pages;
  for (int i = 0; i < 4; ++i) pages.insert(pool.TakeReserved());
  EXPECT_EQ(pages.size(), 4u);
  EXPECT_EQ(pool.used(), 4);
  const std::vector<PageIndex> one = {*pages.begin()};
  pool.Free(one);
  ASSERT_TRUE(pool.TryReserve(1));
  EXPECT_EQ(pool.TakeReserved(), one[0]);
}

TEST(PagePoolDeathTest, StopsAtAPageFreedTwice) {
  PagePool pool(2);
  ASSERT_TRUE(pool.TryReserve(1));
  const std::vector<PageIndex> page = {pool.TakeReserved()};
  pool.Free(page);
  EXPECT_DEATH(pool.Free(page), "is_used_");
}

TEST(PagePoolTest, KeepsItsSumThroughRandomWork) {
  std::mt19937 random(7);
  PagePool pool(37);
  std::vector<PageIndex> held;
  for (int i = 0; i < 20000; ++i) {
    switch (random() % 4) {
      case 0:
        pool.TryReserve(random() % 9);
        break;
      case 1:
        pool.Unreserve(pool.reserved() > 0 ? random() % (pool.reserved() + 1) : 0);
        break;
      case 2:
        if (pool.reserved() > 0) held.push_back(pool.TakeReserved());
        break;
      default:
        if (!held.empty()) {
          std::swap(held[random() % held.size()], held.back());
          pool.Free({&held.back(), 1});
          held.pop_back();
        }
    }
    ASSERT_EQ(pool.used() + pool.free() + pool.reserved(), pool.total());
    ASSERT_EQ(pool.used(), static_cast<int64_t>(held.size()));
  }
}

}  // namespace
}  // namespace prism
