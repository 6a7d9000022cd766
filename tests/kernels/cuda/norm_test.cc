#include "kernels/cuda/norm/norm.h"

#include <algorithm>
#include <cstdio>
#include <limits>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "kernels/cuda/elementwise_kernels.h"
#include "tests/kernels/cuda/guarded_array.h"

namespace prism::cuda {
namespace {

using test::AsBf16;
using test::Bf16;
using test::Check;
using test::GuardedArray;
using test::kPoison;
using test::NumDifferent;
using test::RandomBf16;
using test::RandomFloats;
using test::Widen;

constexpr double kRounding = 0x1p-24;
constexpr double kBf16Rounding = 0x1p-8;
constexpr float kEpsilon = 1e-6f;

// Where column c of row t lies.
size_t Index(int64_t t, int64_t columns, int64_t c) { return static_cast<size_t>(t * columns + c); }

// The worst of |got - want| / bound; above 1 is wrong.
class Worst {
 public:
  void Add(double got, double want, double bound) {
    const double share = std::abs(got - want) / bound;
    worst_ = std::isnan(share) ? std::numeric_limits<double>::infinity() : std::max(worst_, share);
  }
  double share() const { return worst_; }

 private:
  double worst_ = 0;
};

using LaunchNorm = cudaError_t (*)(const NormParams&, cudaStream_t);

// One norm over random rows that have a mean and a scale of their own.
class NormStep {
 public:
  NormStep(int rows, int columns, uint32_t seed) : rows_(rows), columns_(columns) {
    x_ = RandomFloats(int64_t{rows} * columns, seed);
    for (int t = 0; t < rows; ++t) {
      for (int c = 0; c < columns; ++c) {
        float& x = x_[Index(t, columns, c)];
        x = x * static_cast<float>(1 + t % 7) + 0.3f * static_cast<float>(t % 3);
      }
    }
    weight_ = RandomFloats(columns, seed + 1);
    bias_ = RandomFloats(columns, seed + 2);
    device_x_.emplace(x_);
    device_weight_.emplace(weight_);
    device_bias_.emplace(bias_);
  }
  NormParams params(RowsOut y) {
    return {.x = device_x_->data(),
            .weight = device_weight_->data(),
            .bias = device_bias_->data(),
            .y = y,
            .num_rows = rows_,
            .columns = columns_,
            .epsilon = kEpsilon};
  }
  std::vector<float> RunFloat(LaunchNorm launch) {
    GuardedArray<float> y(int64_t{rows_} * columns_);
    Check(launch(params({.bf16 = nullptr, .f32 = y.data()}), nullptr));
    Check(cudaDeviceSynchronize());
    EXPECT_TRUE(y.Intact());
    return y.Get();
  }
  std::vector<Bf16> RunBf16(LaunchNorm launch) {
    GuardedArray<Bf16> y(int64_t{rows_} * columns_);
    Check(launch(params({.bf16 = AsBf16(y), .f32 = nullptr}), nullptr));
    Check(cudaDeviceSynchronize());
    EXPECT_TRUE(y.Intact());
    return y.Get();
  }
  std::vector<float> RunInPlace(LaunchNorm launch) {
    Check(launch(params({.bf16 = nullptr, .f32 = device_x_->data()}), nullptr));
    Check(cudaDeviceSynchronize());
    EXPECT_TRUE(device_x_->Intact());
    const std::vector<float> y = device_x_->Get();
    device_x_->Set(x_);
    return y;
  }

  // x += term first; gives y, and then x.
  std::pair<std::vector<Bf16>, std::vector<float>> RunAdding(LaunchNorm launch, const float* term) {
    GuardedArray<Bf16> y(int64_t{rows_} * columns_);
    NormParams adding = params({.bf16 = AsBf16(y), .f32 = nullptr});
    adding.add = term;
    Check(launch(adding, nullptr));
    Check(cudaDeviceSynchronize());
    EXPECT_TRUE(y.Intact() && device_x_->Intact());
    std::pair<std::vector<Bf16>, std::vector<float>> results = {y.Get(), device_x_->Get()};
    device_x_->Set(x_);
    return results;
  }
  // The same as two ops.
  std::pair<std::vector<Bf16>, std::vector<float>> RunAfterAdd(LaunchNorm launch, const float* term) {
    Check(LaunchAdd(device_x_->data(), term, int64_t{rows_} * columns_, nullptr));
    return RunAdding(launch, nullptr);
  }

