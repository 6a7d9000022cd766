// TokenBucket lets `rate_per_s` units a second through on average and `burst` at once.
//
// What is taken is an estimate that is put right later, so the level may fall below zero: then
// nothing is let through until it has filled up again.
//
// Thread safety: thread-compatible; time is passed in and must not go backwards.
#pragma once

#include <algorithm>

#include "common/base/clock.h"

namespace prism {

class TokenBucket {
 public:
  // Full at first. REQUIRES: rate_per_s > 0, burst > 0
  TokenBucket(double rate_per_s, double burst, SteadyTime now)
      : rate_per_s_(rate_per_s), burst_(burst), level_(burst), filled_at_(now) {}

  // Seconds until `amount` may be taken; 0: now. More than a burst waits for a full bucket.
  double WaitSeconds(SteadyTime now, double amount) {
    Fill(now);
    return std::max(0.0, (std::min(amount, burst_) - level_) / rate_per_s_);
  }

  // Takes `amount` whatever the level; a negative one gives back.
  void Take(SteadyTime now, double amount) {
    Fill(now);
    level_ = std::min(burst_, level_ - amount);
  }

  double level(SteadyTime now) {
    Fill(now);
    return level_;
  }
  bool full(SteadyTime now) { return level(now) >= burst_; }

 private:
  void Fill(SteadyTime now) {
    if (now <= filled_at_) return;
    level_ = std::min(burst_, level_ + rate_per_s_ * SecondsBetween(filled_at_, now));
    filled_at_ = now;
  }

  double rate_per_s_;
  double burst_;
  double level_;
  SteadyTime filled_at_;
};

}  // namespace prism
