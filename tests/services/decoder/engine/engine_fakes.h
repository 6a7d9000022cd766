// Stand-ins for what surrounds the engine: an executor whose logits are a hash of exactly what the
// plan lets a row see, a source of embeddings, and a sink that records.
#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdint>
#include <functional>
#include <limits>
#include <memory>
#include <set>
#include <string>
#include <utility>
#include <variant>
#include <vector>

#include "absl/status/status.h"
#include "common/base/hash.h"
#include "common/base/mutex.h"
#include "common/wire/status_codec.h"
#include "services/decoder/embeddings/embedding_source.h"
#include "services/decoder/engine/generation.h"
#include "services/decoder/engine/step_executor.h"
#include "services/decoder/kv/page.h"
#include "services/decoder/sampling/logprobs.h"
#include "services/decoder/sampling/sampler.h"

namespace prism {

// Keeps a "KV" of one number a slot, made from the token, its positions and what fills it. The
// logits of a row hash the numbers of its whole context, read through the page table: a wrong
// slot, table, position, length or chunk changes the answer.
class FakeExecutor final : public StepExecutor {
 public:
  FakeExecutor(int64_t vocabulary, int64_t pages)
      : vocabulary_(vocabulary), slots_(static_cast<size_t>(pages * kTokensPerPage)) {}

  int64_t vocab_size() const override { return vocabulary_; }
  bool can_sample() const override { return can_sample_; }
  void SampleNext(const SamplingWishes& wishes) override { wishes_ = wishes; }
  absl::Span<const RowSample> samples() const override { return samples_; }
  // Rows are sampled here from now on; the engine gets NaN for their logits.
  void SampleHere() { can_sample_ = true; }
  int64_t rows_sampled() const { return rows_sampled_.load(); }

  void Start(const StepPlan& plan, absl::Span<const VisualRowSource> visual) override {
    std::vector<uint64_t> values(plan.token_ids.size());
    const size_t rows = plan.token_ids.size();
    for (size_t row = 0; row < rows; ++row) {
      uint64_t value = SplitMix64(static_cast<uint64_t>(plan.token_ids[row]) + 1);
      for (size_t axis = 0; axis < 3; ++axis) {
        value = SplitMix64(value * 31 + static_cast<uint64_t>(plan.positions[axis * rows + row]));
      }
      values[row] = value;
    }
    for (const VisualRowSource& source : visual) {
      const TensorView view = source.embedding->rows.view();
      for (int64_t i = 0; i < source.count; ++i) {
        const float first = view.data<float>()[(source.first_embedding_row + i) * view.dim(2)];
        values[static_cast<size_t>(source.first_row + i)] ^= SplitMix64(static_cast<uint64_t>(first));
      }
    }
    for (size_t row = 0; row < rows; ++row) slots_[static_cast<size_t>(plan.slots[row])] = values[row];

    const auto num_logits = static_cast<int64_t>(plan.logit_rows.size());
    logits_ = Tensor::Host(DType::kF32, {num_logits, vocabulary_});
    for (size_t s = 0; s < plan.sequences.size(); ++s) {
      const PlannedSequence& planned = plan.sequences[s];
      const int32_t* table = plan.page_tables.data() + static_cast<int64_t>(s) * plan.page_table_width;
      for (int64_t l = 0; l < planned.num_logits; ++l) {
        const int64_t row = plan.logit_rows[static_cast<size_t>(planned.first_logit + l)];
        const int64_t context = plan.context_lengths[s] - (planned.first_row + planned.count - 1 - row);
        uint64_t hash = 7;
        for (int64_t i = 0; i < context; ++i) {
          hash = SplitMix64(hash * 3 + slots_[static_cast<size_t>(table[i / 64] * 64 + i % 64)]);
        }
        float* out = logits_.data<float>() + (planned.first_logit + l) * vocabulary_;
        for (int64_t id = 0; id < vocabulary_; ++id) {
          out[id] = static_cast<float>(SplitMix64(hash + static_cast<uint64_t>(id)) >> 40) * 0x1p-22f;
        }
        MutexLock lock(&mutex_);
        if (poison_token_ >= 0 && plan.token_ids[static_cast<size_t>(planned.first_row)] == poison_token_) {
          out[vocabulary_ / 2] = std::numeric_limits<float>::quiet_NaN();
        }
      }
    }
    SampleWished();
    MutexLock lock(&mutex_);
    ++started_;
    changed_.NotifyAll();
    rows_total_ += static_cast<int64_t>(rows);
    rows_max_ = std::max(rows_max_, static_cast<int64_t>(rows));
    sequences_max_ = std::max(sequences_max_, static_cast<int64_t>(plan.sequences.size()));
    if (failures_ > 0) {
      --failures_;
      status_ = absl::InternalError("a kernel failed");
    } else {
      status_ = absl::OkStatus();
    }
  }

