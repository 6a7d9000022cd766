#include "services/sim/trace.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <string>

#include "absl/strings/str_cat.h"

namespace prism::sim {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

constexpr char kHeader[] =
    "arrival_ms,tenant,prefix_id,prefix_tokens,prompt_tokens,pictures,picture_tokens,output_tokens\n";

TEST(ParseTraceTest, ReadsWhatAChatIs) {
  const auto trace = ParseTrace(absl::StrCat(kHeader, "0,a,7,2,5,,0,3\r\n", "12.5,b,7,4,4,9;4,6,1\n"));
  ASSERT_TRUE(trace.ok()) << trace.status();
  ASSERT_EQ(trace->size(), 2u);
  const TraceChat& chat = trace->at(1);
  EXPECT_EQ(chat.arrival_ms, 12.5);
  EXPECT_EQ(chat.tenant, "b");
  EXPECT_EQ(chat.prefix_id, 7u);
  EXPECT_EQ(chat.prefix_tokens, 4);
  EXPECT_EQ(chat.prompt_tokens, 4);
  EXPECT_THAT(chat.pictures, ElementsAre(9, 4));
  EXPECT_EQ(chat.picture_tokens, 6);
  EXPECT_EQ(chat.output_tokens, 1);
}

TEST(ParseTraceTest, SaysWhichLineAndFieldIsWrong) {
  const auto error = [](const std::string& line) {
    return std::string(ParseTrace(absl::StrCat(kHeader, "5,a,1,1,1,,0,1\n", line, "\n")).status().message());
  };
  EXPECT_THAT(error("4,a,1,1,1,,0,1"), HasSubstr("line 3: arrival_ms is \"4\", want 5 .."));
  EXPECT_THAT(error("nan,a,1,1,1,,0,1"), HasSubstr("arrival_ms"));
  EXPECT_THAT(error("6,a,x,1,1,,0,1"), HasSubstr("prefix_id is \"x\""));
  EXPECT_THAT(error("6,a,1,2,1,,0,1"), HasSubstr("prefix_tokens is \"2\", want at most the prompt's 1"));
  EXPECT_THAT(error("6,a,1,0,0,,0,1"), HasSubstr("prompt_tokens is \"0\", want 1 .. 262144"));
  EXPECT_THAT(error("6,a,1,0,262145,,0,1"), HasSubstr("prompt_tokens"));
  EXPECT_THAT(error("6,a,1,0,1,3;z,1,1"), HasSubstr("pictures is \"3;z\""));
  EXPECT_THAT(error("6,a,1,0,1,3,0,1"), HasSubstr("picture_tokens is \"0\", want 1"));
  EXPECT_THAT(error("6,a,1,0,1,,0,0"), HasSubstr("output_tokens is \"0\""));
  EXPECT_THAT(error("6,a,1,0,1"), HasSubstr("has 5 fields, want 8"));
  EXPECT_THAT(std::string(ParseTrace("what,is,this\n").status().message()), HasSubstr("line 1: the header"));
  EXPECT_THAT(std::string(ParseTrace(kHeader).status().message()), HasSubstr("no chats"));
  std::string pictures = "1";
  for (size_t i = 0; i < kTracePicturesMax; ++i) pictures += ";1";
  EXPECT_THAT(error(absl::StrCat("6,a,1,0,1,", pictures, ",1,1")), HasSubstr("at most 64 numbers"));
}

TEST(TraceSourceTest, PromptsOfOnePrefixBeginAlikeAndGoOnApart) {
  const auto trace = ParseTrace(
      absl::StrCat(kHeader, "0,a,7,100,150,,0,3\n", "10,a,7,120,150,5,6,1\n", "10,a,8,100,100,,0,1\n"));
  ASSERT_TRUE(trace.ok());
  TraceSource source(&*trace);
  EXPECT_EQ(source.NextGap(), 0);
  const auto first = source.Next(0);
  EXPECT_EQ(source.NextGap(), 10 * kMillisecond);
  const auto second = source.Next(10 * kMillisecond);
  EXPECT_EQ(source.NextGap(), 0);
  const auto third = source.Next(10 * kMillisecond);
  EXPECT_EQ(source.NextGap(), std::nullopt);
  const auto alike = [](const ChatSpec& a, const ChatSpec& b) {
    return std::mismatch(a.token_ids.begin(), a.token_ids.end(), b.token_ids.begin(), b.token_ids.end())
               .first -
           a.token_ids.begin();
  };
  EXPECT_GE(alike(*first, *second), 100);
  EXPECT_LT(alike(*first, *second), 104);  // by chance a token or two more
  EXPECT_LT(alike(*first, *third), 4);
  EXPECT_EQ(second->token_ids.size(), 156u);
  ASSERT_EQ(second->spans.size(), 1u);
  EXPECT_EQ(second->spans[0].offset, 120);
  EXPECT_EQ(second->spans[0].num_tokens, 6);
}

}  // namespace
}  // namespace prism::sim
