// Scheduler decides what each step computes: continuous batching with chunked prefill over paged
// KV.
//
// Every step carries, in this order and within max_num_batched_tokens rows:
//   1. one row of each sequence that is decoding: a long prompt never holds them up;
//   2. a chunk of each prompt under way, the one admitted first before the others, as far as rows are
//      left and the embeddings of its spans are here;
//   3. newly admitted sequences, while pages can be promised to them.
// Sequences wait in the order of priority (larger first), then of what is due first, then of arrival.
// One that can be computed is never overtaken; one whose embeddings are under way, or that follows
// another, lets others pass. As what is due of a request is at most its arrival plus its objective,
// newcomers cannot overtake it for ever.
//
// Pages: at admission a sequence takes the pages of its prefix that a PrefixIndex knows, and is
// promised the pages of its other known tokens and of `growth_tokens` more (or up to its limit). If
// it outgrows them it takes free pages, and cached ones; if there is none, the sequence admitted last
// loses its pages and waits again, with its tokens kept, to be computed anew. The one admitted first
// can thus always go on, as Add() refuses what the whole pool could not hold: no deadlock, and as it
// ends some day and the next becomes the first, no livelock.
//
// A page is published when the step that filled it has retired. Where an equal one is known already,
// the sequence goes on with that one.
//
// Threads, clocks and tensors do not occur here. Thread safety: thread-compatible; the engine
// thread owns it.
#pragma once

#include <cstdint>
#include <limits>
#include <memory>
#include <set>
#include <unordered_map>
#include <vector>

#include "absl/status/status.h"
#include "services/decoder/kv/page_pool.h"
#include "services/decoder/kv/prefix_index.h"
#include "services/decoder/sched/admission.h"
#include "services/decoder/sched/sequence.h"
#include "services/decoder/sched/step_plan.h"

namespace prism {

struct SchedulerLimits {
  int64_t max_num_seqs = 64;              // sequences in a step, >= 1
  int64_t max_num_batched_tokens = 2048;  // rows in a step, >= max_num_seqs
  int64_t waiting_max = 512;              // sequences waiting, besides preempted ones; >= 1
  int64_t growth_tokens = 256;            // promised at admission beyond the known tokens; >= 0
  int64_t score_rows_max = 64;            // logit rows a step for scores, besides sampling's; >= 1
};

class Scheduler {
 public:
  // `pool` and `index` (of the same pool; null: no pages are shared) outlive the scheduler, which alone
  // takes from them. REQUIRES: the limits are as their comments say
  Scheduler(const SchedulerLimits& limits, PagePool* pool, PrefixIndex* index = nullptr);
  ~Scheduler();

  // OK if a sequence of so many tokens at most can ever run; else ResourceExhausted with the
  // numbers. Any thread.
  absl::Status CheckFits(int64_t limit) const;

  // Takes `sequence` into the waiting queue. ResourceExhausted if it can never fit or the queue is
  // full; the sequence is then gone. REQUIRES: its id is not here
  absl::Status Add(std::unique_ptr<Sequence> sequence);

  // The sequence leaves (finished, cancelled or failed) and its pages are free. Unknown ids are
  // ignored. REQUIRES: not between Plan() and Complete()
  void Remove(SequenceId id);

  // The next step; empty if nothing waits or runs. A step in which some sequence decodes has at most
  // `mixed_rows_max` rows, but a page's worth of prompt may always come. Every plan that is not empty is
  // followed by Complete() before the next Plan().
  StepPlan Plan(int64_t mixed_rows_max = std::numeric_limits<int64_t>::max());

  // The step has run.
  void Complete(const StepPlan& plan);
  // The step has failed, in place of Complete(); its sequences do not survive: Remove() them next.
  void Abandon(const StepPlan& plan);

  // What the sequence computed is not to be trusted: its pages are found by nobody from now on.
  void Distrust(SequenceId id);

  // Tokens from the front of a sequence whose pages are known now.
  int64_t KnownTokens(Sequence& sequence) const;

  // Null if unknown.
  Sequence* Find(SequenceId id);

  int64_t num_running() const { return static_cast<int64_t>(running_.size()); }
  int64_t num_waiting() const { return static_cast<int64_t>(waiting_.size()); }
  // What is known and not computed, without the measured times.
  QueuedWork Work() const;
  int64_t preemptions() const { return preemptions_; }
  bool idle() const { return sequences_.empty(); }

 private:
  // How they wait: priority, what is due first, arrival.
  struct Before {
    bool operator()(const Sequence* a, const Sequence* b) const {
      if (a->priority() != b->priority()) return a->priority() > b->priority();
      if (a->due() != b->due()) return a->due() < b->due();
      return a->arrival() < b->arrival();
    }
  };
  // How they run.
  struct AdmittedBefore {
    bool operator()(const Sequence* a, const Sequence* b) const { return a->admission() < b->admission(); }
  };

  struct Budget {
    int64_t rows;
    int64_t score_rows;
  };

  void PlanDecodes(Budget& budget, StepPlan& plan);
  void PlanPrefills(Budget& budget, StepPlan& plan);
  void Admit(Budget& budget, StepPlan& plan);
  // Moves a waiting sequence to the running ones with pages for its next chunk. False if there are not
  // enough pages.
  bool AdmitOne(Sequence& sequence);
  // Tokens that it will find computed by the one it follows; 0 if it follows none.
  int64_t SharedTokens(const Sequence& sequence) const;
  // Does it wait for those?
  bool IsBehind(const Sequence& sequence) const;
  // Rows that can be computed from `begin` on within the budget.
  int64_t ChunkOf(const Sequence& sequence, int64_t begin, const Budget& budget) const;
  // Makes free and cached pages reserved ones.
  bool Reserve(int64_t count);
  void PublishPages(Sequence& sequence);
  // Gives pages for the first `num_tokens` tokens, taking them from the one admitted last if need
  // be. False if `sequence` itself lost its pages.
  bool GivePages(Sequence& sequence, int64_t num_tokens);
  void Preempt(Sequence& sequence);
  void ReturnPages(Sequence& sequence);
  void AddRows(Sequence& sequence, int64_t count, Budget& budget, StepPlan& plan);
  void FillPageTables(StepPlan& plan);

  const SchedulerLimits limits_;
  PagePool* const pool_;
  PrefixIndex* const index_;
  std::unordered_map<SequenceId, std::unique_ptr<Sequence>> sequences_;
  std::set<Sequence*, Before> waiting_;
  std::set<Sequence*, AdmittedBefore> running_;
  uint64_t arrivals_ = 0;
  uint64_t admissions_ = 0;
  uint64_t steps_ = 0;
  int64_t preemptions_ = 0;
  int64_t preempted_waiting_ = 0;  // of waiting_, those that ran before
  bool in_step_ = false;
};

}  // namespace prism
