// RankGroup runs the ranks of a model as threads, in lockstep over the same StepPlan; rank 0 gives
// the logits.
//
// A rank that fails alone would leave the others waiting for it in a collective, so it aborts the
// group: from then on every step fails and Healthy() says why. So it does once a rank's step took too long
// (RankWatch), or an error of a device's own, after which the device is lost.
//
// Threads: one a rank, its own. Otherwise as StepExecutor says.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "common/base/mutex.h"
#include "common/base/thread.h"
#include "services/decoder/engine/rank.h"
#include "services/decoder/engine/rank_watch.h"
#include "services/decoder/engine/step_executor.h"

namespace prism {

class RankGroup final : public StepExecutor {
 public:
  // Loads every rank, each on its thread; blocks. The first rank's error if any fails. `comms` are
  // the endpoints of one group, in order, and `options` are one a rank. The checkpoint is read
  // during the call only; the backend outlives the group. `watch` says how long a step may take; its
  // `abort` is the group's own.
  static absl::StatusOr<std::unique_ptr<RankGroup>> Load(Backend& backend, const Checkpoint& checkpoint,
                                                         std::vector<std::unique_ptr<Communicator>> comms,
                                                         const std::vector<RankOptions>& options,
                                                         RankWatchOptions watch = {});
  ~RankGroup() override;

  int64_t vocab_size() const override { return vocab_size_; }
  int64_t kv_pages() const { return kv_pages_; }
  bool can_sample() const override { return can_sample_; }
  void SampleNext(const SamplingWishes& wishes) override ABSL_LOCKS_EXCLUDED(mutex_);
  void Start(const StepPlan& plan, absl::Span<const VisualRowSource> visual) override
      ABSL_LOCKS_EXCLUDED(mutex_);
  bool WaitUntil(SteadyTime time) override ABSL_LOCKS_EXCLUDED(mutex_);
  absl::StatusOr<TensorView> logits() override ABSL_LOCKS_EXCLUDED(mutex_);
  absl::Span<const RowSample> samples() const override ABSL_LOCKS_EXCLUDED(mutex_);
  absl::Status Healthy() const override ABSL_LOCKS_EXCLUDED(mutex_);

 private:
  RankGroup(std::vector<std::unique_ptr<Communicator>> comms, RankWatchOptions watch);

  void RunRank(size_t index, Backend* backend, const Checkpoint* checkpoint, RankOptions options);
  // Blocks until there is a step after `seen`; false when the group is to end.
  bool AwaitStep(uint64_t seen) ABSL_LOCKS_EXCLUDED(mutex_);
  void Report(size_t index, absl::StatusOr<TensorView> result, absl::Span<const RowSample> samples = {})
      ABSL_LOCKS_EXCLUDED(mutex_);
  bool BusyLocked() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) { return busy_ > 0; }

  const std::vector<std::unique_ptr<Communicator>> comms_;
  int64_t vocab_size_ = 0;
  int64_t kv_pages_ = 0;
  bool can_sample_ = false;
  bool device_memory_ = false;

  mutable Mutex mutex_;
  CondVar start_, done_;
  bool stop_ ABSL_GUARDED_BY(mutex_) = false;
  uint64_t step_ ABSL_GUARDED_BY(mutex_) = 0;  // 0: loading
  int busy_ ABSL_GUARDED_BY(mutex_) = 0;       // ranks that have not reported this step
  const StepPlan* plan_ ABSL_GUARDED_BY(mutex_) = nullptr;
  absl::Span<const VisualRowSource> visual_ ABSL_GUARDED_BY(mutex_);
  SamplingWishes next_wishes_ ABSL_GUARDED_BY(mutex_);  // of the next step
  SamplingWishes wishes_ ABSL_GUARDED_BY(mutex_);       // of this step
  absl::Status status_ ABSL_GUARDED_BY(mutex_);         // of this step; the first failure
  TensorView logits_ ABSL_GUARDED_BY(mutex_);
  absl::Span<const RowSample> samples_ ABSL_GUARDED_BY(mutex_);
  absl::Status broken_ ABSL_GUARDED_BY(mutex_);  // why no further step can succeed

  RankWatch watch_;
  std::vector<NamedThread> threads_;
};

}  // namespace prism
