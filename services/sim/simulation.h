// Simulation: a whole cluster in one thread and in simulated time, with chats, faults and the
// invariants that hold whatever happens.
//
//   - every accepted chat has exactly one outcome
//   - what a client is told equals the undisturbed run, without gap or repeat, over resumes
//   - pages balance after every event; none is used and nothing is reserved when all is idle
//   - nothing is computed for a chat later than one step after its cancel
//   - events of one attempt at a generation count, the newest; deadlines never grow from hop to hop
//   - embeddings are those of the chat's pictures, of as many tokens as their spans
//   - queues are bounded
//   - once faults stop, everything ends within a bounded time
//
// Equal seeds give equal runs, of which the trace hash is the witness.
#pragma once

#include <cstdint>
#include <string>

#include "services/sim/plant.h"
#include "services/sim/sim_clients.h"

namespace prism::sim {

struct SimulationOptions {
  uint64_t seed = 1;
  int64_t events = 10'000;  // until faults and arrivals stop; what follows is not bounded by it
  Plant plant = Plant::kNone;
  uint64_t show_chat = 0;  // its events are printed as they happen; 0: none
};

struct SimulationResult {
  uint64_t seed = 0;
  uint64_t trace_hash = 0;  // over every event that was handled
  int64_t events = 0;       // handled in all
  double simulated_s = 0;
  std::string violation;    // empty: all invariants hold
  std::string last_events;  // before a violation, a line each
  SimClients::Counts outcomes{};
  int64_t tokens = 0;
  int64_t faults = 0;
  int64_t resumes = 0;
  int64_t reencodes = 0;
  int64_t reconnects = 0;
  int64_t preemptions = 0;
  int64_t computed_tokens = 0;  // by decoders that lived to the end
  int64_t cached_tokens = 0;    // of prompts, taken from prefix caches, likewise
  int64_t hedges = 0;
  int64_t dropped_events = 0;  // of older attempts and ended generations

  // Counts of another run more; the hash is of both in order. REQUIRES: neither has a violation
  void Add(const SimulationResult& other);
};

SimulationResult Simulate(const SimulationOptions& options);

}  // namespace prism::sim