  bool WaitUntil(SteadyTime time) override {
    MutexLock lock(&mutex_);
    while (HeldLocked()) {
      if (!changed_.WaitUntil(&mutex_, time) && HeldLocked()) return false;
    }
    return true;
  }

  absl::StatusOr<TensorView> logits() override {
    MutexLock lock(&mutex_);
    if (!status_.ok()) return status_;
    return logits_.view();
  }

  absl::Status Healthy() const override { return absl::OkStatus(); }

  // For the test's thread.
  void Hold(bool held) {
    MutexLock lock(&mutex_);
    held_ = held;
    free_steps_ = std::numeric_limits<int64_t>::max();
    changed_.NotifyAll();
  }
  // The first `steps` end, those after them do not, from now on.
  void HoldAfter(int64_t steps) {
    MutexLock lock(&mutex_);
    held_ = false;
    free_steps_ = steps;
    changed_.NotifyAll();
  }
  // Until step number `step`, from 1, has begun. False if it does not within 60 s.
  bool AwaitStart(int64_t step) {
    const auto deadline = std::chrono::steady_clock::now() + std::chrono::seconds(60);
    MutexLock lock(&mutex_);
    while (started_ < step) {
      if (!changed_.WaitUntil(&mutex_, deadline) && started_ < step) return false;
    }
    return true;
  }
  void FailNext(int steps) {
    MutexLock lock(&mutex_);
    failures_ = steps;
  }
  // A step whose sequence begins with this token gets a NaN.
  void Poison(int32_t token) {
    MutexLock lock(&mutex_);
    poison_token_ = token;
  }
  // Computed so far.
  int64_t rows_total() const {
    MutexLock lock(&mutex_);
    return rows_total_;
  }
  int64_t sequences_max() const {
    MutexLock lock(&mutex_);
    return sequences_max_;
  }

 private:
  bool HeldLocked() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) { return held_ || started_ > free_steps_; }

  // With the host's sampler, which is what a device must equal.
  void SampleWished() {
    samples_.assign(wishes_.size(), {});
    SamplingScratch scratch;
    for (size_t row = 0; row < wishes_.size(); ++row) {
      if (!wishes_[row].has_value()) continue;
      rows_sampled_.fetch_add(1);
      const RowSampling& wish = *wishes_[row];
      RowSample& sample = samples_[row];
      const absl::Span<float> logits = logits_.view().Rows(static_cast<int64_t>(row), 1).span<float>();
      if (const int64_t id = FindNonFinite(logits); id >= 0) {
        sample.non_finite_id = static_cast<int32_t>(id);
        sample.logit = logits[static_cast<size_t>(id)];
        continue;
      }
      Sampler sampler({.temperature = wish.temperature,
                       .top_p = wish.top_p,
                       .top_k = wish.top_k,
                       .min_p = wish.min_p,
                       .seed = wish.seed},
                      wish.choice, {});
      for (uint32_t i = 0; i < wish.token_index; ++i) sampler.Accept(0);
      sample.token_id = wish.target_id >= 0 ? wish.target_id : *sampler.Sample(logits, scratch);
      sample.logit = logits[static_cast<size_t>(sample.token_id)];
      if (wish.with_log_sum_exp) sample.log_sum_exp = LogSumExp(logits);
      for (const TokenProbability& top : TopLogprobs(logits, 0, wish.num_top)) {
        sample.top[static_cast<size_t>(sample.num_top++)] = {top.token_id, static_cast<float>(top.logprob)};
      }
      std::fill(logits.begin(), logits.end(), std::numeric_limits<float>::quiet_NaN());
    }
    wishes_.clear();
  }

