#include "common/text/python_json.h"

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace prism {
namespace {

using testing::HasSubstr;

std::string Rewrite(absl::string_view json) {
  const auto text = PythonJson(json, "tools.0");
  EXPECT_TRUE(text.ok()) << text.status();
  return text.ok() ? *text : "";
}

TEST(PythonJsonTest, SpacesAndOrderAreJsonDumps) {
  EXPECT_EQ(Rewrite(R"( {"b" :1,"a":[ true,false , null],"c":{}, "d":[]}
)"),
            R"({"b": 1, "a": [true, false, null], "c": {}, "d": []})");
}

TEST(PythonJsonTest, StringsKeepCharactersAndEscapeControls) {
  EXPECT_EQ(Rewrite(R"("天气 \u5929\/\ud83d\ude00 \" \\ \n\r\t\b\f \u0001\u001f\u007f")"),
            "\"天气 天/😀 \\\" \\\\ \\n\\r\\t\\b\\f \\u0001\\u001f\x7f\"");
}

TEST(PythonJsonTest, IntegersStayAsWritten) {
  EXPECT_EQ(Rewrite("[0, -7, -0, 123456789012345678901234567890]"),
            "[0, -7, 0, 123456789012345678901234567890]");
}

// Python 3: [repr(float(s)) for s in ...]
TEST(PythonJsonTest, FloatsAreWrittenAsPythonDoes) {
  const std::pair<const char*, const char*> cases[] = {{"1.0", "1.0"},
                                                       {"-0.0", "-0.0"},
                                                       {"0.1", "0.1"},
                                                       {"1e5", "100000.0"},
                                                       {"1E+2", "100.0"},
                                                       {"1e15", "1000000000000000.0"},
                                                       {"1e16", "1e+16"},
                                                       {"1.5e300", "1.5e+300"},
                                                       {"0.0001", "0.0001"},
                                                       {"0.00001", "1e-05"},
                                                       {"1.25e-7", "1.25e-07"},
                                                       {"123.456e2", "12345.6"},
                                                       {"3.141592653589793", "3.141592653589793"},
                                                       {"0.30000000000000004", "0.30000000000000004"},
                                                       {"5e-324", "5e-324"},
                                                       {"1e-400", "0.0"},
                                                       {"9007199254740993.0", "9007199254740992.0"},
                                                       {"12345678901234567.0", "1.2345678901234568e+16"}};
  for (const auto& [written, expected] : cases) EXPECT_EQ(Rewrite(written), expected) << written;
}

TEST(PythonJsonTest, WhatIsNotJsonIsRefusedWithItsPlace) {
  const std::pair<const char*, const char*> cases[] = {
      {"", "want a value at byte 0"},
      {"{\"a\" 1}", "want ':' at byte 5"},
      {"{\"a\": 1,}", "want a key at byte 8"},
      {"{\"a\": 1, \"a\": 2}", "the key \"a\" a second time at byte 12"},
      {"{a: 1}", "want a key"},
      {"[1 2]", "want ',' or ']' at byte 3"},
      {"[1", "want ',' or ']'"},
      {"{\"a\": 1", "want ',' or '}'"},
      {"1 2", "text after the value at byte 2"},
      {"01", "text after the value"},
      {"1.", "want a value"},
      {"1e", "want a value"},
      {"-", "want a value"},
      {"NaN", "want a value"},
      {"nul", "want a value"},
      {"1e400", "the number 1e400 is beyond double's range"},
      {"\"abc", "a string without an end"},
      {"\"a\nb\"", "a control character in a string"},
      {"\"\\x\"", "an unknown escape"},
      {"\"\\u12g4\"", "an unknown escape"},
      {"\"\\u12", "an unknown escape"},
      {"\"\\ud800\"", "a lone surrogate"},
      {"\"\\ud800\\u0041\"", "a lone surrogate"},
      {"\"\\udc00\"", "a lone surrogate"},
      {"\"\xff\"", "is not UTF-8"}};
  for (const auto& [written, problem] : cases) {
    const auto text = PythonJson(written, "tools.0");
    EXPECT_EQ(text.status().code(), absl::StatusCode::kInvalidArgument) << written;
    EXPECT_THAT(std::string(text.status().message()), HasSubstr(problem)) << written;
    EXPECT_THAT(std::string(text.status().message()), testing::StartsWith("tools.0: ")) << written;
  }
}

TEST(PythonJsonTest, NestingIsBounded) {
  EXPECT_TRUE(PythonJson(std::string(64, '[') + std::string(64, ']'), "t").ok());
  EXPECT_THAT(std::string(PythonJson(std::string(100000, '['), "t").status().message()),
              HasSubstr("nested deeper than 64"));
}

}  // namespace
}  // namespace prism
