// ChoiceText makes text of one choice's token ids as they come: whole characters, special tokens
// left out, ended by a stop string, reasoning and answer apart.
//
// Thread safety: thread-compatible. The tokenizer outlives it.
#pragma once

#include <cstdint>
#include <string>

#include "common/text/reasoning_splitter.h"
#include "common/text/stop_matcher.h"
#include "common/text/stream_detokenizer.h"
#include "common/text/tokenizer.h"

namespace prism {

class ChoiceText {
 public:
  ChoiceText(const Tokenizer* tokenizer, StopMatcher stops, bool starts_in_reasoning)
      : detokenizer_(tokenizer, true), stops_(std::move(stops)), splitter_(starts_in_reasoning) {}

  struct Output {
    std::string reasoning;
    std::string answer;
    bool stopped = false;  // a stop string ended the choice; everything held back is in here
  };
  // The text that `id` makes certain. Without `may_stop` the id's text is no part of a stop string;
  // that holds for the first ids of a choice at most. REQUIRES: neither stopped nor finished.
  Output Push(int32_t id, bool may_stop);
  // The ids have ended: what was held back.
  Output Finish();

  bool in_reasoning() const { return splitter_.in_reasoning(); }
  // The stop string that ended the choice; empty without.
  const std::string& stop_text() const { return stops_.stop_text(); }

 private:
  // `last`: no more text follows.
  Output Split(absl::string_view text, bool last);

  StreamDetokenizer detokenizer_;
  StopMatcher stops_;
  ReasoningSplitter splitter_;
};

}  // namespace prism
