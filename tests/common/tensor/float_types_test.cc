#include "common/tensor/float_types.h"

#include <gtest/gtest.h>

#include <bit>
#include <cmath>
#include <cstdint>
#include <limits>
#include <utility>
#include <vector>

namespace prism {
namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();
const float kNan = std::numeric_limits<float>::quiet_NaN();

// A binary format by its definition: a sign, `exponent_bits` with a bias, `mantissa_bits`.
struct Format {
  int exponent_bits, mantissa_bits, bias;
  bool has_infinity;  // if not, only the pattern of all ones is special (NaN)

  int magnitudes() const { return 1 << (exponent_bits + mantissa_bits); }
  int exponent(int magnitude) const { return magnitude >> mantissa_bits; }
  int mantissa(int magnitude) const { return magnitude & ((1 << mantissa_bits) - 1); }
  bool all_ones(int magnitude) const { return exponent(magnitude) == (1 << exponent_bits) - 1; }
  bool is_nan(int magnitude) const {
    return has_infinity ? all_ones(magnitude) && mantissa(magnitude) != 0 : magnitude == magnitudes() - 1;
  }
  bool is_infinity(int magnitude) const {
    return has_infinity && all_ones(magnitude) && mantissa(magnitude) == 0;
  }
  // The sum of the powers of two that the bits stand for.
  double value(int magnitude) const {
    const int e = exponent(magnitude);
    double sum = e == 0 ? 0.0 : std::pow(2.0, e - bias);
    for (int bit = 0; bit < mantissa_bits; ++bit) {
      if ((magnitude >> bit) & 1) sum += std::pow(2.0, (e == 0 ? 1 : e) - bias - mantissa_bits + bit);
    }
    return sum;
  }
  int largest_finite() const {
    int magnitude = magnitudes() - 1;
    while (is_nan(magnitude) || is_infinity(magnitude)) --magnitude;
    return magnitude;
  }
};

template <typename T>
struct FormatOf;
template <>
struct FormatOf<BFloat16> {
  static constexpr Format value = {8, 7, 127, true};
};
template <>
struct FormatOf<Float16> {
  static constexpr Format value = {5, 10, 15, true};
};
template <>
struct FormatOf<Float8E4M3> {
  static constexpr Format value = {4, 3, 7, false};
};

template <typename T>
class FloatTypeTest : public testing::Test {
 protected:
  using Bits = decltype(T::bits);
  static constexpr Format kFormat = FormatOf<T>::value;
  static int SignBit() { return kFormat.magnitudes(); }
  static float ToFloat(int bits) {
    T value;
    value.bits = static_cast<Bits>(bits);
    return static_cast<float>(value);
  }
  static int FromFloat(float value) { return T(value).bits; }
};

using FloatTypes = testing::Types<BFloat16, Float16, Float8E4M3>;
TYPED_TEST_SUITE(FloatTypeTest, FloatTypes);

TYPED_TEST(FloatTypeTest, EveryPatternHasTheValueOfItsDefinition) {
  for (int magnitude = 0; magnitude < this->kFormat.magnitudes(); ++magnitude) {
    for (const int sign : {0, this->SignBit()}) {
      const float value = this->ToFloat(sign | magnitude);
      if (this->kFormat.is_nan(magnitude)) {
        ASSERT_TRUE(std::isnan(value)) << magnitude;
        continue;
      }
      const double want = this->kFormat.is_infinity(magnitude) ? kInfinity : this->kFormat.value(magnitude);
      ASSERT_EQ(std::fabs(value), want) << magnitude;
      ASSERT_EQ(std::signbit(value), sign != 0) << magnitude;
    }
  }
}

TYPED_TEST(FloatTypeTest, EveryPatternComesBackFromItsFloat) {
  for (int bits = 0; bits < 2 * this->kFormat.magnitudes(); ++bits) {
    const float value = this->ToFloat(bits);
    if (std::isnan(value)) {
      ASSERT_TRUE(std::isnan(this->ToFloat(this->FromFloat(value)))) << bits;
    } else {
      ASSERT_EQ(this->FromFloat(value), bits);
    }
  }
}

// Between two neighbours all floats below the middle go down and all above go up, so that the
// floats next to the two values and to the middle decide for every float there is.
TYPED_TEST(FloatTypeTest, EveryFloatGoesToTheNearestValueAndTiesToTheEvenOne) {
  for (int low = 0; low < this->kFormat.largest_finite(); ++low) {
    const double a = this->kFormat.value(low), b = this->kFormat.value(low + 1);
    const float middle = static_cast<float>((a + b) / 2);
    ASSERT_EQ(middle, (a + b) / 2) << "the middle is a float";
    const float low_value = static_cast<float>(a), high_value = static_cast<float>(b);
    const int even = low % 2 == 0 ? low : low + 1;
    for (const auto& [value, want] :
         {std::pair{low_value, low}, std::pair{std::nextafter(low_value, kInfinity), low},
          std::pair{std::nextafter(middle, 0.0f), low}, std::pair{middle, even},
          std::pair{std::nextafter(middle, kInfinity), low + 1},
          std::pair{std::nextafter(high_value, 0.0f), low + 1}, std::pair{high_value, low + 1}}) {
      // Where the neighbours of bfloat16 are next to the middle itself, nextafter() may reach it.
      const bool at_middle = value == middle;
      ASSERT_EQ(this->FromFloat(value), at_middle ? even : want) << value;
      ASSERT_EQ(this->FromFloat(-value), (at_middle ? even : want) | this->SignBit()) << -value;
    }
  }
}

TYPED_TEST(FloatTypeTest, ALargerFloatNeverBecomesASmallerValue) {
  int last = 0;
  for (uint32_t bits = 0; bits <= 0x7F800000u; bits += 4093) {
    const int now = this->FromFloat(std::bit_cast<float>(bits));
    ASSERT_GE(now, last) << std::bit_cast<float>(bits);
    last = now;
  }
}

TYPED_TEST(FloatTypeTest, NanStaysNanAndZeroKeepsItsSign) {
  for (const uint32_t bits : {0x7FC00000u, 0xFFC00000u, 0x7F800001u, 0x7FFFFFFFu, 0xFF800001u}) {
    EXPECT_TRUE(std::isnan(this->ToFloat(this->FromFloat(std::bit_cast<float>(bits))))) << bits;
  }
  EXPECT_EQ(this->FromFloat(0.0f), 0);
  EXPECT_EQ(this->FromFloat(-0.0f), this->SignBit());
  EXPECT_EQ(this->FromFloat(kNan) & (this->kFormat.magnitudes() - 1), this->FromFloat(kNan));
}

TEST(BFloat16Test, AboveItsLargestValueComesInfinity) {
  const float largest = static_cast<float>(FormatOf<BFloat16>::value.value(0x7F7F));
  EXPECT_EQ(BFloat16(largest).bits, 0x7F7F);
  EXPECT_EQ(BFloat16(std::bit_cast<float>(0x7F7F7FFFu)).bits, 0x7F7F);
  EXPECT_EQ(BFloat16(std::bit_cast<float>(0x7F7F8000u)).bits, 0x7F80) << "the tie goes to the even pattern";
  EXPECT_EQ(BFloat16(std::numeric_limits<float>::max()).bits, 0x7F80);
  EXPECT_EQ(BFloat16(-kInfinity).bits, 0xFF80);
}

TEST(Float16Test, AboveItsLargestValueComesInfinity) {
  EXPECT_EQ(Float16(65504.0f).bits, 0x7BFF);
  EXPECT_EQ(Float16(std::nextafter(65520.0f, 0.0f)).bits, 0x7BFF);
  EXPECT_EQ(Float16(65520.0f).bits, 0x7C00);
  EXPECT_EQ(Float16(1e30f).bits, 0x7C00);
  EXPECT_EQ(Float16(-kInfinity).bits, 0xFC00);
  EXPECT_EQ(Float16(std::ldexp(1.0f, -25)).bits, 0) << "half of the smallest: the tie goes to zero";
  EXPECT_EQ(Float16(std::nextafter(std::ldexp(1.0f, -25), 1.0f)).bits, 1);
}

TEST(Float8E4M3Test, AboveItsLargestValueItSaturates) {
  EXPECT_EQ(Float8E4M3(448.0f).bits, 0x7E);
  for (const float value : {449.0f, 464.0f, 480.0f, 1e30f, kInfinity}) {
    EXPECT_EQ(Float8E4M3(value).bits, 0x7E) << value;
    EXPECT_EQ(Float8E4M3(-value).bits, 0xFE) << value;
  }
}

}  // namespace
}  // namespace prism
