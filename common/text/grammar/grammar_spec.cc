#include "common/text/grammar/grammar_spec.h"

#include <algorithm>
#include <optional>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "common/base/status.h"
#include "common/base/utf8.h"
#include "common/text/grammar/char_dfa.h"
#include "common/text/grammar/json_rules.h"
#include "common/text/grammar/schema_compiler.h"
#include "common/text/grammar/schema_document.h"

namespace prism {
namespace {

using Node = GrammarBuilder::Node;

class SpecCompiler {
 public:
  SpecCompiler(const GrammarSpec& spec, const std::atomic<bool>* cancelled)
      : spec_(spec), cancelled_(cancelled), rules_(&builder_) {}

  absl::StatusOr<CompiledGrammar> Compile() {
    PRISM_ASSIGN_OR_RETURN(Node start, Body());
    // In the model's own choice of calls the reasoning is text like other text.
    if (spec_.after_reasoning && !(spec_.kind == GrammarSpec::Kind::kToolCalls && spec_.text_first)) {
      start = Reasoned(start);
    }
    CompiledGrammar compiled;
    PRISM_ASSIGN_OR_RETURN(compiled.grammar, builder_.Finish(start));
    compiled.markers = std::move(markers_);
    return compiled;
  }

 private:
  absl::StatusOr<Node> Body() {
    switch (spec_.kind) {
      case GrammarSpec::Kind::kJsonObject:
        return rules_.Object();
      case GrammarSpec::Kind::kJsonSchema:
        return Schema(spec_.text);
      case GrammarSpec::Kind::kRegex: {
        PRISM_ASSIGN_OR_RETURN(const CharDfa dfa, CharDfa::FromPattern(spec_.text, PatternMatch::kWhole));
        return rules_.text().Raw(dfa);
      }
      case GrammarSpec::Kind::kChoice:
        return Choices();
      case GrammarSpec::Kind::kToolCalls:
        return ToolCalls();
    }
    return absl::InvalidArgumentError("an unknown kind of grammar");
  }

  absl::StatusOr<Node> Schema(const std::string& json, bool objects_only = false) {
    PRISM_ASSIGN_OR_RETURN(const SchemaDocument document, SchemaDocument::Parse(json));
    return SchemaCompiler(&rules_, &document, cancelled_).Compile(objects_only);
  }

  absl::StatusOr<Node> Choices() {
    if (spec_.choices.empty() || spec_.choices.size() > kGrammarChoicesMax) {
      return absl::InvalidArgumentError(
          absl::StrCat("has ", spec_.choices.size(), " choices, want 1 .. ", kGrammarChoicesMax));
    }
    const Node start = builder_.Add();
    for (const std::string& choice : spec_.choices) {
      if (choice.empty() || choice.size() > kGrammarChoiceBytesMax) {
        return absl::InvalidArgumentError(
            absl::StrCat("a choice of ", choice.size(), " bytes, want 1 .. ", kGrammarChoiceBytesMax));
      }
      PRISM_RETURN_IF_ERROR(CheckUtf8(choice, "a choice"));
      builder_.LiteralTo(start, choice, builder_.end());
    }
    return start;
  }

  int32_t MarkerOf(absl::string_view text) {
    const auto found = std::find(markers_.begin(), markers_.end(), text);
    if (found != markers_.end()) return static_cast<int32_t>(found - markers_.begin());
    markers_.emplace_back(text);
    return static_cast<int32_t>(markers_.size()) - 1;
  }

  // Any text from the node on; markers are to be added.
  Node FreeText() {
    const Node free = builder_.Add();
    builder_.Bytes(free, 0x00, 0xFF, free);
    builder_.SetFree(free);
    return free;
  }

  Node Reasoned(Node body) {
    const Node free = FreeText();
    const Node behind = builder_.Add();
    builder_.Marker(free, MarkerOf(kReasoningEnd), behind);
    const Node newline = builder_.Literal(behind, "\n");
    builder_.LiteralTo(newline, "\n", body);
    builder_.Skip(behind, body);
    builder_.Skip(newline, body);
    return free;
  }

