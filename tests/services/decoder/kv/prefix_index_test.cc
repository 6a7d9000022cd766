#include "services/decoder/kv/prefix_index.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <map>
#include <random>
#include <string>
#include <vector>

namespace prism {
namespace {

PageKey KeyOf(const std::string& prefix) { return Sha256Of(prefix.data(), prefix.size()); }

// A key a page: those of "abc" are of "a", "ab" and "abc".
std::vector<PageKey> KeysOf(const std::string& prefix) {
  std::vector<PageKey> keys;
  for (size_t i = 1; i <= prefix.size(); ++i) keys.push_back(KeyOf(prefix.substr(0, i)));
  return keys;
}

class PrefixIndexTest : public testing::Test {
 protected:
  // As a sequence does: takes what is known, computes and publishes the rest.
  std::vector<PageIndex> Compute(PrefixIndex& index, const std::string& prefix) {
    const std::vector<PageKey> keys = KeysOf(prefix);
    std::vector<PageIndex> pages = index.Acquire(keys);
    for (size_t i = pages.size(); i < keys.size(); ++i) {
      EXPECT_TRUE(pool_.TryReserve(1));
      pages.push_back(index.Publish(keys[i], i == 0 ? kNoPage : pages[i - 1], pool_.TakeReserved()));
    }
    return pages;
  }

