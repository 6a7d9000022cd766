// Rules of JSON numbers within bounds.
//
// Numbers are written without needless signs or zeros in front; zeros behind a fraction are allowed
// ("19.90"), -0 is not. Without an exponent they have at most kIntegerDigitsMax digits before the point and
// kFractionDigitsMax behind it; with one, one digit before the point and an exponent of at most
// kExponentMax either way. So every double but those from 1e308 on has its shortest form among them.
//
// Thread safety: a NumberRules belongs to its builder's thread.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>

#include "absl/status/statusor.h"
#include "common/text/grammar/decimal.h"
#include "common/text/grammar/grammar.h"

namespace prism {

inline constexpr int32_t kIntegerDigitsMax = 21;
inline constexpr int32_t kFractionDigitsMax = 24;
inline constexpr int kExponentMax = 307;
// The digits of a `multipleOf` are taken as one whole number, at most so large.
inline constexpr int32_t kMultipleMax = 1000;

struct NumberBound {
  Decimal value;
  bool exclusive = false;
};

struct NumberSet {
  bool fractions = true;  // else whole numbers only
  std::optional<NumberBound> minimum, maximum;
  std::optional<Decimal> multiple_of;  // above 0

  bool Contains(const Decimal& value) const;
};

class NumberRules {
 public:
  using Node = GrammarBuilder::Node;

  explicit NumberRules(GrammarBuilder* builder) : builder_(*builder) {}

  // InvalidArgument "multipleOf: ..." where the unit is too large; ResourceExhausted as the builder.
  absl::StatusOr<Node> Number(const NumberSet& set);

 private:
  // Magnitudes from `low` on up to `high`.
  struct Magnitudes {
    Decimal low;
    bool low_open = false;
    std::optional<Decimal> high;  // none: no end
    bool high_open = false;
  };
  class DigitWriter;

  // Adds what reads such a magnitude, from `from` to a return.
  absl::Status AddPlain(Node from, const Magnitudes& magnitudes, const NumberSet& set);
  absl::Status AddWithExponent(Node from, const Magnitudes& magnitudes);
  // A rule of whole numbers from `low` to `high`, for exponents.
  absl::StatusOr<Node> Exponent(int low, int high);

  GrammarBuilder& builder_;
  std::map<std::string, Node> made_;
  std::map<int32_t, Node> free_fractions_;  // by the digits that have come
};

}  // namespace prism
