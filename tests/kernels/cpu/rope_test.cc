#include "kernels/ops/rope.h"

#include "tests/kernels/cpu/test_tensors.h"

namespace prism {
namespace {

using test::Guarded;
using test::kRounding;
using test::RandomFloats;
using test::SameBits;

class RopeTest : public testing::Test {
 protected:
  std::unique_ptr<Backend> backend_ = CreateCpuBackend();
  std::unique_ptr<Stream> stream_ = test::MakeStream(*backend_);
};

TEST_F(RopeTest, TableTakesEachAnglesPositionFromItsAxis) {
  // Time, height and width of four tokens; positions up to a long context's end.
  std::vector<int32_t> positions = {0, 5, 1000, 262143, 0, 7, 31, 5, 0, 9, 63, 262143};
  std::vector<int32_t> axis = {0, 1, 2, 0, 1, 2, 0};
  std::vector<float> frequency;
  for (size_t i = 0; i < axis.size(); ++i) {
    frequency.push_back(static_cast<float>(std::pow(5e6, -2.0 * static_cast<double>(i) / 14.0)));
  }
  Guarded cos(4 * 7), sin(4 * 7);
  ASSERT_EQ(RopeTable(*stream_, {.positions = TensorView(positions.data(), Shape{3, 4}),
                                 .axis = TensorView(axis.data(), Shape{7}),
                                 .frequency = TensorView(frequency.data(), Shape{7}),
                                 .cos = cos.view({4, 7}),
                                 .sin = sin.view({4, 7})}),
            absl::OkStatus());
  EXPECT_TRUE(cos.Intact() && sin.Intact());
  for (int64_t t = 0; t < 4; ++t) {
    for (int64_t i = 0; i < 7; ++i) {
      const int32_t position = positions[static_cast<size_t>(axis[static_cast<size_t>(i)] * 4 + t)];
      const float angle = static_cast<float>(position) * frequency[static_cast<size_t>(i)];
      EXPECT_NEAR(static_cast<double>(cos[t * 7 + i]), std::cos(static_cast<double>(angle)), kRounding);
      EXPECT_NEAR(static_cast<double>(sin[t * 7 + i]), std::sin(static_cast<double>(angle)), kRounding);
    }
  }
}

TEST_F(RopeTest, TableRefusesAnAxisThatDoesNotExist) {
  int32_t position = 1, axis = 1;
  float frequency = 1.0f;
  Guarded cos(1), sin(1);
  const auto run = [&] {
    return RopeTable(*stream_, {.positions = TensorView(&position, Shape{1, 1}),
                                .axis = TensorView(&axis, Shape{1}),
                                .frequency = TensorView(&frequency, Shape{1}),
                                .cos = cos.view({1, 1}),
                                .sin = sin.view({1, 1})});
  };
  EXPECT_EQ(run(), absl::InvalidArgumentError("RopeTable: axis[0] is 1, want [0, 1)"));
  axis = -1;
  EXPECT_EQ(run(), absl::InvalidArgumentError("RopeTable: axis[0] is -1, want [0, 1)"));
  EXPECT_TRUE(std::isnan(cos[0]));
}

TEST_F(RopeTest, ApplyTurnsPairsOfEachHeadAndNothingElse) {
  // Two columns before, three heads of six, one column after.
  const int64_t rows = 4, columns = 21, column = 2, heads = 3, half = 3;
  const std::vector<float> x = RandomFloats(rows * columns, 1);
  Guarded y(x), cos(RandomFloats(rows * half, 2)), sin(RandomFloats(rows * half, 3));
  ASSERT_EQ(RopeApply(*stream_, {.x = y.view({rows, columns}),
                                 .cos = cos.view({rows, half}),
                                 .sin = sin.view({rows, half}),
                                 .column = column,
                                 .num_heads = heads}),
            absl::OkStatus());
  EXPECT_TRUE(y.Intact());
  for (int64_t t = 0; t < rows; ++t) {
    for (int64_t c = 0; c < columns; ++c) {
      const int64_t i = t * columns + c;
      if (c < column || c >= column + heads * 2 * half) {
        EXPECT_EQ(y[i], x[static_cast<size_t>(i)]) << "column " << c << " is no head's";
        continue;
      }
      const int64_t place = (c - column) % (2 * half);
      const int64_t m = place % half;
      const double a = static_cast<double>(x[static_cast<size_t>(i - place + m)]);
      const double b = static_cast<double>(x[static_cast<size_t>(i - place + m + half)]);
      const double turn = static_cast<double>(cos[t * half + m]);
      const double lift = static_cast<double>(sin[t * half + m]);
      const double want = place < half ? a * turn - b * lift : b * turn + a * lift;
      // Two products and a sum of values up to one.
      EXPECT_NEAR(static_cast<double>(y[i]), want, 4.0 * kRounding);
    }
  }
}

TEST_F(RopeTest, ApplyGivesTheSameBitsOnOneThreadAndOnThree) {
  auto three = test::MakeStream(*backend_, 3);
  const int64_t rows = 500, heads = 4, half = 16;
  Guarded one(RandomFloats(rows * heads * 2 * half, 4)), many(one.values());
  Guarded cos(RandomFloats(rows * half, 5)), sin(RandomFloats(rows * half, 6));
  for (const auto& [stream, x] : {std::pair<Stream*, Guarded*>{stream_.get(), &one}, {three.get(), &many}}) {
    ASSERT_EQ(RopeApply(*stream, {.x = x->view({rows, heads * 2 * half}),
                                  .cos = cos.view({rows, half}),
                                  .sin = sin.view({rows, half}),
                                  .column = 0,
                                  .num_heads = heads}),
              absl::OkStatus());
  }
  EXPECT_TRUE(SameBits(one.values(), many.values()));
}

}  // namespace
}  // namespace prism
