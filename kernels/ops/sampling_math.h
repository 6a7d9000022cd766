// The arithmetic of sampling, the same bits on every machine and device (numerics.md 9, 10): what a
// sampler on the host and one on a GPU share.
//
// Thread safety: free functions.
#pragma once

#include <bit>
#include <cstdint>

#include "common/base/philox.h"
#include "common/tensor/portable_math.h"
#include "common/tensor/sum_order.h"

namespace prism {

// Below it the greatest logit wins.
inline constexpr double kGreedyBelowTemperature = 1e-5;

// A log-sum-exp's sum over one VocabularyRange() deals its terms to this many running sums, in turn;
// each ascends, then neighbours are added pairwise: 1, 2, 4, ... apart.
inline constexpr int kLogSumExpLanes = 256;

// The greatest probability weighs 2^44; 2^18 ids and more still sum within 64 bits.
inline constexpr double kMassOfGreatest = 0x1p44;

// -log(-log(u)) is below it for every u that UniformDraw() gives.
inline constexpr double kGumbelMax = 37.5;

// maximum + log(sum) stands for log(sum(exp)) of some logits; of none the sum is 0.
struct LogSumExpPart {
  double maximum;
  double sum;
};

constexpr LogSumExpPart MergeLogSumExp(const LogSumExpPart& a, const LogSumExpPart& b) {
  if (b.sum == 0) return a;
  if (a.sum == 0) return b;
  const double maximum = a.maximum < b.maximum ? b.maximum : a.maximum;
  return {maximum, a.sum * PortableExp(a.maximum - maximum) + b.sum * PortableExp(b.maximum - maximum)};
}

// The term of one logit in the sum of its range.
constexpr double LogSumExpTerm(float logit, float maximum) {
  return PortableExp(static_cast<double>(logit) - static_cast<double>(maximum));
}

// log of p / the greatest p at this temperature.
constexpr double RelativeLogit(float logit, float maximum, double temperature) {
  return (static_cast<double>(logit) - static_cast<double>(maximum)) / temperature;
}

// The probability's share in fixed point: sums of it have no order.
constexpr uint64_t MassOf(double relative) {
  return static_cast<uint64_t>(PortableExp(relative) * kMassOfGreatest);
}

// The mass that top_p asks for, of what `total` is left.
constexpr uint64_t MassWanted(double top_p, uint64_t total) {
  const double wanted = top_p * static_cast<double>(total);
  const auto floor = static_cast<uint64_t>(wanted);
  return static_cast<double>(floor) < wanted ? floor + 1 : floor;
}

// At least -log(-log(u)), without a logarithm: -log(u) >= 1 - u >= 2^e, e the exponent of 1 - u.
constexpr double GumbelBound(double u) {
  constexpr double kLn2Above = 0x1.62e43p-1;
  const auto exponent = static_cast<int64_t>(std::bit_cast<uint64_t>(1 - u) >> 52) - 1023;
  return static_cast<double>(-exponent) * kLn2Above;
}

// l / T + Gumbel: the largest wins. REQUIRES: temperature >= kGreedyBelowTemperature
constexpr double GumbelScore(float logit, double temperature, const DrawKey& key) {
  return static_cast<double>(logit) / temperature - PortableLog(-PortableLog(UniformDraw(key)));
}

}  // namespace prism
