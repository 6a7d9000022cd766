// RateMeter: how many of something happened a second, over the last ten seconds.
//
// Thread safety: thread-compatible.
#pragma once

#include <array>
#include <cstdint>

#include "common/base/clock.h"

namespace prism {

class RateMeter {
 public:
  static constexpr int kSeconds = 10;

  explicit RateMeter(SteadyTime start) : start_(start) {}

  void Add(SteadyTime now, double amount);
  // Over the window, or since the start if that is shorter (a second at least).
  double PerSecond(SteadyTime now);

 private:
  void Forget(SteadyTime now);

  const SteadyTime start_;
  int64_t second_ = 0;  // since the start; the newest in the ring
  std::array<double, kSeconds> ring_{};
};

}  // namespace prism
