// Engine: one thread that owns every Sequence, the page pool and the scheduler. It takes
// generations in, has their embeddings pulled, runs steps on a StepExecutor, samples and tells
// each generation's sink what happens.
//
// While a step is under way elsewhere, however long, the thread goes on to take generations in, to beat
// for all of them and to tell how busy it is. Their beats say how many steps have ended, so that who
// listens knows a slow step from a hung one by its own measure; a thread that hangs beats for nobody.
//
// Thread safety: all methods may be called from any thread.
// Ownership: owns the executor and the embedding source. Outlives every caller of Cancel(). The
// destructor ends what is left with Unavailable and joins.
#pragma once

#include <atomic>
#include <chrono>
#include <cstdint>
#include <list>
#include <memory>
#include <string>
#include <unordered_map>
#include <vector>

#include "absl/status/status.h"
#include "common/base/bounded_queue.h"
#include "common/base/clock.h"
#include "common/base/mutex.h"
#include "common/base/thread.h"
#include "services/decoder/embeddings/embedding_source.h"
#include "services/decoder/engine/active_generation.h"
#include "services/decoder/engine/admission_door.h"
#include "services/decoder/engine/generation.h"
#include "services/decoder/engine/rate_meter.h"
#include "services/decoder/engine/step_executor.h"
#include "services/decoder/engine/work_meter.h"
#include "services/decoder/kv/page_pool.h"
#include "services/decoder/kv/prefix_index.h"
#include "services/decoder/metrics.h"
#include "services/decoder/sched/scheduler.h"

namespace prism {

struct EngineOptions {
  SchedulerLimits scheduler;
  int64_t kv_pages = 1;
  // Whether pages are kept for later requests; the choices of one share theirs in any case.
  bool prefix_caching = true;
  std::string numerics_id;  // what, besides ids and embeddings, the bits in a page depend on
  std::string weights_digest;
  int64_t max_waiting = 128;                // generations accepted and in no step yet, >= 1
  int64_t max_waiting_tokens = 0;           // theirs that are known; 0: not bounded
  int64_t max_waiting_embedding_bytes = 0;  // of their embeddings; 0: not bounded
  // How long a step in which somebody decodes is to take: prompts come in smaller chunks then.
  std::chrono::milliseconds mixed_step{200};
  std::chrono::milliseconds objective{10000};  // to be started in, for requests that do not say
  std::chrono::milliseconds heartbeat{1000};   // of silence, until a heartbeat is sent
  std::chrono::milliseconds step_max{60000};   // a step under way for longer: not alive
  int sampling_threads = 1;
};

// How busy an engine is.
struct EngineLoad {
  int64_t running = 0;         // generations in steps
  int64_t waiting = 0;         // generations accepted and in no step yet
  int64_t pending_tokens = 0;  // known and not computed
  double queued_work_s = 0;    // estimate: pending tokens at the recent speed; 0: not known
  int64_t kv_pages_used = 0;   // promised ones included
  int64_t kv_pages_total = 0;
  double tokens_per_s = 0;  // answer tokens, over the last 10 s
  uint32_t desired_replicas = 1;
};

class Engine {
 public:
  Engine(const EngineOptions& options, std::unique_ptr<StepExecutor> executor,
         std::unique_ptr<EmbeddingSource> embeddings, const DecoderMetrics& metrics);
  ~Engine();
  Engine(const Engine&) = delete;
  Engine& operator=(const Engine&) = delete;

  // Accepts a generation: its sink will be told everything, the end exactly once. On an error the
  // sink is not called: ResourceExhausted if it can never fit (with the numbers), or with reason
  // QUEUE_FULL and RetryInfo, also where the deadline cannot be met behind what is queued;
  // DeadlineExceeded if it has passed or could not be met by an idle engine; Unavailable with reason
  // DRAINING. A resumed generation is refused for no queue below kResumedMax beyond its limit.
  absl::Status Submit(std::shared_ptr<Generation> generation);

  // The generation ends with Cancelled by the next step; nothing if it ended already.
  void Cancel(Generation& generation);

  // Refuses new generations from now on; accepted ones are told, and go on.
  void Drain();

  EngineLoad Load() const ABSL_LOCKS_EXCLUDED(load_mutex_);
  // Steps done so far.
  uint64_t steps() const { return steps_.load(); }
  // OK while further steps can succeed; once not, never again.
  absl::Status Healthy() const { return executor_->Healthy(); }
  // OK while the engine makes progress or has nothing to do.
  absl::Status Live() const;

 private:
  using Actives = std::list<ActiveGeneration>;

