#include "common/wire/grammar_codec.h"

#include "prism/v1/decoder.pb.h"

namespace prism {

absl::StatusOr<GrammarSpec> GrammarFromProto(const v1::Grammar& proto) {
  GrammarSpec spec;
  spec.after_reasoning = proto.after_reasoning();
  switch (proto.kind_case()) {
    case v1::Grammar::kJsonObject:
      if (!proto.json_object()) return absl::InvalidArgumentError("json_object is false, want true");
      spec.kind = GrammarSpec::Kind::kJsonObject;
      return spec;
    case v1::Grammar::kJsonSchema:
      spec.kind = GrammarSpec::Kind::kJsonSchema;
      spec.text = proto.json_schema();
      return spec;
    case v1::Grammar::kRegex:
      spec.kind = GrammarSpec::Kind::kRegex;
      spec.text = proto.regex();
      return spec;
    case v1::Grammar::kChoices:
      spec.kind = GrammarSpec::Kind::kChoice;
      spec.choices.assign(proto.choices().texts().begin(), proto.choices().texts().end());
      return spec;
    case v1::Grammar::kToolCalls:
      spec.kind = GrammarSpec::Kind::kToolCalls;
      for (const v1::ToolFunction& tool : proto.tool_calls().tools()) {
        spec.tools.push_back(
            {.name = tool.name(), .parameters_json = tool.parameters_json(), .strict = tool.strict()});
      }
      spec.text_first = proto.tool_calls().text_first();
      spec.parallel = proto.tool_calls().parallel();
      return spec;
    case v1::Grammar::KIND_NOT_SET:
      break;
  }
  return absl::InvalidArgumentError("says nothing");
}

}  // namespace prism
