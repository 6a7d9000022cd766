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
  EXPECT_TRUE(pool.RemoveUser(one[0], /*keep=*/false));
  ASSERT_TRUE(pool.TryReserve(1));
  EXPECT_EQ(pool.TakeReserved(), one[0]);
}

TEST(PagePoolDeathTest, StopsAtAPageFreedTwice) {
  PagePool pool(2);
  ASSERT_TRUE(pool.TryReserve(1));
  const PageIndex page = pool.TakeReserved();
  pool.RemoveUser(page, /*keep=*/false);
  EXPECT_DEATH(pool.RemoveUser(page, /*keep=*/false), "kUsed");
  EXPECT_DEATH(pool.AddUser(page), "kFree");
  EXPECT_DEATH(pool.Evict(page), "kCached");
}

TEST(PagePoolTest, KeepsASharedPageUntilItsLastUserLeaves) {
  PagePool pool(2);
  ASSERT_TRUE(pool.TryReserve(1));
  const PageIndex page = pool.TakeReserved();
  pool.AddUser(page);
  EXPECT_EQ(pool.users(page), 2);
  EXPECT_FALSE(pool.RemoveUser(page, /*keep=*/true));
  EXPECT_EQ(pool.used(), 1);
  EXPECT_TRUE(pool.RemoveUser(page, /*keep=*/true));
  EXPECT_EQ(pool.used(), 0);
  EXPECT_EQ(pool.cached(), 1);
  EXPECT_EQ(pool.free(), 1);
  pool.AddUser(page);
  EXPECT_EQ(pool.used(), 1);
  EXPECT_EQ(pool.cached(), 0);
}

TEST(PagePoolTest, GivesNoCachedPageAwayUntilItIsEvicted) {
  PagePool pool(1);
  ASSERT_TRUE(pool.TryReserve(1));
  const PageIndex page = pool.TakeReserved();
  pool.RemoveUser(page, /*keep=*/true);
  EXPECT_FALSE(pool.TryReserve(1));
  pool.Evict(page);
  EXPECT_TRUE(pool.TryReserve(1));
}

TEST(PagePoolTest, KeepsItsSumThroughRandomWork) {
  std::mt19937 random(7);
  PagePool pool(37);
  std::vector<PageIndex> held, cached;
  for (int i = 0; i < 20000; ++i) {
    switch (random() % 7) {
      case 0:
        pool.TryReserve(random() % 9);
        break;
      case 1:
        pool.Unreserve(pool.reserved() > 0 ? random() % (pool.reserved() + 1) : 0);
        break;
      case 2:
        if (pool.reserved() > 0) held.push_back(pool.TakeReserved());
        break;
      case 3:
        if (!cached.empty()) {
          held.push_back(cached[random() % cached.size()]);
          pool.AddUser(held.back());
          std::erase(cached, held.back());
        }
        break;
      case 4:
        if (!held.empty()) {
          held.push_back(held[random() % held.size()]);
          pool.AddUser(held.back());
        }
        break;
      case 5:
        if (!cached.empty()) {
          pool.Evict(cached.back());
          cached.pop_back();
        }
        break;
      default:
        if (!held.empty()) {
          std::swap(held[random() % held.size()], held.back());
          const bool keep = random() % 2 == 0;
          if (pool.RemoveUser(held.back(), keep) && keep) cached.push_back(held.back());
          held.pop_back();
        }
    }
    ASSERT_EQ(pool.used() + pool.free() + pool.reserved() + pool.cached(), pool.total());
    ASSERT_EQ(pool.used(), static_cast<int64_t>(std::set<PageIndex>(held.begin(), held.end()).size()));
    ASSERT_EQ(pool.cached(), static_cast<int64_t>(cached.size()));
  }
}

}  // namespace
}  // namespace prism
