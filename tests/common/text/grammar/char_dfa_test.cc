#include "common/text/grammar/char_dfa.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>
#include <vector>

namespace prism {
namespace {

using testing::HasSubstr;

struct Case {
  const char* pattern;
  PatternMatch match;
  std::vector<const char*> yes, no;
};

class CharDfaTest : public testing::TestWithParam<Case> {};

TEST_P(CharDfaTest, MatchesWhatEcmaScriptDoes) {
  const auto dfa = CharDfa::FromPattern(GetParam().pattern, GetParam().match);
  ASSERT_TRUE(dfa.ok()) << dfa.status();
  for (const char* text : GetParam().yes) EXPECT_TRUE(dfa->Matches(text)) << text;
  for (const char* text : GetParam().no) EXPECT_FALSE(dfa->Matches(text)) << text;
}

constexpr auto kSearch = PatternMatch::kSearch;
constexpr auto kWhole = PatternMatch::kWhole;
INSTANTIATE_TEST_SUITE_P(
    All, CharDfaTest,
    testing::Values(Case{"abc", kSearch, {"abc", "xxabcyy", "aabc"}, {"", "ab", "axbc"}},
                    Case{"^abc", kSearch, {"abc", "abcd"}, {"xabc"}},
                    Case{"abc$", kSearch, {"abc", "xabc"}, {"abcd", "abc\n"}},
                    Case{"^a$|b", kSearch, {"a", "b", "xbx"}, {"aa", "xa", ""}},
                    Case{"^(a|b)*c{2,3}$", kSearch, {"cc", "ccc", "abacc"}, {"c", "cccc", "acbcc"}},
                    Case{"^a{3}$", kSearch, {"aaa"}, {"aa", "aaaa"}},
                    Case{"^a{2,}$", kSearch, {"aa", "aaaaa"}, {"a"}},
                    Case{"^(?:x?y+?)*$", kSearch, {"", "y", "xyy", "yxy"}, {"x", "xx"}},
                    Case{"^(?<year>\\d{4})-\\d\\d$", kSearch, {"2026-11"}, {"26-11", "２０２６-11"}},
                    Case{"^[^a-c\\]\\d]+$", kSearch, {"xyz", "ä😀"}, {"a", "]", "x1"}},
                    Case{"^[\\w.-]+@[a-z]+$", kSearch, {"a.b-c_1@x"}, {"@x", "a@", "ä@x"}},
                    Case{"^\\S+\\s\\W$", kSearch, {"ab !", "ab\u00a0!", "ä\uFEFFö"}, {"ab!", "a b c"}},
                    Case{"^.$", kSearch, {"a", "ä", "😀"}, {"", "ab", "\n", "\u2028"}},
                    Case{"^\\u00e4\\x41\\u{1F600}\\t\\.\\/\\-$", kSearch, {"äA😀\t./-"}, {"äA😀\tx/-"}},
                    Case{"[-a]", kSearch, {"-", "a"}, {"b"}}, Case{"^[a-]$", kSearch, {"-", "a"}, {"b"}},
                    Case{"^[\\b]$", kSearch, {"\b"}, {"b"}}, Case{"", kSearch, {"", "x"}, {}},
                    Case{"[]", kSearch, {}, {"", "a"}}, Case{"^[^]$", kSearch, {"\n", "a"}, {"", "ab"}},
                    Case{"(a+)+$", kSearch, {"a", "baaa"}, {"", "ab"}},
                    Case{"ab|c", kWhole, {"ab", "c"}, {"abc", "xc", ""}},
                    Case{"^ab$", kWhole, {"ab"}, {"xab"}}, Case{"a||b", kWhole, {"", "a", "b"}, {"ab"}}));

TEST(PatternTest, RefusesByNameWhatIsNotLinear) {
  const auto error = [](const std::string& pattern) {
    const auto dfa = CharDfa::FromPattern(pattern, PatternMatch::kSearch);
    return dfa.ok() ? "" : std::string(dfa.status().message());
  };
  EXPECT_EQ(error("a(?=b)"), "look-around is not supported at byte 1 of the pattern");
  EXPECT_EQ(error("(?<!b)a"), "look-around is not supported at byte 0 of the pattern");
  EXPECT_THAT(error("(a)\\1"), HasSubstr("\\1 is not supported"));
  EXPECT_THAT(error("\\bword\\b"), HasSubstr("\\b is not supported"));
  EXPECT_THAT(error("\\p{L}"), HasSubstr("\\p is not supported"));
  EXPECT_THAT(error("(^a)"), HasSubstr("'^' inside the pattern"));
  EXPECT_THAT(error("a^"), HasSubstr("'^' inside the pattern"));
  EXPECT_THAT(error("a$b"), HasSubstr("behind '$'"));
  for (const char* pattern :
       {"(",     ")",       "a)",   "(a", "[",   "[a",     "[b-a]",       "[\\d-z]",        "*",
        "a**",   "+",       "{2}",  "a{", "a{2", "a{3,2}", "a{1001}",     "a{99999999999}", "\\",
        "\\u12", "\\ud800", "\\x1", "]",  "}",   "(?i)a",  "\\u{110000}", "(?<a",           "\\07"}) {
    EXPECT_NE(error(pattern), "") << pattern;
  }
}

TEST(PatternTest, HoldsItsLimits) {
  const auto status = [](const std::string& pattern) {
    return CharDfa::FromPattern(pattern, PatternMatch::kSearch).status();
  };
  EXPECT_TRUE(status("^" + std::string(kPatternBytesMax - 1, 'a')).ok());
  EXPECT_THAT(status(std::string(kPatternBytesMax + 1, 'a')).message(),
              HasSubstr("1025 bytes, at most 1024"));
  const auto nested = [](int depth) { return std::string(depth, '(') + "a" + std::string(depth, ')'); };
  EXPECT_TRUE(status(nested(kPatternDepthMax)).ok());
  EXPECT_THAT(status(nested(kPatternDepthMax + 1)).message(), HasSubstr("deeper than 32"));
  EXPECT_THAT(status("(a{1000}){1000}").message(), HasSubstr("more than 4096 positions"));
  // Each state stands for all beginnings that the text may be in.
  EXPECT_THAT(status(std::string(kPatternBytesMax, 'a')).message(), HasSubstr("steps to compile"));
  EXPECT_THAT(status("(a|b)*a(a|b){14}$").message(), HasSubstr("more than"));  // 2^15 states
  EXPECT_EQ(status("(a|b)*a(a|b){14}$").code(), absl::StatusCode::kResourceExhausted);
}

}  // namespace
}  // namespace prism
