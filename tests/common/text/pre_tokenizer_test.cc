#include "common/text/pre_tokenizer.h"

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace prism {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

constexpr char kQwenPattern[] =
    R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)";

std::vector<std::string> Split(const std::string& text, const char* pattern = kQwenPattern) {
  auto splitter = PreTokenizer::Create(pattern);
  EXPECT_TRUE(splitter.ok()) << splitter.status();
  std::vector<uint32_t> ends;
  const absl::Status status = (*splitter)->Split(text, &ends);
  EXPECT_TRUE(status.ok()) << status;
  std::vector<std::string> pieces;
  uint32_t begin = 0;
  for (const uint32_t end : ends) {
    pieces.push_back(text.substr(begin, end - begin));
    begin = end;
  }
  EXPECT_EQ(begin, text.size());
  return pieces;
}

TEST(PreTokenizerTest, CutsEnglishAsTheExpressionSays) {
  EXPECT_THAT(Split("I'm here,  we'LL see 12 (x)."), ElementsAre("I", "'m", " here", ",", " ", " we", "'LL",
                                                                 " see", " ", "1", "2", " (", "x", ")."));
}

TEST(PreTokenizerTest, KeepsTheLastSpaceForTheNextWord) {
  EXPECT_THAT(Split("a  b"), ElementsAre("a", " ", " b"));
  EXPECT_THAT(Split("a   "), ElementsAre("a", "   "));
}

TEST(PreTokenizerTest, PunctuationTakesTheNewlinesBehindIt) {
  EXPECT_THAT(Split("x);\n\ny"), ElementsAre("x", ");\n\n", "y"));
  EXPECT_THAT(Split(" \n \nz"), ElementsAre(" \n \n", "z"));
}

TEST(PreTokenizerTest, LettersAndNumbersAreUnicode) {
  EXPECT_THAT(Split("漢字。かな ½Ⅳ"), ElementsAre("漢字", "。かな", " ", "½", "Ⅳ"));
}

TEST(PreTokenizerTest, CaseFoldingIsUnicode) {
  // U+017F, the long s, folds to s.
  EXPECT_THAT(Split("he'\u017f"), ElementsAre("he", "'\u017f"));
}

TEST(PreTokenizerTest, WhiteSpaceIsUnicodeWhiteSpace) {
  for (const std::string space :
       {"\u0085", "\u00a0", "\u1680", "\u2003", "\u2028", "\u202f", "\u205f", "\u3000"}) {
    EXPECT_THAT(Split("." + space + space), ElementsAre(".", space + space)) << space;
  }
  // U+180E was a space until Unicode 6.3, and PCRE2's \s still takes it. U+200B never was.
  EXPECT_THAT(Split(".\u180e."), ElementsAre(".\u180e."));
  EXPECT_THAT(Split(".\u200b."), ElementsAre(".\u200b."));
}

TEST(PreTokenizerTest, WhatLiesBetweenMatchesIsAPiece) {
  EXPECT_THAT(Split("ab12cd", R"(\p{N}+)"), ElementsAre("ab", "12", "cd"));
  EXPECT_THAT(Split("12cd", R"(\p{N}+)"), ElementsAre("12", "cd"));
  EXPECT_THAT(Split("", R"(\p{N}+)"), ElementsAre());
}

TEST(PreTokenizerTest, AnExpressionThatMatchesNothingMakesNoEmptyPieces) {
  EXPECT_THAT(Split("a1b", R"(\p{N}*)"), ElementsAre("a", "1", "b"));
}

TEST(PreTokenizerTest, AnExpressionThatExplodesIsStopped) {
  auto splitter = PreTokenizer::Create("(a|aa)+[bc]");
  ASSERT_TRUE(splitter.ok());
  std::vector<uint32_t> ends;
  const absl::Status status = (*splitter)->Split(std::string(5000, 'a'), &ends);
  EXPECT_EQ(status.code(), absl::StatusCode::kResourceExhausted) << status;
}

TEST(PreTokenizerTest, AnExpressionThatIsTooLongIsRefused) {
  EXPECT_EQ(PreTokenizer::Create(std::string(5000, 'a')).status().message(),
            "pre-tokenizer pattern: 5000 bytes, at most 4096");
}

TEST(TranslateSplitPatternTest, RefusesEscapesItHasNoMeaningFor) {
  for (const std::string pattern : {R"(\w+)", R"(\bx)", R"([\S])", R"(\d)", R"(\K)", R"(\C)"}) {
    const auto translated = TranslateSplitPattern(pattern);
    EXPECT_EQ(translated.status().code(), absl::StatusCode::kInvalidArgument) << pattern;
    EXPECT_THAT(std::string(translated.status().message()), HasSubstr("is not supported")) << pattern;
  }
  EXPECT_FALSE(TranslateSplitPattern("a\\").ok());
  EXPECT_FALSE(TranslateSplitPattern("[a[b]]").ok());
  EXPECT_FALSE(TranslateSplitPattern("[a&&b]").ok());
}

TEST(TranslateSplitPatternTest, KeepsEscapedPunctuation) {
  EXPECT_EQ(*TranslateSplitPattern(R"(\[\]\\\-\r\n\p{L})"), R"(\[\]\\\-\r\n\p{L})");
}

}  // namespace
}  // namespace prism
