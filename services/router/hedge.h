// HedgePolicy says when an encode that takes long is worth asking another encoder for.
//
// A call is slow once it took kHedgeMultiple times the 95th percentile of the recent ones. So that
// hedges cannot feed an overload, only one in kHedgeEvery calls may be hedged, on average.
//
// Thread safety: thread-compatible.
#pragma once

#include <algorithm>
#include <array>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <vector>

namespace prism {

inline constexpr double kHedgeMultiple = 2;
inline constexpr int kHedgeEvery = 20;
inline constexpr std::chrono::milliseconds kHedgeDelayMin{50};
// Calls whose times are remembered; with fewer than kHedgeKnown nothing is hedged.
inline constexpr size_t kHedgeWindow = 128;
inline constexpr size_t kHedgeKnown = 20;

class HedgePolicy {
 public:
  // A call was answered after so many seconds.
  void Record(double seconds) {
    window_[count_++ % kHedgeWindow] = seconds;
    credit_ = std::min<int64_t>(credit_ + 1, int64_t{kHedgeEvery} * kCreditHedges);
  }

  // After how long a call begun now is slow; nullopt while too little is known.
  std::optional<std::chrono::milliseconds> Delay() const {
    const size_t known = std::min(count_, kHedgeWindow);
    if (known < kHedgeKnown) return std::nullopt;
    std::vector<double> seconds(window_.begin(), window_.begin() + static_cast<ptrdiff_t>(known));
    const size_t at = known * 95 / 100;
    std::nth_element(seconds.begin(), seconds.begin() + static_cast<ptrdiff_t>(at), seconds.end());
    const auto delay = std::chrono::milliseconds(static_cast<int64_t>(1000 * kHedgeMultiple * seconds[at]));
    return std::max(delay, kHedgeDelayMin);
  }

  // Takes the right to one hedge; false if there were too many of late.
  bool Take() {
    if (credit_ < kHedgeEvery) return false;
    credit_ -= kHedgeEvery;
    return true;
  }

 private:
  static constexpr int64_t kCreditHedges = 4;  // saved up at most
  std::array<double, kHedgeWindow> window_{};
  size_t count_ = 0;
  int64_t credit_ = 0;
};

}  // namespace prism
