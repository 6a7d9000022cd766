// Patient() stretches a time limit that only a fault reaches: a sanitized build, or a machine said to
// be slow, has PRISM_TEST_SLOWDOWN in the environment.
//
// Thread safety: functions only.
#pragma once

#include <algorithm>
#include <chrono>
#include <cstdlib>

namespace prism {

inline std::chrono::milliseconds Patient(std::chrono::milliseconds limit) {
  const char* const slowdown = std::getenv("PRISM_TEST_SLOWDOWN");
  return slowdown == nullptr ? limit : limit * std::max(1, std::atoi(slowdown));
}

}  // namespace prism
