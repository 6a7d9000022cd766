#include "common/base/log.h"

#include <gtest/gtest.h>

#include <cmath>
#include <string>

namespace prism {
namespace {

TEST(JsonQuoteTest, EscapesWhatJsonAsksAndKeepsUtf8) {
  EXPECT_EQ(JsonQuote("plain"), "\"plain\"");
  EXPECT_EQ(JsonQuote("a\"b\\c"), "\"a\\\"b\\\\c\"");
  EXPECT_EQ(JsonQuote(absl::string_view("\n\t\0", 3)), "\"\\u000a\\u0009\\u0000\"");
  EXPECT_EQ(JsonQuote("漳州 é 😀"), "\"漳州 é 😀\"");
}

TEST(JsonQuoteTest, InvalidUtf8BecomesTheReplacementCharacter) {
  const std::string r = "\xEF\xBF\xBD";
  EXPECT_EQ(JsonQuote("a\xFF"
                      "b"),
            "\"a" + r + "b\"");
  EXPECT_EQ(JsonQuote("\xC0\x80"), "\"" + r + r + "\"");                  // an overlong zero
  EXPECT_EQ(JsonQuote("\xED\xA0\x80"), "\"" + r + r + r + "\"");          // a surrogate
  EXPECT_EQ(JsonQuote("\xF4\x90\x80\x80"), "\"" + r + r + r + r + "\"");  // above U+10FFFF
  EXPECT_EQ(JsonQuote("\xE6\xBC"), "\"" + r + r + "\"");                  // cut short
}

// What one call wrote to standard error.
template <typename Call>
std::string Logged(Call call) {
  testing::internal::CaptureStderr();
  call();
  return testing::internal::GetCapturedStderr();
}

TEST(LogTest, ALineIsOneJsonObjectWithItsFieldsInOrder) {
  InitLog("prism-test", "info");
  const std::string line = Logged([] {
    LogInfo("weights {} loaded", {{"tensors", 882},
                                  {"seconds", 1.5},
                                  {"ok", true},
                                  {"name", "a\"b"},
                                  // Casting these to an integer was once undefined.
                                  {"nan", std::nan("")},
                                  {"huge", 1e300}});
  });
  const std::string head = "{\"time\":\"";
  ASSERT_EQ(line.substr(0, head.size()), head);
  const size_t rest = line.find("\",\"level\"");
  ASSERT_NE(rest, std::string::npos);
  EXPECT_EQ(rest - head.size(), std::string("2026-01-02T03:04:05.678Z").size());
  EXPECT_EQ(
      line.substr(rest),
      "\",\"level\":\"info\",\"program\":\"prism-test\",\"message\":\"weights {} loaded\",\"tensors\":882,"
      "\"seconds\":1.5,\"ok\":true,\"name\":\"a\\\"b\",\"nan\":null,\"huge\":1e+300}\n");
}

TEST(LogTest, LinesBelowTheLevelAreNotWritten) {
  InitLog("prism-test", "warning");
  EXPECT_EQ(Logged([] { LogInfo("quiet"); }), "");
  EXPECT_NE(Logged([] { LogWarning("loud"); }), "");
  EXPECT_NE(Logged([] { LogError("louder"); }), "");
  InitLog("prism-test", "no such level");
  EXPECT_EQ(Logged([] { LogDebug("quiet"); }), "");
  EXPECT_NE(Logged([] { LogInfo("loud"); }), "");
}

}  // namespace
}  // namespace prism
