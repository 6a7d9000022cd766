#include "common/text/stop_matcher.h"

#include <random>

#include "gtest/gtest.h"

namespace prism {
namespace {

StopMatcher Make(const std::vector<std::string>& stops, bool include_stop = false) {
  auto matcher = StopMatcher::Create(stops, include_stop);
  EXPECT_TRUE(matcher.ok()) << matcher.status();
  return *std::move(matcher);
}

TEST(StopMatcherTest, WithoutStopStringsEverythingPassesAtOnce) {
  StopMatcher matcher = Make({});
  EXPECT_EQ(matcher.Push("abc").text, "abc");
  EXPECT_EQ(matcher.Finish(), "");
}

TEST(StopMatcherTest, HoldsBackABeginningAndShowsItWhenItIsNone) {
  StopMatcher matcher = Make({"END"});
  EXPECT_EQ(matcher.Push("the E").text, "the ");
  EXPECT_EQ(matcher.held_bytes(), 1u);
  EXPECT_EQ(matcher.Push("N").text, "");
  EXPECT_EQ(matcher.Push("x").text, "ENx");
  EXPECT_EQ(matcher.Push("EN").text, "");
  EXPECT_EQ(matcher.Finish(), "EN");
}

TEST(StopMatcherTest, StopsAcrossPiecesAndDropsTheRest) {
  StopMatcher matcher = Make({"END"});
  EXPECT_EQ(matcher.Push("go E").text, "go ");
  const StopMatcher::Output output = matcher.Push("ND and more");
  EXPECT_TRUE(output.stopped);
  EXPECT_EQ(output.text, "");
  EXPECT_EQ(matcher.stop_text(), "END");
  EXPECT_TRUE(matcher.Push("more").stopped);
  EXPECT_EQ(matcher.Push("more").text, "");
  EXPECT_EQ(matcher.Finish(), "");
}

TEST(StopMatcherTest, TheStopStringIsShownWhenAsked) {
  StopMatcher matcher = Make({"END"}, true);
  EXPECT_EQ(matcher.Push("go E").text, "go ");
  const StopMatcher::Output output = matcher.Push("ND and more");
  EXPECT_TRUE(output.stopped);
  EXPECT_EQ(output.text, "END");
}

TEST(StopMatcherTest, TheFirstCompletedWinsAndOfThoseTheLongest) {
  StopMatcher first = Make({"abcd", "bc"});
  EXPECT_EQ(first.Push("xabcd").text, "xa");
  EXPECT_EQ(first.stop_text(), "bc");
  StopMatcher longest = Make({"cd", "bcd", "d"});
  EXPECT_EQ(longest.Push("abcd").text, "a");
  EXPECT_EQ(longest.stop_text(), "bcd");
}

TEST(StopMatcherTest, ASelfOverlappingStopStringIsFound) {
  StopMatcher matcher = Make({"aab"});
  EXPECT_EQ(matcher.Push("aaa").text, "a");
  const StopMatcher::Output output = matcher.Push("ab");
  EXPECT_TRUE(output.stopped);
  EXPECT_EQ(output.text, "a");
}

TEST(StopMatcherTest, AStopStringEndsOnlyWhereItMayAndIsHeldBackBefore) {
  StopMatcher matcher = Make({"aab", "END"});
  EXPECT_EQ(matcher.Push("an END is no end, aab", false).text, "an END is no end, aab");
  StopMatcher::Output output = matcher.Push(" and E", false);
  EXPECT_EQ(output.text, " and ");
  output = matcher.Push("ND more", true);
  EXPECT_TRUE(output.stopped);
  EXPECT_EQ(output.text, "");
  EXPECT_EQ(matcher.stop_text(), "END");
}

TEST(StopMatcherTest, TheEndOfOneThatMayNotEndBeginsTheNext) {
  StopMatcher matcher = Make({"aXa"});
  EXPECT_EQ(matcher.Push("aXa", false).text, "aX");
  const StopMatcher::Output output = matcher.Push("Xa", true);
  EXPECT_TRUE(output.stopped);
  EXPECT_EQ(output.text, "");
}

TEST(StopMatcherTest, NoTextAfterHeldTextChangesNothing) {
  StopMatcher matcher = Make({"ab"});
  EXPECT_EQ(matcher.Push("xa").text, "x");
  EXPECT_EQ(matcher.Push("").text, "");
  EXPECT_TRUE(matcher.Push("b").stopped);
}

TEST(StopMatcherTest, NeverCutsACharacter) {
  StopMatcher matcher = Make({"中国"});
  EXPECT_EQ(matcher.Push("在中").text, "在");
  EXPECT_EQ(matcher.Push("丁").text, "中丁");
}

TEST(StopMatcherTest, BadStopStringsAreNamed) {
  EXPECT_EQ(StopMatcher::Create(std::vector<std::string>(9, "x"), false).status().message(),
            "stop: 9 stop strings, at most 8");
  EXPECT_EQ(StopMatcher::Create({"a", ""}, false).status().message(), "stop.1: is empty");
  EXPECT_EQ(StopMatcher::Create({std::string(65, 'x')}, false).status().message(),
            "stop.0: 65 bytes, at most 64");
  EXPECT_EQ(StopMatcher::Create({"\xff"}, false).status().message(),
            "stop.0: byte 0xff at offset 0 is not UTF-8");
  EXPECT_TRUE(StopMatcher::Create(std::vector<std::string>(8, std::string(64, 'x')), false).ok());
}

// The definition: the first end of any stop string, the longest of those that end there.
struct Expected {
  std::string text;
  bool stopped = false;
};
Expected Whole(const std::string& text, const std::vector<std::string>& stops) {
  for (size_t end = 1; end <= text.size(); ++end) {
    size_t longest = 0;
    for (const std::string& stop : stops) {
      if (stop.size() <= end && text.compare(end - stop.size(), stop.size(), stop) == 0) {
        longest = std::max(longest, stop.size());
      }
    }
    if (longest > 0) return {text.substr(0, end - longest), true};
  }
  return {text, false};
}

TEST(StopMatcherTest, RandomTextsInRandomPiecesAgreeWithTheDefinition) {
  std::mt19937 random(23);
  for (int round = 0; round < 20000; ++round) {
    std::vector<std::string> stops(1 + random() % 3);
    for (std::string& stop : stops) {
      for (size_t i = 1 + random() % 5; i > 0; --i) stop += static_cast<char>('a' + random() % 2);
    }
    std::string text;
    for (size_t i = random() % 20; i > 0; --i) text += static_cast<char>('a' + random() % 3);
    const Expected expected = Whole(text, stops);
    StopMatcher matcher = Make(stops);
    std::string shown;
    bool stopped = false;
    for (size_t i = 0; i < text.size();) {
      const size_t size = std::min<size_t>(1 + random() % 4, text.size() - i);
      const StopMatcher::Output output = matcher.Push(text.substr(i, size));
      shown += output.text;
      stopped = output.stopped;
      // Nothing is shown that the whole text would not show.
      ASSERT_EQ(expected.text.compare(0, shown.size(), shown), 0) << text;
      i += size;
    }
    shown += matcher.Finish();
    ASSERT_EQ(shown, expected.text) << text;
    ASSERT_EQ(stopped, expected.stopped) << text;
  }
}

}  // namespace
}  // namespace prism
