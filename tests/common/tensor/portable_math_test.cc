#include "common/tensor/portable_math.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <random>

namespace prism {
namespace {

// The distance to the C library's long double, in units in the last place of a double.
double UlpsOff(double value, long double exact) {
  const double near = static_cast<double>(exact);
  const double unit =
      std::nextafter(std::abs(near), std::numeric_limits<double>::infinity()) - std::abs(near);
  return static_cast<double>(std::abs(static_cast<long double>(value) - exact) / unit);
}

TEST(PortableMathTest, ExpIsWithinTwoUnitsInTheLastPlace) {
  std::mt19937_64 random(1);
  std::uniform_real_distribution<double> uniform(-1, 1);
  double worst = 0;
  for (int i = 0; i < 200000; ++i) {
    for (const double scale : {0.3, 3.0, 40.0, 700.0}) {
      const double x = scale * uniform(random);
      worst = std::max(worst, UlpsOff(PortableExp(x), std::exp(static_cast<long double>(x))));
    }
  }
  EXPECT_LT(worst, 2);
  EXPECT_EQ(PortableExp(0), 1);
  EXPECT_EQ(PortableExp(-0.0), 1);
  EXPECT_GT(PortableExp(-708), 0);
  EXPECT_EQ(PortableExp(-709), 0);
  EXPECT_EQ(PortableExp(-std::numeric_limits<double>::infinity()), 0);
}

TEST(PortableMathTest, LogIsWithinTwoUnitsInTheLastPlace) {
  std::mt19937_64 random(2);
  std::uniform_real_distribution<double> uniform(0, 1);
  double worst = 0;
  for (int i = 0; i < 200000; ++i) {
    for (const double scale : {0x1p-53, 0.01, 1.0, 2.0, 1e5}) {
      const double x = scale * (uniform(random) + 0x1p-54);
      worst = std::max(worst, UlpsOff(PortableLog(x), std::log(static_cast<long double>(x))));
    }
    // Close to 1, where the result is small.
    const double x = 1 - 0x1p-30 * uniform(random);
    if (x != 1) worst = std::max(worst, UlpsOff(PortableLog(x), std::log(static_cast<long double>(x))));
  }
  EXPECT_LT(worst, 2);
  EXPECT_EQ(PortableLog(1), 0);
}

// Computed by the compiler, which rounds exactly, and at run time.
constexpr double kCompiledExp = PortableExp(-1.25);
constexpr double kCompiledLog = PortableLog(0.0625 + 0x1p-40);

TEST(PortableMathTest, RunTimeAndCompileTimeAgreeToTheBit) {
  volatile double x = -1.25, y = 0.0625 + 0x1p-40;
  EXPECT_EQ(PortableExp(x), kCompiledExp);
  EXPECT_EQ(PortableLog(y), kCompiledLog);
}

}  // namespace
}  // namespace prism
