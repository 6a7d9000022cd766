#include "common/text/grammar/decimal.h"

#include <algorithm>
#include <cstdlib>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"

namespace prism {
namespace {

// ECMAScript's bounds of numbers written without an exponent.
constexpr int kPlainExponentMin = -6;
constexpr int kPlainExponentMax = 20;

int CompareMagnitudes(const Decimal& a, const Decimal& b) {
  if (a.zero() || b.zero()) return static_cast<int>(b.zero()) - static_cast<int>(a.zero());
  if (a.leading_exponent() != b.leading_exponent()) return a.leading_exponent() - b.leading_exponent();
  return a.digits.compare(b.digits);
}

// Takes `unit` from `digits` as often as it goes; both without zeros in front.
void Reduce(std::string* digits, const std::string& unit) {
  while (digits->size() > unit.size() || (digits->size() == unit.size() && *digits >= unit)) {
    int borrow = 0;
    for (size_t i = 0; i < digits->size(); ++i) {
      char& digit = (*digits)[digits->size() - 1 - i];
      const int taken = (i < unit.size() ? unit[unit.size() - 1 - i] - '0' : 0) + borrow;
      const int left = digit - '0' - taken;
      borrow = left < 0 ? 1 : 0;
      digit = static_cast<char>('0' + left + 10 * borrow);
    }
    digits->erase(0, std::min(digits->find_first_not_of('0'), digits->size()));
  }
}

}  // namespace

absl::StatusOr<Decimal> Decimal::Parse(absl::string_view number) {
  Decimal decimal;
  int64_t exponent = 0;
  bool fraction = false;
  size_t i = 0;
  for (; i < number.size() && number[i] != 'e' && number[i] != 'E'; ++i) {
    if (number[i] == '-') {
      decimal.negative = true;
    } else if (number[i] == '.') {
      fraction = true;
    } else {
      decimal.digits.push_back(number[i]);
      if (fraction) --exponent;
    }
  }
  if (i < number.size()) {
    absl::string_view text = number.substr(i + 1);
    int64_t written = 0;
    if (text.size() > 8 || !absl::SimpleAtoi(text, &written)) written = kDecimalExponentMax + 1;
    exponent += written;
  }
  decimal.digits.erase(0, std::min(decimal.digits.find_first_not_of('0'), decimal.digits.size()));
  while (!decimal.digits.empty() && decimal.digits.back() == '0') {
    decimal.digits.pop_back();
    ++exponent;
  }
  if (decimal.digits.empty()) return Decimal();
  if (std::llabs(exponent) > kDecimalExponentMax ||
      decimal.digits.size() > static_cast<size_t>(kDecimalExponentMax)) {
    return absl::InvalidArgumentError(
        absl::StrCat("a number beyond 10^", kDecimalExponentMax, " or with as many digits"));
  }
  decimal.exponent = static_cast<int>(exponent);
  return decimal;
}

std::string Decimal::integer_digits() const {
  const int count = static_cast<int>(digits.size()) + exponent;
  if (zero() || count <= 0) return "0";
  std::string text = digits.substr(0, static_cast<size_t>(count));
  text.resize(static_cast<size_t>(count), '0');
  return text;
}

std::string Decimal::fraction_digits() const {
  if (exponent >= 0) return "";
  const int count = static_cast<int>(digits.size()) + exponent;
  if (count >= 0) return digits.substr(static_cast<size_t>(count));
  return std::string(static_cast<size_t>(-count), '0') + digits;
}

Decimal Decimal::Negated() const {
  Decimal negated = *this;
  negated.negative = !zero() && !negative;
  return negated;
}

std::string Decimal::Text() const {
  if (zero()) return "0";
  const std::string sign = negative ? "-" : "";
  const int leading = leading_exponent();
  if (leading >= kPlainExponentMin && leading <= kPlainExponentMax) {
    const std::string fraction = fraction_digits();
    return absl::StrCat(sign, integer_digits(), fraction.empty() ? "" : ".", fraction);
  }
  return absl::StrCat(sign, digits.substr(0, 1), digits.size() > 1 ? "." : "", digits.substr(1), "e",
                      leading > 0 ? "+" : "", leading);
}

int Compare(const Decimal& a, const Decimal& b) {
  if (a.negative != b.negative) return a.negative ? -1 : 1;
  return a.negative ? CompareMagnitudes(b, a) : CompareMagnitudes(a, b);
}

bool IsMultiple(const Decimal& value, const Decimal& unit) {
  // Both as whole numbers of the smaller unit of the two.
  const int exponent = std::min(value.exponent, unit.exponent);
  const std::string whole = value.digits + std::string(static_cast<size_t>(value.exponent - exponent), '0');
  const std::string step = unit.digits + std::string(static_cast<size_t>(unit.exponent - exponent), '0');
  std::string rest;
  for (const char digit : whole) {
    if (!rest.empty() || digit != '0') rest.push_back(digit);
    Reduce(&rest, step);
  }
  return rest.empty();
}

}  // namespace prism
