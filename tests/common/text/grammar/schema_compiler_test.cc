#include "common/text/grammar/schema_compiler.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "tests/common/text/grammar/accepts.h"

namespace prism {
namespace {

using testing::HasSubstr;

void ExpectLanguage(const std::string& schema, const std::vector<std::string>& yes,
                    const std::vector<std::string>& no) {
  const auto automaton = SchemaAutomaton(schema);
  ASSERT_TRUE(automaton.ok()) << automaton.status();
  for (const std::string& text : yes) EXPECT_TRUE(Accepts(**automaton, text)) << text << " of " << schema;
  for (const std::string& text : no) EXPECT_FALSE(Accepts(**automaton, text)) << text << " of " << schema;
}

std::string ErrorOf(const std::string& schema) {
  const auto automaton = SchemaAutomaton(schema);
  return automaton.ok() ? "" : std::string(automaton.status().message());
}

TEST(SchemaCompilerTest, PropertiesComeInTheSchemasOrder) {
  ExpectLanguage(
      R"({"type": "object", "properties": {"b": {"type": "integer"}, "a": {"type": "null"}, "c": {}},
          "required": ["b"], "additionalProperties": false})",
      {R"({"b":1})", R"({"b":1,"a":null})", R"({"b": 1, "a": null, "c": [1, {"x": 2}]})",
       R"({"b":1,"c":"x"})"},
      {"{}", R"({"a":null,"b":1})", R"({"b":1,"d":2})", R"({"b":1,})", R"({ "b":1})", R"({"b":1 })",
       R"({"b":  1})", R"({"b" :1})", R"({"b":1,"b":2})", R"({"a":null})"});
}

TEST(SchemaCompilerTest, AdditionalPropertiesAreNamedOtherwise) {
  ExpectLanguage(R"({"type": "object", "properties": {"ab": {"type": "integer"}, "a": {"type": "integer"}},
                     "additionalProperties": {"type": "string"}})",
                 {"{}", R"({"x":"y"})", R"({"abc":"y"})", R"({"ab":1,"b":"y","":"z"})", R"({"a":1,"aa":"y"})",
                  R"({"\u0001\"":"y"})"},
                 {R"({"ab":"y"})", R"({"a":"y"})", R"({"x":1})", R"({"x":"y","a":1})", R"({"\u0061":"y"})"});
}

TEST(SchemaCompilerTest, StringsHaveOneForm) {
  ExpectLanguage(R"({"type": "string"})", {R"("")", R"("aä😀")", R"("\"\\/\n\u001f")", "\"\x7f\""},
                 {R"("\/")", R"("\u000a")", R"("\u0041")", R"("\u001F")", "\"\n\"", "\"\xff\"",
                  "\"\xed\xa0\x80\"", "\"\xc0\xaf\"", "\"\xf4\x90\x80\x80\"", R"("a)", R"(a")"});
  ExpectLanguage(R"({"type": "string", "minLength": 2, "maxLength": 3})",
                 {R"("ab")", R"("ä😀\n")", R"("\"\\")"}, {R"("")", R"("a")", R"("abcd")", R"("😀")"});
  ExpectLanguage(R"({"type": "string", "pattern": "^[a-c\"\\n]+$", "maxLength": 3})",
                 {R"("abc")", R"("\"\n")"}, {R"("abca")", R"("")", R"("d")", R"("\t")"});
  ExpectLanguage(R"({"type": "string", "pattern": "a.*b", "minLength": 4})", {R"("xaxb")", R"("aabb")"},
                 {R"("ab")", R"("xxxx")", R"("axb")"});
}

TEST(SchemaCompilerTest, ArraysCount) {
  ExpectLanguage(R"({"type": "array", "items": {"type": "integer"}, "minItems": 1, "maxItems": 3})",
                 {"[1]", "[1, 2]", "[1,2,3]"}, {"[]", "[1,2,3,4]", "[1,]", "[,1]", "[\"a\"]", "[ 1]"});
  ExpectLanguage(
      R"({"type": "array", "prefixItems": [{"type": "integer"}, {"type": "string"}], "minItems": 1})",
      {"[1]", R"([1,"a"])", R"([1,"a",null,{}])"}, {"[]", R"(["a"])", "[1,2]"});
  ExpectLanguage(R"({"type": "array", "prefixItems": [{"type": "integer"}], "items": false})", {"[]", "[1]"},
                 {"[1,2]"});
  ExpectLanguage(R"({"type": "array", "prefixItems": [{}, {}, {}], "maxItems": 2})", {"[]", "[1]", "[1,2]"},
                 {"[1,2,3]"});
}

