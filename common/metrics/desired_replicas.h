// What a replica tells an autoscaler, whatever its role.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>

namespace prism {

// A replica that is in use for a larger share has no room for a burst.
inline constexpr double kInUseTarget = 0.7;
// A queue is to be worked off in this time, besides what comes.
inline constexpr double kDrainTargetS = 5;
inline constexpr uint32_t kDesiredReplicasMax = 1000;

// How many replicas the work would want that this one got; the sum over all replicas is what the role
// wants. `in_use`: the share of what it can do that is taken, 0 .. 1. `queued_work_s`: how long what it
// was given would take all of it.
//
//   ceil(in_use / kInUseTarget + queued_work_s / kDrainTargetS), at least 1
inline uint32_t DesiredReplicas(double in_use, double queued_work_s) {
  const double wanted = std::ceil(in_use / kInUseTarget + queued_work_s / kDrainTargetS);
  return static_cast<uint32_t>(std::clamp(wanted, 1.0, static_cast<double>(kDesiredReplicasMax)));
}

}  // namespace prism
