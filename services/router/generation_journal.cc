#include "services/router/generation_journal.h"

#include <algorithm>

#include "absl/strings/str_cat.h"

namespace prism {

absl::StatusOr<GenerationJournal::Take> GenerationJournal::OnToken(uint32_t index_of_choice, uint64_t index,
                                                                   uint32_t token_id) {
  if (index_of_choice >= choices_.size()) {
    return absl::InternalError(
        absl::StrCat("the decoder sent a token of choice ", index_of_choice, " of ", choices_.size()));
  }
  Choice& choice = choices_[index_of_choice];
  if (choice.ended || index < choice.token_ids.size()) return Take::kRepeat;
  if (index > choice.token_ids.size()) {
    return absl::InternalError(absl::StrCat("the decoder sent token ", index, " of choice ", index_of_choice,
                                            ", want ", choice.token_ids.size()));
  }
  choice.token_ids.push_back(token_id);
  return Take::kNew;
}

absl::StatusOr<GenerationJournal::Take> GenerationJournal::OnChoiceFinished(uint32_t index_of_choice) {
  if (index_of_choice >= choices_.size()) {
    return absl::InternalError(
        absl::StrCat("the decoder finished choice ", index_of_choice, " of ", choices_.size()));
  }
  Choice& choice = choices_[index_of_choice];
  choice.ended_by_decoder = true;
  return choice.ended ? Take::kRepeat : Take::kNew;
}

uint64_t GenerationJournal::num_tokens() const {
  uint64_t total = 0;
  for (const Choice& choice : choices_) total += choice.token_ids.size();
  return total;
}

bool GenerationJournal::all_ended() const {
  return std::all_of(choices_.begin(), choices_.end(), [](const Choice& choice) { return choice.ended; });
}

bool GenerationJournal::decoder_works_for_nothing() const {
  return all_ended() && std::any_of(choices_.begin(), choices_.end(),
                                    [](const Choice& choice) { return !choice.ended_by_decoder; });
}

}  // namespace prism
