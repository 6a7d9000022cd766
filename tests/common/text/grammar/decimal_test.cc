#include "common/text/grammar/decimal.h"

#include <gtest/gtest.h>

namespace prism {
namespace {

Decimal D(const std::string& text) { return Decimal::Parse(text).value(); }

TEST(DecimalTest, TextIsEcmaScripts) {
  for (const auto& [written, text] :
       std::initializer_list<std::pair<const char*, const char*>>{{"0", "0"},
                                                                  {"-0.0", "0"},
                                                                  {"1.0", "1"},
                                                                  {"100", "100"},
                                                                  {"1e2", "100"},
                                                                  {"-1.50", "-1.5"},
                                                                  {"0.000001", "0.000001"},
                                                                  {"0.0000001", "1e-7"},
                                                                  {"1.25E-9", "1.25e-9"},
                                                                  {"1e20", "100000000000000000000"},
                                                                  {"1e21", "1e+21"},
                                                                  {"123e20", "1.23e+22"},
                                                                  {"12.5e-1", "1.25"}}) {
    EXPECT_EQ(D(written).Text(), text) << written;
  }
}

TEST(DecimalTest, ComparesWithoutRounding) {
  const std::vector<const char*> ascending = {"-1e300",
                                              "-10",
                                              "-9.999",
                                              "-1e-5",
                                              "0",
                                              "1e-300",
                                              "0.3",
                                              "0.30000000000000001",
                                              "1",
                                              "1.5",
                                              "10",
                                              "9007199254740993",
                                              "9007199254740993.5",
                                              "1e300"};
  for (size_t i = 0; i < ascending.size(); ++i) {
    for (size_t j = 0; j < ascending.size(); ++j) {
      const int order = Compare(D(ascending[i]), D(ascending[j]));
      EXPECT_EQ(order < 0, i < j) << ascending[i] << " " << ascending[j];
      EXPECT_EQ(order == 0, i == j) << ascending[i] << " " << ascending[j];
    }
  }
  EXPECT_EQ(D("1.0"), D("10e-1"));
}

TEST(DecimalTest, PartsItsDigitsAtThePoint) {
  EXPECT_EQ(D("123.45").integer_digits(), "123");
  EXPECT_EQ(D("123.45").fraction_digits(), "45");
  EXPECT_EQ(D("0.0045").integer_digits(), "0");
  EXPECT_EQ(D("0.0045").fraction_digits(), "0045");
  EXPECT_EQ(D("12e3").integer_digits(), "12000");
  EXPECT_EQ(D("12e3").fraction_digits(), "");
  EXPECT_EQ(D("0").integer_digits(), "0");
}

TEST(DecimalTest, KnowsMultiples) {
  for (const auto& [value, unit, is] :
       std::initializer_list<std::tuple<const char*, const char*, bool>>{{"0", "7", true},
                                                                         {"14", "7", true},
                                                                         {"-14", "7", true},
                                                                         {"15", "7", false},
                                                                         {"0.3", "0.1", true},
                                                                         {"4.5", "1.5", true},
                                                                         {"35", "1.5", false},
                                                                         {"0.0075", "0.0001", true},
                                                                         {"0.00751", "0.0001", false},
                                                                         {"1e300", "3", false},
                                                                         {"3e300", "3", true},
                                                                         {"12391239123", "1e-8", true}}) {
    EXPECT_EQ(IsMultiple(D(value), D(unit)), is) << value << " of " << unit;
  }
}

TEST(DecimalTest, RefusesWhatIsBeyondTheExponent) {
  EXPECT_TRUE(Decimal::Parse("1e400").ok());
  EXPECT_FALSE(Decimal::Parse("1e401").ok());
  EXPECT_FALSE(Decimal::Parse("1e-99999999999999999999").ok());
  EXPECT_FALSE(Decimal::Parse(std::string(500, '7')).ok());
  EXPECT_TRUE(Decimal::Parse("0e999999").ok());
}

}  // namespace
}  // namespace prism
