#include "services/decoder/engine/active_generation.h"

#include <algorithm>
#include <utility>

#include "common/base/check.h"

namespace prism {

ActiveGeneration::ActiveGeneration(std::shared_ptr<Generation> generation, SteadyTime submitted,
                                   DecoderMetrics* metrics)
    : generation_(std::move(generation)),
      metrics_(metrics),
      submitted_(submitted),
      last_event_(submitted),
      scheduled_(submitted) {
  const uint32_t num_choices = request().score ? 1 : request().num_choices;
  for (uint32_t index = 0; index < num_choices; ++index) {
    choices_.push_back({.sequence = 0,
                        .sampler = Sampler(request().sampling, index, request().token_ids),
                        .last_token = submitted});
    if (index < request().emitted.size()) {
      for (const int32_t id : request().emitted[index]) choices_.back().sampler.Accept(id);
    }
  }
  if (request().score) scores_.resize(request().token_ids.size() - 1);
}

void ActiveGeneration::SetPull(std::unique_ptr<EmbeddingPull> pull) {
  PRISM_CHECK(stage_ == Stage::kNeedsMemory && pull != nullptr);
  pull_ = std::move(pull);
  stage_ = Stage::kPulling;
}

void ActiveGeneration::SetScheduled(SteadyTime now) {
  PRISM_CHECK(stage_ != Stage::kScheduled);
  stage_ = Stage::kScheduled;
  scheduled_ = now;
  if (pull_ == nullptr) return;
  metrics_->stage_transfer.Observe(SecondsBetween(submitted_, now));
  for (size_t i = 0; i < request().embeddings.size(); ++i) {
    metrics_->mm_cache_queries.Increment();
    if (pull_->cached(i)) {
      metrics_->mm_cache_hits.Increment();
    } else {
      metrics_->embedding_bytes.Increment(static_cast<double>(request().embeddings[i].size_bytes));
    }
  }
}

std::unique_ptr<Sequence> ActiveGeneration::MakeSequence(SequenceId id, uint32_t index, SequenceId leader,
                                                         const PageKey& prefix_root) const {
  const auto prompt_length = static_cast<int64_t>(request().token_ids.size());
  Sequence::Options options{.id = id,
                            .token_ids = request().token_ids,
                            .prompt_length = prompt_length,
                            .limit = request().length_max(),
                            .priority = request().priority,
                            .follows = leader,
                            .spans = request().spans,
                            .logits_until = request().score ? prompt_length : 0,
                            .prefix_root = prefix_root,
                            .takes_hits = !request().score};
  for (const EmbeddingRef& ref : request().embeddings) options.embedding_ids.push_back(IdentityOf(ref));
  if (index < request().emitted.size()) {
    const std::vector<int32_t>& emitted = request().emitted[index];
    options.token_ids.insert(options.token_ids.end(), emitted.begin(), emitted.end());
  }
  return std::make_unique<Sequence>(std::move(options));
}

std::optional<FinishReason> ActiveGeneration::EndAfter(int64_t num_tokens, int32_t last) const {
  const std::vector<int32_t>& ends = request().end_token_ids;
  // An end id that came before min_tokens would have been masked.
  if (num_tokens > request().sampling.min_tokens && std::find(ends.begin(), ends.end(), last) != ends.end()) {
    return FinishReason::kStop;
  }
  if (num_tokens >= request().max_tokens) return FinishReason::kLength;
  return std::nullopt;
}

bool ActiveGeneration::finished() const {
  return stage_ == Stage::kScheduled &&
         std::all_of(choices_.begin(), choices_.end(),
                     [](const Choice& choice) { return choice.sequence == 0; });
}

void ActiveGeneration::MarkPlanned(int64_t cached_tokens, SteadyTime now) {
  if (first_plan_.has_value()) return;
  first_plan_ = now;
  const auto prompt = static_cast<int64_t>(request().token_ids.size());
  cached_tokens_ = std::min(cached_tokens, prompt);
  if (!request().score) {
    metrics_->prefix_queries.Increment(static_cast<double>(prompt));
    metrics_->prefix_hits.Increment(static_cast<double>(cached_tokens_));
  }
  metrics_->queue_seconds.Observe(SecondsBetween(submitted_, now));
  metrics_->stage_queue.Observe(SecondsBetween(scheduled_, now));
}

std::vector<EmbeddingReceipt> ActiveGeneration::Receipts() const {
  std::vector<EmbeddingReceipt> receipts;
  for (size_t i = 0; i < request().embeddings.size(); ++i) {
    const EmbeddingRef& ref = request().embeddings[i];
    receipts.push_back({.content_key = ref.content_key,
                        .num_tokens = ref.num_tokens,
                        .encoder = ref.address,
                        .digest = ref.digest,
                        .cached = pull_->cached(i)});
  }
  return receipts;
}

void ActiveGeneration::Emit(GenerationEvent event, SteadyTime now) {
  last_event_ = now;
  if (!error_.ok()) return;
  error_ = generation_->sink().OnEvent(std::move(event));
}

void ActiveGeneration::EmitStarted(SteadyTime now) {
  if (std::exchange(started_, true)) return;
  const auto prompt = static_cast<int64_t>(request().token_ids.size());
  metrics_->prompt_tokens.Increment(static_cast<double>(prompt));
  Emit(StartedEvent{.prompt_tokens = prompt, .cached_tokens = cached_tokens_, .receipts = Receipts()}, now);
}

void ActiveGeneration::EmitToken(TokenEvent event, SteadyTime now) {
  Choice& choice = choices_[event.choice];
  if (!first_token_.has_value()) {
    first_token_ = now;
    metrics_->first_token_seconds.Observe(SecondsBetween(submitted_, now));
    metrics_->stage_first_token.Observe(SecondsBetween(submitted_, now));
    metrics_->stage_prefill.Observe(SecondsBetween(first_plan_.value_or(now), now));
  } else if (choice.last_token != submitted_) {
    metrics_->inter_token_seconds.Observe(SecondsBetween(choice.last_token, now));
    metrics_->inter_token_seconds_old.Observe(SecondsBetween(choice.last_token, now));
  }
  choice.last_token = now;
  last_token_ = now;
  metrics_->generation_tokens.Increment();
  Emit(std::move(event), now);
}

void ActiveGeneration::EmitChoiceFinished(uint32_t index, FinishReason reason, SteadyTime now) {
  const int64_t tokens = choices_[index].sampler.num_accepted();
  (reason == FinishReason::kStop ? metrics_->finished_stop : metrics_->finished_length).Increment();
  metrics_->request_generation_tokens.Observe(static_cast<double>(tokens));
  Emit(ChoiceFinishedEvent{.choice = index, .reason = reason, .completion_tokens = tokens}, now);
}

void ActiveGeneration::EmitHeartbeat(uint64_t steps, SteadyTime now) {
  Emit(HeartbeatEvent{.engine_steps = steps, .waiting = stage_ != Stage::kScheduled}, now);
}

void ActiveGeneration::EmitDraining(SteadyTime now) {
  if (std::exchange(told_draining_, true)) return;
  Emit(DrainingEvent{}, now);
}

void ActiveGeneration::End(const absl::Status& status, SteadyTime now) {
  ObserveEnd(status, now);
  if (status.ok() && request().score) Emit(ScoredEvent{.logprobs = std::move(scores_)}, now);
  if (status.ok()) {
    const SteadyTime first_plan = first_plan_.value_or(now);
    const SteadyTime first_token = first_token_.value_or(now);
    const bool pulled = pull_ != nullptr;
    Emit(FinishedEvent{.receipts = Receipts(),
                       .queue_s = SecondsBetween(scheduled_, first_plan) +
                                  (pulled ? 0 : SecondsBetween(submitted_, scheduled_)),
                       .pull_s = pulled ? SecondsBetween(submitted_, scheduled_) : 0,
                       .prefill_s = SecondsBetween(first_plan, first_token),
                       .decode_s = SecondsBetween(first_token, last_token_.value_or(first_token)),
                       .preemptions = preemptions_},
         now);
  }
  pull_.reset();  // whoever is told the end finds the memory free
  generation_->sink().OnEnd(status.ok() ? error_ : status);
}

void ActiveGeneration::ObserveEnd(const absl::Status& status, SteadyTime now) {
  metrics_->e2e_seconds.Observe(SecondsBetween(submitted_, now));
  if (first_plan_.has_value()) {
    metrics_->inference_seconds.Observe(SecondsBetween(*first_plan_, now));
    metrics_->prefill_seconds.Observe(SecondsBetween(*first_plan_, first_token_.value_or(now)));
  }
  if (first_token_.has_value()) metrics_->decode_seconds.Observe(SecondsBetween(*first_token_, now));
  if (status.ok()) return;
  if (status.code() == absl::StatusCode::kCancelled) {
    metrics_->finished_abort.Increment();
    metrics_->aborted_client.Increment();
  } else if (status.code() == absl::StatusCode::kDeadlineExceeded) {
    metrics_->finished_abort.Increment();
    metrics_->aborted_deadline.Increment();
  } else {
    metrics_->finished_error.Increment();
    metrics_->aborted_server.Increment();
  }
}

}  // namespace prism
