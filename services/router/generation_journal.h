// GenerationJournal is what a generation has said so far, choice by choice: the ids that another
// decoder goes on after, which choices have ended, and what of a decoder's events is new. Whatever
// decoders repeat after a resume, each token is taken once and in order.
//
// An event of a client has a number in the generation, a token an index in its choice: two counters,
// because what is held back for a stop string or half a character makes no event.
//
// Thread safety: thread-compatible. Nothing here waits or calls.
#pragma once

#include <cstdint>
#include <vector>

#include "absl/status/statusor.h"

namespace prism {

class GenerationJournal {
 public:
  // REQUIRES: num_choices >= 1
  explicit GenerationJournal(uint32_t num_choices) : choices_(num_choices) {}

  enum class Take {
    kNew,     // it is in the journal now
    kRepeat,  // it was there, or its choice has ended: it must not be shown again
  };
  // Takes token `index` of a choice. Internal for a gap or a choice that does not exist.
  absl::StatusOr<Take> OnToken(uint32_t choice, uint64_t index, uint32_t token_id);
  // The decoder has ended a choice: kRepeat if it had ended for the client. Internal for a choice
  // that does not exist.
  absl::StatusOr<Take> OnChoiceFinished(uint32_t choice);
  // The choice has ended for the client. REQUIRES: choice < num_choices()
  void EndChoice(uint32_t choice) { choices_[choice].ended = true; }

  uint32_t num_choices() const { return static_cast<uint32_t>(choices_.size()); }
  // REQUIRES: choice < num_choices()
  const std::vector<uint32_t>& token_ids(uint32_t choice) const { return choices_[choice].token_ids; }
  uint64_t num_tokens() const;
  bool any_token() const { return num_tokens() > 0; }
  bool all_ended() const;
  // Whether all has ended for the client, but a decoder still works on a choice that a stop string of
  // ours has ended.
  bool decoder_works_for_nothing() const;

 private:
  struct Choice {
    std::vector<uint32_t> token_ids;
    bool ended = false;             // for the client
    bool ended_by_decoder = false;  // no token of it follows
  };
  std::vector<Choice> choices_;
};

}  // namespace prism
