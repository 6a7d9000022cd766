// exp and log in float64 that give the same bits wherever they run: additions, multiplications and
// divisions alone, each rounded on its own. A C library's and a GPU's differ in their last bits, and
// a token drawn on one must be the token drawn on the other.
//
// Both are within 2 units in the last place. Compile with contraction off (-ffp-contract=off,
// -fmad=false), as everything of ours is.
//
// Thread safety: free functions.
#pragma once

#include <bit>
#include <cstdint>

namespace prism {

namespace portable_math_internal {
// log 2 in two parts; the first has 32 bits, so that its products with exponents are exact.
inline constexpr double kLn2High = 0x1.62e42feep-1;
inline constexpr double kLn2Low = 0x1.a39ef35793c76p-33;
inline constexpr double kLog2E = 0x1.71547652b82fep0;
}  // namespace portable_math_internal

// e^x; 0 below -708, where the result would be subnormal. REQUIRES: x <= 709, not NaN
constexpr double PortableExp(double x) {
  using namespace portable_math_internal;
  if (x < -708) return 0;
  // x = k log 2 + r with |r| <= log(2) / 2
  const double scaled = x * kLog2E;
  const auto k = static_cast<int64_t>(scaled + (scaled < 0 ? -0.5 : 0.5));
  const auto kd = static_cast<double>(k);
  const double r = (x - kd * kLn2High) - kd * kLn2Low;
  // The series of e^r to r^13 / 13!; the next term is below 2^-57.
  double p = 1.0 / 6227020800.0;
  p = p * r + 1.0 / 479001600.0;
  p = p * r + 1.0 / 39916800.0;
  p = p * r + 1.0 / 3628800.0;
  p = p * r + 1.0 / 362880.0;
  p = p * r + 1.0 / 40320.0;
  p = p * r + 1.0 / 5040.0;
  p = p * r + 1.0 / 720.0;
  p = p * r + 1.0 / 120.0;
  p = p * r + 1.0 / 24.0;
  p = p * r + 1.0 / 6.0;
  p = p * r + 0.5;
  const double e = 1.0 + (r + (r * r) * p);
  return e * std::bit_cast<double>(static_cast<uint64_t>(k + 1023) << 52);
}

// The natural logarithm. REQUIRES: x is positive, finite and not subnormal
constexpr double PortableLog(double x) {
  using namespace portable_math_internal;
  // x = m 2^e with m in [sqrt(1/2), sqrt(2)), about
  const auto bits = std::bit_cast<uint64_t>(x);
  constexpr uint64_t kAboutRootHalf = 0x3FE6A09E00000000u;
  const uint64_t shifted = bits - kAboutRootHalf;
  const auto e = static_cast<double>(static_cast<int64_t>(shifted) >> 52);
  const double m = std::bit_cast<double>((shifted & 0x000FFFFFFFFFFFFFu) + kAboutRootHalf);
  // log m = 2 atanh(s), s = (m - 1) / (m + 1): the series to s^23 / 23; the next term is below 2^-61.
  const double f = m - 1.0;
  const double s = f / (2.0 + f);
  const double q = s * s;
  double p = 1.0 / 23.0;
  p = p * q + 1.0 / 21.0;
  p = p * q + 1.0 / 19.0;
  p = p * q + 1.0 / 17.0;
  p = p * q + 1.0 / 15.0;
  p = p * q + 1.0 / 13.0;
  p = p * q + 1.0 / 11.0;
  p = p * q + 1.0 / 9.0;
  p = p * q + 1.0 / 7.0;
  p = p * q + 1.0 / 5.0;
  p = p * q + 1.0 / 3.0;
  const double tail = (2.0 * s) * (q * p);
  return e * kLn2High + (2.0 * s + (tail + e * kLn2Low));
}

}  // namespace prism
