#include "common/text/grammar/grammar_cache.h"

#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "absl/strings/str_cat.h"

namespace prism {
namespace {

GrammarSpec Choice(const std::string& text) {
  return {.kind = GrammarSpec::Kind::kChoice, .text = "", .choices = {text}, .tools = {}};
}

TEST(GrammarCacheTest, CompilesASpecOnce) {
  GrammarCache cache;
  const auto first = cache.Get(Choice("a")).value();
  EXPECT_EQ(cache.Get(Choice("a")).value(), first);
  EXPECT_NE(cache.Get(Choice("b")).value(), first);
  EXPECT_EQ(cache.size(), 2u);
}

TEST(GrammarCacheTest, TellsHowEachGrammarWasComeBy) {
  using Result = GrammarUse::Result;
  std::vector<GrammarUse> uses;
  GrammarCache cache(kGrammarCacheBytesMax, [&uses](const GrammarUse& use) { uses.push_back(use); });
  ASSERT_TRUE(cache.Get(Choice("a")).ok());
  ASSERT_TRUE(cache.Get(Choice("a")).ok());
  ASSERT_FALSE(cache.Get(Choice("")).ok());
  ASSERT_EQ(uses.size(), 3u);
  EXPECT_EQ(uses[0].result, Result::kCompiled);
  EXPECT_GT(uses[0].compile_s, 0);
  EXPECT_EQ(uses[1].result, Result::kCached);
  EXPECT_EQ(uses[1].compile_s, 0);
  EXPECT_EQ(uses[2].result, Result::kFailed);
}

TEST(GrammarCacheTest, ErrorsAreNotKept) {
  GrammarCache cache;
  EXPECT_FALSE(cache.Get(Choice("")).ok());
  EXPECT_EQ(cache.size(), 0u);
}

TEST(GrammarCacheTest, IsBoundedInBytesAndForgetsTheOldestUse) {
  GrammarCache probe;
  ASSERT_TRUE(probe.Get(Choice("1023")).ok());
  const size_t one = probe.size_bytes();
  GrammarCache cache(4 * one);
  for (int i = 1000; i < 1004; ++i) ASSERT_TRUE(cache.Get(Choice(absl::StrCat(i))).ok());
  EXPECT_GE(cache.size(), 4u);
  const auto kept = cache.Get(Choice("1000")).value();
  for (int i = 2000; i < 2100; ++i) {
    ASSERT_TRUE(cache.Get(Choice(absl::StrCat(i))).ok());
    EXPECT_EQ(cache.Get(Choice("1000")).value(), kept);
    EXPECT_LE(cache.size_bytes(), 4 * one);
  }
  EXPECT_GE(cache.size(), 3u);
}

TEST(GrammarCacheTest, AFullAutomatonIsReplacedForNewcomers) {
  GrammarCache cache;
  const GrammarSpec spec = {.kind = GrammarSpec::Kind::kJsonSchema,
                            .text = R"({"type": "string", "maxLength": 500000})",
                            .choices = {},
                            .tools = {}};
  const auto first = cache.Get(spec).value();
  const Automaton::State* state = first->Read(first->start(), "\"");
  while (state != nullptr && !first->full()) state = first->Read(state, "a");
  ASSERT_TRUE(first->full());
  const auto second = cache.Get(spec).value();
  EXPECT_NE(second, first);
  EXPECT_FALSE(second->full());
}

}  // namespace
}  // namespace prism
