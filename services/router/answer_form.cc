#include "services/router/answer_form.h"

#include <algorithm>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "common/base/status.h"
#include "common/text/grammar/grammar_spec.h"
#include "common/text/grammar/json_document.h"
#include "common/wire/grammar_codec.h"
#include "common/wire/status_codec.h"
#include "services/router/options.h"

namespace prism {
namespace {

constexpr int kToolJsonDepthMax = 64;

using Mode = v1::ToolChoice::Mode;

absl::StatusOr<v1::ToolFunction> ToolOf(const std::string& json, const std::string& path) {
  const absl::StatusOr<JsonDocument> parsed =
      JsonDocument::Parse(json, {.bytes_max = kToolBytesMax, .depth_max = kToolJsonDepthMax}, "its JSON");
  if (!parsed.ok()) return FieldViolation(path, parsed.status().message());
  const JsonDocument& document = *parsed;
  const int32_t function = document.Find(JsonDocument::kRoot, "function");
  const int32_t name = function < 0 ? -1 : document.Find(function, "name");
  if (name < 0 || document[name].kind != JsonNode::Kind::kString) {
    return FieldViolation(path + ".function.name", "is missing, want a string");
  }
  v1::ToolFunction tool;
  tool.set_name(document[name].text);
  const int32_t parameters = document.Find(function, "parameters");
  if (parameters >= 0 && document[parameters].kind != JsonNode::Kind::kNull) {
    tool.set_parameters_json(document.Text(parameters));
  }
  const int32_t strict = document.Find(function, "strict");
  tool.set_strict(strict >= 0 && document[strict].kind == JsonNode::Kind::kTrue);
  return tool;
}

absl::StatusOr<v1::Grammar> ToolGrammarOf(const v1::ChatRequest& request) {
  v1::Grammar grammar;
  v1::Grammar::ToolCalls* calls = grammar.mutable_tool_calls();
  const v1::ToolChoice& choice = request.tool_choice();
  for (int i = 0; i < request.tools_json_size(); ++i) {
    PRISM_ASSIGN_OR_RETURN(v1::ToolFunction tool, ToolOf(request.tools_json(i), absl::StrCat("tools.", i)));
    if (choice.mode() == v1::ToolChoice::MODE_NAMED && tool.name() != choice.name()) continue;
    *calls->add_tools() = std::move(tool);
  }
  if (calls->tools().empty()) {
    return FieldViolation("tool_choice", absl::StrCat("names the function ", JsonQuoted(choice.name()),
                                                      ", which is not among the tools"));
  }
  calls->set_text_first(choice.mode() == v1::ToolChoice::MODE_AUTO);
  calls->set_parallel(!request.has_parallel_tool_calls() || request.parallel_tool_calls());
  return grammar;
}

// "tools.N: POINTER: ..." of the grammar as a violation of that tool's field; else of "grammar".
absl::Status AsViolation(const absl::Status& status) {
  const std::string message(status.message());
  const size_t colon = message.find(": ");
  if (!absl::StartsWith(message, "tools.") || colon == std::string::npos) {
    return FieldViolation("grammar", message);
  }
  const absl::string_view what = absl::string_view(message).substr(colon + 2);
  const bool name = absl::StartsWith(what, "the name ");
  return FieldViolation(
      absl::StrCat(message.substr(0, colon), name ? ".function.name" : ".function.parameters"), what);
}

}  // namespace

bool MayCallTools(const v1::ChatRequest& request, const Tokenizer& tokenizer) {
  return !request.tools_json().empty() && request.tool_choice().mode() != v1::ToolChoice::MODE_NONE &&
         tokenizer.AddedTokenId(kToolCallBegin).has_value() &&
         tokenizer.AddedTokenId(kToolCallEnd).has_value();
}

GrammarCache::Observer GrammarObserverOf(RouterMetrics* metrics) {
  return [metrics](const GrammarUse& use) {
    using Result = GrammarUse::Result;
    if (use.result == Result::kCached) return metrics->grammar_cached.Increment();
    (use.result == Result::kCompiled ? metrics->grammar_compiled : metrics->grammar_failed).Increment();
    metrics->grammar_compile_s.Observe(use.compile_s);
  };
}

absl::StatusOr<std::optional<v1::Grammar>> AnswerFormOf(const v1::ChatRequest& request,
                                                        const ChatFormat& format, const Tokenizer& tokenizer,
                                                        GrammarCache* cache) {
  const Mode mode = request.tool_choice().mode();
  const bool must_call = mode == v1::ToolChoice::MODE_REQUIRED || mode == v1::ToolChoice::MODE_NAMED;
  const bool may_call = MayCallTools(request, tokenizer);
  if (must_call && request.tools_json().empty()) return FieldViolation("tool_choice", "needs tools");
  if (must_call && !may_call) return FieldViolation("tool_choice", "the model cannot call tools");
  v1::Grammar grammar;
  if (request.has_grammar()) {
    if (request.grammar().has_tool_calls()) return FieldViolation("grammar", "tool calls come of tools");
    if (may_call) return FieldViolation("grammar", "goes with tools only if tool_choice is none");
    grammar = request.grammar();
  } else if (may_call && !must_call && request.sampling().ignore_eos()) {
    return std::nullopt;
  } else if (may_call) {
    PRISM_ASSIGN_OR_RETURN(grammar, ToolGrammarOf(request));
  } else {
    return std::nullopt;
  }
  grammar.set_after_reasoning(format.starts_in_reasoning());
  if (request.sampling().ignore_eos()) {
    return FieldViolation(
        "sampling.ignore_eos",
        must_call ? "does not go with a tool_choice that has tools called: the calls end the answer"
                  : "does not go with a form of the answer, which ends where its form does");
  }
  const absl::StatusOr<GrammarSpec> spec = GrammarFromProto(grammar);
  if (!spec.ok()) return FieldViolation("grammar", spec.status().message());
  const absl::Status compiled = cache->Get(*spec).status();
  if (absl::IsInvalidArgument(compiled) || absl::IsResourceExhausted(compiled)) return AsViolation(compiled);
  PRISM_RETURN_IF_ERROR(compiled);
  return grammar;
}

}  // namespace prism
