#include "services/router/answer_form.h"

#include <gtest/gtest.h>

#include <memory>
#include <string>

#include "common/wire/status_codec.h"
#include "tests/common/text/text_test_files.h"

namespace prism {
namespace {

class AnswerFormTest : public testing::Test {
 protected:
  absl::StatusOr<std::optional<v1::Grammar>> Form(const v1::ChatRequest& request) {
    return AnswerFormOf(request, *format_, MicroTokenizer(), &cache_);
  }
  static v1::ChatRequest WithTools() {
    v1::ChatRequest request;
    request.add_tools_json(
        R"({"type": "function", "function": {"name": "f", "parameters": {"type": "object", "properties": {"b": {"type": "integer"}, "a": {}}}}})");
    request.add_tools_json(R"({"type": "function", "function": {"name": "g", "strict": true}})");
    return request;
  }
  // "PATH: DESCRIPTION" of the field that the form is refused for.
  std::string Violation(const v1::ChatRequest& request) {
    const absl::Status status = Form(request).status();
    const std::vector<InvalidField> fields = InvalidFieldsOf(status);
    return fields.size() == 1 ? fields[0].path + ": " + fields[0].description : status.ToString();
  }

  std::unique_ptr<ChatFormat> format_ = ChatFormat::Create(ChatStyle::kInstruct, &MicroTokenizer()).value();
  GrammarCache cache_;
};

TEST_F(AnswerFormTest, WithoutToolsOrGrammarAnyTextIsAnAnswer) {
  EXPECT_FALSE(Form({}).value().has_value());
  v1::ChatRequest none = WithTools();
  none.mutable_tool_choice()->set_mode(v1::ToolChoice::MODE_NONE);
  EXPECT_FALSE(Form(none).value().has_value());
}

TEST_F(AnswerFormTest, ToolsMayBeCalled) {
  const v1::Grammar grammar = Form(WithTools()).value().value();
  EXPECT_TRUE(grammar.tool_calls().text_first());
  EXPECT_TRUE(grammar.tool_calls().parallel());
  ASSERT_EQ(grammar.tool_calls().tools_size(), 2);
  EXPECT_EQ(grammar.tool_calls().tools(0).name(), "f");
  EXPECT_EQ(grammar.tool_calls().tools(0).parameters_json(),
            R"({"type":"object","properties":{"b":{"type":"integer"},"a":{}}})");
  EXPECT_FALSE(grammar.tool_calls().tools(0).strict());
  EXPECT_EQ(grammar.tool_calls().tools(1).parameters_json(), "");
  EXPECT_TRUE(grammar.tool_calls().tools(1).strict());
}

TEST_F(AnswerFormTest, ToolsMustBeCalled) {
  v1::ChatRequest request = WithTools();
  request.mutable_tool_choice()->set_mode(v1::ToolChoice::MODE_REQUIRED);
  request.set_parallel_tool_calls(false);
  const v1::Grammar required = Form(request).value().value();
  EXPECT_FALSE(required.tool_calls().text_first());
  EXPECT_FALSE(required.tool_calls().parallel());
  request.mutable_tool_choice()->set_mode(v1::ToolChoice::MODE_NAMED);
  request.mutable_tool_choice()->set_name("g");
  const v1::Grammar named = Form(request).value().value();
  ASSERT_EQ(named.tool_calls().tools_size(), 1);
  EXPECT_EQ(named.tool_calls().tools(0).name(), "g");
  request.mutable_tool_choice()->set_name("h");
  EXPECT_EQ(Violation(request), "tool_choice: names the function \"h\", which is not among the tools");
  request.clear_tools_json();
  EXPECT_EQ(Violation(request), "tool_choice: needs tools");
}

TEST_F(AnswerFormTest, WhatCannotBeEnforcedIsRefusedWithItsPlace) {
  v1::ChatRequest request;
  request.mutable_grammar()->set_json_schema(R"({"properties": {"a": {"not": {}}}})");
  EXPECT_EQ(Violation(request), "grammar: #/properties/a/not: the keyword \"not\" is not supported");
  request.mutable_grammar()->set_regex("(");
  EXPECT_EQ(Violation(request), "grammar: a group without an end at byte 1 of the pattern");
  request.mutable_grammar()->Clear();
  EXPECT_EQ(Violation(request), "grammar: says nothing");

  v1::ChatRequest tools = WithTools();
  tools.set_tools_json(
      1,
      R"({"type": "function", "function": {"name": "g", "strict": true, "parameters": {"maxProperties": 1}}})");
  EXPECT_EQ(Violation(tools),
            "tools.1.function.parameters: #/maxProperties: the keyword \"maxProperties\" is not supported");
  tools.set_tools_json(1, R"({"type": "function", "function": {"name": "g h"}})");
  EXPECT_EQ(Violation(tools).substr(0, 36), "tools.1.function.name: the name \"g h");
}

TEST_F(AnswerFormTest, CountsGrammarsByHowTheyWereComeBy) {
  MetricRegistry registry;
  RouterMetrics metrics(&registry);
  GrammarCache cache(kGrammarCacheBytesMax, GrammarObserverOf(&metrics));
  const auto form = [&](const std::string& schema) {
    v1::ChatRequest request;
    request.mutable_grammar()->set_json_schema(schema);
    return AnswerFormOf(request, *format_, MicroTokenizer(), &cache).status();
  };
  EXPECT_TRUE(form(R"({"type": "integer"})").ok());
  EXPECT_TRUE(form(R"({"type": "integer"})").ok());
  EXPECT_TRUE(form(R"({"type": "boolean"})").ok());
  EXPECT_FALSE(form(R"({"not": {}})").ok());
  EXPECT_EQ(metrics.grammar_compiled.value(), 2);
  EXPECT_EQ(metrics.grammar_cached.value(), 1);
  EXPECT_EQ(metrics.grammar_failed.value(), 1);
  EXPECT_NE(registry.Text().find("prism_grammar_compile_seconds_count 3\n"), std::string::npos);
}

TEST_F(AnswerFormTest, FormsThatContradictAreRefused) {
  v1::ChatRequest request = WithTools();
  request.mutable_grammar()->set_json_object(true);
  EXPECT_EQ(Violation(request), "grammar: goes with tools only if tool_choice is none");
  request.mutable_tool_choice()->set_mode(v1::ToolChoice::MODE_NONE);
  EXPECT_TRUE(Form(request).value()->json_object());
  request.mutable_sampling()->set_ignore_eos(true);
  EXPECT_EQ(Violation(request),
            "sampling.ignore_eos: does not go with a form of the answer, which ends where its form does");
  request.mutable_grammar()->mutable_tool_calls();
  EXPECT_EQ(Violation(request), "grammar: tool calls come of tools");
}

TEST_F(AnswerFormTest, AnAnswerThatGoesOnPastItsEndHasNoForm) {
  v1::ChatRequest request = WithTools();
  request.mutable_sampling()->set_ignore_eos(true);
  EXPECT_FALSE(Form(request).value().has_value()) << "the model need not call a tool";
  request.mutable_tool_choice()->set_mode(v1::ToolChoice::MODE_NONE);
  EXPECT_FALSE(Form(request).value().has_value());
  for (const auto mode : {v1::ToolChoice::MODE_REQUIRED, v1::ToolChoice::MODE_NAMED}) {
    request.mutable_tool_choice()->set_mode(mode);
    request.mutable_tool_choice()->set_name("g");
    EXPECT_EQ(Violation(request),
              "sampling.ignore_eos: does not go with a tool_choice that has tools called: the calls end the "
              "answer");
  }
}

TEST_F(AnswerFormTest, AThinkingModelReasonsFirst) {
  v1::ChatRequest request;
  request.mutable_grammar()->set_json_object(true);
  EXPECT_FALSE(Form(request).value()->after_reasoning());
  format_ = ChatFormat::Create(ChatStyle::kThinking, &MicroTokenizer()).value();
  EXPECT_TRUE(Form(request).value()->after_reasoning());
}

}  // namespace
}  // namespace prism
