#include "services/router/replica_queue.h"

#include <algorithm>
#include <utility>

namespace prism {

ReplicaQueue::ReplicaQueue(ReplicaSet* set, Gauge waiting) : set_(set), waiting_gauge_(waiting) {
  set->WhenRoom([this] { Pump(); });
}

std::shared_ptr<ReplicaQueue::Waiter> ReplicaQueue::Add(const Share& share, TryFn try_replica, DoneFn done) {
  auto waiter = std::make_shared<Waiter>(this, std::move(try_replica), std::move(done));
  {
    MutexLock lock(&mutex_);
    waiter->urgent_ = share.urgent;
    if (share.urgent) {
      urgent_.push_back(waiter);
    } else {
      waiter->place_ = fair_.Push(share.tenant, share.weight, share.cost, waiter);
    }
    waiting_gauge_.Set(static_cast<double>(fair_.size() + urgent_.size()));
  }
  Pump();
  return waiter;
}

size_t ReplicaQueue::waiting() const {
  MutexLock lock(&mutex_);
  return fair_.size() + urgent_.size();
}

ReplicaQueue::WaiterPtr ReplicaQueue::FrontLocked() {
  if (!urgent_.empty()) return urgent_.front();
  const WaiterPtr* const front = fair_.Front();
  return front == nullptr ? nullptr : *front;
}

ReplicaQueue::DoneFn ReplicaQueue::TakeLocked(Waiter* waiter, bool its_turn) {
  if (std::exchange(waiter->over_, true)) return nullptr;
  if (waiter->urgent_) {
    std::erase_if(urgent_, [waiter](const WaiterPtr& each) { return each.get() == waiter; });
  } else if (const WaiterPtr* const front = fair_.Front();
             its_turn && front != nullptr && front->get() == waiter) {
    fair_.Pop();  // which charges its share
  } else {
    fair_.Remove(waiter->place_);
  }
  waiting_gauge_.Set(static_cast<double>(fair_.size() + urgent_.size()));
  return std::move(waiter->done_);
}

void ReplicaQueue::Cancel(Waiter* waiter) {
  DoneFn done;
  {
    MutexLock lock(&mutex_);
    done = TakeLocked(waiter, false);
  }
  if (done) done(absl::CancelledError("cancelled while it waited for a replica"));
}

void ReplicaQueue::Pump() {
  {
    MutexLock lock(&mutex_);
    again_ = true;
    if (pumping_) return;  // whoever does it looks again
    pumping_ = true;
  }
  while (true) {
    WaiterPtr waiter;
    {
      MutexLock lock(&mutex_);
      waiter = FrontLocked();
      if (waiter == nullptr || !again_) {
        pumping_ = false;
        return;
      }
      again_ = false;
    }
    absl::StatusOr<ReplicaUse> use = waiter->try_();
    if (absl::IsResourceExhausted(use.status())) continue;  // until somebody makes room
    DoneFn done;
    {
      MutexLock lock(&mutex_);
      again_ = true;
      done = TakeLocked(waiter.get(), true);
    }
    // Cancelled meanwhile: the replica goes to the next.
    if (done) done(std::move(use));
  }
}

}  // namespace prism
