#include "common/text/grammar/number_rules.h"

#include <algorithm>
#include <cstdlib>
#include <numeric>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "common/base/status.h"

namespace prism {
namespace {

Decimal PowerOfTen(int exponent) { return {.negative = false, .digits = "1", .exponent = exponent}; }

std::string KeyOf(const std::optional<NumberBound>& bound) {
  return bound.has_value() ? absl::StrCat(bound->value.Text(), bound->exclusive ? "!" : "") : "-";
}

uint8_t DigitByte(int digit) { return static_cast<uint8_t>('0' + digit); }

}  // namespace

bool NumberSet::Contains(const Decimal& value) const {
  if (!fractions && !value.integer()) return false;
  if (minimum.has_value()) {
    const int order = Compare(value, minimum->value);
    if (order < 0 || (order == 0 && minimum->exclusive)) return false;
  }
  if (maximum.has_value()) {
    const int order = Compare(value, maximum->value);
    if (order > 0 || (order == 0 && maximum->exclusive)) return false;
  }
  return !multiple_of.has_value() || IsMultiple(value, *multiple_of);
}

// Writes the digits of magnitudes low .. high. A place in them is
//   the digits still to come before the point (at least `least`, at most `most`), or those that have come
//   behind it, whether all digits so far are low's (`at_low`) or high's (`at_high`), and the rest of the
//   whole number so far by the unit.
class NumberRules::DigitWriter {
 public:
  DigitWriter(NumberRules* rules, const Magnitudes& magnitudes, bool fractions)
      : rules_(*rules),
        builder_(rules->builder_),
        fractions_max_(fractions ? kFractionDigitsMax : 0),
        low_open_(magnitudes.low_open),
        high_open_(magnitudes.high_open),
        low_(magnitudes.low.integer_digits()),
        low_fraction_(magnitudes.low.fraction_digits()) {
    const Decimal high = magnitudes.high.value_or(PowerOfTen(kIntegerDigitsMax));
    if (!magnitudes.high.has_value() || Compare(high, PowerOfTen(kIntegerDigitsMax)) >= 0) {
      high_ = std::string(kIntegerDigitsMax, '9');
      no_high_ = true;
    } else {
      high_ = high.integer_digits();
      high_fraction_ = high.fraction_digits();
    }
  }

  // Only multiples of unit * 10^-fractions.
  void SetUnit(int32_t unit, int32_t fractions) {
    unit_ = unit;
    fractions_max_ = std::min(fractions_max_, fractions);
  }

  void Write(Node from) {
    if (low_.size() > high_.size()) return;
    const auto low_size = static_cast<int32_t>(low_.size());
    const auto high_size = static_cast<int32_t>(high_.size());
    const bool from_zero = low_ == "0" && low_fraction_.empty() && !low_open_;
    AddFirstDigit(from, {.most = low_size,
                         .least = low_size,
                         .at_low = !from_zero,
                         .at_high = !no_high_ && low_size == high_size});
    if (low_size == high_size) return;
    const int32_t free_size = no_high_ ? high_size : high_size - 1;
    if (free_size > low_size) AddFirstDigit(from, {.most = free_size, .least = low_size + 1});
    if (!no_high_) AddFirstDigit(from, {.most = high_size, .least = high_size, .at_high = true});
  }

 private:
  struct Place {
    bool behind_point = false;
    int32_t most = 0;   // digits to come; behind the point: digits that came
    int32_t least = 0;  // 0 behind the point
    bool at_low = false, at_high = false;
    int32_t rest = 0;
    auto operator<=>(const Place&) const = default;
  };

  void AddFirstDigit(Node from, const Place& place) {
    // A zero in front is the only digit.
    AddDigits(from, place, place.most == 1 ? 0 : 1);
    while (!left_.empty() && builder_.status().ok()) {
      const Place next = left_.back();
      left_.pop_back();
      Fill(nodes_.at(next), next);
    }
  }

  void Fill(Node node, const Place& place) {
    if (place.behind_point) {
      if (place.most >= 1 && MayEndBehindPoint(place)) builder_.Skip(node, builder_.end());
      if (place.most < fractions_max_) AddDigits(node, place, 0);
      return;
    }
    if (place.most > 0) AddDigits(node, place, 0);
    if (place.least > 0) return;
    if (MayEndBeforePoint(place)) builder_.Skip(node, builder_.end());
    if (fractions_max_ == 0) return;
    const Place behind = {
        .behind_point = true, .at_low = place.at_low, .at_high = place.at_high, .rest = place.rest};
    builder_.Bytes(node, '.', '.', NodeOf(behind));
  }

  bool MayEndBeforePoint(const Place& place) const {
    if (place.at_low && (low_open_ || !low_fraction_.empty())) return false;
    if (place.at_high && high_open_ && high_fraction_.empty()) return false;
    return IsMultiple(place.rest, 0);
  }
  bool MayEndBehindPoint(const Place& place) const {
    const auto came = static_cast<size_t>(place.most);
    if (place.at_low && (low_open_ || came < low_fraction_.size())) return false;
    if (place.at_high && high_open_ && came >= high_fraction_.size()) return false;
    return IsMultiple(place.rest, place.most);
  }
  // `rest` of a number with `fractions` digits behind the point.
  bool IsMultiple(int32_t rest, int32_t fractions) const {
    if (unit_ == 0) return true;
    for (; fractions < fractions_max_; ++fractions) rest = rest * 10 % unit_;
    return rest == 0;
  }

