#include "kernels/ops/moe.h"

#include <algorithm>
#include <cmath>
#include <set>

#include "kernels/cpu/cpu_backend.h"
#include "kernels/cuda/linear_kernels.h"
#include "tests/kernels/cpu/spread_values.h"
#include "tests/kernels/cpu/test_tensors.h"
#include "tests/kernels/cuda/cuda_test.h"
#include "tests/kernels/cuda/device_array.h"

namespace prism {
namespace {

using cuda::LinearForm;
using test::DeviceArray;
using test::Differences;
using test::kUnitError;
using test::RandomFloats;
using test::ToBFloat16;

constexpr double kFloatRounding = 0x1p-24;
constexpr double kBFloat16Rounding = 0x1p-9;

struct MoeCase {
  int64_t tokens;   // T
  int64_t experts;  // E
  int64_t chosen;   // J
  int64_t hidden;   // H
  int64_t inner;    // I
  int rank = 0;
  int ranks = 1;
};

using CudaMoeTest = test::CudaTest;

// ---- MoeRouter ----

TEST_F(CudaMoeTest, RoutesAsTheCpuDoes) {
  const std::unique_ptr<Backend> cpu_backend = CreateCpuBackend();
  const std::unique_ptr<Stream> cpu = test::MakeStream(*cpu_backend);
  uint32_t seed = 1;
  for (const auto& [experts, chosen] : std::vector<std::pair<int64_t, int64_t>>{
           {1, 1}, {5, 2}, {12, 12}, {128, 8}, {160, 40}, {256, 8}, {1024, 64}}) {
    for (const int64_t tokens : {1, 7, 130}) {
      std::vector<float> logits = RandomFloats(tokens * experts, ++seed, 8.0f);
      // Ties.
      if (experts >= 5) logits[3] = logits[4] = 9.0f;
      std::vector<int32_t> ids(static_cast<size_t>(tokens * chosen));
      std::vector<float> weights(ids.size());
      ASSERT_EQ(MoeRouter(*cpu, {.logits = TensorView(logits.data(), Shape{tokens, experts}),
                                 .ids = TensorView(ids.data(), Shape{tokens, chosen}),
                                 .weights = TensorView(weights.data(), Shape{tokens, chosen})}),
                absl::OkStatus());
      const DeviceArray<float> device_logits(logits), device_weights(ids.size());
      const DeviceArray<int32_t> device_ids(ids.size());
      ASSERT_EQ(MoeRouter(stream(), {.logits = device_logits.view({tokens, experts}),
                                     .ids = device_ids.view({tokens, chosen}),
                                     .weights = device_weights.view({tokens, chosen})}),
                absl::OkStatus());
      EXPECT_EQ(device_ids.Read(), ids) << experts << " experts, " << tokens << " tokens";
      // Both exponentials within 2 units in the last place and the rounding of an argument up to 17, sums of
      // at most E and J terms, two divisions; each side.
      const double tolerance =
          2 * (2 * (17 + 4) + static_cast<double>(experts + chosen) + 4) * kFloatRounding;
      const std::vector<float> got = device_weights.Read();
      for (size_t i = 0; i < got.size(); ++i) ASSERT_NEAR(got[i], weights[i], tolerance * weights[i]);
    }
  }
}

TEST_F(CudaMoeTest, RoutesATokenAlikeAloneAndAmongOthers) {
  const std::vector<float> logits = RandomFloats(77 * 128, 3, 8.0f);
  const auto route = [&](int64_t first, int64_t tokens) {
    const DeviceArray<float> in(
        std::vector<float>(logits.begin() + first * 128, logits.begin() + (first + tokens) * 128));
    const DeviceArray<float> weights(static_cast<size_t>(tokens * 8));
    const DeviceArray<int32_t> ids(static_cast<size_t>(tokens * 8));
    EXPECT_EQ(MoeRouter(stream(), {.logits = in.view({tokens, 128}),
                                   .ids = ids.view({tokens, 8}),
                                   .weights = weights.view({tokens, 8})}),
              absl::OkStatus());
    return std::make_pair(ids.Read(), weights.Read());
  };
  const auto [ids, weights] = route(0, 77);
  for (int64_t t = 0; t < 77; ++t) {
    const auto [one_ids, one_weights] = route(t, 1);
    EXPECT_TRUE(std::equal(one_ids.begin(), one_ids.end(), ids.begin() + t * 8));
    EXPECT_EQ(std::memcmp(one_weights.data(), &weights[static_cast<size_t>(t * 8)], 8 * sizeof(float)), 0);
  }
}

TEST_F(CudaMoeTest, NotANumberStillGivesDistinctIds) {
  const DeviceArray<float> logits(std::vector<float>{test::kPoison, 1, 2, test::kPoison}), weights(3);
  const DeviceArray<int32_t> ids(3);
  ASSERT_EQ(
      MoeRouter(stream(),
                {.logits = logits.view({1, 4}), .ids = ids.view({1, 3}), .weights = weights.view({1, 3})}),
      absl::OkStatus());
  const std::vector<int32_t> got = ids.Read();
  EXPECT_EQ(std::set<int32_t>(got.begin(), got.end()).size(), 3u);
  for (const int32_t id : got) EXPECT_TRUE(id >= 0 && id < 4);
  EXPECT_THAT(weights.Read(), testing::Each(testing::IsNan()));
}

// ---- MoeExperts ----

// All of a case's inputs, and its experts packed on the device.
struct Inputs {
  IndexRange held;
  std::vector<float> x;                     // [T, H]
  std::vector<std::vector<float>> gate_up;  // of every held expert, [2 I, H]
  std::vector<std::vector<float>> down;     // [H, I]
  std::vector<int32_t> ids;
  std::vector<float> weights;
  std::vector<MoeExpert> experts;
};

std::vector<float> Rounded(std::vector<float> values) {
  for (float& value : values) value = static_cast<float>(BFloat16(value));
  return values;
}

LinearWeight Pack(Stream& stream, const std::vector<float>& values, int64_t n, int64_t k) {
  std::vector<BFloat16> narrow = ToBFloat16(values);
  LinearWeight packed;
  EXPECT_EQ(PackLinear(stream, {.weight = TensorView(narrow.data(), Shape{n, k}),
                                .order = SumOrder::kLeaves,
                                .in_total = k,
                                .in_begin = 0,
                                .out = &packed}),
            absl::OkStatus());
  return packed;
}

Inputs MakeInputs(Stream& stream, const MoeCase& c, uint32_t seed) {
  Inputs made;
  made.held = RankExperts(c.experts, c.rank, c.ranks);
  made.x = Rounded(RandomFloats(c.tokens * c.hidden, seed + 1));
  std::mt19937 generator(seed + 2);
  for (int64_t t = 0; t < c.tokens; ++t) {
    std::vector<int32_t> order(static_cast<size_t>(c.experts));
    for (size_t e = 0; e < order.size(); ++e) order[e] = static_cast<int32_t>(e);
    std::shuffle(order.begin(), order.end(), generator);
    made.ids.insert(made.ids.end(), order.begin(), order.begin() + c.chosen);
  }
  // A token that chose no one, as a padded row does.
  if (c.tokens > 2) std::fill_n(made.ids.begin() + c.chosen, c.chosen, -1);
  made.weights = RandomFloats(c.tokens * c.chosen, seed + 3);
  for (float& weight : made.weights) weight = std::abs(weight);
  for (int64_t e = made.held.begin; e < made.held.end; ++e) {
    const uint32_t expert_seed = seed * 1000 + static_cast<uint32_t>(2 * e);
    made.gate_up.push_back(Rounded(RandomFloats(2 * c.inner * c.hidden, expert_seed, 0.25f)));
    made.down.push_back(Rounded(RandomFloats(c.hidden * c.inner, expert_seed + 1, 0.25f)));
    made.experts.push_back({Pack(stream, made.gate_up.back(), 2 * c.inner, c.hidden),
                            Pack(stream, made.down.back(), c.hidden, c.inner)});
  }
  return made;
}

double Silu(double z) { return z / (1 + std::exp(-z)); }

TEST_F(CudaMoeTest, ExpertsAgreeWithDoublePrecision) {
  uint32_t seed = 50;
  for (const MoeCase& c : {MoeCase{5, 8, 3, 64, 48}, MoeCase{9, 6, 6, 40, 24}, MoeCase{3, 16, 4, 256, 128},
                           MoeCase{9, 16, 4, 96, 64, 1, 2}, MoeCase{9, 16, 4, 96, 64, 2, 4}}) {
    const Inputs in = MakeInputs(stream(), c, ++seed);
    const DeviceArray<BFloat16> x(ToBFloat16(in.x));
    const DeviceArray<int32_t> ids(in.ids);
    const DeviceArray<float> weights(in.weights), y(static_cast<size_t>(c.tokens * c.hidden));
    ASSERT_EQ(MoeExperts(stream(), {.x = x.view({c.tokens, c.hidden}),
                                    .ids = ids.view({c.tokens, c.chosen}),
                                    .weights = weights.view({c.tokens, c.chosen}),
                                    .experts = in.experts,
                                    .first_expert = in.held.begin,
                                    .num_experts = c.experts,
                                    .y = y.view({c.tokens, c.hidden})}),
              absl::OkStatus());
    const std::vector<float> got = y.Read();
    const double up_units = static_cast<double>(LeafWidth(c.hidden)) / 16 * kUnitError + 2 * kFloatRounding;
    const double down_units = static_cast<double>(LeafWidth(c.inner)) / 16 * kUnitError + 2 * kFloatRounding;
    for (int64_t t = 0; t < c.tokens; ++t) {
      std::vector<double> sums(static_cast<size_t>(c.hidden)), errors(sums.size());
      for (int64_t j = 0; j < c.chosen; ++j) {
        const int32_t id = in.ids[static_cast<size_t>(t * c.chosen + j)];
        if (!in.held.Contains(id)) continue;
        const size_t e = static_cast<size_t>(id - in.held.begin);
        const double weight = in.weights[static_cast<size_t>(t * c.chosen + j)];
        // Each value with the bound of its error, carried along to first order and a little.
        std::vector<double> values(static_cast<size_t>(2 * c.inner)), value_errors(values.size());
        for (int64_t i = 0; i < 2 * c.inner; ++i) {
          double sum = 0, magnitude = 0;
          for (int64_t h = 0; h < c.hidden; ++h) {
            const double term = double{in.x[static_cast<size_t>(t * c.hidden + h)]} *
                                in.gate_up[e][static_cast<size_t>(i * c.hidden + h)];
            sum += term;
            magnitude += std::abs(term);
          }
          values[static_cast<size_t>(i)] = sum;
          value_errors[static_cast<size_t>(i)] =
              1.01 * (magnitude * up_units + std::abs(sum) * kBFloat16Rounding);
        }
        std::vector<double> product(static_cast<size_t>(c.inner)), product_errors(product.size());
        for (size_t i = 0; i < product.size(); ++i) {
          const double gate = values[i], up = values[i + product.size()];
          const double gate_error = value_errors[i], up_error = value_errors[i + product.size()];
          product[i] = Silu(gate) * up;
          // |silu'| <= 1.1
          product_errors[i] =
              1.01 * (1.1 * gate_error * (std::abs(up) + up_error) + std::abs(Silu(gate)) * up_error +
                      std::abs(product[i]) * (kBFloat16Rounding + 8 * kFloatRounding));
        }
        for (int64_t h = 0; h < c.hidden; ++h) {
          double sum = 0, magnitude = 0, error = 0;
          for (int64_t i = 0; i < c.inner; ++i) {
            const double w = in.down[e][static_cast<size_t>(h * c.inner + i)];
            sum += w * product[static_cast<size_t>(i)];
            magnitude += std::abs(w * product[static_cast<size_t>(i)]);
            error += std::abs(w) * product_errors[static_cast<size_t>(i)];
          }
          error += 1.01 * (magnitude + error) * down_units;
          error += (std::abs(sum) + error) * kBFloat16Rounding;
          sums[static_cast<size_t>(h)] += weight * sum;
          errors[static_cast<size_t>(h)] += weight * (error + std::abs(sum) * 12 * kFloatRounding);
        }
      }
      for (size_t h = 0; h < sums.size(); ++h) {
        ASSERT_NEAR(got[static_cast<size_t>(t * c.hidden) + h], sums[h], errors[h]) << "token " << t;
      }
    }
  }
}

TEST_F(CudaMoeTest, EveryFormEqualsTheReferenceBitForBit) {
  uint32_t seed = 80;
  for (const MoeCase& c :
       {MoeCase{1, 16, 8, 256, 64}, MoeCase{2, 128, 8, 512, 128}, MoeCase{7, 16, 4, 2048, 768},
        MoeCase{33, 16, 8, 512, 192}, MoeCase{64, 16, 4, 256, 128}, MoeCase{150, 8, 4, 256, 128},
        MoeCase{300, 4, 2, 256, 64}, MoeCase{40, 16, 4, 96, 40}, MoeCase{9, 16, 4, 512, 128, 1, 2},
        MoeCase{60, 16, 4, 512, 128, 3, 4}, MoeCase{500, 6, 3, 128, 64}}) {
    const Inputs in = MakeInputs(stream(), c, ++seed);
    const DeviceArray<BFloat16> x(ToBFloat16(in.x));
    const DeviceArray<int32_t> ids(in.ids);
    const DeviceArray<float> weights(in.weights);
    cuda::ExpertWeights gate_up = {}, down = {};
    const auto shape_of = [](const LinearWeight& weight) {
      return cuda::PackedWeight{.data = nullptr,
                                .out_features = weight.out_features,
                                .in_features = weight.in_features,
                                .leaves = kNumLeaves,
                                .leaf_width = static_cast<int>(LeafWidth(weight.in_features))};
    };
    gate_up.shape = shape_of(in.experts[0].gate_up);
    down.shape = shape_of(in.experts[0].down);
    for (size_t e = 0; e < in.experts.size(); ++e) {
      gate_up.data[e] = in.experts[e].gate_up.packed.view().raw();
      down.data[e] = in.experts[e].down.packed.view().raw();
    }
    const auto run = [&](int64_t first, int64_t tokens, LinearForm form) {
      const DeviceArray<float> y(static_cast<size_t>(tokens * c.hidden));
      cuda::ExpertsParams params = {.x = x.data() + first * c.hidden,
                                    .ids = ids.data() + first * c.chosen,
                                    .weights = weights.data() + first * c.chosen,
                                    .gate_up = &gate_up,
                                    .down = &down,
                                    .y = y.data(),
                                    .tokens = tokens,
                                    .chosen = static_cast<int>(c.chosen),
                                    .first_expert = static_cast<int>(in.held.begin),
                                    .held = static_cast<int>(in.held.size()),
                                    .num_experts = static_cast<int>(c.experts),
                                    .first_quarter = static_cast<int>(RankLeaves(c.rank, c.ranks).begin),
                                    .quarters = kExpertQuarters / c.ranks};
      const DeviceArray<char> scratch(static_cast<size_t>(cuda::ExpertsScratchBytes(params)));
      params.scratch = scratch.data();
      if (!cuda::CanRun(params, form)) return std::vector<float>();
      EXPECT_EQ(cuda::LaunchMoeExperts(params, form, cuda::HandleOf(stream())), cudaSuccess);
      scratch.Read();
      return y.Read();
    };
    const std::vector<float> expected = run(0, c.tokens, LinearForm::kReference);
    for (const float value : expected) ASSERT_FALSE(std::isnan(value));
    for (const LinearForm form : {LinearForm::kFew, LinearForm::kMany, LinearForm::kAuto}) {
      const std::vector<float> got = run(0, c.tokens, form);
      if (got.empty()) continue;
      EXPECT_EQ(Differences(expected, got), 0)
          << c.tokens << " tokens, " << c.experts << " experts, form " << static_cast<int>(form);
    }
    // Tokens alone.
    for (int64_t t = 0; t < c.tokens; t += 13) {
      const std::vector<float> one = run(t, 1, LinearForm::kAuto);
      EXPECT_EQ(
          std::memcmp(one.data(), &expected[static_cast<size_t>(t * c.hidden)], one.size() * sizeof(float)),
          0)
          << "token " << t << " alone";
    }
  }
}

TEST_F(CudaMoeTest, LimitsAreNamed) {
  const DeviceArray<float> logits(2048), weights(1);
  const DeviceArray<int32_t> ids(1);
  const absl::Status status = MoeRouter(
      stream(), {.logits = logits.view({1, 2048}), .ids = ids.view({1, 1}), .weights = weights.view({1, 1})});
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(status.message()), testing::HasSubstr("2048 experts, the most is 1024"));
}

}  // namespace
}  // namespace prism
