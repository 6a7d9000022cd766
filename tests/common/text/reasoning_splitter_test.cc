#include "common/text/reasoning_splitter.h"

#include <random>

#include "gtest/gtest.h"

namespace prism {
namespace {

struct Parts {
  std::string reasoning;
  std::string answer;
};

Parts SplitInPieces(const std::string& text, bool starts_inside, std::mt19937* random) {
  ReasoningSplitter splitter(starts_inside);
  Parts parts;
  const auto take = [&](const ReasoningSplitter::Output& output) {
    parts.reasoning += output.reasoning;
    parts.answer += output.answer;
  };
  for (size_t i = 0; i < text.size();) {
    const size_t size = std::min<size_t>(1 + (*random)() % 5, text.size() - i);
    take(splitter.Push(text.substr(i, size)));
    i += size;
  }
  take(splitter.Finish());
  return parts;
}

TEST(ReasoningSplitterTest, PartsAtTheClosingMarkWithoutTheNewlinesAroundIt) {
  std::mt19937 random(1);
  for (int round = 0; round < 200; ++round) {
    const Parts parts = SplitInPieces("First I look.\n\nThen.\n</think>\n\nA cup.\n", true, &random);
    EXPECT_EQ(parts.reasoning, "First I look.\n\nThen.");
    EXPECT_EQ(parts.answer, "A cup.\n");
  }
}

TEST(ReasoningSplitterTest, TextWithoutTheMarkIsAllReasoning) {
  std::mt19937 random(2);
  for (int round = 0; round < 200; ++round) {
    const Parts parts = SplitInPieces("cut short </thin\n</", true, &random);
    EXPECT_EQ(parts.reasoning, "cut short </thin\n</");
    EXPECT_EQ(parts.answer, "");
  }
}

TEST(ReasoningSplitterTest, TextThatStartsOutsideIsAllAnswer) {
  std::mt19937 random(3);
  const Parts parts = SplitInPieces("\n\nno </think> here", false, &random);
  EXPECT_EQ(parts.reasoning, "");
  EXPECT_EQ(parts.answer, "\n\nno </think> here");
}

TEST(ReasoningSplitterTest, OnlyTheFirstMarkParts) {
  std::mt19937 random(4);
  const Parts parts = SplitInPieces("a</think>b</think>c", true, &random);
  EXPECT_EQ(parts.reasoning, "a");
  EXPECT_EQ(parts.answer, "b</think>c");
}

TEST(ReasoningSplitterTest, ShowsReasoningAsSoonAsItIsCertain) {
  ReasoningSplitter splitter(true);
  EXPECT_TRUE(splitter.in_reasoning());
  EXPECT_EQ(splitter.Push("Hm, 1 < 2\n").reasoning, "Hm, 1 < 2");
  EXPECT_EQ(splitter.Push("</th").reasoning, "");
  EXPECT_EQ(splitter.Push("e").reasoning, "\n</the");
  EXPECT_EQ(splitter.Push("</think>").reasoning, "");
  EXPECT_FALSE(splitter.in_reasoning());
  EXPECT_EQ(splitter.Push("\n").answer, "");
  EXPECT_EQ(splitter.Push("\nYes").answer, "Yes");
  EXPECT_EQ(splitter.Push("\n").answer, "\n");
}

}  // namespace
}  // namespace prism
