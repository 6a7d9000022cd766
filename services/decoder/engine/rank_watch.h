// RankWatch ends the process when a rank's step does not end.
//
// A rank whose thread stopped leaves its peers waiting for its messages, and a kernel that does not
// end cannot be interrupted at all. So once a step has been under way on a rank for step_max, the watch
// says which ranks have not ended it and what they are at, and aborts the group: peers that wait for a
// message come back. If all ranks come back, the group stays given up; if one does not within `grace`,
// nothing can free its device but the end of the process.
//
// Thread safety: all methods from any thread; Begin(), Queued() and End() of a rank in this order.
#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <vector>

#include "absl/status/status.h"
#include "common/base/clock.h"
#include "common/base/mutex.h"
#include "common/base/thread.h"

namespace prism {

struct RankWatchOptions {
  std::chrono::milliseconds step_max{0};          // 0: nothing is watched
  std::chrono::milliseconds warm_up_max{60'000};  // of a step before WarmedUp(): a driver may compile kernels
  std::chrono::milliseconds grace{1000};
  // Makes what the ranks wait for end, where it can be made to.
  std::function<void()> abort;
  // Called when a rank did not come back; ends the process if empty.
  std::function<void()> lost;
};

class RankWatch {
 public:
  // REQUIRES: num_ranks >= 1
  RankWatch(int num_ranks, RankWatchOptions options);
  ~RankWatch();
  RankWatch(const RankWatch&) = delete;
  RankWatch& operator=(const RankWatch&) = delete;

  // A step of the rank: it begins to queue its work, its device has all of it, it is over.
  void Begin(int rank) ABSL_LOCKS_EXCLUDED(mutex_);
  void Queued(int rank) ABSL_LOCKS_EXCLUDED(mutex_);
  void End(int rank) ABSL_LOCKS_EXCLUDED(mutex_);

  // All ranks are loaded and warm.
  void WarmedUp() ABSL_LOCKS_EXCLUDED(mutex_);

  // OK, or which ranks were too late.
  absl::Status Verdict() const ABSL_LOCKS_EXCLUDED(mutex_);

 private:
  enum class Stage { kIdle, kQueueing, kWaiting };
  struct Progress {
    Stage stage = Stage::kIdle;
    uint64_t step = 0;  // steps begun so far
    SteadyTime began;
  };

  void Run();
  // When the first of the steps under way is too late; far away if none is under way.
  SteadyTime NextLimit() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  bool AnyUnderWay() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  // Says what every rank that is not idle is at.
  void Judge(SteadyTime now) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  const RankWatchOptions options_;
  mutable Mutex mutex_;
  CondVar changed_;
  bool stop_ ABSL_GUARDED_BY(mutex_) = false;
  bool warm_ ABSL_GUARDED_BY(mutex_) = false;
  std::vector<Progress> ranks_ ABSL_GUARDED_BY(mutex_);
  absl::Status verdict_ ABSL_GUARDED_BY(mutex_);
  NamedThread thread_;
};

}  // namespace prism
