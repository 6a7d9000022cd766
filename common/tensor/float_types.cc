#include "common/tensor/float_types.h"

#include <algorithm>

namespace prism {
namespace {

// Rounds |value| to a multiple of 2^(exponent of its binade - mantissa_bits), not below 2^min_step.
// nearbyint rounds ties to even, and scaling by powers of two is exact.
double RoundToStep(double magnitude, int mantissa_bits, int min_step) {
  int exponent = 0;
  std::frexp(magnitude, &exponent);  // magnitude = f * 2^exponent, f in [0.5, 1)
  const int step = std::max(exponent - 1 - mantissa_bits, min_step);
  return std::ldexp(std::nearbyint(std::ldexp(magnitude, -step)), step);
}

// Bits of a representable non-negative `magnitude`: exponent field over mantissa field.
uint32_t Pack(double magnitude, int mantissa_bits, int bias) {
  if (magnitude == 0) return 0;
  int exponent = 0;
  const double fraction = std::frexp(magnitude, &exponent);
  const int field = exponent - 1 + bias;
  if (field <= 0) {  // subnormal
    return static_cast<uint32_t>(std::ldexp(magnitude, bias - 1 + mantissa_bits));
  }
  const auto mantissa = static_cast<uint32_t>(std::ldexp(2 * fraction - 1, mantissa_bits));
  return (static_cast<uint32_t>(field) << mantissa_bits) | mantissa;
}

float Unpack(uint32_t bits, int mantissa_bits, int bias) {
  const uint32_t mantissa = bits & ((1u << mantissa_bits) - 1);
  const int field = static_cast<int>(bits >> mantissa_bits);
  if (field == 0) return std::ldexp(static_cast<float>(mantissa), 1 - bias - mantissa_bits);
  return std::ldexp(static_cast<float>((1u << mantissa_bits) | mantissa), field - bias - mantissa_bits);
}

}  // namespace

Float16::Float16(float value) {
  const uint16_t sign = std::signbit(value) ? 0x8000 : 0;
  if (std::isnan(value)) {
    bits = sign | 0x7E00;
    return;
  }
  const double magnitude = std::fabs(static_cast<double>(value));
  const double rounded = std::isinf(value) ? magnitude : RoundToStep(magnitude, 10, -24);
  bits = static_cast<uint16_t>(sign | (rounded > 65504.0 ? 0x7C00u : Pack(rounded, 10, 15)));
}

Float16::operator float() const {
  const float sign = (bits & 0x8000) ? -1.0f : 1.0f;
  const uint32_t magnitude = bits & 0x7FFFu;
  if (magnitude > 0x7C00u) return std::nanf("");
  if (magnitude == 0x7C00u) return sign * INFINITY;
  return sign * Unpack(magnitude, 10, 15);
}

Float8E4M3::Float8E4M3(float value) {
  const uint8_t sign = std::signbit(value) ? 0x80 : 0;
  if (std::isnan(value)) {
    bits = sign | 0x7F;
    return;
  }
  const double magnitude = std::fabs(static_cast<double>(value));
  const double rounded = std::isinf(value) ? 1e9 : RoundToStep(magnitude, 3, -9);
  bits = static_cast<uint8_t>(sign | (rounded > 448.0 ? 0x7Eu : Pack(rounded, 3, 7)));
}

Float8E4M3::operator float() const {
  const float sign = (bits & 0x80) ? -1.0f : 1.0f;
  const uint32_t magnitude = bits & 0x7Fu;
  if (magnitude == 0x7Fu) return std::nanf("");
  return sign * Unpack(magnitude, 3, 7);
}

}  // namespace prism
