#include "common/text/grammar/json_document.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace prism {
namespace {

using testing::HasSubstr;

constexpr JsonLimits kLimits = {.bytes_max = 1000, .depth_max = 4};

std::string ErrorOf(const std::string& json, const JsonLimits& limits = kLimits) {
  const auto parsed = JsonDocument::Parse(json, limits, "schema");
  return parsed.ok() ? "" : std::string(parsed.status().message());
}

TEST(JsonDocumentTest, KeepsTheOrderOfKeysAndHowNumbersAreWritten) {
  const JsonDocument json =
      JsonDocument::Parse(R"( {"b": [1.50, -2e+3], "a": {"x": null, "y": true, "z": false}} )", kLimits, "x")
          .value();
  EXPECT_THAT(json[0].keys, testing::ElementsAre("b", "a"));
  const int32_t list = json.Find(0, "b");
  EXPECT_EQ(json[json[list].children[0]].text, "1.50");
  EXPECT_EQ(json[json[list].children[1]].text, "-2e+3");
  EXPECT_EQ(json[json.Find(json.Find(0, "a"), "y")].kind, JsonNode::Kind::kTrue);
  EXPECT_EQ(json.Find(0, "c"), -1);
}

TEST(JsonDocumentTest, DecodesEscapes) {
  const JsonDocument json =
      JsonDocument::Parse(R"(["\"\\\/\b\f\n\r\t", "\u00e4\ud83d\ude00", "ä"])", kLimits, "x").value();
  EXPECT_EQ(json[1].text, "\"\\/\b\f\n\r\t");
  EXPECT_EQ(json[2].text, "ä😀");
  EXPECT_EQ(json[3].text, "ä");
}

TEST(JsonDocumentTest, RefusesWhatIsNotJson) {
  EXPECT_EQ(ErrorOf("{\"a\": 1,}"), "schema: want a key at byte 8");
  EXPECT_EQ(ErrorOf("{\"a\": 1, \"a\": 2}"), "schema: the key \"a\" a second time at byte 12");
  for (const char* json :
       {"",       "{",   "[",    "[1",      "[1,",     "[1 2]",       "{\"a\"}",     "{\"a\":}",
        "{1:2}",  "01",  "1.",   "1e",      "-",       "+1",          ".5",          "tru",
        "nul",    "\"",  "\"\\", "\"\\u12", "\"\\x\"", "\"\\ud800\"", "\"\\udc00\"", "\"\\ud800\\u0041\"",
        "\"\n\"", "1 2", "[]]",  "]",       "NaN",     "'a'"}) {
    EXPECT_NE(ErrorOf(json), "") << json;
  }
  EXPECT_THAT(ErrorOf("\"\xff\""), HasSubstr("not UTF-8"));
}

TEST(JsonDocumentTest, HoldsItsLimits) {
  EXPECT_EQ(ErrorOf("[[[[]]]]"), "");
  EXPECT_EQ(ErrorOf("[[[[[]]]]]"), "schema: nested deeper than 4 at byte 4");
  EXPECT_EQ(ErrorOf("[1]", {.bytes_max = 3, .depth_max = 4}), "");
  EXPECT_EQ(ErrorOf("[12]", {.bytes_max = 3, .depth_max = 4}), "schema: has 4 bytes, at most 3");
  EXPECT_THAT(ErrorOf(std::string(1 << 20, '['), {.bytes_max = 1 << 20, .depth_max = 64}),
              HasSubstr("deeper than 64"));
}

TEST(JsonDocumentTest, TextIsTheValueAgain) {
  const std::string text = R"({"b":[1.50,-2e+3,"ä\"\n",null],"a":{"x":true,"y":false,"z":{}}})";
  const JsonDocument json = JsonDocument::Parse(" " + text + "\n", kLimits, "x").value();
  EXPECT_EQ(json.Text(0), text);
  EXPECT_EQ(json.Text(json.Find(0, "a")), R"({"x":true,"y":false,"z":{}})");
}

TEST(JsonDocumentTest, PointersAreThoseOfRfc6901) {
  const JsonDocument json = JsonDocument::Parse(R"({"a/b": [{"m~n": 1}, 2], "": 3})", kLimits, "x").value();
  const int32_t inner = json.Resolve("/a~1b/0/m~0n");
  ASSERT_GE(inner, 0);
  EXPECT_EQ(json[inner].text, "1");
  EXPECT_EQ(json.Pointer(inner), "/a~1b/0/m~0n");
  EXPECT_EQ(json.Resolve(""), 0);
  EXPECT_EQ(json[json.Resolve("/")].text, "3");
  for (const char* pointer : {"a", "/a", "/a~1b/2", "/a~1b/x", "/a~1b/-1", "/a~1b/0/m~0n/y"}) {
    EXPECT_EQ(json.Resolve(pointer), -1) << pointer;
  }
}

TEST(JsonQuotedTest, EscapesOnlyWhatMustBe) {
  EXPECT_EQ(JsonQuoted("a\"\\/\b\f\n\r\t\x01\x1f\x7fä"), "\"a\\\"\\\\/\\b\\f\\n\\r\\t\\u0001\\u001f\x7fä\"");
}

}  // namespace
}  // namespace prism
