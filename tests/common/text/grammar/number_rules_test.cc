#include "common/text/grammar/number_rules.h"

#include <gtest/gtest.h>

#include <memory>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "common/text/grammar/json_document.h"
#include "tests/common/text/grammar/accepts.h"

namespace prism {
namespace {

std::shared_ptr<Automaton> Numbers(const std::string& keywords) {
  return SchemaAutomaton(absl::StrCat("{", keywords, "}")).value();
}

TEST(NumberRulesTest, WholeNumbersHaveOneForm) {
  const auto numbers = Numbers(R"("type": "integer")");
  for (const char* text : {"0", "7", "-7", "10", "120", "999999999999999999999"}) {
    EXPECT_TRUE(Accepts(*numbers, text)) << text;
  }
  for (const char* text :
       {"", "-", "-0", "00", "01", "+1", "1.0", "1.", "1e2", "1000000000000000000000", " 1"}) {
    EXPECT_FALSE(Accepts(*numbers, text)) << text;
  }
}

TEST(NumberRulesTest, NumbersMayHaveAFractionOrAnExponent) {
  const auto numbers = Numbers(R"("type": "number")");
  for (const char* text : {"0", "0.5", "-0.5", "19.90", "1e5", "1e+21", "1.5e-7", "9.99E307", "-2.5e-307",
                           "1e0", "0.000001", "123456789012345678901.5", "0.000001234567890123456"}) {
    EXPECT_TRUE(Accepts(*numbers, text)) << text;
  }
  for (const char* text : {"-0", "-0.0", "0.", ".5", "1e", "1e+", "1e308", "1e400", "10e5", "0e5", "1e05",
                           "1e-0", "NaN", "Infinity", "0x1"}) {
    EXPECT_FALSE(Accepts(*numbers, text)) << text;
  }
}

struct Bounds {
  const char* keywords;
  bool integer;
};
class NumberBoundsTest : public testing::TestWithParam<Bounds> {};

// Every text of a grid around the bounds is accepted exactly if its value is within them.
TEST_P(NumberBoundsTest, HoldExactly) {
  const auto numbers = Numbers(
      absl::StrCat(R"("type": ")", GetParam().integer ? "integer" : "number", "\", ", GetParam().keywords));
  const JsonDocument json = JsonDocument::Parse(absl::StrCat("{", GetParam().keywords, "}"),
                                                {.bytes_max = 1000, .depth_max = 2}, "x")
                                .value();
  NumberSet set = {.fractions = !GetParam().integer, .minimum = {}, .maximum = {}, .multiple_of = {}};
  const auto number = [&](const char* key) -> std::optional<Decimal> {
    const int32_t id = json.Find(0, key);
    if (id < 0) return std::nullopt;
    return Decimal::Parse(json[id].text).value();
  };
  if (const auto value = number("minimum")) set.minimum = {*value, false};
  if (const auto value = number("exclusiveMinimum")) set.minimum = {*value, true};
  if (const auto value = number("maximum")) set.maximum = {*value, false};
  if (const auto value = number("exclusiveMaximum")) set.maximum = {*value, true};
  set.multiple_of = number("multipleOf");

