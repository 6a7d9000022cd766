// Decimal: an exact decimal number, as JSON writes them: bounds and constants of a schema are compared
// without rounding.
//
// Thread safety: plain values.
#pragma once

#include <cstdint>
#include <string>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace prism {

// Larger exponents are refused: no double has them.
inline constexpr int kDecimalExponentMax = 400;

struct Decimal {
  // value = (negative ? -1 : 1) * digits * 10^exponent
  bool negative = false;  // never of zero
  std::string digits;     // no zero in front or behind; empty: zero
  int exponent = 0;       // 0 of zero

  // `number` as JSON writes it. InvalidArgument: an exponent beyond kDecimalExponentMax.
  static absl::StatusOr<Decimal> Parse(absl::string_view number);

  bool zero() const { return digits.empty(); }
  bool integer() const { return exponent >= 0; }
  // Of the first digit: 1234 = 1.234 * 10^3. REQUIRES: not zero
  int leading_exponent() const { return static_cast<int>(digits.size()) + exponent - 1; }
  // Digits before the point ("0" if there are none) and behind it, of the magnitude.
  // REQUIRES: |exponent| <= kDecimalExponentMax
  std::string integer_digits() const;
  std::string fraction_digits() const;

  Decimal Negated() const;
  // The shortest text: as ECMAScript writes numbers (RFC 8785, section 3.2.2.3), but with all digits.
  std::string Text() const;

  friend bool operator==(const Decimal&, const Decimal&) = default;
};

// Negative, 0 or positive as a is less than, equal to or greater than b.
int Compare(const Decimal& a, const Decimal& b);

// Is `value` a whole multiple of `unit`? REQUIRES: unit > 0
bool IsMultiple(const Decimal& value, const Decimal& unit);

}  // namespace prism
