#include "services/decoder/sampling/answer_grammar.h"

#include <string>

#include "absl/strings/str_cat.h"
#include "common/base/check.h"
#include "common/base/status.h"

namespace prism {
namespace {

constexpr size_t kWaitingMax = 256;

GrammarCache::Observer ObserverOf(const GrammarMetrics& metrics) {
  return [metrics = GrammarMetrics(metrics)](const GrammarUse& use) mutable {
    using Result = GrammarUse::Result;
    if (use.result == Result::kCached) return metrics.cached.Increment();
    (use.result == Result::kCompiled ? metrics.compiled : metrics.failed).Increment();
    metrics.compile_seconds.Observe(use.compile_s);
  };
}

}  // namespace

std::unique_ptr<TokenConstraint> AnswerGrammar::MakeConstraint(std::vector<int32_t> end_ids) const {
  PRISM_CHECK(automaton_ != nullptr);
  return std::make_unique<TokenConstraint>(automaton_, masks_, std::move(end_ids));
}

AnswerGrammars::AnswerGrammars(const TokenVocabulary* vocabulary, int num_threads,
                               const GrammarMetrics& metrics)
    : cache_(kGrammarCacheBytesMax, ObserverOf(metrics)),
      masks_(vocabulary, num_threads, kMaskCacheBytesMax, metrics),
      pool_(std::make_unique<TaskPool>("grammars", 1, kWaitingMax)) {}

absl::Status AnswerGrammars::PrepareNow(AnswerGrammar& grammar, const std::atomic<bool>* cancelled) {
  absl::StatusOr<std::shared_ptr<Automaton>> automaton = cache_.Get(grammar.spec(), cancelled);
  // A limit of the grammar is the request's fault, not a matter of waiting.
  if (absl::IsResourceExhausted(automaton.status())) {
    return absl::InvalidArgumentError(automaton.status().message());
  }
  if (!automaton.ok()) return automaton.status();
  for (const std::string& marker : (*automaton)->markers()) {
    if (!masks_.vocabulary().AddedId(marker).has_value()) {
      return absl::InvalidArgumentError(absl::StrCat("the model has no token ", marker));
    }
  }
  grammar.automaton_ = *std::move(automaton);
  grammar.masks_ = &masks_;
  const Automaton::State* const start = grammar.automaton_->start();
  if (start != nullptr && !start->free()) masks_.Ask(grammar.automaton_, start);
  return absl::OkStatus();
}

absl::Status AnswerGrammars::Prepare(std::shared_ptr<AnswerGrammar> grammar,
                                     const std::atomic<bool>* cancelled,
                                     std::function<void(const absl::Status&)> done) {
  const absl::Status queued =
      pool_->TrySubmit([this, grammar = std::move(grammar), cancelled, done = std::move(done)] {
        done(PrepareNow(*grammar, cancelled));
      });
  if (queued.ok()) return queued;
  return absl::ResourceExhaustedError(
      absl::StrCat("more than ", kWaitingMax, " requests wait for their grammars"));
}

void AnswerGrammars::Stop() { pool_.reset(); }

}  // namespace prism
