// ReplicaQueue holds what waits for a replica of one role and gives it one when there is room: fair
// shares between tenants (FairQueue), work that was given a replica before first of all.
//
// Bounded by whoever adds: chats are admitted before they get here.
//
// Threads: all methods may be called from any thread. `done` is called exactly once for each piece of
// work, with no lock held: from within Add(), on the thread that made room, or on the one that cancels.
// Ownership: the set outlives the queue, and is stopped before the queue goes; what waits is shared with
// whoever may cancel it.
#pragma once

#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "common/base/mutex.h"
#include "common/metrics/metrics.h"
#include "services/router/fair_queue.h"
#include "services/router/replica_set.h"

namespace prism {

// Who asks, and how much of a share it takes.
struct Share {
  std::string tenant;
  double weight = 1;    // > 0
  double cost = 1;      // > 0
  bool urgent = false;  // before all others: it had its turn
};

class ReplicaQueue {
 public:
  // A replica with room; ResourceExhausted: later.
  using TryFn = std::function<absl::StatusOr<ReplicaUse>()>;
  using DoneFn = std::function<void(absl::StatusOr<ReplicaUse>)>;

  // One piece of work that waits.
  class Waiter {
   public:
    Waiter(ReplicaQueue* queue, TryFn try_replica, DoneFn done)
        : queue_(queue), try_(std::move(try_replica)), done_(std::move(done)) {}
    // Ends the wait with Cancelled unless it is over.
    void Cancel() { queue_->Cancel(this); }

   private:
    friend class ReplicaQueue;
    ReplicaQueue* const queue_;
    const TryFn try_;
    DoneFn done_;          // the queue's lock
    bool over_ = false;    // the queue's lock
    bool urgent_ = false;  // the queue's lock
    uint64_t place_ = 0;   // in the fair queue; the queue's lock
  };

  // Listens to the set: not yet started. `waiting` is kept at the number that wait.
  ReplicaQueue(ReplicaSet* set, Gauge waiting);
  // Waits until nothing uses the set, whose uses make room here as they end. REQUIRES: nothing waits
  ~ReplicaQueue() { set_->WaitUnused(); }
  ReplicaQueue(const ReplicaQueue&) = delete;
  ReplicaQueue& operator=(const ReplicaQueue&) = delete;

  // Errors in `done`: those of `try_replica` but ResourceExhausted; Cancelled.
  std::shared_ptr<Waiter> Add(const Share& share, TryFn try_replica, DoneFn done) ABSL_LOCKS_EXCLUDED(mutex_);

  size_t waiting() const ABSL_LOCKS_EXCLUDED(mutex_);

 private:
  using WaiterPtr = std::shared_ptr<Waiter>;

  void Cancel(Waiter* waiter) ABSL_LOCKS_EXCLUDED(mutex_);
  // Hands out replicas until there is no room or nothing waits.
  void Pump() ABSL_LOCKS_EXCLUDED(mutex_);
  WaiterPtr FrontLocked() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  // Takes the waiter out, at its turn or not; its callback, or null if it is over.
  DoneFn TakeLocked(Waiter* waiter, bool its_turn) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  ReplicaSet* const set_;
  mutable Mutex mutex_;
  FairQueue<WaiterPtr> fair_ ABSL_GUARDED_BY(mutex_);
  std::deque<WaiterPtr> urgent_ ABSL_GUARDED_BY(mutex_);
  bool pumping_ ABSL_GUARDED_BY(mutex_) = false;
  bool again_ ABSL_GUARDED_BY(mutex_) = false;  // room was made while pumping
  Gauge waiting_gauge_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace prism