  absl::StatusOr<Node> ToolCalls() {
    if (spec_.tools.empty() || spec_.tools.size() > kGrammarToolsMax) {
      return absl::InvalidArgumentError(
          absl::StrCat("has ", spec_.tools.size(), " tools, want 1 .. ", kGrammarToolsMax));
    }
    const Node name = builder_.Add();
    const Node close = builder_.Add();
    for (size_t i = 0; i < spec_.tools.size(); ++i) {
      const GrammarTool& tool = spec_.tools[i];
      PRISM_RETURN_IF_ERROR(Annotated(i, CheckName(tool.name)));
      absl::StatusOr<Node> arguments = Arguments(tool);
      if (!arguments.ok()) return Annotated(i, arguments.status());
      builder_.Call(builder_.Literal(name, absl::StrCat(tool.name, "\", \"arguments\": ")), *arguments,
                    close);
    }
    // A call, from its marker on.
    const Node call = builder_.Add();
    const Node open = builder_.Add();
    builder_.Marker(call, MarkerOf(kToolCallBegin), open);
    builder_.LiteralTo(open, "\n{\"name\": \"", name);
    const Node done = builder_.Add();
    builder_.Marker(builder_.Literal(close, "}\n"), MarkerOf(kToolCallEnd), done);
    builder_.Return(done);
    if (spec_.parallel) builder_.LiteralTo(done, "\n", call);
    if (!spec_.text_first) return call;
    const Node free = FreeText();
    builder_.Return(free);
    builder_.Skip(free, call);
    return free;
  }

  absl::StatusOr<Node> Arguments(const GrammarTool& tool) {
    if (tool.parameters_json.empty()) return NoArguments();
    absl::StatusOr<Node> rule = Schema(tool.parameters_json, true);
    const bool refused = absl::IsInvalidArgument(rule.status()) || absl::IsResourceExhausted(rule.status());
    if (refused && spec_.text_first && !tool.strict && builder_.status().ok()) return rules_.Object();
    return rule;
  }
  Node NoArguments() {
    const Node start = builder_.Add();
    builder_.LiteralTo(start, "{}", builder_.end());
    return start;
  }

  static absl::Status CheckName(const std::string& name) {
    const bool known = std::all_of(name.begin(), name.end(), [](char c) {
      return absl::ascii_isalnum(static_cast<unsigned char>(c)) || c == '_' || c == '-' || c == '.';
    });
    if (known && !name.empty() && name.size() <= kGrammarToolNameBytesMax) return absl::OkStatus();
    return absl::InvalidArgumentError(absl::StrCat("the name ", JsonQuoted(name), ", want 1 .. ",
                                                   kGrammarToolNameBytesMax,
                                                   " letters, digits, '_', '-' or '.'"));
  }
  static absl::Status Annotated(size_t tool, const absl::Status& status) {
    if (status.ok()) return status;
    return absl::Status(status.code(), absl::StrCat("tools.", tool, ": ", status.message()));
  }

  const GrammarSpec& spec_;
  const std::atomic<bool>* const cancelled_;
  GrammarBuilder builder_;
  JsonRules rules_;
  std::vector<std::string> markers_;
};

// The schema without white space outside of strings, so that one schema is found again however it was
// written; a text that is no JSON stays as it is.
std::string Compact(const std::string& json) {
  std::string compact;
  bool in_string = false, escaped = false;
  for (const char c : json) {
    if (!in_string && (c == ' ' || c == '\n' || c == '\t' || c == '\r')) continue;
    if (c == '"' && !escaped) in_string = !in_string;
    escaped = in_string && c == '\\' && !escaped;
    compact.push_back(c);
  }
  return compact;
}

}  // namespace

std::string GrammarSpec::Key() const {
  // Every part behind its size, so that no two specs run into each other.
  const auto part = [](const std::string& piece) { return absl::StrCat(piece.size(), ":", piece); };
  std::string key = absl::StrCat(static_cast<int>(kind), text_first ? "t" : "", parallel ? "p" : "",
                                 after_reasoning ? "r" : "", " ");
  absl::StrAppend(&key, part(kind == Kind::kJsonSchema ? Compact(text) : text));
  for (const std::string& choice : choices) absl::StrAppend(&key, part(choice));
  for (const GrammarTool& tool : tools) {
    absl::StrAppend(&key, part(tool.name), part(Compact(tool.parameters_json)), tool.strict ? "s" : "-");
  }
  return key;
}

absl::StatusOr<CompiledGrammar> CompileGrammar(const GrammarSpec& spec, const std::atomic<bool>* cancelled) {
  return SpecCompiler(spec, cancelled).Compile();
}

}  // namespace prism