  std::vector<std::string> texts;
  for (int i = 0; i <= 1300; ++i) texts.push_back(absl::StrCat(i));
  for (int i = 0; i <= 130; ++i) {
    for (const char* fraction : {".0", ".1", ".25", ".5", ".50", ".75", ".99", ".001", ".0625", ".999999"}) {
      texts.push_back(absl::StrCat(i, fraction));
    }
  }
  for (const char* text : {"99999", "100000", "123456789", "0.00001", "0.000125"}) texts.push_back(text);
  if (!set.multiple_of.has_value()) {
    for (int e = -12; e <= 12; ++e) {
      for (const char* mantissa : {"1", "1.2", "1.25", "1.250", "1.3", "2", "5", "9.5", "9.999"}) {
        texts.push_back(absl::StrCat(mantissa, "e", e));
      }
    }
  }
  int accepted = 0;
  for (const std::string& magnitude : texts) {
    for (const char* sign : {"", "-"}) {
      const std::string text = sign + magnitude;
      const Decimal value = Decimal::Parse(text).value();
      if (*sign != 0 && value.zero()) continue;
      const bool whole_only = GetParam().integer && magnitude.find_first_of(".e") != std::string::npos;
      if (whole_only) {
        EXPECT_FALSE(Accepts(*numbers, text)) << text;
        continue;
      }
      // With a unit, no more digits are written than it has.
      if (set.multiple_of.has_value() && set.Contains(value) && magnitude.find('.') != std::string::npos &&
          magnitude.size() - magnitude.find('.') - 1 > set.multiple_of->fraction_digits().size()) {
        continue;
      }
      EXPECT_EQ(Accepts(*numbers, text), set.Contains(value)) << text;
      accepted += set.Contains(value) ? 1 : 0;
    }
  }
  EXPECT_GT(accepted, 0);
}

INSTANTIATE_TEST_SUITE_P(
    All, NumberBoundsTest,
    testing::Values(
        Bounds{R"("minimum": 0)", false}, Bounds{R"("minimum": 5, "maximum": 5)", false},
        Bounds{R"("minimum": 3, "maximum": 117)", true}, Bounds{R"("exclusiveMinimum": 0)", false},
        Bounds{R"("exclusiveMinimum": 0, "exclusiveMaximum": 1)", false},
        Bounds{R"("minimum": -12.5, "maximum": 12.25)", false},
        Bounds{R"("exclusiveMinimum": -12.5, "exclusiveMaximum": 12.25)", false},
        Bounds{R"("minimum": -12.5, "exclusiveMaximum": 12.25)", true}, Bounds{R"("maximum": -1.25)", false},
        Bounds{R"("exclusiveMaximum": -1.25)", false}, Bounds{R"("minimum": 1.25e-3, "maximum": 0.5)", false},
        Bounds{R"("maximum": 1.25e6)", false}, Bounds{R"("minimum": 12.5, "maximum": 12.5)", false},
        Bounds{R"("minimum": 99, "maximum": 1001)", true},
        Bounds{R"("minimum": -1001, "maximum": -99)", true},
        Bounds{R"("minimum": 999, "exclusiveMaximum": 123456789)", false}, Bounds{R"("multipleOf": 7)", true},
        Bounds{R"("multipleOf": 7, "minimum": -100, "maximum": 350)", true},
        Bounds{R"("multipleOf": 0.25)", false}, Bounds{R"("multipleOf": 0.25)", true},
        Bounds{R"("multipleOf": 2.5)", true}, Bounds{R"("multipleOf": 1.5, "minimum": 2)", false},
        Bounds{R"("multipleOf": 0.01, "exclusiveMinimum": 0, "maximum": 99.5)", false},
        Bounds{R"("multipleOf": 100)", false}));

TEST(NumberRulesTest, UnitsBeyondTheLimitAreRefusedByName) {
  EXPECT_TRUE(SchemaAutomaton(R"({"type": "integer", "multipleOf": 1000})").ok());
  EXPECT_EQ(SchemaAutomaton(R"({"type": "integer", "multipleOf": 1001})").status().message(),
            "#: multipleOf: 1001 has the digits of 1001, at most 1000 are supported");
  EXPECT_FALSE(SchemaAutomaton(R"({"type": "number", "multipleOf": 0.123456789})").ok());
}

TEST(NumberRulesTest, CrossedBoundsLeaveNothing) {
  EXPECT_EQ(SchemaAutomaton(R"({"type": "number", "minimum": 2, "maximum": 1})").status().message(),
            "nothing satisfies it");
  EXPECT_FALSE(SchemaAutomaton(R"({"type": "integer", "exclusiveMinimum": 1, "exclusiveMaximum": 2})").ok());
  EXPECT_TRUE(SchemaAutomaton(R"({"type": "number", "exclusiveMinimum": 1, "exclusiveMaximum": 2})").ok());
}

}  // namespace
}  // namespace prism
