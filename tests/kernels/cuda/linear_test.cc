#include "kernels/ops/linear.h"

#include <cmath>
#include <numeric>

#include "common/tensor/sum_order.h"
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
using test::SpreadFloats;
using test::ToBFloat16;

constexpr double kFloatRounding = 0x1p-24;

struct LinearCase {
  int64_t n;
  int64_t k;  // of the whole layer
  SumOrder order = SumOrder::kLeaves;
  int rank = 0;
  int ranks = 1;
};

// A case's weight on the device, and the values it was made of.
struct CaseWeight {
  IndexRange held;
  std::vector<float> values;  // [n, held]
  LinearWeight packed;
};

class CudaLinearTest : public test::CudaTest {
 protected:
  CaseWeight MakeWeight(const LinearCase& c, uint32_t seed, bool spread) {
    CaseWeight made;
    made.held = c.order == SumOrder::kChain ? IndexRange{0, c.k} : RankRange(c.k, c.rank, c.ranks);
    const int64_t count = c.n * made.held.size();
    made.values = spread ? SpreadFloats(count, seed, true) : RandomFloats(count, seed);
    std::vector<BFloat16> narrow = ToBFloat16(made.values);
    for (size_t i = 0; i < narrow.size(); ++i) made.values[i] = static_cast<float>(narrow[i]);
    EXPECT_EQ(PackLinear(stream(), {.weight = TensorView(narrow.data(), Shape{c.n, made.held.size()}),
                                    .order = c.order,
                                    .in_total = c.k,
                                    .in_begin = made.held.begin,
                                    .out = &made.packed}),
              absl::OkStatus());
    return made;
  }

  cuda::LinearParams ParamsOf(const LinearCase& c, const CaseWeight& weight) const {
    cuda::LinearParams params;
    params.weight = {
        .data = weight.packed.packed.view().raw(), .out_features = c.n, .in_features = weight.held.size()};
    if (c.order == SumOrder::kChain) {
      params.weight.leaf_width = static_cast<int>((c.k + 15) / 16 * 16);
    } else {
      params.weight.leaves = kNumLeaves / c.ranks;
      params.weight.leaf_width = static_cast<int>(LeafWidth(c.k));
    }
    return params;
  }
};

TEST_F(CudaLinearTest, AgreesWithDoublePrecision) {
  const LinearCase cases[] = {{64, 256},
                              {80, 96},
                              {17, 40},
                              {128, 2048},
                              {33, 1152, SumOrder::kChain},
                              {70, 1000, SumOrder::kChain},
                              {5, 7},
                              {48, 1024, SumOrder::kLeaves, 1, 2},
                              {48, 1024, SumOrder::kLeaves, 3, 4}};
  uint32_t seed = 1;
  for (const LinearCase& c : cases) {
    const CaseWeight weight = MakeWeight(c, ++seed, false);
    const int64_t k = weight.held.size();
    for (const int64_t rows : {1, 3, 8, 21, 150}) {
      for (const bool with_bias : {false, true}) {
        std::vector<BFloat16> x = ToBFloat16(RandomFloats(rows * k, ++seed));
        const std::vector<float> bias = RandomFloats(c.n, ++seed);
        const DeviceArray<BFloat16> device_x(x);
        const DeviceArray<float> device_bias(bias), y(static_cast<size_t>(rows * c.n));
        const DeviceArray<BFloat16> rounded(static_cast<size_t>(rows * c.n));
        LinearArgs args = {
            .x = device_x.view({rows, k}), .weight = &weight.packed, .bias = {}, .y = y.view({rows, c.n})};
        if (with_bias) args.bias = device_bias.view({c.n});
        ASSERT_EQ(Linear(stream(), args), absl::OkStatus());
        args.y = rounded.view({rows, c.n});
        ASSERT_EQ(Linear(stream(), args), absl::OkStatus());
        const std::vector<float> sums = y.Read();
        const std::vector<BFloat16> rounded_sums = rounded.Read();
        const double units = c.order == SumOrder::kChain ? (static_cast<double>(k) + 15) / 16
                                                         : static_cast<double>(LeafWidth(c.k)) / 16;
        for (int64_t t = 0; t < rows; ++t) {
          for (int64_t n = 0; n < c.n; ++n) {
            double sum = 0, magnitude = 0;
            for (int64_t i = 0; i < k; ++i) {
              const double term = double{static_cast<float>(x[static_cast<size_t>(t * k + i)])} *
                                  weight.values[static_cast<size_t>(n * k + i)];
              sum += term;
              magnitude += std::abs(term);
            }
            if (with_bias) {
              sum += bias[static_cast<size_t>(n)];
              magnitude += std::abs(bias[static_cast<size_t>(n)]);
            }
            const size_t at = static_cast<size_t>(t * c.n + n);
            ASSERT_NEAR(sums[at], sum, magnitude * (units * kUnitError + 4 * kFloatRounding))
                << c.n << " x " << c.k << ", row " << t << " of " << rows << ", feature " << n;
            // The float32 sum is rounded to nearest even, once.
            ASSERT_EQ(BFloat16(sums[at]).bits, rounded_sums[at].bits);
          }
        }
      }
    }
  }
}

