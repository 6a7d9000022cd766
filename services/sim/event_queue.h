// EventQueue: what will happen, earliest first; of one time, what was scheduled first.
//
// Thread safety: thread-compatible.
#pragma once

#include <cstdint>
#include <queue>
#include <utility>
#include <vector>

#include "services/sim/event.h"

namespace prism::sim {

class EventQueue {
 public:
  bool empty() const { return heap_.empty(); }
  size_t size() const { return heap_.size(); }
  // REQUIRES: not empty
  SimTime next_time() const { return heap_.top().time; }

  void Push(SimTime time, Event event) {
    uint32_t slot;
    if (unused_.empty()) {
      slot = static_cast<uint32_t>(slots_.size());
      slots_.push_back(std::move(event));
    } else {
      slot = unused_.back();
      unused_.pop_back();
      slots_[slot] = std::move(event);
    }
    heap_.push({time, pushed_++, slot});
  }

  // REQUIRES: not empty
  Event Pop() {
    const uint32_t slot = heap_.top().slot;
    heap_.pop();
    unused_.push_back(slot);
    return std::move(slots_[slot]);
  }

 private:
  struct Place {
    SimTime time;
    uint64_t order;
    uint32_t slot;                                           // of slots_
    friend bool operator<(const Place& a, const Place& b) {  // the queue's top is its greatest
      return a.time != b.time ? a.time > b.time : a.order > b.order;
    }
  };
  std::priority_queue<Place> heap_;
  std::vector<Event> slots_;
  std::vector<uint32_t> unused_;
  uint64_t pushed_ = 0;
};

}  // namespace prism::sim
