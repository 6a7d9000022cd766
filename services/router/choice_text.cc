#include "services/router/choice_text.h"

#include "absl/strings/str_cat.h"

namespace prism {

ChoiceText::Output ChoiceText::Push(int32_t id, bool may_stop) {
  if (!may_stop) return Split(detokenizer_.Push(id), false);
  const StopMatcher::Output matched = stops_.Push(detokenizer_.Push(id));
  Output output = Split(matched.text, matched.stopped);
  output.stopped = matched.stopped;
  return output;
}

ChoiceText::Output ChoiceText::Finish() {
  const StopMatcher::Output matched = stops_.Push(detokenizer_.Finish());
  Output output = Split(absl::StrCat(matched.text, stops_.Finish()), true);
  output.stopped = matched.stopped;
  return output;
}

ChoiceText::Output ChoiceText::Split(absl::string_view text, bool last) {
  ReasoningSplitter::Output split = splitter_.Push(text);
  if (last) {
    ReasoningSplitter::Output rest = splitter_.Finish();
    split.reasoning += rest.reasoning;
    split.answer += rest.answer;
  }
  return {.reasoning = std::move(split.reasoning), .answer = std::move(split.answer), .stopped = false};
}

}  // namespace prism
