// World: time, chance, the events to come, which processes live, and whether an invariant was
// broken. Everything that a simulated process can reach outside itself.
//
// Thread safety: thread-compatible; a simulation is one thread.
#pragma once

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "common/base/clock.h"
#include "services/sim/event.h"
#include "services/sim/event_queue.h"
#include "services/sim/plant.h"
#include "services/sim/random.h"

namespace prism::sim {

class World final : public Clock {
 public:
  World(uint64_t seed, size_t num_processes, Plant plant)
      : random_(seed), plant_(plant), processes_(num_processes) {}

  SimTime now() const { return now_; }
  SteadyTime Now() const override { return SteadyOf(now_); }
  Random& random() { return random_; }
  Plant plant() const { return plant_; }
  EventQueue& queue() { return queue_; }
  size_t num_processes() const { return processes_.size(); }

  // A timer of `event.to`, gone if that process dies before.
  void After(SimTime delay, Event event) {
    event.incarnation = processes_[event.to].incarnation;
    queue_.Push(now_ + delay, std::move(event));
  }
  // REQUIRES: time >= now()
  void AdvanceTo(SimTime time) { now_ = time; }

  // A process that is stopped (SIGSTOP) lives, but nothing happens to it until it goes on: messages
  // and timers wait. A dead one knows nothing any more; started again it is another incarnation.
  bool alive(ProcessId id) const { return processes_[id].alive; }
  bool stopped(ProcessId id) const { return processes_[id].stopped; }
  uint32_t incarnation(ProcessId id) const { return processes_[id].incarnation; }
  void Stop(ProcessId id) { processes_[id].stopped = true; }
  void Hold(Event event) { processes_[event.to].held.push_back(std::move(event)); }
  // What waited happens now, in its order.
  void Continue(ProcessId id) {
    Process& process = processes_[id];
    process.stopped = false;
    for (Event& event : process.held) queue_.Push(now_, std::move(event));
    process.held.clear();
  }
  void Kill(ProcessId id) {
    Process& process = processes_[id];
    process.alive = false;
    process.stopped = false;
    process.held.clear();
    ++process.incarnation;
  }
  void Start(ProcessId id) { processes_[id].alive = true; }

  // An invariant is broken; the first call counts and ends the run.
  void Violate(std::string what) {
    if (violation_.empty()) violation_ = std::move(what);
  }
  // Empty: none is broken.
  const std::string& violation() const { return violation_; }

 private:
  struct Process {
    bool alive = true;
    bool stopped = false;
    uint32_t incarnation = 1;
    std::vector<Event> held;
  };

  SimTime now_ = 0;
  Random random_;
  const Plant plant_;
  EventQueue queue_;
  std::vector<Process> processes_;
  std::string violation_;
};

}  // namespace prism::sim
