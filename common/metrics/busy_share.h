// BusyShare: the share of the time of late that a device worked, or worked at a part of what it can.
//
// Thread safety: thread-compatible.
#pragma once

#include "common/base/clock.h"

namespace prism {

class BusyShare {
 public:
  // What was measured counts half after this time.
  static constexpr double kHalfLifeS = 15;

  explicit BusyShare(SteadyTime start) : end_(start) {}

  // A part `share` (0 .. 1) of the device worked from `began` to `ended`, and nothing since the end of the
  // one before. REQUIRES: no end before its begin, and no begin before the last end
  void Observe(SteadyTime began, SteadyTime ended, double share = 1);
  // At `now`, nothing having worked since the last end.
  double At(SteadyTime now) const;
  // At the last end: while something works that has not been observed.
  double AtEnd() const { return share_; }

 private:
  double share_ = 0;  // at end_
  SteadyTime end_;
};

}  // namespace prism
