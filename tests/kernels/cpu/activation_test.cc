#include "kernels/ops/activation.h"

#include "kernels/cpu/activation_kernels.h"
#include "tests/kernels/cpu/test_tensors.h"

namespace prism {
namespace {

using test::Guarded;
using test::RandomFloats;
using test::SameBits;

// Values from every range that matters, dense near zero.
std::vector<float> Sweep(float least, float most, int count) {
  std::vector<float> values;
  for (int i = 0; i <= count; ++i) {
    values.push_back(least + (most - least) * static_cast<float>(i) / static_cast<float>(count));
  }
  return values;
}

TEST(ExpTest, IsWithinTwoRoundingsOfDoublePrecision) {
  std::vector<float> x = Sweep(-87.3f, 88.3f, 1'000'000);
  for (const float v : Sweep(-1.0f, 1.0f, 100'000)) x.push_back(v);
  std::vector<float> y(x.size());
  cpu::ExpRange(x.data(), static_cast<int64_t>(x.size()), y.data());
  double worst = 0.0;
  for (size_t i = 0; i < x.size(); ++i) {
    const double want = std::exp(static_cast<double>(x[i]));
    worst = std::max(worst, std::abs(static_cast<double>(y[i]) - want) / want);
  }
  EXPECT_LE(worst, 2e-7);
}

TEST(ExpTest, KeepsItsEnds) {
  const float infinity = std::numeric_limits<float>::infinity();
  const std::vector<float> x = {0.0f,  -0.0f,  -infinity, infinity,     -88.0f,
                                89.0f, -1e30f, 1e30f,     test::kPoison};
  std::vector<float> y(x.size());
  cpu::ExpRange(x.data(), static_cast<int64_t>(x.size()), y.data());
  EXPECT_THAT(std::vector<float>(y.begin(), y.end() - 1),
              testing::ElementsAre(1.0f, 1.0f, 0.0f, infinity, 0.0f, infinity, 0.0f, infinity));
  EXPECT_TRUE(std::isnan(y.back()));
}

TEST(ExpTest, NeverFallsAsItsArgumentRises) {
  std::vector<float> x;
  for (float v = -2.0f; v < 0.5f; v = std::nextafter(v, 1.0f) + 3e-8f) x.push_back(v);
  std::vector<float> y(x.size());
  cpu::ExpRange(x.data(), static_cast<int64_t>(x.size()), y.data());
  // A rounding of the last step may let neighbours trade places by one unit, no more.
  for (size_t i = 1; i < y.size(); ++i) ASSERT_GE(y[i], std::nextafter(y[i - 1], 0.0f)) << x[i];
}

class ActivationTest : public testing::Test {
 protected:
  std::unique_ptr<Backend> backend_ = CreateCpuBackend();
  std::unique_ptr<Stream> stream_ = test::MakeStream(*backend_);
};

// A share of the value for the exponential, the argument and two operations, and where the result is
// a small difference, of z.
double Tolerance(double z) { return 4e-7 * (1.0 + std::abs(z)); }

TEST_F(ActivationTest, GeluAgreesWithDoublePrecisionInBothForms) {
  const std::vector<float> x = Sweep(-12.0f, 12.0f, 200'000);
  const int64_t count = static_cast<int64_t>(x.size());
  for (const GeluForm form : {GeluForm::kTanh, GeluForm::kErf}) {
    Guarded y(x);
    ASSERT_EQ(Gelu(*stream_, {.x = y.view({1, count}), .form = form}), absl::OkStatus());
    EXPECT_TRUE(y.Intact());
    double worst = 0.0;
    for (int64_t i = 0; i < count; ++i) {
      const double z = static_cast<double>(x[static_cast<size_t>(i)]);
      const double inner = std::sqrt(2.0 / M_PI) * (z + 0.044715 * z * z * z);
      const double want =
          0.5 * z * (1.0 + (form == GeluForm::kTanh ? std::tanh(inner) : std::erf(z / std::sqrt(2.0))));
      worst = std::max(worst, std::abs(static_cast<double>(y[i]) - want) / (1.0 + std::abs(z)));
    }
    EXPECT_LE(worst, 2e-7);
  }
}

TEST_F(ActivationTest, SiluMulAgreesWithDoublePrecision) {
  for (const int64_t columns : {1, 3, 16, 37, 1000}) {
    const int64_t rows = 5;
    Guarded x(RandomFloats(rows * 2 * columns, 3, 20.0f));
    Guarded y(rows * columns);
    ASSERT_EQ(SiluMul(*stream_, {.x = x.view({rows, 2 * columns}), .y = y.view({rows, columns})}),
              absl::OkStatus());
    EXPECT_TRUE(y.Intact());
    for (int64_t t = 0; t < rows; ++t) {
      for (int64_t i = 0; i < columns; ++i) {
        const double z = static_cast<double>(x[t * 2 * columns + i]);
        const double up = static_cast<double>(x[t * 2 * columns + columns + i]);
        const double want = z / (1.0 + std::exp(-z)) * up;
        ASSERT_NEAR(static_cast<double>(y[t * columns + i]), want, Tolerance(want));
      }
    }
  }
}

TEST_F(ActivationTest, AnElementsBitsDoNotDependOnItsPlace) {
  const std::vector<float> x = RandomFloats(101, 4, 5.0f);
  for (const GeluForm form : {GeluForm::kTanh, GeluForm::kErf}) {
    Guarded whole(x);
    ASSERT_EQ(Gelu(*stream_, {.x = whole.view({1, 101}), .form = form}), absl::OkStatus());
    for (int64_t i = 0; i < 101; ++i) {
      Guarded one(std::vector<float>{x[static_cast<size_t>(i)]});
      ASSERT_EQ(Gelu(*stream_, {.x = one.view({1, 1}), .form = form}), absl::OkStatus());
      EXPECT_EQ(one[0], whole[i]) << i;
    }
  }
}

TEST_F(ActivationTest, ManyRowsOnTwoThreadsGiveTheSameBitsAsOneRowOnOne) {
  auto two = test::MakeStream(*backend_, 2);
  const int64_t rows = 300, columns = 130;
  const std::vector<float> x = RandomFloats(rows * 2 * columns, 5, 5.0f);
  Guarded in(x), together(rows * columns);
  ASSERT_EQ(SiluMul(*two, {.x = in.view({rows, 2 * columns}), .y = together.view({rows, columns})}),
            absl::OkStatus());
  Guarded alone(rows * columns);
  for (int64_t t = 0; t < rows; ++t) {
    ASSERT_EQ(SiluMul(*stream_, {.x = in.view({rows, 2 * columns}).Rows(t, 1),
                                 .y = alone.view({rows, columns}).Rows(t, 1)}),
              absl::OkStatus());
  }
  EXPECT_TRUE(SameBits(alone.values(), together.values()));
}

}  // namespace
}  // namespace prism
