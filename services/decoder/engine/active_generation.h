// ActiveGeneration: what the engine knows of a generation while it works on it: its embeddings,
// its choices with their samplers, its times; and the one way its sink is called.
//
// Thread safety: thread-compatible; the engine thread owns it.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <vector>

#include "absl/status/status.h"
#include "common/base/clock.h"
#include "services/decoder/embeddings/embedding_source.h"
#include "services/decoder/engine/generation.h"
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
  enum class Stage { kNeedsMemory, kPulling, kScheduled };

  // `metrics` outlives it. `submitted`: when the caller was told OK.
  ActiveGeneration(std::shared_ptr<Generation> generation, SteadyTime submitted, DecoderMetrics* metrics);

  const GenerationRequest& request() const { return generation_->request(); }
  bool cancelled() const { return generation_->cancelled(); }
  SteadyTime deadline() const { return request().deadline; }
  SteadyTime last_event() const { return last_event_; }
  bool planned() const { return first_plan_.has_value(); }
  // The first error, of the sink or of a step; the generation is then to end with it.
  const absl::Status& error() const { return error_; }
  void Fail(const absl::Status& status) { error_.Update(status); }

  Stage stage() const { return stage_; }
  void SetPull(std::unique_ptr<EmbeddingPull> pull);
  EmbeddingPull& pull() { return *pull_; }
  // The embeddings are here, or none were needed.
  void SetScheduled(SteadyTime now);

  std::vector<Choice>& choices() { return choices_; }
  // Was it scheduled, and has every choice ended?
  bool finished() const;
  // The tokens of choice `index` as a sequence, with those emitted before. `leader`: the choice whose
  // prompt it shares, or 0.
  std::unique_ptr<Sequence> MakeSequence(SequenceId id, uint32_t index, SequenceId leader,
                                         const PageKey& prefix_root) const;
  // How a choice ends after its `num_tokens`-th token was `last`, if it does.
  std::optional<FinishReason> EndAfter(int64_t num_tokens, int32_t last) const;

  // It is in a step for the first time, with so many tokens found computed.
  void MarkPlanned(int64_t cached_tokens, SteadyTime now);
  // Once; later calls do nothing.
  void EmitStarted(SteadyTime now);
  void EmitToken(TokenEvent event, SteadyTime now);
  void EmitChoiceFinished(uint32_t index, FinishReason reason, SteadyTime now);
  void EmitHeartbeat(uint64_t steps, SteadyTime now);
  // Once; later calls do nothing.
  void EmitDraining(SteadyTime now);

  // Log-probability of prompt id `index` of a score. REQUIRES: 1 <= index < prompt length
  void SetScore(int64_t index, double logprob) { scores_[static_cast<size_t>(index - 1)] = logprob; }

  void AddPreemptions(int64_t count) { preemptions_ += count; }

  // Tells the sink the end, with Finished before it if all is well; the last call.
  void End(const absl::Status& status, SteadyTime now);

 private:
  void Emit(GenerationEvent event, SteadyTime now);
  std::vector<EmbeddingReceipt> Receipts() const;
  void ObserveEnd(const absl::Status& status, SteadyTime now);

  const std::shared_ptr<Generation> generation_;
  DecoderMetrics* const metrics_;
  Stage stage_ = Stage::kNeedsMemory;
  std::unique_ptr<EmbeddingPull> pull_;
  std::vector<Choice> choices_;
  std::vector<double> scores_;
  bool started_ = false;
  bool told_draining_ = false;
  int64_t cached_tokens_ = 0;  // of the prompt; valid once planned
  absl::Status error_;
  int64_t preemptions_ = 0;
  const SteadyTime submitted_;
  SteadyTime last_event_;
  SteadyTime scheduled_;  // valid from kScheduled on
  std::optional<SteadyTime> first_plan_, first_token_, last_token_;
};

}  // namespace prism