TEST_F(CudaLinearTest, EveryFormEqualsTheReferenceBitForBit) {
  const LinearCase cases[] = {{128, 256},
                              {5120, 2048},
                              {2048, 4096},
                              {1000, 2048},
                              {192, 768},
                              {2048, 768},
                              {72, 96},
                              {100, 1536},
                              {64, 16},
                              {1152, 4304, SumOrder::kChain},
                              {77, 1152, SumOrder::kChain},
                              {200, 72, SumOrder::kChain},
                              {320, 4096, SumOrder::kLeaves, 0, 2},
                              {320, 4096, SumOrder::kLeaves, 1, 2},
                              {320, 4096, SumOrder::kLeaves, 2, 4},
                              {96, 352, SumOrder::kLeaves, 3, 4},
                              {640, 9728}};
  uint32_t seed = 100;
  int64_t compared = 0;
  for (const LinearCase& c : cases) {
    const CaseWeight weight = MakeWeight(c, ++seed, true);
    const int64_t k = weight.held.size();
    const int64_t rows_max = 300;
    const DeviceArray<BFloat16> x(ToBFloat16(SpreadFloats(rows_max * k, ++seed, true)));
    const DeviceArray<float> bias(SpreadFloats(c.n, ++seed));
    std::vector<float> all;
    for (const int64_t rows : {300, 1, 2, 7, 8, 9, 16, 24, 32, 33, 64, 65, 128, 130}) {
      for (const bool plain : {false, true}) {
        cuda::LinearParams params = ParamsOf(c, weight);
        params.x = x.data();
        params.rows = rows;
        params.y_f32 = plain;
        params.bias = plain ? nullptr : bias.data();
        const size_t words = static_cast<size_t>(rows * c.n * (plain ? 4 : 2));
        const auto run = [&](LinearForm form) {
          const DeviceArray<uint8_t> y(words);
          params.y = y.data();
          EXPECT_EQ(cuda::LaunchLinear(params, form, cuda::HandleOf(stream())), cudaSuccess);
          return y.Read();
        };
        const std::vector<uint8_t> expected = run(LinearForm::kReference);
        for (const LinearForm form : {LinearForm::kFew, LinearForm::kMany, LinearForm::kChain}) {
          if (!cuda::CanRun(params, form)) continue;
          EXPECT_EQ(Differences(expected, run(form)), 0)
              << c.n << " x " << c.k << " rank " << c.rank << " of " << c.ranks << ", " << rows
              << " rows, form " << static_cast<int>(form) << (plain ? ", f32" : ", bf16 with bias");
          compared += rows * c.n;
        }
        // A row alone or among others.
        if (plain && rows == 300) {
          all.resize(words / 4);
          std::memcpy(all.data(), expected.data(), words);
        } else if (plain) {
          EXPECT_EQ(std::memcmp(all.data(), expected.data(), words), 0) << "rows depend on their neighbours";
        }
      }
    }
  }
  std::printf("compared %ld sums\n", static_cast<long>(compared));
}

TEST_F(CudaLinearTest, BlocksThatTakeSeveralTilesEqualTheReference) {
  // More tiles of 128 x 128 than two of a multiprocessor each, the last ones cut.
  for (const LinearCase& c : {LinearCase{5100, 512}, LinearCase{4304, 1152, SumOrder::kChain},
                              LinearCase{8200, 200, SumOrder::kChain}}) {
    const CaseWeight weight = MakeWeight(c, 41, true);
    const int64_t rows = 1100;
    const DeviceArray<BFloat16> x(ToBFloat16(SpreadFloats(rows * c.k, 42, true)));
    cuda::LinearParams params = ParamsOf(c, weight);
    params.x = x.data();
    params.rows = rows;
    std::vector<std::vector<BFloat16>> results;
    for (const LinearForm form : {LinearForm::kReference, LinearForm::kFew, LinearForm::kMany,
                                  LinearForm::kChain, LinearForm::kAuto}) {
      if (!cuda::CanRun(params, form)) continue;
      const DeviceArray<BFloat16> y(static_cast<size_t>(rows * c.n));
      params.y = y.data();
      EXPECT_EQ(cuda::LaunchLinear(params, form, cuda::HandleOf(stream())), cudaSuccess);
      results.push_back(y.Read());
      EXPECT_EQ(Differences(results[0], results.back()), 0)
          << c.n << " x " << c.k << ", form " << static_cast<int>(form);
    }
  }
}

