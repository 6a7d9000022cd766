// Clock gives time to whoever must be testable without waiting for it.
//
// Thread safety: all methods may be called from any thread.
#pragma once

#include <chrono>

namespace prism {

using SteadyTime = std::chrono::steady_clock::time_point;

class Clock {
 public:
  virtual ~Clock() = default;
  // Monotonic; intervals and deadlines are taken from it alone.
  virtual SteadyTime Now() const = 0;

  // The machine's clock; lives for ever.
  static const Clock& Real();
};

// Seconds since 1970 by the machine's calendar clock, which may jump: for people and metrics only.
double UnixSeconds();

inline double SecondsBetween(SteadyTime from, SteadyTime to) {
  return std::chrono::duration<double>(to - from).count();
}

}  // namespace prism