  const int64_t vocabulary_;
  std::vector<uint64_t> slots_;
  Tensor logits_;
  bool can_sample_ = false;
  SamplingWishes wishes_;
  std::vector<RowSample> samples_;
  std::atomic<int64_t> rows_sampled_{0};
  mutable Mutex mutex_;
  CondVar changed_;
  bool held_ = false;
  int64_t started_ = 0;  // steps
  int64_t free_steps_ = std::numeric_limits<int64_t>::max();
  int failures_ = 0;
  int32_t poison_token_ = -1;
  int64_t rows_total_ = 0;
  int64_t rows_max_ = 0;
  int64_t sequences_max_ = 0;
  absl::Status status_;
};

// Every row of an embedding starts with its row number plus the first byte of the handle id. The
// test decides when and how pulls end, and how many may be alive.
class FakeEmbeddings final : public EmbeddingSource {
 public:
  struct State {
    Mutex mutex;
    bool hold = false;
    std::set<char> held_names;  // first bytes of handle ids that do not arrive yet
    absl::Status result;
    size_t good_pulls = 1000;        // those after them are lost
    std::vector<std::string> pulls;  // of each Start(), the first bytes of its handle ids
    int alive = 0;
    int alive_max = 1000;
    std::vector<std::function<void()>> waiting;
    CondVar none_alive;

    // A pull ends a moment after its generation was told the end. False if it does not within 60 s.
    bool WaitForNoneAlive() {
      const auto deadline = std::chrono::steady_clock::now() + std::chrono::seconds(60);
      MutexLock lock(&mutex);
      while (alive > 0) {
        if (!none_alive.WaitUntil(&mutex, deadline) && alive > 0) return false;
      }
      return true;
    }
  };
  explicit FakeEmbeddings(State* state) : state_(state) {}

  absl::Status CheckFits(absl::Span<const EmbeddingRef> refs) const override {
    return refs.size() > 8 ? absl::ResourceExhaustedError("too many embeddings") : absl::OkStatus();
  }

  std::unique_ptr<EmbeddingPull> Start(absl::Span<const EmbeddingRef> refs, SteadyTime,
                                       std::function<void()> on_change) override {
    MutexLock lock(&state_->mutex);
    if (state_->alive >= state_->alive_max) return nullptr;
    ++state_->alive;
    state_->pulls.emplace_back();
    for (const EmbeddingRef& ref : refs) state_->pulls.back().push_back(ref.handle_id[0]);
    state_->waiting.push_back(std::move(on_change));
    return std::make_unique<Pull>(state_, refs, state_->pulls.size() > state_->good_pulls);
  }

 private:
  class Pull final : public EmbeddingPull {
   public:
    Pull(State* state, absl::Span<const EmbeddingRef> refs, bool lost) : state_(state), lost_(lost) {
      for (const EmbeddingRef& ref : refs) {
        names_.push_back(ref.handle_id[0]);
        PulledEmbedding pulled{Tensor::HostZeros(DType::kF32, {1, ref.num_tokens, 4})};
        for (int64_t row = 0; row < ref.num_tokens; ++row) {
          pulled.rows.data<float>()[row * 4] = static_cast<float>(row + ref.handle_id[0]);
        }
        embeddings_.push_back(std::move(pulled));
      }
    }
    ~Pull() override {
      MutexLock lock(&state_->mutex);
      if (--state_->alive == 0) state_->none_alive.NotifyAll();
    }
    bool done() const override {
      MutexLock lock(&state_->mutex);
      return !state_->hold;
    }
    absl::Status status() const override {
      MutexLock lock(&state_->mutex);
      return lost_ ? ErrorWithReason(absl::StatusCode::kFailedPrecondition, "gone", kReasonEmbeddingLost)
                   : state_->result;
    }
    bool ready(size_t index) const override {
      MutexLock lock(&state_->mutex);
      return !lost_ && !state_->hold && state_->result.ok() && !state_->held_names.contains(names_.at(index));
    }
    const PulledEmbedding& embedding(size_t index) const override { return embeddings_.at(index); }
    bool cached(size_t) const override { return false; }

