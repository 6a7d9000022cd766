// Host types of the narrow floats: storage with exact conversion, no arithmetic.
//
// To float is exact for every finite value. From float rounds to nearest, ties to even.
#pragma once

#include <bit>
#include <cmath>
#include <cstdint>

namespace prism {

// bfloat16: the upper half of a float32. A NaN stays a NaN (quiet).
struct BFloat16 {
  uint16_t bits = 0;
  BFloat16() = default;
  explicit BFloat16(float value) {
    const uint32_t u = std::bit_cast<uint32_t>(value);
    if ((u & 0x7FFFFFFFu) > 0x7F800000u) {
      bits = static_cast<uint16_t>((u >> 16) | 0x0040u);
    } else {
      bits = static_cast<uint16_t>((u + 0x7FFFu + ((u >> 16) & 1u)) >> 16);
    }
  }
  explicit operator float() const { return std::bit_cast<float>(static_cast<uint32_t>(bits) << 16); }
};

// IEEE 754 binary16. Too large a value becomes infinity.
struct Float16 {
  uint16_t bits = 0;
  Float16() = default;
  explicit Float16(float value);
  explicit operator float() const;
};

// FP8 E4M3 "fn" (OCP 8-bit floating point, 2023): bias 7, largest 448, no infinity, 0x7F and 0xFF
// are NaN. Too large a value saturates to 448 with its sign; NaN stays NaN.
struct Float8E4M3 {
  uint8_t bits = 0;
  Float8E4M3() = default;
  explicit Float8E4M3(float value);
  explicit operator float() const;
};

}  // namespace prism
