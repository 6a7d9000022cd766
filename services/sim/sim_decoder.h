// SimDecoder: a decoder process. Scheduler, page pool and prefix index are the product's; the model is
// FakeModel over a paged memory of its own; what the engine does between them (admission at the
// door, pulls, sweeps, steps, heartbeats) is done here in simulated time.
//
// Thread safety: thread-compatible.
#pragma once

#include <cstdint>
#include <list>
#include <memory>
#include <optional>
#include <unordered_map>
#include <vector>

#include "services/decoder/kv/page_pool.h"
#include "services/decoder/kv/prefix_index.h"
#include "services/decoder/sched/scheduler.h"
#include "services/sim/messages.h"
#include "services/sim/network.h"
#include "services/sim/world.h"

namespace prism::sim {

struct SimDecoderOptions {
  SchedulerLimits scheduler;
  int64_t kv_pages = 24;
  bool prefix_caching = true;
  int64_t max_waiting = 16;            // chats accepted and in no step yet
  int64_t resumed_max = 64;            // besides, of those that go on from another decoder
  int64_t embedding_tokens_max = 200;  // of pictures in memory, in use and cached
  SimTime heartbeat = kSecond;
  SimTime step_base = 8 * kMillisecond;
  SimTime step_row = 100;
  double step_failure_chance = 0;
};

class SimDecoder {
 public:
  SimDecoder(ProcessId id, const SimDecoderOptions& options, World* world, Network* network);

  void Handle(const Event& event);
  // It takes nothing new, says so, and finishes what is left to it.
  void Drain();
  bool draining() const { return draining_; }
  bool idle() const { return actives_.empty(); }

  // Pages balance, and every queue is bounded; tells the world if not.
  void Check();
  // Nothing is used or promised. REQUIRES: idle()
  void CheckIdle();

  int64_t preemptions() const { return scheduler_.preemptions(); }
  int64_t steps() const { return steps_; }
  // Tokens of prompts that were computed, and tokens that came out of the prefix cache.
  int64_t computed_tokens() const { return computed_tokens_; }
  int64_t cached_tokens() const { return cached_tokens_; }

 private:
  enum class Stage { kNeedsMemory, kPulling, kScheduled };
  struct Choice {
    SequenceId sequence = 0;  // 0: ended, or not begun
    int64_t num_tokens = 0;   // emitted ones included
  };
  struct Pull {
    StreamId stream = 0;   // 0: none under way
    uint64_t content = 0;  // 0: not here yet
  };
  struct Active {
    StreamId stream = 0;
    uint64_t generation = 0;
    uint32_t attempt = 0;
    std::shared_ptr<const AttemptRequest> request;
    Stage stage = Stage::kNeedsMemory;
    std::vector<Pull> pulls;
    int64_t pinned_tokens = 0;
    std::vector<Choice> choices;
    bool started = false;
    bool planned = false;
    bool cancelled = false;
    EndCode error = EndCode::kOk;
    std::optional<int64_t> told_at_step;  // when it was told to cancel, whether it heeds that or not
    SimTime last_event = 0;
  };
  using Actives = std::list<Active>;
  struct Owner {
    Active* active = nullptr;
    uint32_t choice = 0;
  };
  // A picture in memory that no chat uses is kept for the next one.
  struct CachedPicture {
    uint64_t content = 0;
    int64_t num_tokens = 0;
  };

  EndCode Admit(const AttemptRequest& request) const;
  void OnGenerate(const Event& event);
  void OnFetched(const Event& event);
  void OnFetchFailed(const Event& event);
  void OnCancel(const Event& event);
  void OnStepDone();
  void OnTick();
  // Runs until a step is under way or nothing is to be done.
  void Wake();
  void Sweep();
  EndCode Advance(Active& active);
  bool StartPulls(Active& active);
  EndCode Schedule(Active& active);
  bool finished(const Active& active) const;
  void BeginStep();
  void FailStep();
  void Compute();
  void Apply(const PlannedSequence& planned, int32_t token_id);
  void Emit(Active& active, Event event);
  void EmitStarted(Active& active);
  void End(Actives::iterator active, EndCode code);
  FinishReason EndAfter(const Active& active, int64_t num_tokens, int32_t last) const;
  const CachedPicture* FindCached(uint64_t content, int64_t num_tokens) const;

  const ProcessId id_;
  const SimDecoderOptions options_;
  World* const world_;
  Network* const network_;

  PagePool pool_;
  PrefixIndex prefixes_;
  Scheduler scheduler_;
  std::vector<uint64_t> slots_;  // [pages * 64]: what FakeModel keeps a token
  Actives actives_;
  std::unordered_map<StreamId, Actives::iterator> by_stream_;
  std::unordered_map<StreamId, Active*> by_pull_;
  std::unordered_map<SequenceId, Owner> owners_;
  std::list<CachedPicture> cache_;  // most recently used first
  int64_t embedding_tokens_ = 0;    // pinned by chats
  SequenceId last_sequence_ = 0;
  int64_t waiting_ = 0;
  int64_t steps_ = 0;
  int64_t preemptions_seen_ = 0;
  int64_t computed_tokens_ = 0;
  int64_t cached_tokens_ = 0;
  bool draining_ = false;
  bool stepping_ = false;
  bool memory_is_short_ = false;
  StepPlan plan_;
  std::vector<std::pair<int64_t, uint64_t>> written_;  // slot, value: of the step under way
  std::vector<int32_t> users_;                         // [pages]; kept from check to check
};

}  // namespace prism::sim