  // Against double precision. A lane sums at most 4 ceil(C / 512) terms, its tree has 7 levels; a
  // squared deviation carries the mean's error, which is small beside the terms of the sum; the
  // root, its inverse and the products round a few times more.
  double WorstShare(const std::vector<float>& y, bool layer) const {
    Worst worst;
    const int terms_of_lane = (columns_ + 511) / 512 * 4;
    const double terms = terms_of_lane + 7;
    for (int t = 0; t < rows_; ++t) {
      const float* x = x_.data() + static_cast<int64_t>(t) * columns_;
      double mean = 0, size = 0, sum = 0;
      for (int c = 0; c < columns_; ++c) {
        mean += x[c];
        size += std::abs(x[c]);
      }
      mean = layer ? mean / columns_ : 0;
      for (int c = 0; c < columns_; ++c) sum += (x[c] - mean) * (x[c] - mean);
      const double scale = 1 / std::sqrt(sum / columns_ + static_cast<double>(kEpsilon));
      const double mean_error = layer ? (terms + 2) * kRounding * size / columns_ : 0;
      for (int c = 0; c < columns_; ++c) {
        const double weight = weight_[static_cast<size_t>(c)],
                     bias = layer ? bias_[static_cast<size_t>(c)] : 0.0;
        const double value = (x[c] - mean) * scale * weight;
        const double bound = (terms + 8) * kRounding * std::abs(value) +
                             2 * mean_error * scale * std::abs(weight) + kRounding * std::abs(value + bias) +
                             1e-30;
        worst.Add(y[static_cast<size_t>(static_cast<int64_t>(t) * columns_ + c)], value + bias, bound);
      }
    }
    return worst.share();
  }

