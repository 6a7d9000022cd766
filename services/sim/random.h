// Random: the one source of chance in a simulation. Equal seeds give equal draws on every machine.
//
// The generator is splitmix64 (Steele, Lea, Flood 2014): a counter and a finaliser.
//
// Thread safety: thread-compatible.
#pragma once

#include <cmath>
#include <cstdint>

#include "common/base/hash.h"

namespace prism::sim {

class Random {
 public:
  explicit Random(uint64_t seed) : state_(SplitMix64(seed + kStep)) {}

  uint64_t Next() { return SplitMix64(state_ += kStep); }
  // 0 .. bound - 1; the bias of bound / 2^64 does not matter here. REQUIRES: bound > 0
  int64_t Below(int64_t bound) { return static_cast<int64_t>(Next() % static_cast<uint64_t>(bound)); }
  // Both ends included. REQUIRES: low <= high
  int64_t Between(int64_t low, int64_t high) { return low + Below(high - low + 1); }
  // [0, 1)
  double Uniform() { return static_cast<double>(Next() >> 11) * 0x1p-53; }
  bool Chance(double probability) { return Uniform() < probability; }
  // Exponentially distributed, rounded down. REQUIRES: mean >= 0
  int64_t Exponential(double mean) { return static_cast<int64_t>(-mean * std::log1p(-Uniform())); }

 private:
  static constexpr uint64_t kStep = 0x9E3779B97F4A7C15u;
  uint64_t state_;
};

}  // namespace prism::sim
