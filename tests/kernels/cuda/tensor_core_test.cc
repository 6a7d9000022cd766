// The unit of every sum on CUDA (docs/numerics.md): mma.sync m16n8k16 and wgmma m64nNk16 are one operation,
// bit for bit, and a plain model of it says what is computed.
#include <gtest/gtest.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstdio>
#include <cstring>
#include <random>
#include <vector>

#include "tests/kernels/cuda/tensor_core_probe.h"

namespace prism::cuda {
namespace {

constexpr int kColumns[] = {8, 16, 32, 64, 128, 256};
constexpr int kBlockK = 64;

// How wide the exponents of operands are spread, and of the sums' start.
struct Spread {
  int operands;
  int start;  // 0: from nothing
};
constexpr Spread kSpreads[] = {{0, 0}, {2, 0}, {6, 0}, {12, 0}, {24, 0}, {2, 4}, {6, 12}, {12, 24}, {24, 48}};

class Values {
 public:
  explicit Values(uint32_t seed) : generator_(seed) {}

  // A bf16 of random sign and significand, its exponent uniform in [-spread, spread]; one in 16 is zero.
  uint16_t BFloat16Bits(int spread) {
    const uint32_t bits = generator_();
    if ((bits >> 28) == 0) return 0;
    return static_cast<uint16_t>((bits & 0x807F) | static_cast<uint32_t>(Exponent(spread) << 7));
  }
  float Float(int spread) {
    const uint32_t bits = generator_();
    return std::bit_cast<float>((bits & 0x807FFFFF) | static_cast<uint32_t>(Exponent(spread) << 23));
  }