  // Digits from `digit_min` on that stay within the bounds.
  void AddDigits(Node from, const Place& place, int digit_min) {
    const int low = place.at_low ? DigitOf(low_, low_fraction_, place) : 0;
    const int high = place.at_high ? DigitOf(high_, high_fraction_, place) : 9;
    for (int digit = std::max(low, digit_min); digit <= high; ++digit) {
      Place next = place;
      next.at_low = place.at_low && digit == low;
      next.at_high = place.at_high && digit == high;
      if (place.behind_point) {
        ++next.most;
      } else {
        --next.most;
        next.least = std::max(place.least - 1, 0);
      }
      if (unit_ > 0) next.rest = (place.rest * 10 + digit) % unit_;
      builder_.Bytes(from, DigitByte(digit), DigitByte(digit), NodeOf(next));
    }
  }
  static int DigitOf(const std::string& whole, const std::string& fraction, const Place& place) {
    const auto place_most = static_cast<size_t>(place.most);
    if (!place.behind_point) return whole[whole.size() - place_most] - '0';
    return place_most < fraction.size() ? fraction[place_most] - '0' : 0;
  }

  Node NodeOf(const Place& place) {
    if (place.behind_point && !place.at_low && !place.at_high && unit_ == 0) {
      return FreeFraction(place.most);
    }
    const auto [found, added] = nodes_.try_emplace(place, 0);
    if (added) {
      found->second = builder_.Add();
      left_.push_back(place);
    }
    return found->second;
  }
  // Any digits behind the point, after `came` of them; shared by all numbers.
  Node FreeFraction(int32_t came) {
    std::map<int32_t, Node>& nodes = rules_.free_fractions_;
    if (nodes.empty()) {
      for (int32_t i = 0; i <= kFractionDigitsMax; ++i) nodes[i] = builder_.Add();
      for (int32_t i = 0; i <= kFractionDigitsMax; ++i) {
        if (i > 0) builder_.Return(nodes[i]);
        if (i < kFractionDigitsMax) builder_.Bytes(nodes[i], '0', '9', nodes[i + 1]);
      }
    }
    return nodes.at(came);
  }