TEST(SchemaCompilerTest, ValuesAreThoseThatFitTheRest) {
  ExpectLanguage(R"({"enum": [1, 1.0, "a", null, {"x": [1, 2]}, 1e2]})",
                 {"1", "\"a\"", "null", R"({"x": [1,2]})", "100"},
                 {"1.0", "2", "\"b\"", "1e2", R"({"x":[2,1]})"});
  ExpectLanguage(R"({"type": "string", "enum": ["a", 1, "abc"], "maxLength": 2})", {"\"a\""},
                 {"1", "\"abc\""});
  ExpectLanguage(R"({"enum": [1, 2, 3], "allOf": [{"enum": [2, 3, 4]}, {"maximum": 2}]})", {"2"},
                 {"1", "3", "4"});
  ExpectLanguage(R"({"const": {"b": 1, "a": 2}, "properties": {"a": {"type": "integer"}}})",
                 {R"({"b":1,"a":2})"}, {R"({"a":2,"b":1})"});
  EXPECT_EQ(ErrorOf(R"({"const": "a", "type": "integer"})"), "nothing satisfies it");
  EXPECT_EQ(ErrorOf(R"({"const": {"a": "x"}, "properties": {"a": {"type": "integer"}}})"),
            "nothing satisfies it");
}

TEST(SchemaCompilerTest, SchemasMayRecur) {
  ExpectLanguage(
      R"({"$defs": {"node": {"type": "object", "properties": {"value": {"type": "integer"},
          "children": {"type": "array", "items": {"$ref": "#/$defs/node"}}}, "required": ["value"],
          "additionalProperties": false}}, "$ref": "#/$defs/node"})",
      {R"({"value":1})", R"({"value":1,"children":[{"value":2,"children":[]},{"value":3}]})"},
      {R"({"value":1,"children":[{"children":[]}]})", R"({"value":1,"children":[1]})"});
  // Nothing finite satisfies it.
  EXPECT_EQ(ErrorOf(R"({"type": "object", "properties": {"next": {"$ref": "#"}}, "required": ["next"]})"),
            "nothing satisfies it");
}

TEST(SchemaCompilerTest, WhatStandsBesideAReferenceCounts) {
  ExpectLanguage(R"({"$defs": {"s": {"type": "string"}}, "$ref": "#/$defs/s", "maxLength": 1})", {"\"a\""},
                 {"\"ab\"", "1"});
  ExpectLanguage(R"({"allOf": [{"properties": {"a": {"type": "integer"}}, "required": ["a"]},
                               {"properties": {"a": {"minimum": 5}, "b": {}}, "additionalProperties": false}],
                     "type": "object"})",
                 {R"({"a":5})", R"({"a":7,"b":1})"}, {R"({"a":4})", R"({"a":5,"c":1})", R"({"b":1})"});
  ExpectLanguage(R"({"allOf": [{"prefixItems": [{"type": "integer"}], "items": {"minimum": 1}},
                               {"items": {"type": "number"}}], "type": "array"})",
                 {"[0]", "[0,1]", "[0,1.5]"}, {"[0.5]", "[0,0]", "[0,\"a\"]"});
}

TEST(SchemaCompilerTest, BranchesAreMergedWithWhatStandsBesideThem) {
  ExpectLanguage(R"({"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"],
                     "anyOf": [{"properties": {"b": {"const": 1}}, "required": ["b"]},
                               {"properties": {"c": {"const": 2}}, "required": ["c"]}]})",
                 {R"({"a":1,"b":1})", R"({"a":1,"c":2})"}, {R"({"a":1})", R"({"b":1})", R"({"a":1,"b":2})"});
  ExpectLanguage(R"({"anyOf": [{"type": "integer"}, {"type": "string", "maxLength": 1}], "minimum": 3})",
                 {"3", "\"a\""}, {"2", "\"ab\"", "null"});
}

