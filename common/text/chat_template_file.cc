#include "common/text/chat_template_file.h"

#include <simdjson.h>

#include <string_view>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "common/base/status.h"
#include "common/text/text_file.h"

namespace prism {
namespace {

constexpr char kKey[] = "chat_template";

// Empty when `json` has no chat template.
absl::StatusOr<std::string> TemplateInJson(const std::string& json, const std::string& path) {
  simdjson::dom::parser parser;
  simdjson::dom::object root;
  const simdjson::error_code error = parser.parse(simdjson::padded_string(json)).get(root);
  if (error != simdjson::SUCCESS) {
    return absl::InvalidArgumentError(
        absl::StrCat(path, ": not a JSON object: ", simdjson::error_message(error)));
  }
  simdjson::dom::element value;
  if (root[kKey].get(value) != simdjson::SUCCESS || value.is_null()) return std::string();
  std::string_view text;
  if (value.get(text) == simdjson::SUCCESS) return std::string(text);
  simdjson::dom::array named;
  if (value.get(named) == simdjson::SUCCESS) {
    for (const simdjson::dom::element one : named) {
      std::string_view name;
      if (one["name"].get(name) == simdjson::SUCCESS && name == "default" &&
          one["template"].get(text) == simdjson::SUCCESS) {
        return std::string(text);
      }
    }
    return absl::InvalidArgumentError(absl::StrCat(path, ": ", kKey, ": no template is named \"default\""));
  }
  return absl::InvalidArgumentError(absl::StrCat(path, ": ", kKey, ": neither a string nor a list"));
}

// Past a newline, written as one or as the escape, and past the end of one {{ '...' }} and the beginning
// of the next.
absl::string_view SkipToNextText(absl::string_view text) {
  if (!absl::ConsumePrefix(&text, "\\n")) absl::ConsumePrefix(&text, "\n");
  absl::string_view rest = text;
  if (!absl::ConsumePrefix(&rest, "'") && !absl::ConsumePrefix(&rest, "\"")) return text;
  rest = absl::StripLeadingAsciiWhitespace(rest);
  absl::ConsumePrefix(&rest, "-");
  if (!absl::ConsumePrefix(&rest, "}}")) return text;
  rest = absl::StripLeadingAsciiWhitespace(rest);
  if (!absl::ConsumePrefix(&rest, "{{")) return text;
  absl::ConsumePrefix(&rest, "-");
  rest = absl::StripLeadingAsciiWhitespace(rest);
  if (!absl::ConsumePrefix(&rest, "'") && !absl::ConsumePrefix(&rest, "\"")) return text;
  return rest;
}

}  // namespace

absl::StatusOr<std::string> ReadChatTemplate(const std::string& folder) {
  const std::string jinja = absl::StrCat(folder, "/chat_template.jinja");
  absl::StatusOr<std::string> text = ReadTextFile(jinja, kChatTemplateFileBytesMax);
  if (text.ok() || !absl::IsNotFound(text.status())) return text;
  for (const char* const name : {"chat_template.json", "tokenizer_config.json"}) {
    const std::string path = absl::StrCat(folder, "/", name);
    const absl::StatusOr<std::string> json = ReadTextFile(path, kChatTemplateFileBytesMax);
    if (absl::IsNotFound(json.status())) continue;
    PRISM_RETURN_IF_ERROR(json.status());
    PRISM_ASSIGN_OR_RETURN(std::string found, TemplateInJson(*json, path));
    if (!found.empty()) return found;
  }
  return absl::NotFoundError(absl::StrCat(folder, ": no chat template in chat_template.jinja, ",
                                          "chat_template.json or tokenizer_config.json"));
}

absl::StatusOr<ChatStyle> ChatStyleOf(absl::string_view chat_template) {
  constexpr absl::string_view kGeneration = "add_generation_prompt";
  constexpr absl::string_view kAssistant = "<|im_start|>assistant";
  if (!absl::StrContains(chat_template, "<|im_start|>")) {
    return absl::FailedPreconditionError(
        "chat_template: has no <|im_start|>, so it is none of Qwen3-VL's formats");
  }
  const size_t generation = chat_template.rfind(kGeneration);
  if (generation == absl::string_view::npos) return ChatStyle::kInstruct;
  const size_t assistant = chat_template.find(kAssistant, generation);
  if (assistant == absl::string_view::npos) return ChatStyle::kInstruct;
  absl::string_view behind = SkipToNextText(chat_template.substr(assistant + kAssistant.size()));
  if (!absl::ConsumePrefix(&behind, "<think>")) return ChatStyle::kInstruct;
  // A hybrid model's template closes an empty <think> at once when thinking is switched off.
  while (absl::ConsumePrefix(&behind, "\\n") || absl::ConsumePrefix(&behind, "\n")) {
  }
  return absl::StartsWith(behind, "</think>") ? ChatStyle::kInstruct : ChatStyle::kThinking;
}

}  // namespace prism
