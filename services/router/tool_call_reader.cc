#include "services/router/tool_call_reader.h"

#include <algorithm>

#include "common/text/grammar/grammar_spec.h"

namespace prism {
namespace {

constexpr absl::string_view kBeforeName = "\n{\"name\": \"";
constexpr absl::string_view kBehindName = "\", \"arguments\": ";

// Whether one of the two begins with the other.
bool Agree(absl::string_view a, absl::string_view b) {
  const size_t size = std::min(a.size(), b.size());
  return a.substr(0, size) == b.substr(0, size);
}

}  // namespace

void ToolCallReader::Begin() {
  place_ = Place::kHead;
  held_.clear();
}

void ToolCallReader::ReadHead(Output* output) {
  const absl::string_view held = held_;
  bool is_call = Agree(held, kBeforeName);
  if (is_call && held.size() > kBeforeName.size()) {
    const absl::string_view rest = held.substr(kBeforeName.size());
    const size_t end = rest.find('"');
    is_call = std::min(end, rest.size()) <= kGrammarToolNameBytesMax;
    if (is_call && end != absl::string_view::npos) {
      const absl::string_view behind = rest.substr(end);
      is_call = Agree(behind, kBehindName);
      if (is_call && behind.size() >= kBehindName.size()) {
        output->pieces.push_back(
            {.index = num_calls_++, .name = std::string(rest.substr(0, end)), .arguments = ""});
        const std::string arguments(behind.substr(kBehindName.size()));
        held_.clear();
        place_ = Place::kArguments;
        depth_ = 0;
        in_string_ = escaped_ = false;
        Output more = Push(arguments);
        output->pieces.insert(output->pieces.end(), more.pieces.begin(), more.pieces.end());
        return;
      }
    }
  }
  if (is_call) return;
  output->text = kToolCallBegin + held_;
  held_.clear();
  place_ = Place::kText;
}

size_t ToolCallReader::ArgumentBytes(absl::string_view text) {
  for (size_t i = 0; i < text.size(); ++i) {
    const char c = text[i];
    if (in_string_) {
      if (c == '"' && !escaped_) in_string_ = false;
      escaped_ = c == '\\' && !escaped_;
    } else if (c == '"') {
      in_string_ = true;
    } else if (c == '{' || c == '[') {
      ++depth_;
    } else if ((c == '}' || c == ']') && --depth_ == 0) {
      place_ = Place::kBehind;
      return i + 1;
    }
  }
  return text.size();
}

ToolCallReader::Output ToolCallReader::Push(absl::string_view text) {
  Output output;
  switch (place_) {
    case Place::kHead:
      held_.append(text.data(), text.size());
      ReadHead(&output);
      break;
    case Place::kArguments: {
      const std::string arguments(text.substr(0, ArgumentBytes(text)));
      if (!arguments.empty())
        output.pieces.push_back({.index = num_calls_ - 1, .name = "", .arguments = arguments});
      break;
    }
    case Place::kText:
      output.text = std::string(text);
      break;
    case Place::kBehind:  // the call's closing brace and marker, the newline between two calls
      break;
  }
  return output;
}

ToolCallReader::Output ToolCallReader::Finish() {
  Output output;
  if (place_ == Place::kHead) output.text = kToolCallBegin + held_;
  held_.clear();
  place_ = Place::kBehind;
  return output;
}

}  // namespace prism