TEST_F(CudaLinearTest, ARowOfPoisonStaysInItsRow) {
  const LinearCase c = {192, 1024};
  const CaseWeight weight = MakeWeight(c, 7, false);
  for (const int64_t rows : {5, 40, 200}) {
    std::vector<BFloat16> x = ToBFloat16(RandomFloats(rows * c.k, 8));
    std::vector<std::vector<float>> results;
    for (const bool poisoned : {false, true}) {
      if (poisoned) std::fill_n(x.begin() + 3 * c.k, c.k, BFloat16(test::kPoison));
      const DeviceArray<BFloat16> device_x(x);
      const DeviceArray<float> y(static_cast<size_t>(rows * c.n));
      ASSERT_EQ(Linear(stream(), {.x = device_x.view({rows, c.k}),
                                  .weight = &weight.packed,
                                  .bias = {},
                                  .y = y.view({rows, c.n})}),
                absl::OkStatus());
      results.push_back(y.Read());
    }
    for (int64_t i = 0; i < rows * c.n; ++i) {
      const size_t at = static_cast<size_t>(i);
      if (i / c.n == 3) {
        EXPECT_TRUE(std::isnan(results[1][at]));
      } else {
        ASSERT_EQ(results[0][at], results[1][at]);
      }
    }
  }
}

TEST_F(CudaLinearTest, PartialSumsOfRanksGiveTheWholeSum) {
  const int64_t n = 320, k = 2048, rows = 9;
  const std::vector<float> w = SpreadFloats(n * k, 21, true), x = SpreadFloats(rows * k, 22, true);
  const auto run = [&](IndexRange held) {
    std::vector<float> w_held, x_held;
    for (int64_t r = 0; r < n; ++r)
      w_held.insert(w_held.end(), w.begin() + r * k + held.begin, w.begin() + r * k + held.end);
    for (int64_t r = 0; r < rows; ++r)
      x_held.insert(x_held.end(), x.begin() + r * k + held.begin, x.begin() + r * k + held.end);
    std::vector<BFloat16> narrow = ToBFloat16(w_held);
    LinearWeight packed;
    EXPECT_EQ(PackLinear(stream(), {.weight = TensorView(narrow.data(), Shape{n, held.size()}),
                                    .order = SumOrder::kLeaves,
                                    .in_total = k,
                                    .in_begin = held.begin,
                                    .out = &packed}),
              absl::OkStatus());
    const DeviceArray<BFloat16> device_x(ToBFloat16(x_held));
    const DeviceArray<float> y(static_cast<size_t>(rows * n));
    EXPECT_EQ(
        Linear(
            stream(),
            {.x = device_x.view({rows, held.size()}), .weight = &packed, .bias = {}, .y = y.view({rows, n})}),
        absl::OkStatus());
    return y.Read();
  };
  const std::vector<float> whole = run({0, k});
  for (const int ranks : {2, 4}) {
    std::vector<float> partials;
    for (int rank = 0; rank < ranks; ++rank) {
      const std::vector<float> partial = run(RankRange(k, rank, ranks));
      partials.insert(partials.end(), partial.begin(), partial.end());
    }
    const DeviceArray<float> device_partials(partials), y(static_cast<size_t>(rows * n));
    ASSERT_EQ(
        SumPartials(stream(), {.partials = device_partials.view({ranks, rows, n}), .y = y.view({rows, n})}),
        absl::OkStatus());
    EXPECT_EQ(Differences(whole, y.Read()), 0) << ranks << " ranks";
  }
}

TEST_F(CudaLinearTest, AWeightOnTheDeviceIsPackedAsOneOnTheHost) {
  const int64_t n = 100, k = 352;
  std::vector<BFloat16> weight = ToBFloat16(RandomFloats(n * k, 31));
  const DeviceArray<BFloat16> device_weight(weight);
  std::vector<std::vector<BFloat16>> packed_bits;
  for (const WeightMemory memory : {WeightMemory::kHost, WeightMemory::kDevice}) {
    const TensorView view =
        memory == WeightMemory::kHost ? TensorView(weight.data(), Shape{n, k}) : device_weight.view({n, k});
    LinearWeight packed;
    ASSERT_EQ(PackLinear(stream(), {.weight = view,
                                    .order = SumOrder::kLeaves,
                                    .in_total = k,
                                    .in_begin = 0,
                                    .out = &packed,
                                    .memory = memory}),
              absl::OkStatus());
    const TensorView on_device = packed.packed.view();
    std::vector<BFloat16> bits(static_cast<size_t>(on_device.num_elements()));
    ASSERT_EQ(stream().CopyToHost(on_device, TensorView(bits.data(), on_device.shape())), absl::OkStatus());
    packed_bits.push_back(std::move(bits));
  }
  EXPECT_EQ(Differences(packed_bits[0], packed_bits[1]), 0);
}

TEST_F(CudaLinearTest, AWeightThatIsNotBf16IsRefused) {
  std::vector<float> weight(64 * 64, 0.5f);
  LinearWeight packed;
  const PackLinearArgs args = {.weight = TensorView(weight.data(), Shape{64, 64}),
                               .order = SumOrder::kChain,
                               .in_total = 64,
                               .in_begin = 0,
                               .out = &packed};
  EXPECT_EQ(PackLinear(stream(), args), absl::OkStatus());
  weight[1234] = 0.1f;
  const absl::Status status = PackLinear(stream(), args);
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(status.message()), testing::HasSubstr("not bf16"));
}

}  // namespace
}  // namespace prism
