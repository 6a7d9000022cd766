// An engine with stand-ins around it, requests for it, and what they came to.
#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <chrono>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "services/decoder/engine/engine.h"
#include "tests/common/base/eventually.h"
#include "tests/services/decoder/engine/engine_fakes.h"

namespace prism {

inline constexpr int64_t kVocabulary = 500;

inline SteadyTime In(std::chrono::milliseconds delay) { return std::chrono::steady_clock::now() + delay; }

struct RigOptions {
  int64_t pages = 64;
  int64_t max_num_seqs = 16;
  int64_t max_num_batched_tokens = 64;
  int64_t max_waiting = 128;
  int64_t growth_tokens = 64;
  std::chrono::milliseconds heartbeat{1000};
  std::chrono::milliseconds step_max{60000};
  int sampling_threads = 1;
  bool executor_samples = false;
  bool prefix_caching = true;
};

// An engine with its surroundings.
class Rig {
 public:
  explicit Rig(const RigOptions& options = {}) {
    auto executor = std::make_unique<FakeExecutor>(kVocabulary, options.pages);
    executor_ = executor.get();
    if (options.executor_samples) executor_->SampleHere();
    engine_ = std::make_unique<Engine>(
        EngineOptions{.scheduler = {.max_num_seqs = options.max_num_seqs,
                                    .max_num_batched_tokens = options.max_num_batched_tokens,
                                    .growth_tokens = options.growth_tokens},
                      .kv_pages = options.pages,
                      .prefix_caching = options.prefix_caching,
                      .max_waiting = options.max_waiting,
                      .heartbeat = options.heartbeat,
                      .step_max = options.step_max,
                      .sampling_threads = options.sampling_threads},
        std::move(executor), std::make_unique<FakeEmbeddings>(&embeddings_),
        DecoderMetrics(&registry_,
                       {.model_name = "fake", .model_length_max = 4096, .kv_pages = options.pages}));
  }

  Engine& engine() { return *engine_; }
  FakeExecutor& executor() { return *executor_; }
  FakeEmbeddings::State& embeddings() { return embeddings_; }
  std::string MetricsText() const { return registry_.Text(); }
  // The engine publishes its numbers after it has told the sinks.
  bool AwaitMetric(const std::string& line) const {
    return Eventually([&] { return MetricsText().find(line) != std::string::npos; });
  }
  void Stop() { engine_.reset(); }

  // A wake, for what the fake embeddings changed.
  void WakeAfterPulls() {
    std::vector<std::function<void()>> waiting;
    {
      MutexLock lock(&embeddings_.mutex);
      embeddings_.hold = false;
      waiting.swap(embeddings_.waiting);
    }
    for (const auto& wake : waiting) wake();
  }

 private:
  MetricRegistry registry_;
  FakeEmbeddings::State embeddings_;
  FakeExecutor* executor_;
  std::unique_ptr<Engine> engine_;
};

inline GenerationRequest Prompt(int64_t length, int64_t max_tokens, int32_t first = 1) {
  GenerationRequest request;
  request.generation_id = std::string(16, static_cast<char>(first));
  for (int64_t i = 0; i < length; ++i)
    request.token_ids.push_back(static_cast<int32_t>((first + i * 7) % kVocabulary));
  request.max_tokens = max_tokens;
  request.sampling.temperature = 0;
  return request;
}

// One submitted generation. A test that lets it go before its end stops the engine first, which still
// writes to its sink.
struct Call {
  explicit Call(GenerationRequest request)
      : generation(std::make_shared<Generation>(std::move(request), sink.NewSink())) {}
  absl::Status Submit(Rig& rig) { return rig.engine().Submit(generation); }
  Recording sink;
  std::shared_ptr<Generation> generation;
};

inline std::vector<int32_t> Answer(const GenerationRequest& request, const RigOptions& options = {},
                                   uint32_t choice = 0) {
  Rig rig(options);
  Call call(request);
  EXPECT_TRUE(call.Submit(rig).ok());
  EXPECT_TRUE(call.sink.Wait().ok());
  return call.sink.Tokens(choice);
}

// What a generation came to, bit for bit.
struct Outcome {
  std::vector<std::vector<std::pair<int32_t, double>>> choices;
  int64_t cached_tokens = 0;
  bool operator==(const Outcome& other) const { return choices == other.choices; }
};

inline Outcome OutcomeOf(Call& call) {
  EXPECT_EQ(call.sink.Wait(), absl::OkStatus());
  Outcome outcome;
  outcome.choices.resize(call.generation->request().num_choices);
  for (const TokenEvent& token : call.sink.Of<TokenEvent>()) {
    outcome.choices[token.choice].emplace_back(token.token_id, token.logprob);
  }
  for (const StartedEvent& started : call.sink.Of<StartedEvent>()) {
    outcome.cached_tokens = started.cached_tokens;
  }
  return outcome;
}

inline Outcome RunOn(Rig& rig, const GenerationRequest& request) {
  Call call(request);
  EXPECT_EQ(call.Submit(rig), absl::OkStatus());
  return OutcomeOf(call);
}

}  // namespace prism
