// AnswerGrammar is the form that a request asks of its answers; AnswerGrammars makes their automata, on
// threads of its own, and remembers them.
//
// Thread safety: an AnswerGrammar is constant once it was prepared; AnswerGrammars from any thread.
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "common/base/thread.h"
#include "common/text/grammar/grammar_cache.h"
#include "common/text/grammar/grammar_spec.h"
#include "services/decoder/sampling/token_constraint.h"
#include "services/decoder/sampling/token_masks.h"

namespace prism {

class AnswerGrammar {
 public:
  explicit AnswerGrammar(GrammarSpec spec) : spec_(std::move(spec)) {}

  const GrammarSpec& spec() const { return spec_; }
  // What holds one answer to it. REQUIRES: it was prepared
  std::unique_ptr<TokenConstraint> MakeConstraint(std::vector<int32_t> end_ids) const;

 private:
  friend class AnswerGrammars;
  const GrammarSpec spec_;
  std::shared_ptr<Automaton> automaton_;  // set when prepared
  TokenMasks* masks_ = nullptr;
};

class AnswerGrammars {
 public:
  // The vocabulary must outlive it, and it every constraint that was made. REQUIRES: num_threads >= 1
  AnswerGrammars(const TokenVocabulary* vocabulary, int num_threads, const GrammarMetrics& metrics = {});

  // Compiles the grammar (or finds it) and asks for its first mask, then calls `done`, on a thread of this;
  // gives up with Cancelled once `cancelled` is true. `done` gets InvalidArgument where the grammar cannot
  // be enforced. ResourceExhausted at once, without `done`, if too many wait.
  absl::Status Prepare(std::shared_ptr<AnswerGrammar> grammar, const std::atomic<bool>* cancelled,
                       std::function<void(const absl::Status&)> done);
  // Calls every `done` that is still to be called, with what was asked for, and takes no more.
  void Stop();

  TokenMasks& masks() { return masks_; }

 private:
  absl::Status PrepareNow(AnswerGrammar& grammar, const std::atomic<bool>* cancelled);

  GrammarCache cache_;
  TokenMasks masks_;
  std::unique_ptr<TaskPool> pool_;
};

}  // namespace prism
