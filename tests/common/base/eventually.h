// Eventually() waits for what other threads or processes do.
//
// Thread safety: functions only.
#pragma once

#include <chrono>
#include <thread>

#include "tests/common/base/patience.h"

namespace prism {

// Whether `condition` came to hold. The limit is only there so that a failure ends: Patient() stretches it.
template <typename Condition>
bool Eventually(const Condition& condition,
                std::chrono::milliseconds limit = std::chrono::milliseconds(30'000)) {
  const auto give_up = std::chrono::steady_clock::now() + Patient(limit);
  while (!condition()) {
    if (std::chrono::steady_clock::now() > give_up) return false;
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
  }
  return true;
}

}  // namespace prism
