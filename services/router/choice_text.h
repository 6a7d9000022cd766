// ChoiceText makes text of one choice's token ids as they come: whole characters, special tokens
// left out, ended by a stop string, reasoning and answer apart, tool calls taken out.
//
// Thread safety: thread-compatible. The tokenizer outlives it.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "common/text/reasoning_splitter.h"
#include "common/text/stop_matcher.h"
#include "common/text/stream_detokenizer.h"
#include "common/text/tokenizer.h"
#include "services/router/tool_call_reader.h"

namespace prism {

class ChoiceText {
 public:
  ChoiceText(const Tokenizer* tokenizer, StopMatcher stops, bool starts_in_reasoning)
      : tokenizer_(tokenizer),
        detokenizer_(tokenizer, true),
        stops_(std::move(stops)),
        splitter_(starts_in_reasoning) {}

  // From now on the ids of the markers kToolCallBegin and kToolCallEnd enclose calls. Stop strings are not
  // looked for behind the first. REQUIRES: the tokenizer has both, and no id came yet
  void TakeToolCalls();

  struct Output {
    std::string reasoning;
    std::string answer;
    std::vector<ToolCallReader::Piece> calls;  // behind the text
    bool stopped = false;  // a stop string ended the choice; everything held back is in here
  };
  // The text that `id` makes certain. Without `may_stop` no stop string ends with the id's text, though one
  // may begin there; that holds for the first ids of a choice at most. REQUIRES: neither stopped nor
  // finished.
  Output Push(int32_t id, bool may_stop);
  // The ids have ended: what was held back.
  Output Finish();

  bool in_reasoning() const { return !in_calls_ && splitter_.in_reasoning(); }
  // Tool calls so far.
  uint32_t num_calls() const { return calls_.num_calls(); }
  // The stop string that ended the choice; empty without.
  const std::string& stop_text() const { return stops_.stop_text(); }

 private:
  // `last`: no more text follows.
  Output Split(absl::string_view text, bool last);
  // What was held back, as before the end.
  Output Flush();
  static Output FromCalls(ToolCallReader::Output read);

  const Tokenizer* const tokenizer_;
  StreamDetokenizer detokenizer_;
  StopMatcher stops_;
  ReasoningSplitter splitter_;
  std::optional<int32_t> call_begin_id_, call_end_id_;
  bool may_stop_ = true;   // of the last id
  bool in_calls_ = false;  // the first one has begun
  ToolCallReader calls_;
};

}  // namespace prism
