#include "common/base/philox.h"

#include <gtest/gtest.h>

namespace prism {
namespace {

// The known answers that Random123 publishes for philox4x32 with 10 rounds.
TEST(PhiloxTest, GivesThePublishedAnswers) {
  EXPECT_EQ(Philox4x32({0, 0, 0, 0}, {0, 0}),
            (PhiloxCounter{0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8}));
  EXPECT_EQ(Philox4x32({0xffffffff, 0xffffffff, 0xffffffff, 0xffffffff}, {0xffffffff, 0xffffffff}),
            (PhiloxCounter{0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd}));
  EXPECT_EQ(Philox4x32({0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344}, {0xa4093822, 0x299f31d0}),
            (PhiloxCounter{0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1}));
}

TEST(UniformDrawTest, DependsOnEveryPartOfItsKey) {
  const double draw = UniformDraw({.seed = 1, .choice = 2, .token_index = 3, .token_id = 4});
  EXPECT_NE(draw, UniformDraw({.seed = 5, .choice = 2, .token_index = 3, .token_id = 4}));
  EXPECT_NE(draw,
            UniformDraw({.seed = 1 + (uint64_t{1} << 32), .choice = 2, .token_index = 3, .token_id = 4}));
  EXPECT_NE(draw, UniformDraw({.seed = 1, .choice = 5, .token_index = 3, .token_id = 4}));
  EXPECT_NE(draw, UniformDraw({.seed = 1, .choice = 2, .token_index = 5, .token_id = 4}));
  EXPECT_NE(draw, UniformDraw({.seed = 1, .choice = 2, .token_index = 3, .token_id = 5}));
  EXPECT_EQ(draw, UniformDraw({.seed = 1, .choice = 2, .token_index = 3, .token_id = 4}));
}

TEST(UniformDrawTest, StaysInsideTheOpenUnitIntervalAndFillsIt) {
  constexpr int kDraws = 200000;
  constexpr int kBins = 20;
  int bins[kBins] = {};
  for (uint32_t i = 0; i < kDraws; ++i) {
    const double u = UniformDraw({.seed = 11, .token_index = i / 1000, .token_id = i % 1000});
    ASSERT_GT(u, 0);
    ASSERT_LT(u, 1);
    ++bins[static_cast<int>(u * kBins)];
  }
  double chi_square = 0;
  const double expected = static_cast<double>(kDraws) / kBins;
  for (const int count : bins) chi_square += (count - expected) * (count - expected) / expected;
  EXPECT_LT(chi_square, 43.8) << "the 0.999 quantile with 19 degrees of freedom";
}

}  // namespace
}  // namespace prism
