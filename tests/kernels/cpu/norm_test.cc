#include "kernels/ops/norm.h"

#include "kernels/ops/add.h"
#include "tests/kernels/cpu/test_tensors.h"

namespace prism {
namespace {

using test::Guarded;
using test::kRounding;
using test::RandomFloats;
using test::SameBits;

constexpr float kEpsilon = 1e-6f;

struct Case {
  int64_t rows;
  int64_t columns;
};

class NormTest : public testing::TestWithParam<Case> {
 protected:
  std::unique_ptr<Backend> backend_ = CreateCpuBackend();
  std::unique_ptr<Stream> stream_ = test::MakeStream(*backend_);
};

// The sums are in double, so that a result sees a rounding each for the scale and two products.
double Tolerance(double want) { return 4.0 * kRounding * (std::abs(want) + 1e-3); }

double MeanSquare(const float* x, int64_t columns) {
  double sum = 0.0;
  for (int64_t c = 0; c < columns; ++c) sum += static_cast<double>(x[c]) * static_cast<double>(x[c]);
  return sum / static_cast<double>(columns);
}

TEST_P(NormTest, RmsNormAgreesWithDoublePrecision) {
  const auto [rows, columns] = GetParam();
  Guarded x(RandomFloats(rows * columns, 1, 3.0f)), weight(RandomFloats(columns, 2)), y(rows * columns);
  ASSERT_EQ(RmsNorm(*stream_, {.x = x.view({rows, columns}),
                               .weight = weight.view({columns}),
                               .y = y.view({rows, columns}),
                               .epsilon = kEpsilon}),
            absl::OkStatus());
  EXPECT_TRUE(y.Intact());
  for (int64_t t = 0; t < rows; ++t) {
    const double scale =
        1.0 / std::sqrt(MeanSquare(x.data() + t * columns, columns) + static_cast<double>(kEpsilon));
    for (int64_t c = 0; c < columns; ++c) {
      const double want = static_cast<double>(x[t * columns + c]) * scale * static_cast<double>(weight[c]);
      ASSERT_NEAR(static_cast<double>(y[t * columns + c]), want, Tolerance(want)) << t << ", " << c;
    }
  }
}

TEST_P(NormTest, LayerNormAgreesWithDoublePrecision) {
  const auto [rows, columns] = GetParam();
  Guarded x(RandomFloats(rows * columns, 3, 3.0f)), weight(RandomFloats(columns, 4)),
      bias(RandomFloats(columns, 5));
  // A mean far from zero must cost no precision.
  for (int64_t i = 0; i < rows * columns; ++i) x.data()[i] += 1000.0f;
  Guarded y(rows * columns);
  ASSERT_EQ(LayerNorm(*stream_, {.x = x.view({rows, columns}),
                                 .weight = weight.view({columns}),
                                 .bias = bias.view({columns}),
                                 .y = y.view({rows, columns}),
                                 .epsilon = kEpsilon}),
            absl::OkStatus());
  EXPECT_TRUE(y.Intact());
  for (int64_t t = 0; t < rows; ++t) {
    double mean = 0.0, variance = 0.0;
    for (int64_t c = 0; c < columns; ++c) mean += static_cast<double>(x[t * columns + c]);
    mean /= static_cast<double>(columns);
    for (int64_t c = 0; c < columns; ++c) {
      variance += std::pow(static_cast<double>(x[t * columns + c]) - mean, 2);
    }
    const double scale =
        1.0 / std::sqrt(variance / static_cast<double>(columns) + static_cast<double>(kEpsilon));
    for (int64_t c = 0; c < columns; ++c) {
      const double normal = (static_cast<double>(x[t * columns + c]) - mean) * scale;
      const double product = normal * static_cast<double>(weight[c]);
      const double want = product + static_cast<double>(bias[c]);
      ASSERT_NEAR(static_cast<double>(y[t * columns + c]), want,
                  Tolerance(std::abs(product) + std::abs(want)));
    }
  }
}

TEST_P(NormTest, ARowsBitsDoNotDependOnTheOthersOrOnThreadsAndMayBeReplacedInPlace) {
  const auto [rows, columns] = GetParam();
  auto three = test::MakeStream(*backend_, 3);
  const std::vector<float> x = RandomFloats(rows * columns, 6);
  Guarded together(x), alone(x), weight(RandomFloats(columns, 7)), bias(RandomFloats(columns, 8));
  ASSERT_EQ(RmsNorm(*three, {.x = together.view({rows, columns}),
                             .weight = weight.view({columns}),
                             .y = together.view({rows, columns}),
                             .epsilon = kEpsilon}),
            absl::OkStatus());
  ASSERT_EQ(LayerNorm(*three, {.x = together.view({rows, columns}),
                               .weight = weight.view({columns}),
                               .bias = bias.view({columns}),
                               .y = together.view({rows, columns}),
                               .epsilon = kEpsilon}),
            absl::OkStatus());
  for (int64_t t = 0; t < rows; ++t) {
    const TensorView row = alone.view({rows, columns}).Rows(t, 1);
    ASSERT_EQ(RmsNorm(*stream_, {.x = row, .weight = weight.view({columns}), .y = row, .epsilon = kEpsilon}),
              absl::OkStatus());
    ASSERT_EQ(LayerNorm(*stream_, {.x = row,
                                   .weight = weight.view({columns}),
                                   .bias = bias.view({columns}),
                                   .y = row,
                                   .epsilon = kEpsilon}),
              absl::OkStatus());
  }
  EXPECT_TRUE(SameBits(together.values(), alone.values()));
  EXPECT_TRUE(together.Intact() && alone.Intact());
}

TEST_P(NormTest, AddingFirstGivesTheBitsOfTwoOps) {
  const auto [rows, columns] = GetParam();
  const std::vector<float> x = RandomFloats(rows * columns, 9);
  Guarded term(RandomFloats(rows * columns, 10)), weight(RandomFloats(columns, 11)),
      bias(RandomFloats(columns, 12));
  for (const bool layer : {false, true}) {
    Guarded once(x), twice(x), once_y(rows * columns), twice_y(rows * columns);
    const auto norm = [&](Guarded& from, Guarded& to, const TensorView& add) {
      if (!layer) {
        return RmsNorm(*stream_, {.x = from.view({rows, columns}),
                                  .weight = weight.view({columns}),
                                  .y = to.view({rows, columns}),
                                  .epsilon = kEpsilon,
                                  .add = add});
      }
      return LayerNorm(*stream_, {.x = from.view({rows, columns}),
                                  .weight = weight.view({columns}),
                                  .bias = bias.view({columns}),
                                  .y = to.view({rows, columns}),
                                  .epsilon = kEpsilon,
                                  .add = add});
    };
    ASSERT_EQ(norm(once, once_y, term.view({rows, columns})), absl::OkStatus());
    ASSERT_EQ(Add(*stream_, {.x = twice.view({rows, columns}), .y = term.view({rows, columns})}),
              absl::OkStatus());
    ASSERT_EQ(norm(twice, twice_y, TensorView()), absl::OkStatus());
    EXPECT_TRUE(SameBits(once.values(), twice.values()));
    EXPECT_TRUE(SameBits(once_y.values(), twice_y.values()));
    EXPECT_TRUE(once.Intact() && once_y.Intact() && term.Intact());
  }
}

INSTANTIATE_TEST_SUITE_P(Cpu, NormTest,
                         testing::Values(Case{1, 1}, Case{1, 2048}, Case{3, 127}, Case{37, 4096}, Case{5, 9},
                                         Case{0, 8}));

TEST(HeadRmsNormTest, NormalisesEachHeadAndNothingElse) {
  auto backend = CreateCpuBackend();
  auto stream = test::MakeStream(*backend);
  // Three columns before, two heads of five, four columns after.
  const int64_t rows = 3, columns = 17, column = 3, heads = 2, size = 5;
  const std::vector<float> x = RandomFloats(rows * columns, 9);
  Guarded y(x), weight(RandomFloats(size, 10));
  ASSERT_EQ(HeadRmsNorm(*stream, {.x = y.view({rows, columns}),
                                  .weight = weight.view({size}),
                                  .column = column,
                                  .num_heads = heads,
                                  .epsilon = kEpsilon}),
            absl::OkStatus());
  EXPECT_TRUE(y.Intact());
  for (int64_t t = 0; t < rows; ++t) {
    for (int64_t c = 0; c < columns; ++c) {
      const int64_t i = t * columns + c;
      const float before = x[static_cast<size_t>(i)];
      if (c < column || c >= column + heads * size) {
        EXPECT_EQ(y[i], before) << "column " << c << " is no head's";
        continue;
      }
      const int64_t d = (c - column) % size;
      const double mean = MeanSquare(x.data() + i - d, size);
      const double want = static_cast<double>(before) / std::sqrt(mean + static_cast<double>(kEpsilon)) *
                          static_cast<double>(weight[d]);
      EXPECT_NEAR(static_cast<double>(y[i]), want, Tolerance(want));
    }
  }
}

}  // namespace
}  // namespace prism
