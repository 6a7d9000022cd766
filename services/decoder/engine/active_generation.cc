#include "services/decoder/engine/active_generation.h"

#include <algorithm>
#include <utility>

#include "common/base/check.h"

namespace prism {

ActiveGeneration::ActiveGeneration(std::shared_ptr<Generation> generation, SteadyTime submitted,
                                   SteadyTime due, DecoderMetrics* metrics)
    : generation_(std::move(generation)),
      metrics_(metrics),
      embeddings_(generation_->request().embeddings, metrics),
      submitted_(submitted),
      due_(due),
      last_event_(submitted) {
  const uint32_t num_choices = request().score ? 1 : request().num_choices;
  for (uint32_t index = 0; index < num_choices; ++index) {
    choices_.push_back({.sequence = 0,
                        .sampler = Sampler(request().sampling, index, request().token_ids),
                        .last_token = submitted});
    if (request().grammar != nullptr) {
      choices_.back().sampler.SetConstraint(request().grammar->MakeConstraint(request().end_token_ids));
    }
    if (index < request().emitted.size()) {
      for (const int32_t id : request().emitted[index]) choices_.back().sampler.Accept(id);
    }
  }
  if (request().score) scores_.resize(request().token_ids.size() - 1);
  if (request().prompt_logprobs.has_value()) prompt_logprobs_.resize(request().token_ids.size() - 1);
}

std::unique_ptr<Sequence> ActiveGeneration::MakeSequence(SequenceId id, uint32_t index, SequenceId leader,
                                                         const PageKey& prefix_root) const {
  const auto prompt_length = static_cast<int64_t>(request().token_ids.size());
  // Of the choices, the first computes the logits of the prompt for all. Those after the prompt's last
  // token are an answer's.
  const bool scores_prompt = request().score || (request().prompt_logprobs.has_value() && leader == 0);
  Sequence::Options options{.id = id,
                            .token_ids = request().token_ids,
                            .prompt_length = prompt_length,
                            .limit = request().length_max(),
                            .priority = request().priority,
                            .due = due_,
                            .follows = leader,
                            .spans = request().spans,
                            .embedding_states = embeddings_.states(),
                            .logits_until = !scores_prompt ? 0 : prompt_length - (request().score ? 0 : 1),
                            .prefix_root = prefix_root,
                            .takes_hits = !scores_prompt};
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
  return scheduled_ && complete_.empty() &&
         std::all_of(choices_.begin(), choices_.end(),
                     [](const Choice& choice) { return choice.sequence == 0; });
}

void ActiveGeneration::MarkPlanned(int64_t cached_tokens, SteadyTime now) {
  if (first_plan_.has_value()) return;
  first_plan_ = now;
  const auto prompt = static_cast<int64_t>(request().token_ids.size());
  cached_tokens_ = std::min(cached_tokens, prompt);
  if (!request().score && !request().prompt_logprobs.has_value()) {
    metrics_->prefix_queries.Increment(static_cast<double>(prompt));
    metrics_->prefix_hits.Increment(static_cast<double>(cached_tokens_));
  }
  metrics_->queue_seconds.Observe(SecondsBetween(submitted_, now));
  metrics_->stage_queue.Observe(SecondsBetween(std::min(PulledAt(), now), now));
}

std::vector<EmbeddingReceipt> ActiveGeneration::Receipts() const {
  std::vector<EmbeddingReceipt> receipts;
  for (size_t i = 0; i < request().embeddings.size(); ++i) {
    const EmbeddingRef& ref = request().embeddings[i];
    receipts.push_back({.content_key = ref.content_key,
                        .num_tokens = ref.num_tokens,
                        .encoder = ref.address,
                        .digest = ref.digest,
                        .cached = !embeddings_.fetched(i)});
  }
  return receipts;
}

void ActiveGeneration::Emit(GenerationEvent event, SteadyTime now) {
  last_event_ = now;
  if (!error_.ok()) return;
  told_ = true;
  error_ = generation_->sink().OnEvent(std::move(event));
}

void ActiveGeneration::Flush() {
  if (std::exchange(told_, false)) generation_->sink().Flush();
}

void ActiveGeneration::EmitStarted(SteadyTime now) {
  if (std::exchange(started_, true)) return;
  const auto prompt = static_cast<int64_t>(request().token_ids.size());
  metrics_->prompt_tokens.Increment(static_cast<double>(prompt));
  Emit(StartedEvent{.prompt_tokens = prompt, .cached_tokens = cached_tokens_, .receipts = Receipts()}, now);
  if (embeddings_.pulled_at().has_value()) {
    metrics_->stage_transfer.Observe(SecondsBetween(submitted_, PulledAt()));
  }
  for (const auto& [choice, reason] : std::exchange(complete_, {})) EmitChoiceFinished(choice, reason, now);
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
  if (reason == FinishReason::kStop) ++num_stopped_;
  (reason == FinishReason::kStop ? metrics_->finished_stop : metrics_->finished_length).Increment();
  metrics_->request_generation_tokens.Observe(static_cast<double>(tokens));
  Emit(ChoiceFinishedEvent{.choice = index, .reason = reason, .completion_tokens = tokens}, now);
}

void ActiveGeneration::EmitHeartbeat(uint64_t steps, SteadyTime now) {
  Emit(HeartbeatEvent{.engine_steps = steps, .waiting = awaits_embeddings_}, now);
}

void ActiveGeneration::EmitDraining(SteadyTime now) {
  if (std::exchange(told_draining_, true)) return;
  Emit(DrainingEvent{}, now);
}

void ActiveGeneration::SetPromptLogprob(int64_t index, PromptLogprob logprob, SteadyTime now) {
  if (prompt_logprobs_.empty()) return;
  prompt_logprobs_[static_cast<size_t>(index - 1)] = std::move(logprob);
  if (index < static_cast<int64_t>(prompt_logprobs_.size())) return;
  Emit(PromptLogprobsEvent{.tokens = std::exchange(prompt_logprobs_, {})}, now);
}

void ActiveGeneration::End(const absl::Status& status, SteadyTime now) {
  ObserveEnd(status, now);
  if (status.ok() && request().score) Emit(ScoredEvent{.logprobs = std::move(scores_)}, now);
  const GenerationReport report = Report(now);
  if (status.ok()) {
    Emit(FinishedEvent{.receipts = Receipts(), .report = report}, now);
  }
  embeddings_.LetGo();  // whoever is told the end finds the memory free
  generation_->sink().OnEnd(status.ok() ? error_ : status, report);
}

GenerationReport ActiveGeneration::Report(SteadyTime now) const {
  GenerationReport report{
      .cached_tokens = cached_tokens_, .num_stopped = num_stopped_, .preemptions = preemptions_};
  for (const Choice& choice : choices_) report.completion_tokens += choice.sampler.num_accepted();
  // The pull and the first steps may overlap; each second is counted once. What ends before a stage is over
  // was in it until now.
  const SteadyTime pulled = embeddings_.coming() ? now : PulledAt();
  const SteadyTime prefill = std::max(first_plan_.value_or(now), pulled);
  const SteadyTime first_token = std::max(prefill, first_token_.value_or(now));
  report.pull_s = SecondsBetween(submitted_, pulled);
  report.queue_s = SecondsBetween(pulled, prefill);
  report.prefill_s = SecondsBetween(prefill, first_token);
  if (first_token_.has_value()) {
    report.first_token_s = SecondsBetween(submitted_, *first_token_);
    report.decode_s = SecondsBetween(*first_token_, last_token_.value_or(*first_token_));
  }
  return report;
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
