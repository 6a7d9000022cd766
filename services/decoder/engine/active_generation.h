// ActiveGeneration: what the engine knows of a generation while it works on it: its embeddings,
// its choices with their samplers, its times; and the one way its sink is called.
//
// Thread safety: thread-compatible; the engine thread owns it.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "common/base/clock.h"
#include "services/decoder/embeddings/embedding_source.h"
#include "services/decoder/engine/generation.h"
#include "services/decoder/engine/generation_embeddings.h"
#include "services/decoder/metrics.h"
#include "services/decoder/sampling/sampler.h"
#include "services/decoder/sched/sequence.h"

namespace prism {

class ActiveGeneration {
 public:
  struct Choice {
    SequenceId sequence = 0;  // 0: ended
    Sampler sampler;
    SteadyTime last_token;
  };

  // `metrics` outlives it. `submitted`: when the caller was told OK. `due`: as Sequence::Options has it.
  ActiveGeneration(std::shared_ptr<Generation> generation, SteadyTime submitted, SteadyTime due,
                   DecoderMetrics* metrics);

  const GenerationRequest& request() const { return generation_->request(); }
  bool cancelled() const { return generation_->cancelled(); }
  SteadyTime deadline() const { return request().deadline; }
  SteadyTime due() const { return due_; }
  SteadyTime last_event() const { return last_event_; }
  bool planned() const { return first_plan_.has_value(); }
  // The first error, of the sink or of a step; the generation is then to end with it.
  const absl::Status& error() const { return error_; }
  void Fail(const absl::Status& status) { error_.Update(status); }

  GenerationEmbeddings& embeddings() { return embeddings_; }
  // No step is due for it before an embedding, or memory for one, is here.
  void SetAwaitsEmbeddings(bool awaits) { awaits_embeddings_ = awaits; }

  // Its choices have sequences, but for those that were complete when it came.
  bool scheduled() const { return scheduled_; }
  void SetScheduled() { scheduled_ = true; }
  // A choice needs no step; it is told to have finished once Started was sent.
  void AddComplete(uint32_t choice, FinishReason reason) { complete_.emplace_back(choice, reason); }
  bool started() const { return started_; }

  std::vector<Choice>& choices() { return choices_; }
  const std::vector<Choice>& choices() const { return choices_; }
  // Was it scheduled and started, and has every choice ended?
  bool finished() const;
  // The tokens of choice `index` as a sequence, with those emitted before. `leader`: the choice whose
  // prompt it shares, or 0.
  std::unique_ptr<Sequence> MakeSequence(SequenceId id, uint32_t index, SequenceId leader,
                                         const PageKey& prefix_root) const;
  // How a choice ends after its `num_tokens`-th token was `last`, if it does.
  std::optional<FinishReason> EndAfter(int64_t num_tokens, int32_t last) const;

  // It is in a step for the first time, with so many tokens found computed.
  void MarkPlanned(int64_t cached_tokens, SteadyTime now);
  // Once; later calls do nothing. REQUIRES: each embedding was verified: it is here, or was when the
  // pages that are used in its place were made
  void EmitStarted(SteadyTime now);
  void EmitToken(TokenEvent event, SteadyTime now);
  void EmitChoiceFinished(uint32_t index, FinishReason reason, SteadyTime now);
  void EmitHeartbeat(uint64_t steps, SteadyTime now);
  // Once; later calls do nothing.
  void EmitDraining(SteadyTime now);
  // All of this step's events have been told, of every generation.
  void Flush();

  // Log-probability of prompt id `index` of a score. REQUIRES: 1 <= index < prompt length
  void SetScore(int64_t index, double logprob) { scores_[static_cast<size_t>(index - 1)] = logprob; }
  // The same where the log-probabilities of the prompt are wanted besides an answer. The last one has all of
  // them told; those that come again, of a sequence that is computed again, are dropped.
  void SetPromptLogprob(int64_t index, PromptLogprob logprob, SteadyTime now);

  void AddPreemptions(int64_t count) { preemptions_ += count; }

  // Tells the sink the end, with Finished before it if all is well; the last call.
  void End(const absl::Status& status, SteadyTime now);

 private:
  void Emit(GenerationEvent event, SteadyTime now);
  std::vector<EmbeddingReceipt> Receipts() const;
  GenerationReport Report(SteadyTime now) const;
  void ObserveEnd(const absl::Status& status, SteadyTime now);
  // When its embeddings were here, or it was submitted if none was pulled.
  SteadyTime PulledAt() const { return embeddings_.pulled_at().value_or(submitted_); }

  const std::shared_ptr<Generation> generation_;
  DecoderMetrics* const metrics_;
  GenerationEmbeddings embeddings_;
  std::vector<Choice> choices_;
  std::vector<std::pair<uint32_t, FinishReason>> complete_;
  std::vector<double> scores_;
  std::vector<PromptLogprob> prompt_logprobs_;  // empty once told
  bool scheduled_ = false;
  bool started_ = false;
  bool awaits_embeddings_ = false;
  bool told_draining_ = false;
  bool told_ = false;          // the sink, something that is not flushed
  int64_t cached_tokens_ = 0;  // of the prompt; valid once planned
  absl::Status error_;
  int64_t preemptions_ = 0;
  int64_t num_stopped_ = 0;
  const SteadyTime submitted_;
  const SteadyTime due_;
  SteadyTime last_event_;
  std::optional<SteadyTime> first_plan_, first_token_, last_token_;
};

}  // namespace prism