  NumberRules& rules_;
  GrammarBuilder& builder_;
  int32_t fractions_max_;
  bool low_open_, high_open_;
  const std::string low_, low_fraction_;
  std::string high_, high_fraction_;
  bool no_high_ = false;  // but for the number of digits
  int32_t unit_ = 0;
  std::map<Place, Node> nodes_;
  std::vector<Place> left_;
};

absl::Status NumberRules::AddPlain(Node from, const Magnitudes& magnitudes, const NumberSet& set) {
  DigitWriter writer(this, magnitudes, set.fractions);
  if (set.multiple_of.has_value()) {
    const Decimal& unit = *set.multiple_of;
    // unit = whole * 10^-fractions
    const int32_t fractions = std::max(-unit.exponent, 0);
    const std::string whole = unit.digits + std::string(static_cast<size_t>(std::max(unit.exponent, 0)), '0');
    if (whole.size() > 4 || std::stoi(whole) > kMultipleMax || fractions > kFractionDigitsMax) {
      return absl::InvalidArgumentError(absl::StrCat("multipleOf: ", unit.Text(), " has the digits of ",
                                                     whole, ", at most ", kMultipleMax, " are supported"));
    }
    // A whole number is a multiple of step / 10^fractions if it is one of step / gcd(step, 10^fractions).
    int32_t step = std::stoi(whole);
    for (int32_t i = 0; !set.fractions && i < fractions; ++i) step /= std::gcd(step, 10);
    writer.SetUnit(step, fractions);
  }
  writer.Write(from);
  return builder_.status();
}

absl::StatusOr<NumberRules::Node> NumberRules::Exponent(int low, int high) {
  const auto bound = [](int value) -> NumberBound {
    if (value == 0) return {};
    Decimal decimal = {.negative = value < 0, .digits = absl::StrCat(std::abs(value)), .exponent = 0};
    while (decimal.digits.back() == '0') {
      decimal.digits.pop_back();
      ++decimal.exponent;
    }
    return {.value = std::move(decimal)};
  };
  const std::string key = absl::StrCat("e", low, " ", high);
  if (const auto found = made_.find(key); found != made_.end()) return found->second;
  const Node start = builder_.Add();
  const auto add = [&](int from, int to) -> absl::Status {
    PRISM_ASSIGN_OR_RETURN(
        const Node rule,
        Number({.fractions = false, .minimum = bound(from), .maximum = bound(to), .multiple_of = {}}));
    builder_.Skip(start, rule);
    if (from >= 0) builder_.Bytes(start, '+', '+', rule);
    return absl::OkStatus();
  };
  if (low < 0) PRISM_RETURN_IF_ERROR(add(low, std::min(high, -1)));
  if (high >= 0) PRISM_RETURN_IF_ERROR(add(std::max(low, 0), high));
  made_[key] = start;
  return start;
}

absl::Status NumberRules::AddWithExponent(Node from, const Magnitudes& magnitudes) {
  // m * 10^e, 1 <= m < 10, is at least low = a * 10^i if e > i, or e == i and m >= a; likewise high. So
  // the m are parted at both a's, and each part has its exponents.
  const Decimal one = PowerOfTen(0);
  const auto mantissa = [](const Decimal& value) {
    Decimal m = value;
    m.exponent = 1 - static_cast<int>(m.digits.size());
    return m;
  };
  struct Part {
    Magnitudes mantissas;
    int low, high;  // exponents
  };
  std::vector<Part> parts = {
      {{.low = one, .high = PowerOfTen(1), .high_open = true}, -kExponentMax, kExponentMax}};
  const auto split = [&parts](const Decimal& at, bool at_goes_down, const auto& set_exponents) {
    std::vector<Part> finer;
    for (const Part& part : parts) {
      Part below = part, above = part;
      const int to_high = Compare(at, *part.mantissas.high);
      if (to_high <= 0) {
        below.mantissas.high = at;
        below.mantissas.high_open = !at_goes_down || (to_high == 0 && part.mantissas.high_open);
      }
      const int to_low = Compare(at, part.mantissas.low);
      if (to_low >= 0) {
        above.mantissas.low = at;
        above.mantissas.low_open = at_goes_down || (to_low == 0 && part.mantissas.low_open);
      }
      // What is empty leads nowhere.
      set_exponents(below, false);
      set_exponents(above, true);
      if (to_low >= 0) finer.push_back(std::move(below));
      if (to_high <= 0) finer.push_back(std::move(above));
    }
    parts = std::move(finer);
  };
  if (!magnitudes.low.zero()) {
    const int exponent = magnitudes.low.leading_exponent();
    split(mantissa(magnitudes.low), magnitudes.low_open,
          [&](Part& part, bool above) { part.low = std::max(part.low, above ? exponent : exponent + 1); });
  }
  if (magnitudes.high.has_value()) {
    if (magnitudes.high->zero()) return absl::OkStatus();
    const int exponent = magnitudes.high->leading_exponent();
    split(mantissa(*magnitudes.high), !magnitudes.high_open,
          [&](Part& part, bool above) { part.high = std::min(part.high, above ? exponent - 1 : exponent); });
  }
  for (const Part& part : parts) {
    if (part.low > part.high) continue;
    PRISM_ASSIGN_OR_RETURN(const Node exponent, Exponent(part.low, part.high));
    const Node rule = builder_.Add();
    PRISM_RETURN_IF_ERROR(AddPlain(rule, part.mantissas, NumberSet()));
    const Node behind = builder_.Add();
    builder_.Call(from, rule, behind);
    builder_.Bytes(behind, 'e', 'e', exponent);
    builder_.Bytes(behind, 'E', 'E', exponent);
  }
  return builder_.status();
}

absl::StatusOr<NumberRules::Node> NumberRules::Number(const NumberSet& set) {
  const std::string key = absl::StrCat(set.fractions ? "n" : "i", KeyOf(set.minimum), " ", KeyOf(set.maximum),
                                       " ", set.multiple_of.has_value() ? set.multiple_of->Text() : "-");
  if (const auto found = made_.find(key); found != made_.end()) return found->second;
  const Node start = builder_.Add();
  const auto& [fractions, minimum, maximum, multiple_of] = set;
  const auto add = [&](Node from, const Magnitudes& magnitudes) -> absl::Status {
    PRISM_RETURN_IF_ERROR(AddPlain(from, magnitudes, set));
    if (!fractions || multiple_of.has_value()) return absl::OkStatus();
    return AddWithExponent(from, magnitudes);
  };
  // x >= 0
  if (!maximum.has_value() || !maximum->value.negative) {
    Magnitudes magnitudes;
    if (minimum.has_value() && !minimum->value.negative) {
      magnitudes.low = minimum->value;
      magnitudes.low_open = minimum->exclusive;
    }
    if (maximum.has_value()) {
      magnitudes.high = maximum->value;
      magnitudes.high_open = maximum->exclusive;
    }
    PRISM_RETURN_IF_ERROR(add(start, magnitudes));
  }
  // x < 0
  if (!minimum.has_value() || minimum->value.negative) {
    Magnitudes magnitudes = {.low = {}, .low_open = true, .high = {}};
    if (maximum.has_value() && maximum->value.negative) {
      magnitudes.low = maximum->value.Negated();
      magnitudes.low_open = maximum->exclusive;
    }
    if (minimum.has_value()) {
      magnitudes.high = minimum->value.Negated();
      magnitudes.high_open = minimum->exclusive;
    }
    const Node negative = builder_.Add();
    builder_.Bytes(start, '-', '-', negative);
    PRISM_RETURN_IF_ERROR(add(negative, magnitudes));
  }
  made_[key] = start;
  return start;
}

}  // namespace prism
