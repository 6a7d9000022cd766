// Faults: what goes wrong in a simulation, when and to whom.
//
// Thread safety: thread-compatible.
#pragma once

#include <cstdint>

#include "services/sim/event.h"
#include "services/sim/random.h"

namespace prism::sim {

enum class FaultKind : uint8_t { kKill, kStop, kBreak, kDrain, kEvict };
inline constexpr int kNumFaultKinds = 5;

// How likely each kind is against the others; 0: never. Drawn anew for each seed, so that some
// seeds meet one kind alone.
struct FaultOptions {
  double mean_gap_s = 0.5;  // 0: no faults at all
  double weights[kNumFaultKinds] = {1, 1, 1, 1, 1};
  double stop_mean_s = 3;  // how long a process stays stopped
  double restart_mean_s = 1;
};

inline FaultOptions DrawFaults(Random& random) {
  FaultOptions options;
  if (random.Chance(0.1)) {
    options.mean_gap_s = 0;
    return options;
  }
  options.mean_gap_s = 0.1 + 2 * random.Uniform();
  for (double& weight : options.weights) weight = random.Chance(0.4) ? 0 : random.Uniform();
  options.stop_mean_s = 0.2 + 6 * random.Uniform();
  options.restart_mean_s = 0.1 + 2 * random.Uniform();
  return options;
}

// By weight; kBreak if all weights are 0.
inline FaultKind DrawKind(const FaultOptions& options, Random& random) {
  double total = 0;
  for (const double weight : options.weights) total += weight;
  double left = random.Uniform() * total;
  for (int kind = 0; kind < kNumFaultKinds; ++kind) {
    left -= options.weights[kind];
    if (left < 0) return static_cast<FaultKind>(kind);
  }
  return FaultKind::kBreak;
}

}  // namespace prism::sim