  // What one logit row became.
  struct SampledRow {
    absl::Status status;
    int32_t token_id = 0;
    double logprob = 0;
    std::vector<TokenProbability> top;
  };
  // One logit row of a plan and whose it is.
  struct LogitRow {
    const PlannedSequence* planned = nullptr;
    int64_t logit_index = 0;
    ActiveGeneration* generation = nullptr;
    uint32_t choice = 0;
    int64_t token_index = 0;  // in the sequence, of the token the logits are of
    SampledRow result;
  };
  struct Owner {
    ActiveGeneration* generation = nullptr;
    uint32_t choice = 0;
  };
  struct Submitted {
    std::shared_ptr<Generation> generation;  // null: only wakes
    SteadyTime at;
  };

  absl::Status Refusal(const AdmissionDecision& decision);
  std::chrono::milliseconds ObjectiveOf(const GenerationRequest& request) const;
  void Run();
  void Wake();
  void TakeSubmitted();
  void Accept(Submitted submitted);
  // Moves every generation on that needs no step for it, and ends those that are over.
  void Sweep();
  absl::Status Advance(ActiveGeneration& generation, SteadyTime now);
  absl::Status Schedule(ActiveGeneration& generation);
  // Takes in what was pulled, asks for what is needed and lets go of what is not.
  absl::Status AdvanceEmbeddings(ActiveGeneration& generation, SteadyTime now);
  // False if there is no memory now.
  bool StartPull(ActiveGeneration& generation, std::vector<int32_t> wanted);
  std::vector<Sequence*> LiveSequences(const ActiveGeneration& generation);
  // Embeddings that it needs and nobody pulls: of rows not computed and not known to the prefix cache.
  std::vector<int32_t> Absent(ActiveGeneration& generation);
  bool NeedsEmbeddings(const ActiveGeneration& generation);
  PageKey PrefixRootOf(const GenerationRequest& request);
  void SendHeartbeats(SteadyTime now);
  // Tells every generation that the engine drains, once it does.
  void TellDraining();
  // What generations have been told since the last time goes out.
  void FlushTold();
  SteadyTime NextTick(SteadyTime now) const;
  void WaitForWork();
  bool Step();
  // Marks the plan's generations as started and returns what fills its visual rows.
  std::vector<VisualRowSource> BeginStep(const StepPlan& plan, SteadyTime now);
  // Returns when the step has ended; does meanwhile what needs no step.
  void Execute(const StepPlan& plan, absl::Span<const VisualRowSource> visual, SteadyTime began);
  void FailStep(const StepPlan& plan, const absl::Status& status);
  std::vector<LogitRow> RowsOf(const StepPlan& plan);
  // What the executor may sample itself: one entry a logit row of the plan.
  SamplingWishes WishesOf(const StepPlan& plan) const;
  // `wishes` were the executor's; empty if it samples nothing.
  void Sample(const TensorView& logits, const SamplingWishes& wishes, std::vector<LogitRow>& rows);
  // The row's result from what the executor has sampled.
  void TakeSample(const RowSample& sample, LogitRow& row) const;
  void SampleRow(absl::Span<const float> logits, LogitRow& row, SamplingScratch& scratch) const;
  void Apply(LogitRow& row, SteadyTime now);
  // The choice's sequence leaves the scheduler.
  void RemoveSequence(ActiveGeneration& generation, uint32_t choice);
  // Ends and forgets the generation.
  void End(Actives::iterator generation, const absl::Status& status);
  void EndAll(const absl::Status& status);
  // Rows of the plan that go on an answer, each after its last token.
  int64_t AnswerRows(const StepPlan& plan);
  // `idle_until`: now, or when the step that is under way began.
  void PublishLoad(SteadyTime idle_until);

  const EngineOptions options_;
  DecoderMetrics metrics_;
  const std::unique_ptr<StepExecutor> executor_;
  std::unique_ptr<EmbeddingSource> embeddings_;
  ParallelPool sampling_pool_;

  AdmissionDoor door_;
  // A push that fails because the queue is full needs no wake.
  BoundedQueue<Submitted> inbox_;
  std::atomic<bool> draining_{false};
  std::atomic<bool> stopping_{false};
  std::atomic<uint64_t> steps_{0};
  std::atomic<int64_t> step_began_ns_{0};  // steady clock; 0: no step is under way

  mutable Mutex load_mutex_;
  EngineLoad load_ ABSL_GUARDED_BY(load_mutex_);

  // The engine thread's own.
  PagePool pool_;
  PrefixIndex prefixes_;
  Scheduler scheduler_;
  Actives actives_;
  std::unordered_map<SequenceId, Owner> owners_;
  SequenceId last_sequence_ = 0;
  uint64_t last_unshared_ = 0;
  std::vector<SamplingScratch> scratch_;
  RateMeter generated_;
  WorkMeter work_;
  StepTimes times_;
  int64_t preemptions_seen_ = 0;
  size_t num_accepted_ = 0;        // out of the inbox since the last sweep
  size_t num_taken_ = 0;           // swept since the load was published
  bool memory_is_short_ = false;   // in this sweep, a generation must wait for memory
  bool memory_was_freed_ = false;  // and one may have given some back

  NamedThread thread_;  // last: stops first
};

}  // namespace prism
