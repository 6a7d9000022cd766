#include "services/decoder/engine/rate_meter.h"

#include <algorithm>
#include <numeric>

namespace prism {

void RateMeter::Forget(SteadyTime now) {
  const auto second = static_cast<int64_t>(SecondsBetween(start_, now));
  if (second - second_ >= kSeconds) {
    ring_.fill(0);
  } else {
    for (int64_t s = second_ + 1; s <= second; ++s) ring_[static_cast<size_t>(s % kSeconds)] = 0;
  }
  second_ = std::max(second_, second);
}

void RateMeter::Add(SteadyTime now, double amount) {
  Forget(now);
  ring_[static_cast<size_t>(second_ % kSeconds)] += amount;
}

double RateMeter::PerSecond(SteadyTime now) {
  Forget(now);
  const double window = std::clamp(SecondsBetween(start_, now), 1.0, double{kSeconds});
  return std::accumulate(ring_.begin(), ring_.end(), 0.0) / window;
}

}  // namespace prism