 private:
  const int rows_, columns_;
  std::vector<float> x_, weight_, bias_;
  std::optional<GuardedArray<float>> device_x_, device_weight_, device_bias_;
};

TEST(CudaNormTest, NormsAgreeWithDoublePrecisionAndBitForBitWithTheReference) {
  PRISM_NEEDS_CUDA_DEVICE();
  double worst = 0;
  for (const int columns : {1, 33, 72, 96, 128, 144, 160, 1024, 1152, 2048, 2050, 4096, 4608, 8192, 10000}) {
    for (const int rows : {1, 3, 37}) {
      for (const bool layer : {false, true}) {
        SCOPED_TRACE(std::to_string(rows) + " x " + std::to_string(columns) + (layer ? " layer" : " rms"));
        NormStep step(rows, columns, static_cast<uint32_t>(columns + rows));
        const LaunchNorm slow = layer ? reference::LaunchLayerNorm : reference::LaunchRmsNorm;
        const LaunchNorm fast = layer ? LaunchLayerNorm : LaunchRmsNorm;
        const std::vector<float> want = step.RunFloat(slow);
        const double share = step.WorstShare(want, layer);
        worst = std::max(worst, share);
        EXPECT_LE(share, 1.0);
        EXPECT_EQ(NumDifferent(step.RunFloat(fast), want), 0);
        EXPECT_EQ(NumDifferent(step.RunInPlace(fast), want), 0);
        std::vector<Bf16> rounded;
        rounded.reserve(want.size());
        for (const float value : want) rounded.push_back(test::RoundToBf16(value));
        EXPECT_EQ(NumDifferent(step.RunBf16(slow), rounded), 0);
        EXPECT_EQ(NumDifferent(step.RunBf16(fast), rounded), 0);
      }
    }
  }
  std::printf("worst share of the bound: %.3f\n", worst);
}

TEST(CudaNormTest, AddingFirstGivesTheBitsOfTwoOps) {
  PRISM_NEEDS_CUDA_DEVICE();
  for (const int columns : {1, 33, 1152, 2048, 2050, 4608, 10000}) {
    for (const int rows : {1, 37}) {
      for (const bool layer : {false, true}) {
        SCOPED_TRACE(std::to_string(rows) + " x " + std::to_string(columns) + (layer ? " layer" : " rms"));
        NormStep step(rows, columns, static_cast<uint32_t>(columns + rows));
        GuardedArray<float> term(RandomFloats(int64_t{rows} * columns, static_cast<uint32_t>(columns)));
        const auto [want_y, want_x] =
            step.RunAfterAdd(layer ? reference::LaunchLayerNorm : reference::LaunchRmsNorm, term.data());
        for (const LaunchNorm launch : {layer ? LaunchLayerNorm : LaunchRmsNorm,
                                        layer ? reference::LaunchLayerNorm : reference::LaunchRmsNorm}) {
          const auto [y, x] = step.RunAdding(launch, term.data());
          EXPECT_EQ(NumDifferent(y, want_y), 0);
          EXPECT_EQ(NumDifferent(x, want_x), 0);
        }
      }
    }
  }
}

TEST(CudaRopeTest, TablesAreTheRoundedSineAndCosineOfTheRoundedAngle) {
  PRISM_NEEDS_CUDA_DEVICE();
  constexpr int kRows = 300, kAngles = 64, kAxes = 3;
  std::vector<int32_t> positions, axis;
  std::vector<float> frequency;
  for (int i = 0; i < kAxes * kRows; ++i) positions.push_back(i * 877 % 260000);
  for (int i = 0; i < kAngles; ++i) {
    axis.push_back(i % kAxes);
    frequency.push_back(static_cast<float>(std::pow(5e6, -i / 64.0)));
  }
  GuardedArray<int32_t> device_positions(positions), device_axis(axis);
  GuardedArray<float> device_frequency(frequency), cos(kRows * kAngles), sin(kRows * kAngles);
  Check(LaunchRopeTable({.positions = device_positions.data(),
                         .axis = device_axis.data(),
                         .frequency = device_frequency.data(),
                         .cos = cos.data(),
                         .sin = sin.data(),
                         .num_axes = kAxes,
                         .num_rows = kRows,
                         .num_angles = kAngles},
                        nullptr));
  Check(cudaDeviceSynchronize());
  EXPECT_TRUE(cos.Intact() && sin.Intact());
  const std::vector<float> got_cos = cos.Get(), got_sin = sin.Get();
  int64_t different = 0;
  for (int t = 0; t < kRows; ++t) {
    for (int i = 0; i < kAngles; ++i) {
      const float angle = static_cast<float>(positions[Index(axis[static_cast<size_t>(i)], kRows, t)]) *
                          frequency[static_cast<size_t>(i)];
      const double want_cos = std::cos(static_cast<double>(angle)),
                   want_sin = std::sin(static_cast<double>(angle));
      const size_t at = Index(t, kAngles, i);
      EXPECT_NEAR(got_cos[at], want_cos, kRounding * 1.0001);
      EXPECT_NEAR(got_sin[at], want_sin, kRounding * 1.0001);
      different += got_cos[at] != static_cast<float>(want_cos) || got_sin[at] != static_cast<float>(want_sin);
    }
  }
  std::printf("angles with other bits than the C library's: %lld of %d\n", static_cast<long long>(different),
              kRows * kAngles);
}

TEST(CudaRopeTest, TheRotationAgreesWithDoublePrecisionAndBitForBitWithTheReference) {
  PRISM_NEEDS_CUDA_DEVICE();
  for (const int half : {10, 16, 32, 36, 64}) {
    for (const int rows : {1, 5, 129}) {
      SCOPED_TRACE(std::to_string(rows) + " rows, half " + std::to_string(half));
      constexpr int kHeads = 6;
      const int64_t columns = kHeads * 2 * half + half;  // the rest is not touched
      const std::vector<Bf16> x = RandomBf16(rows * columns, 5);
      GuardedArray<Bf16> slow(x), fast(x);
      const std::vector<float> angle = RandomFloats(int64_t{rows} * half, 6);
      std::vector<float> cos, sin;
      for (const float a : angle) {
        cos.push_back(std::cos(a));
        sin.push_back(std::sin(a));
      }
      GuardedArray<float> device_cos(cos), device_sin(sin);
      RopeApplyParams params = {.x = AsBf16(slow),
                                .columns = columns,
                                .cos = device_cos.data(),
                                .sin = device_sin.data(),
                                .num_rows = rows,
                                .num_heads = kHeads,
                                .half = half};
      Check(reference::LaunchRopeApply(params, nullptr));
      params.x = AsBf16(fast);
      Check(LaunchRopeApply(params, nullptr));
      Check(cudaDeviceSynchronize());
      EXPECT_TRUE(slow.Intact() && fast.Intact());
      const std::vector<Bf16> got = slow.Get();
      EXPECT_EQ(NumDifferent(fast.Get(), got), 0);
      Worst worst;
      for (int t = 0; t < rows; ++t) {
        for (int64_t c = 0; c < columns; ++c) {
          const size_t at = static_cast<size_t>(t * columns + c);
          if (c >= kHeads * 2 * half) {
            EXPECT_EQ(got[at], x[at]);
            continue;
          }
          const int m = static_cast<int>(c % half);
          const bool is_low = c % (2 * half) < half;
          const double own = Widen(x[at]);
          const double other =
              Widen(x[is_low ? at + static_cast<size_t>(half) : at - static_cast<size_t>(half)]);
          const double cosine = cos[Index(t, half, m)], sine = sin[Index(t, half, m)];
          const double want = own * cosine + (is_low ? -other : other) * sine;
          worst.Add(
              Widen(got[at]), want,
              kBf16Rounding * 1.01 * std::abs(want) + 4 * kRounding * (std::abs(own) + std::abs(other)));
        }
      }
      EXPECT_LE(worst.share(), 1.0);
    }
  }
}

TEST(CudaAttentionPrepareTest, AgreesWithDoublePrecisionAndBitForBitWithTheReference) {
  PRISM_NEEDS_CUDA_DEVICE();
  struct Case {
    int rows, heads, kv_heads, head_size;
  };
  for (const Case& c : std::vector<Case>{{1, 32, 4, 128},
                                         {67, 32, 4, 128},
                                         {5, 6, 2, 128},
                                         {130, 8, 4, 64},
                                         {9, 4, 2, 32},
                                         {3, 4, 4, 256},
                                         {7, 2, 1, 48}}) {
    SCOPED_TRACE(std::to_string(c.rows) + " rows, heads of " + std::to_string(c.head_size));
    const int64_t columns = static_cast<int64_t>(c.heads + 2 * c.kv_heads) * c.head_size;
    const int half = c.head_size / 2;
    constexpr int kPages = 7, kTile = 64;
    const std::vector<Bf16> qkv = RandomBf16(c.rows * columns, 21, 3.0f);
    const std::vector<float> q_weight = RandomFloats(c.head_size, 22),
                             k_weight = RandomFloats(c.head_size, 23);
    std::vector<float> cos, sin;
    for (const float a : RandomFloats(int64_t{c.rows} * half, 24)) {
      cos.push_back(std::cos(a));
      sin.push_back(std::sin(a));
    }
    // Distinct places in no order; every fifth row stores nothing.
    std::vector<int32_t> slots;
    slots.reserve(static_cast<size_t>(c.rows));
    for (int t = 0; t < c.rows; ++t) slots.push_back(t % 5 == 4 ? -1 : (t * 37 + 11) % (kPages * kTile));
    const int64_t elements = int64_t{kPages} * c.kv_heads * c.head_size * kTile;
    GuardedArray<float> device_q_weight(q_weight), device_k_weight(k_weight), device_cos(cos),
        device_sin(sin);
    GuardedArray<int32_t> device_slots(slots);
    std::vector<std::vector<Bf16>> results;
    for (const bool fast : {false, true}) {
      GuardedArray<Bf16> x(qkv), k(elements), v(elements);
      const AttentionPrepareParams params = {.qkv = AsBf16(x),
                                             .columns = columns,
                                             .q_weight = device_q_weight.data(),
                                             .k_weight = device_k_weight.data(),
                                             .cos = device_cos.data(),
                                             .sin = device_sin.data(),
                                             .slots = device_slots.data(),
                                             .k = AsBf16(k),
                                             .v = AsBf16(v),
                                             .num_rows = c.rows,
                                             .num_heads = c.heads,
                                             .num_kv_heads = c.kv_heads,
                                             .head_size = c.head_size,
                                             .epsilon = kEpsilon};
      Check(fast ? LaunchAttentionPrepare(params, nullptr)
                 : reference::LaunchAttentionPrepare(params, nullptr));
      Check(cudaDeviceSynchronize());
      EXPECT_TRUE(x.Intact() && k.Intact() && v.Intact());
      // Of the rows, the queries alone are said to be anything afterwards.
      std::vector<Bf16> queries = x.Get();
      for (int t = 0; t < c.rows; ++t) {
        std::fill_n(queries.begin() + t * columns + c.heads * c.head_size, 2 * c.kv_heads * c.head_size,
                    Bf16{0});
      }
      results.push_back(std::move(queries));
      results.push_back(k.Get());
      results.push_back(v.Get());
    }
    for (size_t i = 0; i < 3; ++i) EXPECT_EQ(NumDifferent(results[i], results[i + 3]), 0) << i;

    Worst worst;
    std::vector<bool> written(static_cast<size_t>(elements));
    for (int t = 0; t < c.rows; ++t) {
      for (int h = 0; h < c.heads + 2 * c.kv_heads; ++h) {
        const Bf16* x = qkv.data() + t * columns + h * c.head_size;
        const bool is_query = h < c.heads, is_value = h >= c.heads + c.kv_heads;
        const int slot = slots[static_cast<size_t>(t)];
        double sum = 0;
        for (int d = 0; d < c.head_size; ++d) sum += static_cast<double>(Widen(x[d])) * Widen(x[d]);
        const double scale = 1 / std::sqrt(sum / c.head_size + static_cast<double>(kEpsilon));
        const std::vector<float>& weight = is_query ? q_weight : k_weight;
        for (int d = 0; d < c.head_size; ++d) {
          const int64_t page_at =
              (((static_cast<int64_t>(slot / kTile) * c.kv_heads + (h - c.heads + c.kv_heads) % c.kv_heads) *
                    (c.head_size / 8) +
                d / 8) *
                   kTile +
               slot % kTile) *
                  8 +
              d % 8;
          if (is_value) {
            if (slot >= 0) {
              EXPECT_EQ(results[2][static_cast<size_t>(page_at)], x[d]);
            }
            continue;
          }
          if (!is_query && slot < 0) continue;
          const int m = d % half;
          const double own = Widen(x[d]) * scale * weight[static_cast<size_t>(d)];
          const int partner = d < half ? d + half : d - half;
          const double other = Widen(x[partner]) * scale * weight[static_cast<size_t>(partner)];
          const double want =
              own * cos[Index(t, half, m)] + (d < half ? -other : other) * sin[Index(t, half, m)];
          const double got = is_query
                                 ? Widen(results[0][static_cast<size_t>(t * columns + h * c.head_size + d)])
                                 : Widen(results[1][static_cast<size_t>(page_at)]);
          if (!is_query) written[static_cast<size_t>(page_at)] = true;
          worst.Add(
              got, want,
              kBf16Rounding * 1.01 * std::abs(want) + 30 * kRounding * (std::abs(own) + std::abs(other)));
        }
      }
    }
    EXPECT_LE(worst.share(), 1.0);
    for (size_t i = 0; i < written.size(); ++i) {
      if (!written[i]) {
        ASSERT_EQ(results[1][i], kPoison) << "wrote where no row goes";
      }
    }
  }
}

}  // namespace
}  // namespace prism::cuda