  PagePool pool_{8};
  PrefixIndex index_{&pool_, /*keep_unused=*/true};
};

TEST_F(PrefixIndexTest, FindsTheLongestKnownPrefixAndSharesItsPages) {
  const std::vector<PageIndex> first = Compute(index_, "abc");
  EXPECT_EQ(index_.Match(KeysOf("abd")), 2);
  EXPECT_EQ(index_.Match(KeysOf("xbc")), 0);
  const std::vector<PageIndex> second = Compute(index_, "abd");
  EXPECT_EQ(second[0], first[0]);
  EXPECT_EQ(second[1], first[1]);
  EXPECT_NE(second[2], first[2]);
  EXPECT_EQ(pool_.used(), 4);
  EXPECT_EQ(pool_.users(first[1]), 2);
}

TEST_F(PrefixIndexTest, KeepsPagesWithoutUsersUntilTheyAreEvicted) {
  index_.Release(Compute(index_, "abc"));
  EXPECT_EQ(pool_.used(), 0);
  EXPECT_EQ(pool_.cached(), 3);
  EXPECT_EQ(index_.Match(KeysOf("abc")), 3);
  EXPECT_EQ(index_.Evict(8), 3);
  EXPECT_EQ(pool_.free(), 8);
  EXPECT_EQ(index_.Match(KeysOf("abc")), 0);
}

TEST_F(PrefixIndexTest, EvictsWhatWasUsedLeastRecentlyAndLeavesBeforeParents) {
  index_.Release(Compute(index_, "ab"));
  index_.Release(Compute(index_, "ac"));
  index_.Release(Compute(index_, "x"));
  index_.Release(Compute(index_, "ab"));
  EXPECT_EQ(index_.Evict(1), 1);
  EXPECT_EQ(index_.Match(KeysOf("ac")), 1) << "ac was the oldest";
  EXPECT_EQ(index_.Evict(1), 1);
  EXPECT_EQ(index_.Match(KeysOf("x")), 0);
  EXPECT_EQ(index_.Evict(1), 1);
  EXPECT_EQ(index_.Match(KeysOf("ab")), 1) << "the parent outlives its child";
  EXPECT_EQ(index_.Evict(1), 1);
  EXPECT_EQ(index_.num_published(), 0);
}

TEST_F(PrefixIndexTest, NeverEvictsAPageInUseNorItsParents) {
  const std::vector<PageIndex> used = Compute(index_, "ab");
  index_.Release(Compute(index_, "abc"));
  EXPECT_EQ(index_.Evict(8), 1);
  EXPECT_EQ(index_.Match(KeysOf("abc")), 2);
  index_.Release(used);
}

TEST_F(PrefixIndexTest, PutsTheKnownPageInPlaceOfAnEqualOne) {
  const std::vector<PageKey> keys = KeysOf("ab");
  const std::vector<PageIndex> known = Compute(index_, "ab");
  // Computed at the same time, without knowing of each other.
  ASSERT_TRUE(pool_.TryReserve(2));
  const PageIndex own_first = pool_.TakeReserved(), own_second = pool_.TakeReserved();
  const PageIndex first = index_.Publish(keys[0], kNoPage, own_first);
  const PageIndex second = index_.Publish(keys[1], first, own_second);
  EXPECT_THAT(std::vector<PageIndex>({first, second}), testing::ElementsAreArray(known));
  EXPECT_EQ(pool_.used(), 2);
  EXPECT_EQ(pool_.users(known[1]), 2);
  EXPECT_EQ(pool_.free(), 6);
}

TEST_F(PrefixIndexTest, SharesAmongUsersAloneWhereNothingIsKept) {
  PrefixIndex index(&pool_, /*keep_unused=*/false);
  const std::vector<PageIndex> first = Compute(index, "ab");
  const std::vector<PageIndex> second = Compute(index, "abc");
  EXPECT_EQ(second[1], first[1]);
  index.Release(first);
  EXPECT_EQ(index.Match(KeysOf("ab")), 2) << "the second still uses them";
  index.Release(second);
  EXPECT_EQ(index.Match(KeysOf("a")), 0);
  EXPECT_EQ(pool_.free(), 8);
}

TEST_F(PrefixIndexTest, ForgetsAPageWithAllThatFollowsIt) {
  const std::vector<PageIndex> used = Compute(index_, "abc");
  index_.Release(Compute(index_, "abx"));
  index_.Forget(used[1]);
  EXPECT_EQ(index_.Match(KeysOf("abc")), 1);
  EXPECT_EQ(index_.Match(KeysOf("abx")), 1);
  EXPECT_EQ(pool_.used(), 3) << "the user keeps its pages";
  EXPECT_EQ(pool_.cached(), 0);
  // What follows a page that is not trusted is not published, either.
  ASSERT_TRUE(pool_.TryReserve(1));
  const PageIndex next = pool_.TakeReserved();
  EXPECT_EQ(index_.Publish(KeyOf("abcd"), used[2], next), next);
  EXPECT_FALSE(index_.published(next));
  index_.Release({&next, 1});
  index_.Release(used);
  EXPECT_EQ(pool_.cached(), 1);
  EXPECT_EQ(pool_.free(), 7);
}

TEST_F(PrefixIndexTest, FreesUnpublishedPagesAtOnce) {
  ASSERT_TRUE(pool_.TryReserve(1));
  std::vector<PageIndex> pages = Compute(index_, "a");
  pages.push_back(pool_.TakeReserved());
  index_.Release(pages);
  EXPECT_EQ(pool_.cached(), 1);
  EXPECT_EQ(pool_.free(), 7);
}

// Random users against a plain model: what is in use stays, what is cached can all be evicted.
TEST(PrefixIndexPropertyTest, KeepsItsTreeThroughRandomWork) {
  for (uint32_t seed = 1; seed <= 40; ++seed) {
    SCOPED_TRACE(seed);
    std::mt19937 random(seed);
    PagePool pool(24);
    PrefixIndex index(&pool, /*keep_unused=*/true);
    std::vector<std::pair<std::string, std::vector<PageIndex>>> users;
    std::map<PageIndex, std::string> contents;  // of published pages
    for (int i = 0; i < 400; ++i) {
      const int64_t in_use = pool.used();
      switch (random() % 4) {
        case 0:
        case 1: {
          std::string prefix;
          for (size_t length = 1 + random() % 5; prefix.size() < length;) {
            prefix.push_back(static_cast<char>('a' + random() % 2));
          }
          const std::vector<PageKey> keys = KeysOf(prefix);
          std::vector<PageIndex> pages = index.Acquire(keys);
          for (size_t p = 0; p < pages.size(); ++p) ASSERT_EQ(contents[pages[p]], prefix.substr(0, p + 1));
          const auto missing = static_cast<int64_t>(keys.size() - pages.size());
          if (missing > pool.free()) index.Evict(missing - pool.free());
          if (!pool.TryReserve(missing)) {
            ASSERT_EQ(pool.cached(), 0) << "a cached page could not be evicted";
            index.Release(pages);
            ASSERT_EQ(pool.used(), in_use);
            break;
          }
          for (size_t p = pages.size(); p < keys.size(); ++p) {
            const PageIndex page = pool.TakeReserved();
            contents[page] = prefix.substr(0, p + 1);
            ASSERT_EQ(index.Publish(keys[p], p == 0 ? kNoPage : pages[p - 1], page), page);
            pages.push_back(page);
          }
          users.emplace_back(prefix, pages);
          break;
        }
        case 2:
          if (users.empty()) break;
          std::swap(users[random() % users.size()], users.back());
          index.Release(users.back().second);
          users.pop_back();
          break;
        default:
          index.Evict(random() % 3);
      }
      for (const auto& [prefix, pages] : users) {
        ASSERT_EQ(index.Match(KeysOf(prefix)), static_cast<int64_t>(pages.size())) << "lost a page in use";
      }
      ASSERT_EQ(pool.used() + pool.free() + pool.reserved() + pool.cached(), pool.total());
    }
    for (const auto& [prefix, pages] : users) index.Release(pages);
    index.Evict(pool.total());
    ASSERT_EQ(pool.free(), pool.total());
    ASSERT_EQ(index.num_published(), 0);
  }
}

}  // namespace
}  // namespace prism
