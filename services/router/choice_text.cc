#include "services/router/choice_text.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "common/text/grammar/grammar_spec.h"

namespace prism {

void ChoiceText::TakeToolCalls() {
  call_begin_id_ = tokenizer_->AddedTokenId(kToolCallBegin);
  call_end_id_ = tokenizer_->AddedTokenId(kToolCallEnd);
}

ChoiceText::Output ChoiceText::FromCalls(ToolCallReader::Output read) {
  return {.reasoning = "", .answer = std::move(read.text), .calls = std::move(read.pieces), .stopped = false};
}

ChoiceText::Output ChoiceText::Push(int32_t id, bool may_stop) {
  may_stop_ = may_stop;
  if (id == call_begin_id_) {
    Output before;
    if (!std::exchange(in_calls_, true)) before = Flush();
    calls_.Begin();
    return before;
  }
  if (in_calls_ && id == call_end_id_) return {};
  if (in_calls_) return FromCalls(calls_.Push(detokenizer_.Push(id)));
  const StopMatcher::Output matched = stops_.Push(detokenizer_.Push(id), may_stop);
  Output output = Split(matched.text, matched.stopped);
  output.stopped = matched.stopped;
  return output;
}

ChoiceText::Output ChoiceText::Finish() {
  if (!in_calls_) return Flush();
  Output output = FromCalls(calls_.Push(detokenizer_.Finish()));
  Output rest = FromCalls(calls_.Finish());
  output.answer += rest.answer;
  return output;
}

ChoiceText::Output ChoiceText::Flush() {
  const StopMatcher::Output matched = stops_.Push(detokenizer_.Finish(), may_stop_);
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
  return {.reasoning = std::move(split.reasoning),
          .answer = std::move(split.answer),
          .calls = {},
          .stopped = false};
}

}  // namespace prism
