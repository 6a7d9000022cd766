// TokenConstraint follows one answer through its grammar: which tokens may come next, and what became of
// those that came.
//
// Thread safety: thread-compatible; its sequence's sampler owns it.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "common/text/grammar/automaton.h"
#include "services/decoder/sampling/token_masks.h"

namespace prism {

class TokenConstraint {
 public:
  // Any of `end_ids` ends the answer where the grammar lets it end. `masks` must outlive it.
  TokenConstraint(std::shared_ptr<Automaton> automaton, TokenMasks* masks, std::vector<int32_t> end_ids);

  // Whether every token may come: its logits can be left as they are.
  bool Free() const { return error_.ok() && state_->free() && state_->accepting(); }

  // Masks `logits`. Waits if the mask is not ready. Internal: no token may follow, or a token came that
  // the grammar does not allow (an answer that is resumed with another grammar).
  absl::Status Apply(absl::Span<float> logits);

  // The next token is known.
  void Accept(int32_t id);

 private:
  void Advance(int32_t id);
  // The text so far, read from the start in an automaton with room.
  void StartAfresh();
  void AskForMask();
  bool IsEnd(int32_t id) const;

  std::shared_ptr<Automaton> automaton_;
  TokenMasks& masks_;
  const std::vector<int32_t> end_ids_;
  std::vector<int32_t> marker_ids_;  // by marker; -1: the vocabulary has it not
  std::vector<int32_t> accepted_;
  const Automaton::State* state_;
  std::shared_ptr<PendingMask> mask_;  // of state_; null if none is needed
  absl::Status error_;
};

}  // namespace prism
