// ReasoningSplitter parts the text of a Thinking model: what comes before "</think>" is reasoning, what
// comes behind is the answer.
//
// The newlines around "</think>" belong to the chat format (the template puts them back), so they are in
// neither part. What could be the beginning of "</think>", or of those newlines, is held back.
//
// Thread safety: one thread at a time.
#pragma once

#include <string>

#include "absl/strings/string_view.h"

namespace prism {

class ReasoningSplitter {
 public:
  // With `starts_inside` the text begins in the reasoning (ChatFormat::starts_in_reasoning()); without it
  // all text is the answer.
  explicit ReasoningSplitter(bool starts_inside)
      : place_(starts_inside ? Place::kReasoning : Place::kAnswer) {}

  struct Output {
    std::string reasoning;
    std::string answer;
  };
  Output Push(absl::string_view text);
  // The text has ended: what was held back.
  Output Finish();

  // Whether further text is reasoning, as far as is known.
  bool in_reasoning() const { return place_ == Place::kReasoning; }

 private:
  enum class Place { kReasoning, kNewlinesAfter, kAnswer };
  void PushAnswer(absl::string_view text, Output* output);

  Place place_;
  std::string held_;  // newlines and a beginning of "</think>", all reasoning so far
};

}  // namespace prism
