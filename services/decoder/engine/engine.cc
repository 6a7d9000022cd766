#include "services/decoder/engine/engine.h"

#include <algorithm>
#include <iterator>
#include <set>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/base/check.h"
#include "common/base/hash.h"
#include "common/base/log.h"
#include "common/base/status.h"
#include "common/metrics/desired_replicas.h"
#include "common/wire/status_codec.h"
#include "services/decoder/sampling/logprobs.h"

namespace prism {
namespace {

// Wakes that may wait in the inbox besides generations.
constexpr size_t kWakesMax = 64;
// How long an idle engine sleeps at most; nothing depends on it.
constexpr std::chrono::seconds kIdleTick{1};
// How often in a heartbeat's time the engine looks up from a step.
constexpr int kLooksPerHeartbeat = 4;
// What a refused caller is told to wait: the queue's length within these bounds.
constexpr double kRetryMsMin = 100;
constexpr double kRetryMsMax = 10000;

SteadyTime Now() { return Clock::Real().Now(); }

int64_t NanosecondsOf(SteadyTime time) { return std::chrono::nanoseconds(time.time_since_epoch()).count(); }

SchedulerLimits SchedulerLimitsOf(const EngineOptions& options) {
  SchedulerLimits limits = options.scheduler;
  // Generations are bounded at the door; here only their choices have to fit.
  limits.waiting_max = 4 * (options.max_waiting + kResumedMax + limits.max_num_seqs) + 4;
  return limits;
}

AdmissionLimits AdmissionLimitsOf(const EngineOptions& options) {
  return {.waiting_max = options.max_waiting,
          .waiting_rows_max = options.max_waiting_tokens,
          .waiting_bytes_max = options.max_waiting_embedding_bytes,
          .rows_per_step_max = options.scheduler.max_num_batched_tokens};
}

// Known tokens; the choices share the prompt.
int64_t QueuedRowsOf(const GenerationRequest& request) {
  auto rows = static_cast<int64_t>(request.token_ids.size());
  for (const std::vector<int32_t>& emitted : request.emitted) rows += static_cast<int64_t>(emitted.size());
  return rows;
}

// Are the logits after token `index` wanted for the prompt's own next token?
bool IsPromptRow(const GenerationRequest& request, int64_t index) {
  return index + 1 < static_cast<int64_t>(request.token_ids.size());
}

int64_t EmbeddingBytesOf(const GenerationRequest& request) {
  int64_t bytes = 0;
  for (const EmbeddingRef& ref : request.embeddings) bytes += ref.size_bytes;
  return bytes;
}

}  // namespace

Engine::Engine(const EngineOptions& options, std::unique_ptr<StepExecutor> executor,
               std::unique_ptr<EmbeddingSource> embeddings, const DecoderMetrics& metrics)
    : options_(options),
      metrics_(metrics),
      executor_(std::move(executor)),
      embeddings_(std::move(embeddings)),
      sampling_pool_(options.sampling_threads),
      door_(AdmissionLimitsOf(options)),
      inbox_(static_cast<size_t>(options.max_waiting + kResumedMax) + kWakesMax),
      pool_(options.kv_pages),
      prefixes_(&pool_, options.prefix_caching),
      scheduler_(SchedulerLimitsOf(options), &pool_, &prefixes_),
      scratch_(static_cast<size_t>(options.sampling_threads)),
      generated_(Now()),
      work_(options.scheduler.max_num_seqs, options.scheduler.max_num_batched_tokens, Now()) {
  PublishLoad(Now());
  thread_ = NamedThread("engine", [this] { Run(); });
}

Engine::~Engine() {
  stopping_.store(true);
  inbox_.Close();
  thread_.Join();
  // Its threads wake the inbox, so they end first.
  embeddings_.reset();
}

absl::Status Engine::Refusal(const AdmissionDecision& decision) {
  using Outcome = AdmissionDecision::Outcome;
  switch (decision.outcome) {
    case Outcome::kAccept:
      return absl::OkStatus();
    case Outcome::kDeadlinePast:
      metrics_.rejected_deadline.Increment();
      return absl::DeadlineExceededError(decision.message);
    case Outcome::kQueueFull:
      metrics_.rejected_queue_full.Increment();
      break;
    case Outcome::kBusy:
      metrics_.rejected_deadline.Increment();
      break;
  }
  const double retry_ms = std::clamp(decision.retry_after_s * 1000, kRetryMsMin, kRetryMsMax);
  return RetryAfter(ErrorWithReason(absl::StatusCode::kResourceExhausted, decision.message, kReasonQueueFull),
                    static_cast<int64_t>(retry_ms));
}

absl::Status Engine::Submit(std::shared_ptr<Generation> generation) {
  const SteadyTime now = Now();
  const GenerationRequest& request = generation->request();
  const auto draining = [this] {
    metrics_.rejected_draining.Increment();
    return ErrorWithReason(absl::StatusCode::kUnavailable, "the decoder is draining", kReasonDraining);
  };
  if (draining_.load()) return draining();
  absl::Status fits = scheduler_.CheckFits(request.length_max());
  fits.Update(embeddings_->CheckFits(request.embeddings));
  if (!fits.ok()) {
    metrics_.rejected_too_long.Increment();
    return fits;
  }
  // Wakes may fill the inbox, but the engine empties it without waiting for anything.
  Submitted submitted{.generation = std::move(generation), .at = now};
  absl::Status entered;
  const AdmissionDecision decision = door_.Admit(
      {.rows = QueuedRowsOf(request),
       .bytes = EmbeddingBytesOf(request),
       .priority = request.priority,
       .due = DueOf(now, request.deadline, ObjectiveOf(request)),
       .deadline = request.deadline,
       .resumed = request.resumed},
      now, [this, &submitted] { return inbox_.TryPush(submitted); }, &entered);
  if (const absl::Status refusal = Refusal(decision); !refusal.ok()) return refusal;
  if (absl::IsCancelled(entered)) return draining();
  if (!entered.ok()) {
    return Refusal({AdmissionDecision::Outcome::kQueueFull, std::string(entered.message()), 0});
  }
  metrics_.request_prompt_tokens.Observe(static_cast<double>(request.token_ids.size()));
  if (!request.score) {
    metrics_.request_params_n.Observe(request.num_choices);
    metrics_.request_params_max_tokens.Observe(static_cast<double>(request.max_tokens));
  }
  return absl::OkStatus();
}

std::chrono::milliseconds Engine::ObjectiveOf(const GenerationRequest& request) const {
  return request.objective.count() > 0 ? request.objective : options_.objective;
}

void Engine::Cancel(Generation& generation) {
  generation.Cancel();
  Wake();
}

void Engine::Wake() {
  Submitted wake;
  // Full or closed: the engine is awake.
  inbox_.TryPush(wake).IgnoreError();
}

void Engine::Drain() {
  draining_.store(true);
  Wake();
}

EngineLoad Engine::Load() const {
  MutexLock lock(&load_mutex_);
  return load_;
}

absl::Status Engine::Live() const {
  PRISM_RETURN_IF_ERROR(executor_->Healthy());
  const int64_t began = step_began_ns_.load();
  if (began == 0) return absl::OkStatus();
  const int64_t ms = (NanosecondsOf(Now()) - began) / 1000000;
  if (ms <= options_.step_max.count()) return absl::OkStatus();
  return absl::UnavailableError(absl::StrCat("engine step ", steps() + 1, " has been under way for ", ms,
                                             " ms, at most ", options_.step_max.count()));
}

void Engine::Run() {
  while (true) {
    TakeSubmitted();
    if (stopping_.load()) break;
    TellDraining();
    Sweep();
    SendHeartbeats(Now());
    const bool stepped = Step();
    FlushTold();
    PublishLoad(Now());
    if (!stepped) WaitForWork();
  }
  EndAll(ErrorWithReason(absl::StatusCode::kUnavailable, "the decoder is shutting down", kReasonDraining));
}

void Engine::TakeSubmitted() {
  while (std::optional<Submitted> submitted = inbox_.TryPop()) Accept(*std::move(submitted));
}

void Engine::Accept(Submitted submitted) {
  if (submitted.generation == nullptr) return;
  ++num_accepted_;
  const GenerationRequest& request = submitted.generation->request();
  const SteadyTime due = DueOf(submitted.at, request.deadline, ObjectiveOf(request));
  // In the order in which they wait, so that memory for embeddings goes to the first.
  auto place = actives_.end();
  while (place != actives_.begin()) {
    const ActiveGeneration& before = *std::prev(place);
    const bool goes_first = request.priority != before.request().priority
                                ? request.priority > before.request().priority
                                : due < before.due();
    if (!goes_first) break;
    --place;
  }
  actives_.emplace(place, std::move(submitted.generation), submitted.at, due, &metrics_);
}

void Engine::WaitForWork() {
  const SteadyTime now = Now();
  // Generations that ended in the last step are still to be swept.
  if (std::optional<Submitted> submitted = inbox_.PopUntil(NextTick(now))) Accept(*std::move(submitted));
}

SteadyTime Engine::NextTick(SteadyTime now) const {
  SteadyTime tick = now + kIdleTick;
  for (const ActiveGeneration& generation : actives_) {
    tick = std::min({tick, generation.last_event() + options_.heartbeat, generation.deadline()});
  }
  return tick;
}

void Engine::SendHeartbeats(SteadyTime now) {
  for (ActiveGeneration& generation : actives_) {
    if (now - generation.last_event() >= options_.heartbeat) {
      generation.EmitHeartbeat(steps(), now);
    }
  }
}

void Engine::TellDraining() {
  if (!draining_.load()) return;
  const SteadyTime now = Now();
  for (ActiveGeneration& generation : actives_) generation.EmitDraining(now);
}

void Engine::FlushTold() {
  for (ActiveGeneration& generation : actives_) generation.Flush();
}

void Engine::Sweep() {
  const SteadyTime now = Now();
  num_taken_ += std::exchange(num_accepted_, 0);
  do {
    memory_is_short_ = false;
    memory_was_freed_ = false;
    for (auto it = actives_.begin(); it != actives_.end();) {
      const auto current = it++;
      const absl::Status status = Advance(*current, now);
      if (status.ok() && !current->finished()) continue;
      End(current, status);
      memory_was_freed_ = true;
    }
    // Whoever let go of something may have freed what another waits for.
  } while (memory_was_freed_ && memory_is_short_);
}

absl::Status Engine::Advance(ActiveGeneration& generation, SteadyTime now) {
  PRISM_RETURN_IF_ERROR(generation.error());
  if (generation.cancelled()) return absl::CancelledError("cancelled by the caller");
  if (generation.finished()) return absl::OkStatus();
  if (now >= generation.deadline()) return absl::DeadlineExceededError("the deadline has passed");
  if (!generation.scheduled()) PRISM_RETURN_IF_ERROR(Schedule(generation));
  if (!generation.embeddings().empty()) PRISM_RETURN_IF_ERROR(AdvanceEmbeddings(generation, now));
  // One whose choices are complete needs no step.
  if (!generation.started() && !generation.embeddings().coming() && Absent(generation).empty() &&
      LiveSequences(generation).empty()) {
    generation.EmitStarted(now);
  }
  return absl::OkStatus();
}

absl::Status Engine::AdvanceEmbeddings(ActiveGeneration& generation, SteadyTime now) {
  GenerationEmbeddings& embeddings = generation.embeddings();
  const std::vector<EmbeddingState> before = embeddings.states();
  absl::StatusOr<bool> polled = embeddings.Poll(now);
  const std::vector<int32_t> absent = Absent(generation);
  if (!absent.empty()) {
    // First come, first served: none overtakes one that waits for memory.
    if (!memory_is_short_) memory_is_short_ = !StartPull(generation, absent);
    if (polled.ok()) polled = embeddings.Poll(now);
  } else if (!NeedsEmbeddings(generation) && before != std::vector(before.size(), EmbeddingState::kAbsent)) {
    embeddings.LetGo();
    memory_was_freed_ = true;
  }
  if (!polled.ok()) {
    const std::string reason = ReasonOf(polled.status());
    if (reason == kReasonEmbeddingLost) metrics_.embedding_lost.Increment();
    if (reason == kReasonEmbeddingCorrupt) metrics_.embedding_corrupt.Increment();
    return polled.status();
  }
  generation.SetAwaitsEmbeddings(embeddings.coming() || (!absent.empty() && memory_is_short_));
  if (embeddings.states() == before) return absl::OkStatus();
  for (Sequence* sequence : LiveSequences(generation)) {
    for (size_t i = 0; i < before.size(); ++i) {
      sequence->SetEmbedding(static_cast<int32_t>(i), embeddings.states()[i]);
    }
  }
  return absl::OkStatus();
}

bool Engine::StartPull(ActiveGeneration& generation, std::vector<int32_t> wanted) {
  // With those that are here or coming: they stay needed.
  const std::vector<EmbeddingState>& states = generation.embeddings().states();
  for (size_t i = 0; i < states.size(); ++i) {
    if (states[i] != EmbeddingState::kAbsent) wanted.push_back(static_cast<int32_t>(i));
  }
  std::sort(wanted.begin(), wanted.end());
  return generation.embeddings().Pull(*embeddings_, wanted, generation.deadline(), [this] { Wake(); });
}

std::vector<Sequence*> Engine::LiveSequences(const ActiveGeneration& generation) {
  std::vector<Sequence*> live;
  for (const ActiveGeneration::Choice& choice : generation.choices()) {
    if (choice.sequence != 0) live.push_back(scheduler_.Find(choice.sequence));
  }
  return live;
}

std::vector<int32_t> Engine::Absent(ActiveGeneration& generation) {
  std::set<int32_t> absent;
  const std::vector<Sequence*> live = LiveSequences(generation);
  for (Sequence* sequence : live) {
    if (sequence->AbsentFrom(0).empty()) continue;
    const bool running = sequence->state() == SequenceState::kRunning;
    const int64_t begin = running ? sequence->computed() : scheduler_.KnownTokens(*sequence);
    for (const int32_t index : sequence->AbsentFrom(begin)) absent.insert(index);
  }
  if (live.empty() && !generation.started()) {
    // Nothing is left to compute, but Started says that every picture was seen.
    const std::vector<EmbeddingState>& states = generation.embeddings().states();
    for (size_t i = 0; i < states.size(); ++i) {
      if (states[i] == EmbeddingState::kAbsent) absent.insert(static_cast<int32_t>(i));
    }
  }
  return {absent.begin(), absent.end()};
}

bool Engine::NeedsEmbeddings(const ActiveGeneration& generation) {
  const std::vector<Sequence*> live = LiveSequences(generation);
  if (live.empty()) return !generation.started();
  return std::any_of(live.begin(), live.end(), [](const Sequence* sequence) {
    const VisualSpan& last = sequence->spans().back();
    return sequence->state() == SequenceState::kWaiting ||
           sequence->computed() < last.offset + last.num_tokens;
  });
}

absl::Status Engine::Schedule(ActiveGeneration& generation) {
  generation.SetScheduled();
  const GenerationRequest& request = generation.request();
  const PageKey root = PrefixRootOf(request);
  SequenceId leader = 0;
  for (uint32_t index = 0; index < generation.choices().size(); ++index) {
    if (index < request.emitted.size() && !request.emitted[index].empty()) {
      const std::vector<int32_t>& emitted = request.emitted[index];
      const auto num_emitted = static_cast<int64_t>(emitted.size());
      if (const auto reason = generation.EndAfter(num_emitted, emitted.back())) {
        generation.AddComplete(index, *reason);
        continue;
      }
    }
    const SequenceId id = ++last_sequence_;
    PRISM_RETURN_IF_ERROR(scheduler_.Add(generation.MakeSequence(id, index, leader, root)));
    if (leader == 0) leader = id;
    generation.choices()[index].sequence = id;
    owners_[id] = {&generation, index};
  }
  return absl::OkStatus();
}

PageKey Engine::PrefixRootOf(const GenerationRequest& request) {
  const std::string salt =
      options_.prefix_caching ? request.cache_salt : absl::StrCat("unshared ", ++last_unshared_);
  return PrefixRoot(options_.numerics_id, options_.weights_digest, salt);
}

bool Engine::Step() {
  const double mixed_s = std::chrono::duration<double>(options_.mixed_step).count();
  const int64_t rows_max = options_.scheduler.max_num_batched_tokens;
  const StepPlan plan = scheduler_.Plan(times_.RowsWithin(mixed_s, 1, rows_max));
  if (plan.empty()) return false;
  const SteadyTime began = Now();
  const int64_t num_answer_rows = AnswerRows(plan);
  const std::vector<VisualRowSource> visual = BeginStep(plan, began);
  FlushTold();  // Started goes ahead of a step that may be the decoder's last
  SamplingWishes wishes;
  if (executor_->can_sample()) {
    wishes = WishesOf(plan);
    executor_->SampleNext(wishes);
  }
  step_began_ns_.store(NanosecondsOf(began));
  Execute(plan, visual, began);
  const SteadyTime computed = Now();
  step_began_ns_.store(0);
  steps_.fetch_add(1);

  const double step_s = std::max(1e-6, SecondsBetween(began, computed));
  times_.Observe(plan.num_rows(), step_s);
  metrics_.step_tokens.Observe(static_cast<double>(plan.num_rows()));
  metrics_.step_seconds.Observe(step_s);
  metrics_.last_step_time.Set(UnixSeconds());

  const absl::StatusOr<TensorView> logits = executor_->logits();
  if (!logits.ok()) {
    scheduler_.Abandon(plan);
    FailStep(plan, logits.status());
    return true;
  }
  scheduler_.Complete(plan);
  std::vector<LogitRow> rows = RowsOf(plan);
  metrics_.constrained_rows.Observe(
      static_cast<double>(std::count_if(rows.begin(), rows.end(), [](const LogitRow& row) {
        const GenerationRequest& request = row.generation->request();
        return request.grammar != nullptr && !IsPromptRow(request, row.token_index);
      })));
  Sample(*logits, wishes, rows);
  const SteadyTime sampled = Now();
  metrics_.sampling_seconds.Observe(SecondsBetween(computed, sampled));
  for (LogitRow& row : rows) Apply(row, sampled);
  work_.ObserveStep({.began = began,
                     .computed = computed,
                     .ended = Now(),
                     .num_rows = plan.num_rows(),
                     .num_answer_rows = num_answer_rows},
                    times_);
  return true;
}

int64_t Engine::AnswerRows(const StepPlan& plan) {
  return std::count_if(plan.sequences.begin(), plan.sequences.end(), [this](const PlannedSequence& planned) {
    return planned.count == 1 && planned.begin >= scheduler_.Find(planned.id)->prompt_length();
  });
}

std::vector<VisualRowSource> Engine::BeginStep(const StepPlan& plan, SteadyTime now) {
  for (const PlannedSequence& planned : plan.sequences) {
    ActiveGeneration& generation = *owners_.at(planned.id).generation;
    const Sequence& sequence = *scheduler_.Find(planned.id);
    if (!generation.planned()) {
      generation.MarkPlanned(sequence.cached(), now);
      door_.Leave(QueuedRowsOf(generation.request()), EmbeddingBytesOf(generation.request()));
    }
    // Its pictures are behind it or here: every receipt is true.
    if (sequence.ComputableUntil(planned.begin) == sequence.length()) generation.EmitStarted(now);
  }
  std::vector<VisualRowSource> visual;
  for (const VisualRun& run : plan.visual_runs) {
    ActiveGeneration& generation = *owners_.at(run.sequence).generation;
    visual.push_back({.embedding = &generation.embeddings().embedding(run.embedding_index),
                      .first_embedding_row = run.first_embedding_row,
                      .first_row = run.first_row,
                      .count = run.count});
  }
  return visual;
}

void Engine::Execute(const StepPlan& plan, absl::Span<const VisualRowSource> visual, SteadyTime began) {
  executor_->Start(plan, visual);
  while (!executor_->WaitUntil(Now() + options_.heartbeat / kLooksPerHeartbeat)) {
    TakeSubmitted();
    TellDraining();
    SendHeartbeats(Now());
    FlushTold();
    PublishLoad(began);
  }
}

void Engine::FailStep(const StepPlan& plan, const absl::Status& status) {
  metrics_.step_failures.Increment();
  LogError("engine step failed", {{"step", static_cast<int64_t>(plan.step)},
                                  {"sequences", static_cast<int64_t>(plan.sequences.size())},
                                  {"error", status.ToString()}});
  for (const PlannedSequence& planned : plan.sequences) {
    const Owner& owner = owners_.at(planned.id);
    owner.generation->Fail(
        absl::InternalError(absl::StrCat("generation ", Hex(owner.generation->request().generation_id),
                                         " choice ", owner.choice, ": the step failed: ", status.message())));
  }
}

std::vector<Engine::LogitRow> Engine::RowsOf(const StepPlan& plan) {
  std::vector<LogitRow> rows;
  for (const PlannedSequence& planned : plan.sequences) {
    const Owner& owner = owners_.at(planned.id);
    if (owner.generation->cancelled()) continue;  // swept next; nothing more is emitted
    for (int64_t i = 0; i < planned.num_logits; ++i) {
      rows.push_back({.planned = &planned,
                      .logit_index = planned.first_logit + i,
                      .generation = owner.generation,
                      .choice = owner.choice,
                      .token_index = planned.begin + planned.count - planned.num_logits + i,
                      .result = {}});
    }
  }
  return rows;
}

SamplingWishes Engine::WishesOf(const StepPlan& plan) const {
  SamplingWishes wishes(plan.logit_rows.size());
  for (const PlannedSequence& planned : plan.sequences) {
    const Owner& owner = owners_.at(planned.id);
    const GenerationRequest& request = owner.generation->request();
    for (int64_t i = 0; i < planned.num_logits; ++i) {
      std::optional<RowSampling>& wish = wishes[static_cast<size_t>(planned.first_logit + i)];
      const int64_t index = planned.begin + planned.count - planned.num_logits + i;
      if (IsPromptRow(request, index) && !request.score) {
        if (*request.prompt_logprobs > kSampleTopMax) continue;
        wish = RowSampling{.target_id = request.token_ids[static_cast<size_t>(index + 1)],
                           .with_log_sum_exp = true,
                           .num_top = static_cast<int32_t>(*request.prompt_logprobs)};
        continue;
      }
      if (request.score) {
        // The last row has no id to score; it is looked at for numbers that are not finite.
        const auto next = static_cast<size_t>(index + 1);
        wish = RowSampling{.target_id = next < request.token_ids.size() ? request.token_ids[next] : 0,
                           .with_log_sum_exp = true};
        continue;
      }
      if (request.top_logprobs.value_or(0) > kSampleTopMax) continue;
      wish = owner.generation->choices()[owner.choice].sampler.ForDevice();
      if (wish.has_value() && request.top_logprobs.has_value()) {
        wish->with_log_sum_exp = true;
        wish->num_top = static_cast<int32_t>(*request.top_logprobs);
      }
    }
  }
  return wishes;
}

void Engine::Sample(const TensorView& logits, const SamplingWishes& wishes, std::vector<LogitRow>& rows) {
  const int64_t vocabulary = executor_->vocab_size();
  const float* data = logits.data<float>();
  const absl::Span<const RowSample> samples = executor_->samples();
  std::vector<LogitRow*> left;
  for (LogitRow& row : rows) {
    const auto index = static_cast<size_t>(row.logit_index);
    if (index < wishes.size() && wishes[index].has_value()) {
      TakeSample(samples[index], row);
    } else {
      left.push_back(&row);
    }
  }
  sampling_pool_.Run(static_cast<int64_t>(left.size()), [&](int64_t part, int thread) {
    LogitRow& row = *left[static_cast<size_t>(part)];
    SampleRow(absl::MakeConstSpan(data + row.logit_index * vocabulary, static_cast<size_t>(vocabulary)), row,
              scratch_[static_cast<size_t>(thread)]);
  });
}

void Engine::TakeSample(const RowSample& sample, LogitRow& row) const {
  const GenerationRequest& request = row.generation->request();
  SampledRow& result = row.result;
  if (sample.non_finite_id >= 0) {
    const std::string whose =
        request.score || IsPromptRow(request, row.token_index)
            ? absl::StrCat("after prompt token ", row.token_index)
            : absl::StrCat("of answer token ", row.generation->choices()[row.choice].sampler.num_accepted());
    result.status = absl::InternalError(
        absl::StrCat("the logit of id ", sample.non_finite_id, " ", whose, " is ", sample.logit));
    return;
  }
  result.token_id = sample.token_id;
  if (!request.score && !request.top_logprobs.has_value() && !IsPromptRow(request, row.token_index)) return;
  result.logprob = sample.logit - sample.log_sum_exp;
  for (int32_t i = 0; i < sample.num_top; ++i) {
    const TopLogit& top = sample.top[static_cast<size_t>(i)];
    result.top.push_back({top.id, top.logit - sample.log_sum_exp});
  }
}

void Engine::SampleRow(absl::Span<const float> logits, LogitRow& row, SamplingScratch& scratch) const {
  const GenerationRequest& request = row.generation->request();
  SampledRow& result = row.result;
  if (request.score || IsPromptRow(request, row.token_index)) {
    const auto next = static_cast<size_t>(row.token_index + 1);
    if (const int64_t id = FindNonFinite(logits); id >= 0) {
      result.status = absl::InternalError(
          absl::StrCat("the logit of id ", id, " after prompt token ", row.token_index, " is ", logits[id]));
    } else if (next < request.token_ids.size()) {
      result.token_id = request.token_ids[next];
      const double total = LogSumExp(logits);
      result.logprob = logits[result.token_id] - total;
      result.top = TopLogprobs(logits, total, request.prompt_logprobs.value_or(0));
    }
    return;
  }
  const absl::StatusOr<int32_t> id = row.generation->choices()[row.choice].sampler.Sample(logits, scratch);
  if (!id.ok()) {
    result.status = id.status();
    return;
  }
  result.token_id = *id;
  if (request.top_logprobs.has_value()) {
    const double total = LogSumExp(logits);
    result.logprob = logits[*id] - total;
    result.top = TopLogprobs(logits, total, *request.top_logprobs);
  }
}

void Engine::Apply(LogitRow& row, SteadyTime now) {
  ActiveGeneration& generation = *row.generation;
  const GenerationRequest& request = generation.request();
  if (!generation.error().ok()) return;
  if (!row.result.status.ok()) {
    const absl::Status status = Annotate(
        row.result.status, absl::StrCat("generation ", Hex(request.generation_id), " choice ", row.choice));
    LogError("a token could not be sampled", {{"error", status.ToString()}});
    for (const ActiveGeneration::Choice& choice : generation.choices()) {
      scheduler_.Distrust(choice.sequence);
    }
    generation.Fail(status);
    return;
  }
  if (request.score) {
    const auto length = static_cast<int64_t>(request.token_ids.size());
    if (row.token_index + 1 < length) {
      generation.SetScore(row.token_index + 1, row.result.logprob);
    } else {
      RemoveSequence(generation, row.choice);
    }
    return;
  }
  if (IsPromptRow(request, row.token_index)) {
    generation.SetPromptLogprob(row.token_index + 1,
                                {row.result.token_id, row.result.logprob, std::move(row.result.top)}, now);
    return;
  }
  ActiveGeneration::Choice& choice = generation.choices()[row.choice];
  const int64_t index = choice.sampler.num_accepted();
  choice.sampler.Accept(row.result.token_id);
  scheduler_.Find(choice.sequence)->Append(row.result.token_id);
  generated_.Add(now, 1);
  generation.EmitToken({.choice = row.choice,
                        .index = index,
                        .token_id = row.result.token_id,
                        .has_logprobs = request.top_logprobs.has_value(),
                        .logprob = row.result.logprob,
                        .top = std::move(row.result.top)},
                       now);
  if (const auto reason = generation.EndAfter(index + 1, row.result.token_id)) {
    RemoveSequence(generation, row.choice);
    work_.ObserveAnswer(index + 1);
    generation.EmitChoiceFinished(row.choice, *reason, now);
  }
}

void Engine::RemoveSequence(ActiveGeneration& generation, uint32_t choice) {
  SequenceId& id = generation.choices()[choice].sequence;
  if (id == 0) return;
  if (const Sequence* sequence = scheduler_.Find(id)) {
    generation.AddPreemptions(sequence->preemptions());
  }
  scheduler_.Remove(id);
  owners_.erase(id);
  id = 0;
}

void Engine::End(Actives::iterator generation, const absl::Status& status) {
  for (uint32_t choice = 0; choice < generation->choices().size(); ++choice) {
    RemoveSequence(*generation, choice);
  }
  if (!generation->planned()) {
    door_.Leave(QueuedRowsOf(generation->request()), EmbeddingBytesOf(generation->request()));
  }
  generation->End(status, Now());
  actives_.erase(generation);
}

void Engine::EndAll(const absl::Status& status) {
  TakeSubmitted();
  while (!actives_.empty()) End(actives_.begin(), status);
}

void Engine::PublishLoad(SteadyTime idle_until) {
  EngineLoad load;
  QueuedWork work = scheduler_.Work();
  work.times = times_;
  load.waiting = door_.num_waiting();
  load.running =
      std::count_if(actives_.begin(), actives_.end(), [](const ActiveGeneration& g) { return g.planned(); });
  load.pending_tokens = work.total_rows();
  for (const ActiveGeneration& generation : actives_) {
    if (!generation.scheduled()) load.pending_tokens += QueuedRowsOf(generation.request());
  }
  load.queued_work_s = times_.SecondsFor(load.pending_tokens, options_.scheduler.max_num_batched_tokens);
  door_.Publish(std::move(work), std::exchange(num_taken_, 0));
  load.kv_pages_used = pool_.used() + pool_.reserved();
  load.kv_pages_total = pool_.total();
  load.tokens_per_s = generated_.PerSecond(Now());
  const double in_use = work_.InUse({.in_use = load.kv_pages_used, .total = load.kv_pages_total}, idle_until);
  const double work_s = work_.QueuedWorkS(load.pending_tokens, scheduler_.num_waiting(), times_);
  load.desired_replicas = DesiredReplicas(in_use, work_s);
  {
    MutexLock lock(&load_mutex_);
    load_ = load;
  }
  metrics_.in_use.Set(in_use);
  metrics_.queued_work_s.Set(work_s);
  metrics_.desired_replicas.Set(load.desired_replicas);
  const double usage = static_cast<double>(load.kv_pages_used) / static_cast<double>(pool_.total());
  metrics_.waiting.Set(static_cast<double>(load.waiting));
  metrics_.running.Set(static_cast<double>(load.running));
  metrics_.kv_usage.Set(usage);
  metrics_.kv_usage_old.Set(usage);
  metrics_.kv_free.Set(static_cast<double>(pool_.free()));
  metrics_.kv_used.Set(static_cast<double>(pool_.used()));
  metrics_.kv_reserved.Set(static_cast<double>(pool_.reserved()));
  metrics_.kv_cached.Set(static_cast<double>(pool_.cached()));
  metrics_.preemptions.Increment(static_cast<double>(scheduler_.preemptions() - preemptions_seen_));
  preemptions_seen_ = scheduler_.preemptions();
}

}  // namespace prism
