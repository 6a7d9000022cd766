#include "kernels/ops/moe.h"

#include <algorithm>
#include <numeric>

#include "kernels/cpu/linear_layout.h"
#include "kernels/ops/activation.h"
#include "tests/kernels/cpu/spread_values.h"
#include "tests/kernels/cpu/test_tensors.h"

namespace prism {
namespace {

using test::Guarded;
using test::MakeStream;
using test::RandomFloats;
using test::SameBits;
using test::SpreadFloats;

// ---- MoeRouter ---------------------------------------------------------------------------------

struct Choice {
  std::vector<int32_t> ids;
  std::vector<float> weights;
};

Choice Route(const std::vector<float>& logits, int64_t tokens, int64_t experts, int64_t chosen,
             int num_threads = 1) {
  auto backend = CreateCpuBackend();
  auto stream = MakeStream(*backend, num_threads);
  Guarded in(logits);
  std::vector<int32_t> ids(static_cast<size_t>(tokens * chosen + 1), -7);
  Guarded weights(tokens * chosen);
  EXPECT_EQ(MoeRouter(*stream, {.logits = in.view({tokens, experts}),
                                .ids = TensorView(ids.data(), Shape{tokens, chosen}),
                                .weights = weights.view({tokens, chosen})}),
            absl::OkStatus());
  EXPECT_TRUE(weights.Intact());
  EXPECT_EQ(ids.back(), -7) << "wrote past the end of ids";
  ids.pop_back();
  return {ids, weights.values()};
}

class MoeRouterTest : public testing::TestWithParam<std::pair<int64_t, int64_t>> {};

// The exponential errs by an ulp or so of its argument's rounding (|argument| <= 16 here, so 16
// roundings) and its own, each of E additions and the two divisions by one rounding.
TEST_P(MoeRouterTest, AgreesWithDoublePrecision) {
  const auto [experts, chosen] = GetParam();
  const int64_t tokens = 33;
  const std::vector<float> logits = RandomFloats(tokens * experts, 1, 8.0f);
  const Choice choice = Route(logits, tokens, experts, chosen);
  const double tolerance = (2.0 * (16 + 2) + 2.0 * static_cast<double>(experts) + 4) * test::kRounding;
  for (int64_t t = 0; t < tokens; ++t) {
    std::vector<double> p(static_cast<size_t>(experts));
    for (int64_t e = 0; e < experts; ++e)
      p[static_cast<size_t>(e)] = std::exp(double{logits[static_cast<size_t>(t * experts + e)]});
    std::vector<int32_t> order(static_cast<size_t>(experts));
    std::iota(order.begin(), order.end(), 0);
    std::sort(order.begin(), order.end(), [&](int32_t a, int32_t b) {
      const double p_a = p[static_cast<size_t>(a)], p_b = p[static_cast<size_t>(b)];
      return p_a > p_b || (p_a == p_b && a < b);
    });
    double sum = 0;
    for (int64_t j = 0; j < chosen; ++j) sum += p[static_cast<size_t>(order[static_cast<size_t>(j)])];
    for (int64_t j = 0; j < chosen; ++j) {
      const size_t i = static_cast<size_t>(t * chosen + j);
      EXPECT_EQ(choice.ids[i], order[static_cast<size_t>(j)]);
      const double expected = p[static_cast<size_t>(order[static_cast<size_t>(j)])] / sum;
      EXPECT_NEAR(choice.weights[i], expected, tolerance * expected);
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Sizes, MoeRouterTest,
                         testing::Values(std::pair<int64_t, int64_t>{1, 1}, std::pair<int64_t, int64_t>{5, 2},
                                         std::pair<int64_t, int64_t>{12, 12},
                                         std::pair<int64_t, int64_t>{128, 8}));

TEST(MoeRouterTiesTest, GoToTheLowerId) {
  const Choice choice = Route({1, 3, 3, 0, 3, 1}, 1, 6, 5);
  EXPECT_THAT(choice.ids, testing::ElementsAre(1, 2, 4, 0, 5));
  EXPECT_EQ(choice.weights[0], choice.weights[1]);
  EXPECT_THAT(Route({2, 2, 2, 2}, 1, 4, 4).weights, testing::Each(0.25f));
}

TEST(MoeRouterTiesTest, NotANumberStillGivesDistinctIds) {
  const Choice choice = Route({test::kPoison, 1, 2, test::kPoison}, 1, 4, 3);
  EXPECT_THAT(choice.ids, testing::UnorderedElementsAre(0, 1, 2));
  EXPECT_THAT(choice.weights, testing::Each(testing::IsNan()));
}

TEST(MoeRouterTiesTest, NeitherBatchNorThreadsChangeABit) {
  const std::vector<float> logits = RandomFloats(50 * 20, 2, 8.0f);
  const Choice whole = Route(logits, 50, 20, 4, 3);
  for (int64_t t = 0; t < 50; ++t) {
    const Choice alone =
        Route(std::vector<float>(logits.begin() + t * 20, logits.begin() + (t + 1) * 20), 1, 20, 4);
    EXPECT_TRUE(std::equal(alone.ids.begin(), alone.ids.end(), whole.ids.begin() + t * 4));
    EXPECT_TRUE(SameBits(alone.weights, std::vector<float>(whole.weights.begin() + t * 4,
                                                           whole.weights.begin() + (t + 1) * 4)));
  }
}

// ---- MoeExperts --------------------------------------------------------------------------------

struct MoeCase {
  int64_t tokens;   // T
  int64_t experts;  // E
  int64_t chosen;   // J
  int64_t hidden;   // H
  int64_t inner;    // I
};

LinearWeight PackBFloat16(Stream& stream, const std::vector<float>& values, int64_t n, int64_t k) {
  Tensor weight = Tensor::Host(DType::kBF16, {n, k});
  for (int64_t i = 0; i < n * k; ++i) weight.data<BFloat16>()[i] = BFloat16(values[static_cast<size_t>(i)]);
  LinearWeight packed;
  EXPECT_EQ(PackLinear(stream, {.weight = weight.view(),
                                .order = SumOrder::kLeaves,
                                .in_total = k,
                                .in_begin = 0,
                                .out = &packed}),
            absl::OkStatus());
  return packed;
}

// A layer's experts with a token's choices.
struct MoeLayer {
  MoeCase c;
  std::unique_ptr<Backend> backend = CreateCpuBackend();
  std::unique_ptr<Stream> stream = MakeStream(*backend);
  std::vector<MoeExpert> experts;
  std::vector<float> x;
  std::vector<int32_t> ids;
  std::vector<float> weights;

  explicit MoeLayer(const MoeCase& shape) : c(shape) {
    for (int64_t e = 0; e < c.experts; ++e) {
      const uint32_t seed = static_cast<uint32_t>(100 + 2 * e);
      experts.push_back(
          {PackBFloat16(*stream, RandomFloats(2 * c.inner * c.hidden, seed), 2 * c.inner, c.hidden),
           PackBFloat16(*stream, RandomFloats(c.hidden * c.inner, seed + 1), c.hidden, c.inner)});
    }
    x = RandomFloats(c.tokens * c.hidden, 3);
    weights = SpreadFloats(c.tokens * c.chosen, 4);
    std::mt19937 generator(5);
    std::vector<int32_t> order(static_cast<size_t>(c.experts));
    std::iota(order.begin(), order.end(), 0);
    for (int64_t t = 0; t < c.tokens; ++t) {
      std::shuffle(order.begin(), order.end(), generator);
      ids.insert(ids.end(), order.begin(), order.begin() + c.chosen);
    }
  }

  // Tokens [range) on the rank that holds experts [held).
  std::vector<float> Run(IndexRange tokens, IndexRange held, int num_threads = 1) const {
    auto own = MakeStream(*backend, num_threads);
    Guarded in(std::vector<float>(x.begin() + tokens.begin * c.hidden, x.begin() + tokens.end * c.hidden));
    Guarded w(std::vector<float>(weights.begin() + tokens.begin * c.chosen,
                                 weights.begin() + tokens.end * c.chosen));
    std::vector<int32_t> chosen(ids.begin() + tokens.begin * c.chosen, ids.begin() + tokens.end * c.chosen);
    Guarded out(tokens.size() * c.hidden);
    // An empty vector's data may be null, which would be an absent tensor.
    chosen.reserve(1);
    EXPECT_EQ(MoeExperts(*own, {.x = in.view({tokens.size(), c.hidden}),
                                .ids = TensorView(chosen.data(), Shape{tokens.size(), c.chosen}),
                                .weights = w.view({tokens.size(), c.chosen}),
                                .experts = absl::MakeConstSpan(experts).subspan(
                                    static_cast<size_t>(held.begin), static_cast<size_t>(held.size())),
                                .first_expert = held.begin,
                                .num_experts = c.experts,
                                .y = out.view({tokens.size(), c.hidden})}),
              absl::OkStatus());
    EXPECT_TRUE(out.Intact());
    return out.values();
  }
  std::vector<float> RunAll(int num_threads = 1) const {
    return Run({0, c.tokens}, {0, c.experts}, num_threads);
  }

  // The same by the unfused ops, one token and one expert after the other.
  std::vector<float> Unfused() const {
    const bool fused = test::HasFusedMultiplyAdd();
    std::vector<float> y;
    for (int64_t t = 0; t < c.tokens; ++t) {
      std::vector<float> quarters[kExpertQuarters];
      for (auto& quarter : quarters) quarter.assign(static_cast<size_t>(c.hidden), 0.0f);
      for (int64_t e = 0; e < c.experts; ++e) {
        for (int64_t j = 0; j < c.chosen; ++j) {
          const size_t i = static_cast<size_t>(t * c.chosen + j);
          if (ids[i] != e) continue;
          const MoeExpert& expert = experts[static_cast<size_t>(e)];
          Tensor row = Tensor::Host(DType::kF32, {1, c.hidden});
          std::copy_n(x.begin() + t * c.hidden, c.hidden, row.data<float>());
          Tensor gate_up = Tensor::Host(DType::kF32, {1, 2 * c.inner});
          Tensor product = Tensor::Host(DType::kF32, {1, c.inner});
          Tensor down = Tensor::Host(DType::kF32, {1, c.hidden});
          EXPECT_EQ(
              Linear(*stream, {.x = row.view(), .weight = &expert.gate_up, .bias = {}, .y = gate_up.view()}),
              absl::OkStatus());
          EXPECT_EQ(SiluMul(*stream, {.x = gate_up.view(), .y = product.view()}), absl::OkStatus());
          EXPECT_EQ(
              Linear(*stream, {.x = product.view(), .weight = &expert.down, .bias = {}, .y = down.view()}),
              absl::OkStatus());
          std::vector<float>& sum = quarters[QuarterOfExpert(c.experts, e)];
          for (int64_t h = 0; h < c.hidden; ++h) {
            const float value = down.data<float>()[h];
            float& s = sum[static_cast<size_t>(h)];
            if (fused) {
              s = std::fma(weights[i], value, s);
            } else {
              const float scaled = weights[i] * value;
              s = scaled + s;
            }
          }
        }
      }
      for (size_t h = 0; h < static_cast<size_t>(c.hidden); ++h) {
        y.push_back(AddLeaves(quarters[0][h], quarters[1][h], quarters[2][h], quarters[3][h]));
      }
    }
    return y;
  }
};

class MoeExpertsTest : public testing::TestWithParam<MoeCase> {
 protected:
  const MoeLayer layer_{GetParam()};
};

TEST_P(MoeExpertsTest, EqualsTheUnfusedOpsBitForBit) {
  EXPECT_TRUE(SameBits(layer_.RunAll(), layer_.Unfused()));
}

TEST_P(MoeExpertsTest, ThreadsChangeNoBit) { EXPECT_TRUE(SameBits(layer_.RunAll(1), layer_.RunAll(3))); }

TEST_P(MoeExpertsTest, ATokenAloneEqualsTheTokenInItsBatch) {
  const std::vector<float> y = layer_.RunAll();
  const int64_t hidden = layer_.c.hidden;
  for (int64_t t = 0; t < layer_.c.tokens; t += 1 + layer_.c.tokens / 7) {
    EXPECT_TRUE(SameBits(layer_.Run({t, t + 1}, {0, layer_.c.experts}),
                         std::vector<float>(y.begin() + t * hidden, y.begin() + (t + 1) * hidden)))
        << "token " << t;
  }
}

TEST_P(MoeExpertsTest, RanksChangeNoBit) {
  const MoeCase& c = layer_.c;
  const std::vector<float> whole = layer_.RunAll();
  for (const int ranks : {2, 4}) {
    std::vector<float> partials;
    for (int rank = 0; rank < ranks; ++rank) {
      const std::vector<float> y = layer_.Run({0, c.tokens}, RankExperts(c.experts, rank, ranks));
      partials.insert(partials.end(), y.begin(), y.end());
    }
    Guarded in(partials);
    Guarded out(c.tokens * c.hidden);
    ASSERT_EQ(SumPartials(*layer_.stream, {.partials = in.view({ranks, c.tokens, c.hidden}),
                                           .y = out.view({c.tokens, c.hidden})}),
              absl::OkStatus());
    EXPECT_TRUE(SameBits(out.values(), whole)) << ranks << " ranks";
  }
}

// A sum over I and one over J, each as in LinearTest; the error of gate and up (a sum over H) reaches
// the product through silu, whose slope is at most 1.1; silu itself is a few roundings.
TEST_P(MoeExpertsTest, AgreesWithDoublePrecision) {
  const MoeCase& c = layer_.c;
  const std::vector<float> y = layer_.RunAll();
  const auto value = [](const LinearWeight& w, int64_t n, int64_t k) {
    const int64_t column = n / cpu::kPanelWidth * w.in_features + k;
    const int64_t slot = cpu::SlotOf(DType::kBF16, n % cpu::kPanelWidth);
    return double{static_cast<float>(w.packed.data<BFloat16>()[column * cpu::kPanelWidth + slot])};
  };
  for (int64_t t = 0; t < c.tokens; t += 1 + c.tokens / 3) {
    std::vector<double> expected(static_cast<size_t>(c.hidden)), bound(static_cast<size_t>(c.hidden));
    for (int64_t j = 0; j < c.chosen; ++j) {
      const size_t i = static_cast<size_t>(t * c.chosen + j);
      const MoeExpert& expert = layer_.experts[static_cast<size_t>(layer_.ids[i])];
      std::vector<double> product(static_cast<size_t>(c.inner)), error(static_cast<size_t>(c.inner));
      for (int64_t n = 0; n < c.inner; ++n) {
        double gate = 0, up = 0, gate_size = 0, up_size = 0;
        for (int64_t k = 0; k < c.hidden; ++k) {
          const double x = layer_.x[static_cast<size_t>(t * c.hidden + k)];
          gate += x * value(expert.gate_up, n, k);
          up += x * value(expert.gate_up, c.inner + n, k);
          gate_size += std::abs(x * value(expert.gate_up, n, k));
          up_size += std::abs(x * value(expert.gate_up, c.inner + n, k));
        }
        const double silu = gate / (1 + std::exp(-gate));
        const double roundings = 2.0 * static_cast<double>(c.hidden) + 3;
        product[static_cast<size_t>(n)] = silu * up;
        error[static_cast<size_t>(n)] = test::kRounding * (1.1 * roundings * gate_size * std::abs(up) +
                                                           roundings * up_size * std::abs(silu) +
                                                           (8 + std::abs(gate)) * std::abs(silu * up));
      }
      for (int64_t h = 0; h < c.hidden; ++h) {
        double down = 0, down_error = 0;
        for (int64_t n = 0; n < c.inner; ++n) {
          const double w = value(expert.down, h, n);
          down += product[static_cast<size_t>(n)] * w;
          down_error += std::abs(w) * (error[static_cast<size_t>(n)] +
                                       (2.0 * static_cast<double>(c.inner) + 3) * test::kRounding *
                                           std::abs(product[static_cast<size_t>(n)]));
        }
        const double weight = layer_.weights[i];
        expected[static_cast<size_t>(h)] += weight * down;
        bound[static_cast<size_t>(h)] +=
            std::abs(weight) *
            (down_error + (2.0 * static_cast<double>(c.chosen) + 3) * test::kRounding * std::abs(down));
      }
    }
    for (int64_t h = 0; h < c.hidden; ++h) {
      EXPECT_NEAR(y[static_cast<size_t>(t * c.hidden + h)], expected[static_cast<size_t>(h)],
                  1.01 * bound[static_cast<size_t>(h)]);
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Shapes, MoeExpertsTest,
                         testing::Values(MoeCase{0, 12, 2, 32, 16}, MoeCase{1, 12, 3, 64, 48},
                                         MoeCase{7, 20, 4, 40, 33}, MoeCase{9, 5, 2, 17, 15},
                                         MoeCase{33, 5, 5, 96, 20}, MoeCase{64, 128, 8, 32, 16},
                                         MoeCase{1030, 3, 2, 16, 8}),
                         [](const testing::TestParamInfo<MoeCase>& test_case) {
                           const MoeCase& c = test_case.param;
                           return "T" + std::to_string(c.tokens) + "E" + std::to_string(c.experts) + "J" +
                                  std::to_string(c.chosen) + "H" + std::to_string(c.hidden) + "I" +
                                  std::to_string(c.inner);
                         });

TEST(MoeExpertsRankTest, ARankWhoseExpertsNobodyChoseGivesZeros) {
  const MoeLayer layer({2, 8, 2, 16, 8});
  MoeLayer other(layer.c);
  std::fill(other.ids.begin(), other.ids.end(), 7);
  EXPECT_THAT(other.Run({0, 2}, {0, 4}), testing::Each(0.0f));
}

}  // namespace
}  // namespace prism