TEST(SchemaCompilerTest, OneOfNeedsBranchesThatAreApart) {
  ExpectLanguage(R"({"oneOf": [{"type": "integer"}, {"type": "string"}]})", {"1", "\"a\""}, {"null"});
  ExpectLanguage(
      R"({"oneOf": [{"type": "object", "properties": {"kind": {"const": "a"}, "x": {"type": "integer"}},
                      "required": ["kind"]}, {"type": "object", "properties": {"kind": {"const": "b"}},
                      "required": ["kind"]}]})",
      {R"({"kind":"a","x":1})", R"({"kind":"b","x":"y"})"}, {R"({"kind":"a","x":"y"})", "{}"});
  ExpectLanguage(
      R"({"oneOf": [{"type": "number", "maximum": 0}, {"type": "number", "exclusiveMinimum": 0}]})",
      {"-1", "0", "1"}, {"null"});
  EXPECT_THAT(ErrorOf(R"({"properties": {"p": {"oneOf": [{"type": "integer"}, {"minimum": 2}]}}})"),
              HasSubstr("#/properties/p/oneOf: one value may match the branches 0 and 1 of oneOf"));
}

TEST(SchemaCompilerTest, NoKeywordOfAnotherTypeMatters) {
  ExpectLanguage(R"({"maxLength": 1, "minimum": 5, "required": ["a"], "maxItems": 1})",
                 {"\"a\"", "5", "null", "true", R"({"a":1})", "[1]"}, {"\"ab\"", "4", "{}", "[1,2]"});
  ExpectLanguage("true", {"1", "{}", "[[]]"}, {"", "x"});
  EXPECT_EQ(ErrorOf("false"), "nothing satisfies it");
}

TEST(SchemaCompilerTest, HoldsItsLimits) {
  // 4^5 alternatives.
  std::string groups;
  for (int i = 0; i < 5; ++i) {
    absl::StrAppend(&groups, i > 0 ? "," : "",
                    R"({"anyOf": [{"minLength": 1}, {"minLength": 2}, {"minLength": 3}, {"minLength": 4}]})");
  }
  EXPECT_THAT(ErrorOf(absl::StrCat("{\"allOf\": [", groups, "]}")), HasSubstr("more than 256 alternatives"));
  EXPECT_THAT(ErrorOf(R"({"type": "string", "pattern": "^(ab|c|d){300}$", "maxLength": 5000})"),
              HasSubstr("patterns and length need more than 8192 states"));
  EXPECT_THAT(ErrorOf(R"j({"type": "string", "pattern": "a(?=b)"})j"),
              HasSubstr("#: look-around is not supported"));
}

TEST(SchemaCompilerTest, StepsAreBounded) {
  // Each value of the enum is compared with each branch below.
  std::string values, branches;
  for (int i = 0; i < 250; ++i) absl::StrAppend(&values, i > 0 ? "," : "", i + 1000);
  for (int i = 0; i < 250; ++i) absl::StrAppend(&branches, i > 0 ? "," : "", "{\"maximum\":", i, "}");
  EXPECT_THAT(ErrorOf(absl::StrCat("{\"anyOf\":[", branches, "],\"enum\":[", values, "]}")),
              HasSubstr("steps to compile"));
}

TEST(SchemaCompilerTest, PatternsShareTheirSteps) {
  // Each for itself is within the bound.
  std::string items;
  for (int i = 0; i < 100; ++i) {
    absl::StrAppend(&items, i > 0 ? "," : "", "{\"pattern\":\"(a|b)*a(a|b){8}x", i, "\"}");
  }
  EXPECT_THAT(ErrorOf(absl::StrCat("{\"prefixItems\":[", items, "]}")), HasSubstr("patterns need more than"));
  EXPECT_EQ(ErrorOf("{\"pattern\":\"(a|b)*a(a|b){8}x\"}"), "");
}

TEST(SchemaCompilerTest, CanBeCalledOff) {
  const std::atomic<bool> cancelled{true};
  EXPECT_EQ(CompileGrammar({.kind = GrammarSpec::Kind::kJsonSchema,
                            .text = R"({"type": "integer"})",
                            .choices = {},
                            .tools = {}},
                           &cancelled)
                .status()
                .code(),
            absl::StatusCode::kCancelled);
}

}  // namespace
}  // namespace prism