 private:
  int Exponent(int spread) { return 127 + std::uniform_int_distribution<int>(-spread, spread)(generator_); }
  std::mt19937 generator_;
};

ProbeBatch RandomBatch(int problems, int columns, int units, Spread spread, uint32_t seed) {
  Values values(seed);
  ProbeBatch batch{.problems = problems, .columns = columns, .units = units};
  batch.a.resize(static_cast<size_t>(problems * kProbeRows * kBlockK));
  batch.b.resize(static_cast<size_t>(problems * columns * kBlockK));
  for (uint16_t& v : batch.a) v = values.BFloat16Bits(spread.operands);
  for (uint16_t& v : batch.b) v = values.BFloat16Bits(spread.operands);
  if (spread.start > 0) {
    batch.c.resize(static_cast<size_t>(problems * kProbeRows * columns));
    for (float& v : batch.c) v = values.Float(spread.start);
  }
  return batch;
}

int64_t Differences(const std::vector<float>& x, const std::vector<float>& y) {
  int64_t different = std::abs(static_cast<int64_t>(x.size()) - static_cast<int64_t>(y.size()));
  for (size_t i = 0; i < std::min(x.size(), y.size()); ++i) {
    different += std::bit_cast<uint32_t>(x[i]) != std::bit_cast<uint32_t>(y[i]);
  }
  return different;
}

// What the unit might compute: `group` products at a time and the sum so far are cut toward zero at
// `extra_bits` below the last bit of a float32 with the largest exponent among them, added exactly, and the
// sum is cut to a float32. A product's exponent is the sum of its factors', its significand in [1, 4).
struct Model {
  int group = 16;
  int extra_bits = 2;
};

struct Parts {
  int64_t significand = 0;  // signed
  int exponent = 0;         // value = significand * 2^(exponent - fraction_bits)
};

Parts Split(float value) {
  const uint32_t bits = std::bit_cast<uint32_t>(value);
  if ((bits & 0x7FFFFFFF) == 0) return {0, -1000};
  const int64_t significand = (bits & 0x7FFFFF) | 0x800000;
  return {(bits >> 31) != 0 ? -significand : significand, static_cast<int>(bits >> 23 & 0xFF) - 127};
}

int64_t CutShift(int64_t value, int shift) {  // value / 2^shift toward zero
  if (shift <= 0) return value << -shift;
  if (shift > 62) return 0;
  return value < 0 ? -(-value >> shift) : value >> shift;
}

float RunModel(const Model& model, const uint16_t* a, const uint16_t* b, int k_size, float start) {
  float sum = start;
  for (int begin = 0; begin < k_size; begin += model.group) {
    Parts terms[17];
    int fraction[17];
    const int count = std::min(model.group, k_size - begin);
    for (int i = 0; i < count; ++i) {
      const Parts x = Split(std::bit_cast<float>(static_cast<uint32_t>(a[begin + i]) << 16));
      const Parts y = Split(std::bit_cast<float>(static_cast<uint32_t>(b[begin + i]) << 16));
      terms[i] = {(x.significand >> 16) * (y.significand >> 16), x.exponent + y.exponent};
      if (terms[i].significand == 0) terms[i].exponent = -2000;
      fraction[i] = 14;
    }
    terms[count] = Split(sum);
    fraction[count] = 23;
    int largest = -2000;
    for (int i = 0; i <= count; ++i) largest = std::max(largest, terms[i].exponent);
    if (largest <= -1000) {
      sum = 0.0f;
      continue;
    }
    // In units of 2^(largest - 23 - extra_bits).
    int64_t total = 0;
    for (int i = 0; i <= count; ++i) {
      total +=
          CutShift(terms[i].significand, (largest - terms[i].exponent) + fraction[i] - 23 - model.extra_bits);
    }
    const uint64_t magnitude = static_cast<uint64_t>(std::abs(total));
    const int surplus = std::max(0, 64 - std::countl_zero(magnitude) - 24);
    total = CutShift(total, surplus);
    sum = std::ldexp(static_cast<float>(total), largest - 23 - model.extra_bits + surplus);
  }
  return sum;
}

class TensorCore : public testing::Test {
 protected:
  void SetUp() override {
    if (RunMmaSync(RandomBatch(1, 8, 1, {0, 0}, 1)).empty()) GTEST_SKIP() << "no CUDA device";
  }
};

TEST_F(TensorCore, MmaSyncAndWgmmaAreOneOperation) {
  int64_t compared = 0;
  for (const int columns : kColumns) {
    for (const Spread& spread : kSpreads) {
      for (const int units : {1, 4}) {
        const uint32_t seed = static_cast<uint32_t>(columns * 1000 + spread.operands * 10 + units);
        const ProbeBatch batch = RandomBatch(512 / columns + 2, columns, units, spread, seed);
        const std::vector<float> mma = RunMmaSync(batch);
        const std::vector<float> wgmma = RunWgmma(batch);
        if (wgmma.empty()) GTEST_SKIP() << "a device without wgmma";
        EXPECT_EQ(Differences(mma, wgmma), 0) << columns << " columns, exponents within " << spread.operands
                                              << ", " << units << " units, start " << spread.start;
        compared += static_cast<int64_t>(mma.size());
      }
    }
  }
  std::printf("compared %ld sums\n", static_cast<long>(compared));
}

TEST_F(TensorCore, SumsStartFromZeroAsFromNothing) {
  for (const Spread& spread : kSpreads) {
    ProbeBatch batch = RandomBatch(4, 32, 2, {spread.operands, 0}, 5);
    const std::vector<float> nothing = RunMmaSync(batch);
    const std::vector<float> nothing_wgmma = RunWgmma(batch);
    batch.c.assign(static_cast<size_t>(batch.problems * kProbeRows * batch.columns), 0.0f);
    EXPECT_EQ(Differences(nothing, RunMmaSync(batch)), 0);
    if (nothing_wgmma.empty()) continue;
    EXPECT_EQ(Differences(nothing, nothing_wgmma), 0);
    EXPECT_EQ(Differences(nothing, RunWgmma(batch)), 0);
  }
}

TEST_F(TensorCore, AUnitOfZerosChangesNothing) {
  for (const Spread& spread : kSpreads) {
    ProbeBatch batch = RandomBatch(4, 32, 2, spread, 6);
    const std::vector<float> two = RunMmaSync(batch);
    for (size_t i = 0; i < batch.a.size(); ++i) {
      if (i % kBlockK >= 32) batch.a[i] = 0;
    }
    batch.units = 4;
    EXPECT_EQ(Differences(two, RunMmaSync(batch)), 0);
    const std::vector<float> wgmma = RunWgmma(batch);
    if (wgmma.empty()) continue;
    EXPECT_EQ(Differences(two, wgmma), 0);
  }
}

TEST_F(TensorCore, OrderInsideAUnitDoesNotMatter) {
  for (const Spread& spread : kSpreads) {
    ProbeBatch batch = RandomBatch(4, 32, 4, spread, 7);
    const std::vector<float> before = RunMmaSync(batch);
    for (std::vector<uint16_t>* operand : {&batch.a, &batch.b}) {
      for (size_t unit = 0; unit < operand->size(); unit += 16) {
        std::mt19937 generator(static_cast<uint32_t>(unit % kBlockK));
        std::shuffle(operand->begin() + static_cast<std::ptrdiff_t>(unit),
                     operand->begin() + static_cast<std::ptrdiff_t>(unit) + 16, generator);
      }
    }
    EXPECT_EQ(Differences(before, RunMmaSync(batch)), 0);
  }
}

TEST_F(TensorCore, ComputesWhatTheModelSays) {
  // Each candidate's share of sums that it gets right to the last bit, printed; the one this backend's error
  // bounds rest on must get all.
  for (const int group : {4, 8, 16}) {
    for (const int extra_bits : {0, 1, 2, 3, 4, 8}) {
      int64_t right = 0, all = 0;
      for (const Spread& spread : kSpreads) {
        for (const int units : {1, 4}) {
          const ProbeBatch batch = RandomBatch(2, 16, units, spread, 8);
          const std::vector<float> device = RunMmaSync(batch);
          for (int i = 0; i < static_cast<int>(device.size()); ++i) {
            const int problem = i / (kProbeRows * batch.columns);
            const int row = i / batch.columns % kProbeRows;
            const int column = i % batch.columns;
            const float model = RunModel(
                {group, extra_bits}, &batch.a[static_cast<size_t>((problem * kProbeRows + row) * kBlockK)],
                &batch.b[static_cast<size_t>((problem * batch.columns + column) * kBlockK)], 16 * units,
                batch.c.empty() ? 0.0f : batch.c[static_cast<size_t>(i)]);
            right += std::bit_cast<uint32_t>(model + 0.0f) ==
                     std::bit_cast<uint32_t>(device[static_cast<size_t>(i)] + 0.0f);
            ++all;
          }
        }
      }
      std::printf("model: groups of %2d, %d extra bits: %ld of %ld\n", group, extra_bits,
                  static_cast<long>(right), static_cast<long>(all));
      if (group != 16 || extra_bits != 2) continue;
      EXPECT_EQ(right, all);
    }
  }
}

}  // namespace
}  // namespace prism::cuda
