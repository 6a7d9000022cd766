#include "services/router/prefix_map.h"

#include <gtest/gtest.h>

#include <numeric>

namespace prism {
namespace {

std::vector<int32_t> Ids(size_t count, int32_t first = 0) {
  std::vector<int32_t> ids(count);
  std::iota(ids.begin(), ids.end(), first);
  return ids;
}

size_t Common(const std::vector<uint64_t>& a, const std::vector<uint64_t>& b) {
  size_t same = 0;
  while (same < a.size() && same < b.size() && a[same] == b[same]) ++same;
  return same;
}

TEST(PrefixBlocksTest, OnlyWholeBlocksAreNamed) {
  EXPECT_EQ(PrefixBlocks(Ids(63), {}, "").size(), 0u);
  EXPECT_EQ(PrefixBlocks(Ids(64), {}, "").size(), 1u);
  EXPECT_EQ(PrefixBlocks(Ids(200), {}, "").size(), 3u);
}

TEST(PrefixBlocksTest, ABlockNamesEverythingBeforeIt) {
  std::vector<int32_t> other = Ids(256);
  other[70] = -1;
  EXPECT_EQ(Common(PrefixBlocks(Ids(256), {}, ""), PrefixBlocks(other, {}, "")), 1u);
}

TEST(PrefixBlocksTest, AnotherSaltSharesNothing) {
  EXPECT_EQ(Common(PrefixBlocks(Ids(256), {}, "a"), PrefixBlocks(Ids(256), {}, "b")), 0u);
}

// Placeholders have one id whatever the picture.
TEST(PrefixBlocksTest, AnotherPictureOfTheSameSizeIsAnotherPrefix) {
  const std::vector<int32_t> ids(256, 9);
  const auto with = [&](const std::string& key) {
    return PrefixBlocks(ids, {{{.offset = 100, .num_tokens = 100, .content_key = key}}}, "");
  };
  EXPECT_EQ(Common(with("cat"), with("cat")), 4u);
  EXPECT_EQ(Common(with("cat"), with("dog")), 1u);
}

TEST(PrefixBlocksTest, TemporalPatchesOfAClipDiffer) {
  const std::vector<int32_t> ids(64, 9);
  const auto at = [&](int64_t row) {
    return PrefixBlocks(ids, {{{.offset = 0, .num_tokens = 64, .content_key = "clip", .first_row = row}}},
                        "");
  };
  EXPECT_EQ(Common(at(0), at(64)), 0u);
}

TEST(PrefixMapTest, MatchesTheLongestKnownBeginning) {
  PrefixMap map(100);
  const std::vector<uint64_t> blocks = PrefixBlocks(Ids(640), {}, "");
  EXPECT_EQ(map.Match(blocks), 0u);
  map.Add(absl::MakeConstSpan(blocks).first(6));
  EXPECT_EQ(map.Match(blocks), 6u);
}

TEST(PrefixMapTest, TheEndOfAPromptIsForgottenBeforeItsBeginning) {
  PrefixMap map(12);
  const std::vector<uint64_t> old = PrefixBlocks(Ids(640), {}, "");
  const std::vector<uint64_t> young = PrefixBlocks(Ids(256, 5000), {}, "");
  map.Add(old);
  map.Add(young);
  EXPECT_EQ(map.size(), 12u);
  EXPECT_EQ(map.Match(young), 4u);
  EXPECT_EQ(map.Match(old), 8u);
  map.Add(absl::MakeConstSpan(old).first(2));
  map.Add(PrefixBlocks(Ids(256, 9000), {}, ""));
  EXPECT_EQ(map.Match(old), 4u);
}

TEST(PrefixMapTest, APromptLongerThanTheMapKeepsItsBeginning) {
  PrefixMap map(4);
  const std::vector<uint64_t> blocks = PrefixBlocks(Ids(640), {}, "");
  map.Add(blocks);
  EXPECT_EQ(map.size(), 4u);
  EXPECT_EQ(map.Match(blocks), 4u);
}

}  // namespace
}  // namespace prism
