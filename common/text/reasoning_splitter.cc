#include "common/text/reasoning_splitter.h"

#include <algorithm>
#include <utility>

#include "absl/strings/match.h"

namespace prism {
namespace {

constexpr absl::string_view kEnd = "</think>";

// Bytes at the end of `text` that could still be newlines before "</think>" and a beginning of it.
size_t UndecidedBytes(absl::string_view text) {
  size_t tag = std::min(text.size(), kEnd.size() - 1);
  while (!absl::StartsWith(kEnd, text.substr(text.size() - tag))) --tag;
  size_t undecided = tag;
  while (undecided < text.size() && text[text.size() - undecided - 1] == '\n') ++undecided;
  return undecided;
}

}  // namespace

void ReasoningSplitter::PushAnswer(absl::string_view text, Output* output) {
  if (place_ == Place::kNewlinesAfter) {
    while (absl::StartsWith(text, "\n")) text.remove_prefix(1);
    if (text.empty()) return;
    place_ = Place::kAnswer;
  }
  output->answer.append(text.data(), text.size());
}

ReasoningSplitter::Output ReasoningSplitter::Push(absl::string_view text) {
  Output output;
  if (place_ != Place::kReasoning) {
    PushAnswer(text, &output);
    return output;
  }
  // A long run of newlines is not looked at again and again: only what is new and what a tag needs.
  const size_t look_from = held_.size() > kEnd.size() ? held_.size() - kEnd.size() : 0;
  held_.append(text.data(), text.size());
  const size_t end = held_.find(kEnd.data(), look_from, kEnd.size());
  if (end == std::string::npos) {
    const size_t undecided = UndecidedBytes(held_);
    output.reasoning = held_.substr(0, held_.size() - undecided);
    held_.erase(0, held_.size() - undecided);
    return output;
  }
  size_t reasoning_end = end;
  while (reasoning_end > 0 && held_[reasoning_end - 1] == '\n') --reasoning_end;
  output.reasoning = held_.substr(0, reasoning_end);
  place_ = Place::kNewlinesAfter;
  const std::string rest = std::exchange(held_, std::string()).substr(end + kEnd.size());
  PushAnswer(rest, &output);
  return output;
}

ReasoningSplitter::Output ReasoningSplitter::Finish() {
  Output output;
  output.reasoning = std::exchange(held_, std::string());
  return output;
}

}  // namespace prism
