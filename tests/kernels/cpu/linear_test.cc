#include "kernels/ops/linear.h"

#include <string>
#include <tuple>

#include "kernels/cpu/linear_kernels.h"
#include "tests/kernels/cpu/spread_values.h"
#include "tests/kernels/cpu/test_tensors.h"

namespace prism {
namespace {

using test::Guarded;
using test::MakeStream;
using test::SameBits;
using test::ScalarLinear;
using test::SpreadFloats;

// A layer's weight of float values, which are bf16 too if that is what is stored.
struct Layer {
  int64_t out_features;  // N
  int64_t in_features;   // K
  DType dtype;
  SumOrder order;
  std::vector<float> weight;  // [N, K]

  Layer(int64_t n, int64_t k, DType stored, SumOrder sum_order, uint32_t seed = 1)
      : out_features(n),
        in_features(k),
        dtype(stored),
        order(sum_order),
        weight(SpreadFloats(n * k, seed, stored == DType::kBF16)) {}

  // Columns [range) packed.
  LinearWeight Pack(Stream& stream, IndexRange range) const {
    Tensor part = Tensor::Host(dtype, {out_features, range.size()});
    for (int64_t n = 0; n < out_features; ++n) {
      for (int64_t k = range.begin; k < range.end; ++k) {
        const float value = weight[static_cast<size_t>(n * in_features + k)];
        const int64_t to = n * range.size() + k - range.begin;
        if (dtype == DType::kF32) {
          part.data<float>()[to] = value;
        } else {
          part.data<BFloat16>()[to] = BFloat16(value);
        }
      }
    }
    LinearWeight packed;
    EXPECT_EQ(PackLinear(stream, {.weight = part.view(),
                                  .order = order,
                                  .in_total = in_features,
                                  .in_begin = range.begin,
                                  .out = &packed}),
              absl::OkStatus());
    return packed;
  }
  LinearWeight Pack(Stream& stream) const { return Pack(stream, {0, in_features}); }
};

// Runs the op between guards; x is [rows, K] and must not change.
std::vector<float> Multiply(Stream& stream, const LinearWeight& weight, const std::vector<float>& x,
                            const std::vector<float>& bias, int64_t rows) {
  Guarded in(x);
  Guarded out(rows * weight.out_features);
  Guarded bias_in(bias);
  EXPECT_EQ(Linear(stream, {.x = in.view({rows, weight.in_features}),
                            .weight = &weight,
                            .bias = bias.empty() ? TensorView() : bias_in.view({weight.out_features}),
                            .y = out.view({rows, weight.out_features})}),
            absl::OkStatus());
  EXPECT_TRUE(out.Intact()) << "wrote outside y";
  EXPECT_TRUE(SameBits(in.values(), x)) << "changed x";
  return out.values();
}

struct LinearCase {
  int64_t rows;
  int64_t out_features;
  int64_t in_features;
};

class LinearTest : public testing::TestWithParam<std::tuple<LinearCase, DType, SumOrder>> {
 protected:
  const LinearCase shape_ = std::get<0>(GetParam());
  const Layer layer_{shape_.out_features, shape_.in_features, std::get<1>(GetParam()),
                     std::get<2>(GetParam())};
  const std::vector<float> x_ = SpreadFloats(shape_.rows * shape_.in_features, 2);
  const std::vector<float> bias_ = SpreadFloats(shape_.out_features, 3);
  std::unique_ptr<Backend> backend_ = CreateCpuBackend();
};

TEST_P(LinearTest, EqualsTheScalarChainsBitForBit) {
  auto stream = MakeStream(*backend_);
  const LinearWeight weight = layer_.Pack(*stream);
  for (const std::vector<float>& bias : {std::vector<float>(), bias_}) {
    EXPECT_TRUE(SameBits(Multiply(*stream, weight, x_, bias, shape_.rows),
                         ScalarLinear(x_, layer_.weight, bias, shape_.rows, shape_.out_features,
                                      shape_.in_features, layer_.order)));
  }
}

// Each of the K + 2 additions after the products errs by half an ulp of a partial sum, which
// is at most the sum of the products' magnitudes; unfused products add a rounding each.
TEST_P(LinearTest, AgreesWithDoublePrecision) {
  auto stream = MakeStream(*backend_);
  const std::vector<float> y = Multiply(*stream, layer_.Pack(*stream), x_, bias_, shape_.rows);
  for (int64_t t = 0; t < shape_.rows; ++t) {
    for (int64_t n = 0; n < shape_.out_features; ++n) {
      double sum = bias_[static_cast<size_t>(n)];
      double magnitude = std::abs(sum);
      for (int64_t k = 0; k < shape_.in_features; ++k) {
        const double product = static_cast<double>(x_[static_cast<size_t>(t * shape_.in_features + k)]) *
                               layer_.weight[static_cast<size_t>(n * shape_.in_features + k)];
        sum += product;
        magnitude += std::abs(product);
      }
      const double roundings =
          static_cast<double>(shape_.in_features) * (test::HasFusedMultiplyAdd() ? 1 : 2) + 3;
      ASSERT_NEAR(y[static_cast<size_t>(t * shape_.out_features + n)], sum,
                  1.01 * roundings * test::kRounding * magnitude)
          << "row " << t << " feature " << n;
    }
  }
}

TEST_P(LinearTest, ARowAloneEqualsTheRowInItsBatch) {
  auto stream = MakeStream(*backend_);
  const LinearWeight weight = layer_.Pack(*stream);
  const std::vector<float> y = Multiply(*stream, weight, x_, bias_, shape_.rows);
  for (int64_t t = 0; t < shape_.rows; t += 1 + shape_.rows / 5) {
    const std::vector<float> row(x_.begin() + t * shape_.in_features,
                                 x_.begin() + (t + 1) * shape_.in_features);
    const std::vector<float> expected(y.begin() + t * shape_.out_features,
                                      y.begin() + (t + 1) * shape_.out_features);
    EXPECT_TRUE(SameBits(Multiply(*stream, weight, row, bias_, 1), expected)) << "row " << t;
  }
}

TEST_P(LinearTest, ThreadsChangeNoBit) {
  auto one = MakeStream(*backend_, 1);
  auto three = MakeStream(*backend_, 3);
  EXPECT_TRUE(SameBits(Multiply(*one, layer_.Pack(*one), x_, bias_, shape_.rows),
                       Multiply(*three, layer_.Pack(*three), x_, bias_, shape_.rows)));
}

std::string CaseName(const testing::TestParamInfo<LinearTest::ParamType>& test_case) {
  const auto& [shape, dtype, order] = test_case.param;
  return "T" + std::to_string(shape.rows) + "N" + std::to_string(shape.out_features) + "K" +
         std::to_string(shape.in_features) + (dtype == DType::kF32 ? "F32" : "BF16") +
         (order == SumOrder::kChain ? "Chain" : "Leaves");
}

// The tower's layers (kChain) are not split by columns.
class LinearRanksTest : public LinearTest {};

TEST_P(LinearRanksTest, RanksChangeNoBit) {
  auto stream = MakeStream(*backend_);
  const std::vector<float> whole = Multiply(*stream, layer_.Pack(*stream), x_, {}, shape_.rows);
  for (const int ranks : {1, 2, 4}) {
    std::vector<float> partials;
    for (int rank = 0; rank < ranks; ++rank) {
      const IndexRange range = RankRange(shape_.in_features, rank, ranks);
      std::vector<float> part;
      for (int64_t t = 0; t < shape_.rows; ++t) {
        part.insert(part.end(), x_.begin() + t * shape_.in_features + range.begin,
                    x_.begin() + t * shape_.in_features + range.end);
      }
      const std::vector<float> y = Multiply(*stream, layer_.Pack(*stream, range), part, {}, shape_.rows);
      partials.insert(partials.end(), y.begin(), y.end());
    }
    Guarded in(partials);
    Guarded out(shape_.rows * shape_.out_features);
    ASSERT_EQ(SumPartials(*stream, {.partials = in.view({ranks, shape_.rows, shape_.out_features}),
                                    .y = out.view({shape_.rows, shape_.out_features})}),
              absl::OkStatus());
    EXPECT_TRUE(SameBits(out.values(), whole)) << ranks << " ranks";
    EXPECT_TRUE(out.Intact());
  }
}

// Row counts on both sides of every block; K of one, around a unit, with short and empty leaves,
// and over several column blocks; N around a panel.
const auto kShapes = testing::Values(
    LinearCase{0, 33, 96}, LinearCase{1, 1, 1}, LinearCase{1, 17, 15}, LinearCase{1, 33, 16},
    LinearCase{1, 65, 100}, LinearCase{1, 160, 768}, LinearCase{2, 33, 100}, LinearCase{3, 32, 96},
    LinearCase{4, 40, 17}, LinearCase{5, 1, 320}, LinearCase{6, 31, 64}, LinearCase{7, 33, 320},
    LinearCase{8, 17, 100}, LinearCase{9, 33, 33}, LinearCase{10, 48, 96}, LinearCase{11, 64, 16},
    LinearCase{12, 33, 768}, LinearCase{13, 1, 96}, LinearCase{23, 33, 100}, LinearCase{25, 65, 96},
    LinearCase{37, 33, 15}, LinearCase{64, 17, 1}, LinearCase{64, 33, 2304}, LinearCase{65, 96, 100},
    LinearCase{245, 33, 50}, LinearCase{1000, 9, 20});
const auto kTypes = testing::Values(DType::kF32, DType::kBF16);

INSTANTIATE_TEST_SUITE_P(Shapes, LinearTest,
                         testing::Combine(kShapes, kTypes,
                                          testing::Values(SumOrder::kLeaves, SumOrder::kChain)),
                         CaseName);
INSTANTIATE_TEST_SUITE_P(Shapes, LinearRanksTest,
                         testing::Combine(kShapes, kTypes, testing::Values(SumOrder::kLeaves)), CaseName);

TEST(LinearLayoutTest, PacksEveryValueOnceAndZerosBesides) {
  auto backend = CreateCpuBackend();
  auto stream = MakeStream(*backend);
  for (const DType dtype : {DType::kF32, DType::kBF16}) {
    const Layer layer(33, 5, dtype, SumOrder::kChain);
    const LinearWeight weight = layer.Pack(*stream);
    ASSERT_EQ(weight.packed.shape(), Shape({2, 5, cpu::kPanelWidth}));
    for (int64_t panel = 0; panel < 2; ++panel) {
      for (int64_t k = 0; k < 5; ++k) {
        for (int64_t j = 0; j < cpu::kPanelWidth; ++j) {
          const int64_t n = panel * cpu::kPanelWidth + j;
          const float expected = n < 33 ? layer.weight[static_cast<size_t>(n * 5 + k)] : 0.0f;
          const int64_t at = (panel * 5 + k) * cpu::kPanelWidth + cpu::SlotOf(dtype, j);
          EXPECT_EQ(dtype == DType::kF32 ? weight.packed.data<float>()[at]
                                         : static_cast<float>(weight.packed.data<BFloat16>()[at]),
                    expected);
        }
      }
    }
  }
}

// A sum of nothing but the smallest number's products is a zero with a sign: ranks with empty
// leaves must not lose it differently.
TEST(LinearTest, TheSignOfAZeroDoesNotDependOnRanks) {
  auto backend = CreateCpuBackend();
  auto stream = MakeStream(*backend);
  for (const int64_t k : {1, 16, 17, 32, 33, 48, 64, 96, 100}) {
    Layer layer(3, k, DType::kF32, SumOrder::kLeaves);
    std::fill(layer.weight.begin(), layer.weight.end(), -0x1p-120f);
    const std::vector<float> x(static_cast<size_t>(k), 0x1p-120f);
    const std::vector<float> whole = Multiply(*stream, layer.Pack(*stream), x, {}, 1);
    for (const int ranks : {2, 4}) {
      std::vector<float> partials;
      for (int rank = 0; rank < ranks; ++rank) {
        const IndexRange range = RankRange(k, rank, ranks);
        const std::vector<float> part(x.begin() + range.begin, x.begin() + range.end);
        const std::vector<float> y = Multiply(*stream, layer.Pack(*stream, range), part, {}, 1);
        partials.insert(partials.end(), y.begin(), y.end());
      }
      Guarded in(partials);
      Guarded out(3);
      ASSERT_EQ(SumPartials(*stream, {.partials = in.view({ranks, 1, 3}), .y = out.view({1, 3})}),
                absl::OkStatus());
      EXPECT_TRUE(SameBits(out.values(), whole)) << "K " << k << ", " << ranks << " ranks";
    }
  }
}

TEST(LinearTest, NotANumberStaysInItsRow) {
  auto backend = CreateCpuBackend();
  auto stream = MakeStream(*backend);
  const Layer layer(33, 96, DType::kBF16, SumOrder::kLeaves);
  std::vector<float> x = SpreadFloats(14 * 96, 4);
  const std::vector<float> clean = Multiply(*stream, layer.Pack(*stream), x, {}, 14);
  x[5 * 96 + 40] = test::kPoison;
  const std::vector<float> y = Multiply(*stream, layer.Pack(*stream), x, {}, 14);
  for (int64_t i = 0; i < 14 * 33; ++i) {
    if (i / 33 == 5) {
      EXPECT_TRUE(std::isnan(y[static_cast<size_t>(i)]));
    } else {
      EXPECT_EQ(y[static_cast<size_t>(i)], clean[static_cast<size_t>(i)]);
    }
  }
}

// Every instruction set with fused multiply-adds that this machine has gives the same bits; the
// others agree with themselves, alone or in a batch.
TEST(LinearTest, InstructionSetsAgree) {
  auto backend = CreateCpuBackend();
  auto stream = MakeStream(*backend, 2);
  const std::vector<float> bias = SpreadFloats(65, 6);
  const int64_t all = hwy::SupportedTargets() & HWY_TARGETS;
  for (const SumOrder order : {SumOrder::kLeaves, SumOrder::kChain}) {
    const Layer layer(65, 200, DType::kBF16, order);
    const LinearWeight weight = layer.Pack(*stream);
    const std::vector<float> x = SpreadFloats(67 * 200, 5);
    for (int64_t left = all; left != 0; left &= left - 1) {
      const int64_t target = left & -left;
      hwy::SetSupportedTargetsForTest(target);
      hwy::GetChosenTarget().Update(hwy::SupportedTargets());
      SCOPED_TRACE(hwy::TargetName(target));
      EXPECT_EQ(std::string(backend->numerics_id()),
                test::HasFusedMultiplyAdd() ? "cpu-f32-1" : "cpu-f32-1-nofma");
      const std::vector<float> y = Multiply(*stream, weight, x, bias, 67);
      EXPECT_TRUE(SameBits(y, ScalarLinear(x, layer.weight, bias, 67, 65, 200, order)));
      const std::vector<float> last_row(x.end() - 200, x.end());
      EXPECT_TRUE(
          SameBits(Multiply(*stream, weight, last_row, bias, 1), std::vector<float>(y.end() - 65, y.end())));
    }
    hwy::SetSupportedTargetsForTest(0);
    hwy::GetChosenTarget().Update(hwy::SupportedTargets());
  }
}

TEST(SumPartialsTest, AddsInPairsAndMayOverwriteTheFirst) {
  auto backend = CreateCpuBackend();
  auto stream = MakeStream(*backend, 2);
  const int64_t size = 3 * 7001;
  const std::vector<float> p = SpreadFloats(4 * size, 7);
  for (const int ranks : {1, 2, 4}) {
    std::vector<float> expected(static_cast<size_t>(size));
    for (int64_t i = 0; i < size; ++i) {
      const auto at = [&](int r) { return p[static_cast<size_t>(r * size + i)]; };
      expected[static_cast<size_t>(i)] = ranks == 1   ? at(0)
                                         : ranks == 2 ? at(0) + at(1)
                                                      : (at(0) + at(1)) + (at(2) + at(3));
    }
    Guarded in(std::vector<float>(p.begin(), p.begin() + ranks * size));
    Guarded out(size);
    ASSERT_EQ(SumPartials(*stream, {.partials = in.view({ranks, 3, 7001}), .y = out.view({3, 7001})}),
              absl::OkStatus());
    EXPECT_TRUE(SameBits(out.values(), expected));
    ASSERT_EQ(
        SumPartials(*stream, {.partials = in.view({ranks, 3, 7001}), .y = TensorView(in.data(), {3, 7001})}),
        absl::OkStatus());
    EXPECT_TRUE(SameBits(std::vector<float>(in.data(), in.data() + size), expected));
    EXPECT_TRUE(in.Intact() && out.Intact());
  }
}

}  // namespace
}  // namespace prism
