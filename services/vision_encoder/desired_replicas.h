// What an encoder tells an autoscaler.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>

namespace prism {

// A device that is busy for a larger share of the time has no room for a burst.
inline constexpr double kBusyTarget = 0.7;
// A queue is to be worked off in this time, besides what comes.
inline constexpr double kDrainTargetS = 5;
inline constexpr uint32_t kDesiredReplicasMax = 1000;

// How many encoders the work would want that this one got; the sum over all encoders is what the role
// wants.
//
//   ceil(busy / kBusyTarget + queued_work_s / kDrainTargetS), at least 1
inline uint32_t DesiredReplicas(double busy, double queued_work_s) {
  const double wanted = std::ceil(busy / kBusyTarget + queued_work_s / kDrainTargetS);
  return static_cast<uint32_t>(std::clamp(wanted, 1.0, static_cast<double>(kDesiredReplicasMax)));
}

}  // namespace prism
