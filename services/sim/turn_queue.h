// TurnQueue: what waits for a replica, fair between tenants, what had its turn before first of all.
//
// Thread safety: thread-compatible.
#pragma once

#include <cstdint>
#include <deque>
#include <functional>
#include <optional>
#include <string>
#include <unordered_map>

#include "services/router/fair_queue.h"

namespace prism::sim {

class TurnQueue {
 public:
  // Whether the work was given a replica, or needs none any more; false: there is no room.
  using TryFn = std::function<bool(uint64_t work)>;

  explicit TurnQueue(TryFn try_work) : try_(std::move(try_work)) {}

  // REQUIRES: the work is not here
  void Push(uint64_t work, const std::string& tenant, double weight, double cost) {
    places_[work] = fair_.Push(tenant, weight, cost, work);
  }
  void PushUrgent(uint64_t work) { urgent_.push_back(work); }
  // Nothing if it is not here.
  void Remove(uint64_t work) {
    std::erase(urgent_, work);
    const auto found = places_.find(work);
    if (found == places_.end()) return;
    fair_.Remove(found->second);
    places_.erase(found);
  }
  // Gives turns until there is no room or nothing waits. A turn may push and remove.
  void Pump() {
    if (pumping_) return;
    pumping_ = true;
    while (!urgent_.empty() || !fair_.empty()) {
      const bool urgent = !urgent_.empty();
      const uint64_t work = urgent ? urgent_.front() : *fair_.Front();
      if (!try_(work)) break;
      if (urgent) {
        std::erase(urgent_, work);
      } else if (const auto found = places_.find(work); found != places_.end()) {
        if (*fair_.Front() == work) {
          fair_.Pop();  // which charges its share
        } else {
          fair_.Remove(found->second);
        }
        places_.erase(found);
      }
    }
    pumping_ = false;
  }
  size_t size() const { return urgent_.size() + fair_.size(); }

 private:
  const TryFn try_;
  FairQueue<uint64_t> fair_;
  std::deque<uint64_t> urgent_;
  std::unordered_map<uint64_t, FairQueue<uint64_t>::Id> places_;
  bool pumping_ = false;
};

}  // namespace prism::sim
