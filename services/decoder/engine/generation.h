// Generation: one accepted request, from Engine::Submit() until its sink was told the end.
//
// It is the one thing of ours behind a shared_ptr: the RPC's reactor cancels it and the engine
// works on it, on different threads, and either may let go first.
//
// Thread safety: Cancel() and cancelled() from any thread; the request is constant; the sink is
// called by the engine's thread alone.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <string>
#include <utility>
#include <variant>
#include <vector>

#include "absl/status/status.h"
#include "services/decoder/engine/generation_request.h"
#include "services/decoder/sampling/logprobs.h"

namespace prism {

// The proof that a picture reached prefill.
struct EmbeddingReceipt {
  std::string content_key;
  int64_t num_tokens = 0;
  std::string encoder;  // address it was pulled from
  std::string digest;
  bool cached = false;
};

struct StartedEvent {
  int64_t prompt_tokens = 0;
  int64_t cached_tokens = 0;
  std::vector<EmbeddingReceipt> receipts;
};

struct TokenEvent {
  uint32_t choice = 0;
  int64_t index = 0;  // of this token in its choice, emitted ones included
  int32_t token_id = 0;
  bool has_logprobs = false;
  double logprob = 0;
  std::vector<TokenProbability> top;  // descending
};

enum class FinishReason { kStop, kLength };

struct ChoiceFinishedEvent {
  uint32_t choice = 0;
  FinishReason reason = FinishReason::kStop;
  int64_t completion_tokens = 0;  // emitted ones included
};

// Of a prompt's token, given those before it.
struct PromptLogprob {
  int32_t token_id = 0;
  double logprob = 0;
  std::vector<TokenProbability> top;  // descending
};

// What became of a generation, whichever way it ended. Seconds are 0 of stages that it did not reach.
struct GenerationReport {
  int64_t cached_tokens = 0;      // of the prompt, found computed
  int64_t completion_tokens = 0;  // of all choices, emitted ones included
  int64_t num_stopped = 0;        // choices that an end id ended
  int64_t preemptions = 0;
  double queue_s = 0;        // from submission to the first plan, but for pull_s
  double pull_s = 0;         // until the embeddings were here
  double prefill_s = 0;      // from the first plan to the first token
  double first_token_s = 0;  // from submission
  double decode_s = 0;       // from the first token to the last
};

struct FinishedEvent {
  std::vector<EmbeddingReceipt> receipts;
  GenerationReport report;
};

// Comes before the first token.
struct PromptLogprobsEvent {
  std::vector<PromptLogprob> tokens;  // of ids 1 .. n-1
};

struct HeartbeatEvent {
  uint64_t engine_steps = 0;
  bool waiting = false;  // for memory or an embedding: no step is due
};

// The engine drains: whoever can go on elsewhere may do so.
struct DrainingEvent {};

// The log-probabilities of ids 1 .. n-1 of a score.
struct ScoredEvent {
  std::vector<double> logprobs;
};

using GenerationEvent = std::variant<StartedEvent, TokenEvent, ChoiceFinishedEvent, FinishedEvent,
                                     HeartbeatEvent, DrainingEvent, ScoredEvent, PromptLogprobsEvent>;

// Where the engine tells what happens.
//
// Threads: called by the engine's thread, with no lock held; must not block. OnEnd() is the last
// call and comes exactly once.
class GenerationSink {
 public:
  virtual ~GenerationSink() = default;
  // An error ends the generation with it: the caller takes no more.
  virtual absl::Status OnEvent(GenerationEvent event) = 0;
  // Whoever gathers events of many generations sends them now: all of this step's have been told.
  virtual void Flush() {}
  virtual void OnEnd(const absl::Status& status, const GenerationReport& report) = 0;
};

class Generation {
 public:
  Generation(GenerationRequest request, std::unique_ptr<GenerationSink> sink)
      : request_(std::move(request)), sink_(std::move(sink)) {}

  const GenerationRequest& request() const { return request_; }
  GenerationSink& sink() { return *sink_; }

  // The engine ends it with Cancelled by its next step. Use Engine::Cancel(), which also wakes it.
  void Cancel() { cancelled_.store(true, std::memory_order_relaxed); }
  bool cancelled() const { return cancelled_.load(std::memory_order_relaxed); }
  const std::atomic<bool>& cancel_flag() const { return cancelled_; }

 private:
  const GenerationRequest request_;
  const std::unique_ptr<GenerationSink> sink_;
  std::atomic<bool> cancelled_{false};
};

}  // namespace prism
