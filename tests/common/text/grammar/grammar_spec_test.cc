#include "common/text/grammar/grammar_spec.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/common/text/grammar/accepts.h"

namespace prism {
namespace {

using Kind = GrammarSpec::Kind;

GrammarSpec Tools(bool text_first, bool parallel) {
  return {.kind = Kind::kToolCalls,
          .text = "",
          .choices = {},
          .tools = {{.name = "get_weather",
                     .parameters_json = R"({"type": "object", "properties": {"city": {"type": "string"}},
                                            "required": ["city"], "additionalProperties": false})"},
                    {.name = "now", .parameters_json = ""}},
          .text_first = text_first,
          .parallel = parallel};
}

const std::string kWeather =
    "<tool_call>\n{\"name\": \"get_weather\", \"arguments\": {\"city\": \"Bonn\"}}\n</tool_call>";
const std::string kNow = "<tool_call>\n{\"name\": \"now\", \"arguments\": {}}\n</tool_call>";

TEST(GrammarSpecTest, AJsonObjectIsAnyObject) {
  const auto automaton =
      Compiled({.kind = Kind::kJsonObject, .text = "", .choices = {}, .tools = {}}).value();
  EXPECT_TRUE(Accepts(*automaton, R"({"a": [1, -2.5e-3, "x", null], "b": {"c": true}})"));
  EXPECT_TRUE(Accepts(*automaton, "{}"));
  for (const char* text : {"[]", "1", "{", "{}{}", "{a:1}", "{\"a\":}"})
    EXPECT_FALSE(Accepts(*automaton, text));
}

TEST(GrammarSpecTest, ARegexIsTheWholeAnswer) {
  const auto automaton =
      Compiled({.kind = Kind::kRegex, .text = "(yes|nö), [0-9]{2}\"", .choices = {}, .tools = {}}).value();
  EXPECT_TRUE(Accepts(*automaton, "nö, 42\""));
  EXPECT_FALSE(Accepts(*automaton, "yes, 4\""));
  EXPECT_FALSE(Accepts(*automaton, "oh yes, 42\""));
}

TEST(GrammarSpecTest, AChoiceIsOneOfTheStrings) {
  const auto automaton =
      Compiled({.kind = Kind::kChoice, .text = "", .choices = {"red", "rede", "grün"}, .tools = {}}).value();
  for (const char* text : {"red", "rede", "grün"}) EXPECT_TRUE(Accepts(*automaton, text));
  for (const char* text : {"", "re", "redes", "gr"}) EXPECT_FALSE(Accepts(*automaton, text));

  const auto error = [](std::vector<std::string> choices) {
    return std::string(
        CompileGrammar({.kind = Kind::kChoice, .text = "", .choices = std::move(choices), .tools = {}})
            .status()
            .message());
  };
  EXPECT_EQ(error({}), "has 0 choices, want 1 .. 256");
  EXPECT_EQ(error(std::vector<std::string>(257, "a")), "has 257 choices, want 1 .. 256");
  EXPECT_EQ(error({"a", ""}), "a choice of 0 bytes, want 1 .. 1024");
  EXPECT_EQ(error({std::string(1025, 'a')}), "a choice of 1025 bytes, want 1 .. 1024");
}

TEST(GrammarSpecTest, RequiredCallsAreTheWholeAnswer) {
  const auto one = Compiled(Tools(false, false)).value();
  EXPECT_TRUE(Accepts(*one, kWeather));
  EXPECT_TRUE(Accepts(*one, kNow));
  for (const std::string& text :
       {std::string(), "text" + kNow, kNow + "\n" + kNow, kNow + " ",
        std::string("<tool_call>\n{\"name\": \"other\", \"arguments\": {}}\n</tool_call>"),
        std::string("<tool_call>\n{\"name\": \"get_weather\", \"arguments\": {}}\n</tool_call>")}) {
    EXPECT_FALSE(Accepts(*one, text)) << text;
  }
  const auto several = Compiled(Tools(false, true)).value();
  EXPECT_TRUE(Accepts(*several, kNow + "\n" + kWeather + "\n" + kNow));
  EXPECT_FALSE(Accepts(*several, kNow + kNow));
}

TEST(GrammarSpecTest, InAutoTextMayComeFirstOrAlone) {
  const auto automaton = Compiled(Tools(true, true)).value();
  for (const std::string& text :
       {std::string(), std::string("plain \xff text"), "I look.\n" + kWeather, kNow + "\n" + kNow}) {
    EXPECT_TRUE(Accepts(*automaton, text)) << text;
  }
  EXPECT_FALSE(Accepts(*automaton, kNow + "more"));
  EXPECT_TRUE(automaton->start()->free());
  EXPECT_TRUE(automaton->start()->accepting());
  const auto* in_call = automaton->Next(automaton->start(), automaton->grammar().symbol_of_marker(0));
  EXPECT_FALSE(in_call->free());
  EXPECT_FALSE(in_call->accepting());
}

TEST(GrammarSpecTest, ReasoningComesBeforeWhatIsAskedFor) {
  GrammarSpec spec = {.kind = Kind::kChoice, .text = "", .choices = {"yes", "no"}, .tools = {}};
  spec.after_reasoning = true;
  const auto automaton = Compiled(spec).value();
  EXPECT_TRUE(Accepts(*automaton, "Let me see.</think>\n\nyes"));
  EXPECT_TRUE(Accepts(*automaton, "</think>no"));
  EXPECT_FALSE(Accepts(*automaton, "yes"));
  EXPECT_FALSE(Accepts(*automaton, "</think>\n\nperhaps"));
  EXPECT_TRUE(automaton->start()->free());
  EXPECT_FALSE(automaton->start()->accepting());
}

TEST(GrammarSpecTest, ASchemaThatIsNotSupportedIsAnErrorUnlessTheModelMayChoose) {
  GrammarSpec spec = Tools(true, false);
  spec.tools[1].parameters_json = R"({"type": "object", "minProperties": 1})";
  const auto loose = Compiled(spec).value();
  EXPECT_TRUE(Accepts(*loose, "<tool_call>\n{\"name\": \"now\", \"arguments\": {\"x\": 1}}\n</tool_call>"));
  spec.tools[1].strict = true;
  EXPECT_EQ(CompileGrammar(spec).status().message(),
            "tools.1: #/minProperties: the keyword \"minProperties\" is not supported");
  spec.tools[1].strict = false;
  spec.text_first = false;
  EXPECT_FALSE(CompileGrammar(spec).ok());
}

TEST(GrammarSpecTest, ArgumentsAreObjectsWhateverTheSchemaSays) {
  GrammarSpec spec = Tools(false, false);
  spec.tools[1].parameters_json = R"({"properties": {"x": {"type": "integer"}}})";
  const auto automaton = Compiled(spec).value();
  const auto call = [](const std::string& arguments) {
    return "<tool_call>\n{\"name\": \"now\", \"arguments\": " + arguments + "}\n</tool_call>";
  };
  EXPECT_TRUE(Accepts(*automaton, call(R"({"x": 1})")));
  EXPECT_FALSE(Accepts(*automaton, call("1")));
  EXPECT_FALSE(Accepts(*automaton, call("[]")));
}

TEST(GrammarSpecTest, ToolsAreCheckedAndCounted) {
  GrammarSpec spec = Tools(false, false);
  spec.tools[0].name = "a\"b";
  EXPECT_EQ(CompileGrammar(spec).status().message(),
            "tools.0: the name \"a\\\"b\", want 1 .. 64 letters, digits, '_', '-' or '.'");
  spec.tools.clear();
  EXPECT_EQ(CompileGrammar(spec).status().message(), "has 0 tools, want 1 .. 128");
  spec.tools.resize(129);
  EXPECT_EQ(CompileGrammar(spec).status().message(), "has 129 tools, want 1 .. 128");
}

TEST(GrammarSpecTest, KeysTellLanguagesApartAndNotSpellings) {
  GrammarSpec a = {.kind = Kind::kJsonSchema, .text = R"({"const": "a b"})", .choices = {}, .tools = {}};
  GrammarSpec b = a;
  b.text = "{ \"const\":\n\"a b\" }";
  EXPECT_EQ(a.Key(), b.Key());
  b.text = R"({"const": "ab"})";
  EXPECT_NE(a.Key(), b.Key());
  b = a;
  b.after_reasoning = true;
  EXPECT_NE(a.Key(), b.Key());
  EXPECT_NE(Tools(true, false).Key(), Tools(false, true).Key());
  GrammarSpec x = {.kind = Kind::kChoice, .text = "", .choices = {"a", "bc"}, .tools = {}};
  GrammarSpec y = {.kind = Kind::kChoice, .text = "", .choices = {"ab", "c"}, .tools = {}};
  EXPECT_NE(x.Key(), y.Key());
}

}  // namespace
}  // namespace prism