   private:
    State* const state_;
    const bool lost_;
    std::string names_;
    std::vector<PulledEmbedding> embeddings_;
  };

  State* const state_;
};

// What a generation's sink was told; waits for the end.
class Recording {
 public:
  // For the generation; the recording outlives it.
  std::unique_ptr<GenerationSink> NewSink() { return std::make_unique<Sink>(this); }

  absl::Status OnEvent(GenerationEvent event) {
    MutexLock lock(&mutex_);
    events_.push_back(std::move(event));
    changed_.NotifyAll();
    return refuse_after_ >= 0 && static_cast<int>(events_.size()) > refuse_after_
               ? absl::ResourceExhaustedError("reads too slowly")
               : absl::OkStatus();
  }
  void OnFlush() {
    MutexLock lock(&mutex_);
    flushes_.push_back(events_.size());
  }
  void OnEnd(const absl::Status& status, const GenerationReport& report) {
    MutexLock lock(&mutex_);
    report_ = report;
    EXPECT_FALSE(done_) << "told the end twice";
    done_ = true;
    status_ = status;
    changed_.NotifyAll();
  }

  absl::Status Wait() {
    const auto deadline = std::chrono::steady_clock::now() + std::chrono::seconds(60);
    MutexLock lock(&mutex_);
    while (!done_) {
      if (!changed_.WaitUntil(&mutex_, deadline) && !done_) return absl::UnknownError("never ended");
    }
    return status_;
  }
  // Until `count` events of a kind were seen, or the end.
  template <typename Event>
  bool WaitFor(size_t count) {
    const auto deadline = std::chrono::steady_clock::now() + std::chrono::seconds(60);
    MutexLock lock(&mutex_);
    while (true) {
      size_t seen = 0;
      for (const GenerationEvent& event : events_) seen += std::holds_alternative<Event>(event);
      if (seen >= count) return true;
      if (done_) return false;
      if (!changed_.WaitUntil(&mutex_, deadline)) return false;
    }
  }
  void RefuseAfter(int events) { refuse_after_ = events; }

  // After Wait().
  GenerationReport report() const {
    MutexLock lock(&mutex_);
    return report_;
  }
  std::vector<GenerationEvent> events() const {
    MutexLock lock(&mutex_);
    return events_;
  }
  // How many events had been told at each flush.
  std::vector<size_t> flushes() const {
    MutexLock lock(&mutex_);
    return flushes_;
  }
  template <typename Event>
  std::vector<Event> Of() const {
    std::vector<Event> result;
    for (const GenerationEvent& event : events()) {
      if (const auto* found = std::get_if<Event>(&event)) result.push_back(*found);
    }
    return result;
  }
  std::vector<int32_t> Tokens(uint32_t choice = 0) const {
    std::vector<int32_t> ids;
    for (const TokenEvent& token : Of<TokenEvent>()) {
      if (token.choice == choice) ids.push_back(token.token_id);
    }
    return ids;
  }

 private:
  class Sink final : public GenerationSink {
   public:
    explicit Sink(Recording* recording) : recording_(recording) {}
    absl::Status OnEvent(GenerationEvent event) override { return recording_->OnEvent(std::move(event)); }
    void Flush() override { recording_->OnFlush(); }
    void OnEnd(const absl::Status& status, const GenerationReport& report) override {
      recording_->OnEnd(status, report);
    }

   private:
    Recording* const recording_;
  };

  mutable Mutex mutex_;
  CondVar changed_;
  std::vector<GenerationEvent> events_;
  std::vector<size_t> flushes_;
  bool done_ = false;
  absl::Status status_;
  GenerationReport report_;
  int refuse_after_ = -1;
};

}  // namespace prism
