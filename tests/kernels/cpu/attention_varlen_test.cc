#include <algorithm>

#include "kernels/cpu/activation_kernels.h"
#include "kernels/ops/attention.h"
#include "tests/kernels/cpu/test_tensors.h"

namespace prism {
namespace {

using test::Guarded;
using test::RandomFloats;
using test::SameBits;

struct Case {
  int64_t num_heads;
  int64_t head_size;
  int64_t width() const { return num_heads * head_size; }
  float scale() const { return 1.0f / std::sqrt(static_cast<float>(head_size)); }
};

std::vector<float> Attend(const Case& c, const std::vector<std::vector<float>>& segments, int num_threads) {
  auto backend = CreateCpuBackend();
  auto stream = test::MakeStream(*backend, num_threads);
  std::vector<float> qkv;
  std::vector<int32_t> starts = {0};
  for (const std::vector<float>& segment : segments) {
    qkv.insert(qkv.end(), segment.begin(), segment.end());
    starts.push_back(static_cast<int32_t>(static_cast<int64_t>(qkv.size()) / (3 * c.width())));
  }
  const int64_t rows = starts.back();
  Guarded in(qkv);
  Guarded out(rows * c.width());
  EXPECT_EQ(AttentionVarlen(*stream, {.qkv = in.view({rows, 3 * c.width()}),
                                      .num_heads = c.num_heads,
                                      .segment_starts = TensorView(
                                          starts.data(), Shape{static_cast<int64_t>(starts.size())}),
                                      .out = out.view({rows, c.width()}),
                                      .scale = c.scale()}),
            absl::OkStatus());
  EXPECT_TRUE(out.Intact());
  EXPECT_TRUE(SameBits(in.values(), qkv)) << "the input was changed";
  return out.values();
}

std::vector<float> Segment(const Case& c, int64_t rows, uint32_t seed) {
  return RandomFloats(rows * 3 * c.width(), seed);
}

// Softmax attention of one segment in double precision.
std::vector<double> Reference(const Case& c, const std::vector<float>& qkv) {
  const int64_t rows = static_cast<int64_t>(qkv.size()) / (3 * c.width());
  std::vector<double> out(static_cast<size_t>(rows * c.width()));
  std::vector<double> p(static_cast<size_t>(rows));
  for (int64_t h = 0; h < c.num_heads; ++h) {
    const auto at = [&](int64_t row, int64_t part, int64_t d) {
      return static_cast<double>(
          qkv[static_cast<size_t>((row * 3 + part) * c.width() + h * c.head_size + d)]);
    };
    for (int64_t i = 0; i < rows; ++i) {
      double most = -1e300, sum = 0.0;
      for (int64_t j = 0; j < rows; ++j) {
        double score = 0.0;
        for (int64_t d = 0; d < c.head_size; ++d) score += at(i, 0, d) * at(j, 1, d);
        p[static_cast<size_t>(j)] = score * static_cast<double>(c.scale());
        most = std::max(most, p[static_cast<size_t>(j)]);
      }
      for (double& value : p) sum += value = std::exp(value - most);
      for (int64_t d = 0; d < c.head_size; ++d) {
        double total = 0.0;
        for (int64_t j = 0; j < rows; ++j) total += p[static_cast<size_t>(j)] * at(j, 2, d);
        out[static_cast<size_t>(i * c.width() + h * c.head_size + d)] = total / sum;
      }
    }
  }
  return out;
}

// As for AttentionPaged: |q|, |k|, |v| <= 1.
double Tolerance(const Case& c, int64_t rows) {
  const double size = static_cast<double>(c.head_size);
  const double score = (size + 1.0) * size * static_cast<double>(c.scale());
  return 2.0 * test::kRounding * (score + 256.0 + 4.0 * std::ceil(static_cast<double>(rows) / 64.0) + 8.0);
}

class AttentionVarlenTest : public testing::TestWithParam<Case> {};

TEST_P(AttentionVarlenTest, AgreesWithDoublePrecision) {
  const Case c = GetParam();
  for (const int64_t rows : {1, 5, 63, 64, 65, 196, 256, 257, 300}) {
    const std::vector<float> segment = Segment(c, rows, static_cast<uint32_t>(rows));
    const std::vector<float> out = Attend(c, {segment}, 1);
    const std::vector<double> want = Reference(c, segment);
    EXPECT_LE(test::WorstError(out, want), Tolerance(c, rows)) << rows << " rows";
  }
}

TEST_P(AttentionVarlenTest, GivesASegmentTheSameBitsAloneAndAmongOthersAndOnEveryThreadCount) {
  const Case c = GetParam();
  const std::vector<float> segment = Segment(c, 333, 1);
  const std::vector<float> want = Attend(c, {segment}, 1);
  EXPECT_TRUE(SameBits(Attend(c, {segment}, 2), want));
  // Neighbours that are poison must not be seen, and an empty segment is none.
  const std::vector<float> poison(static_cast<size_t>(70 * 3 * c.width()), test::kPoison);
  for (const int num_threads : {1, 2, 3}) {
    const std::vector<float> all =
        Attend(c, {Segment(c, 17, 2), poison, segment, {}, poison, Segment(c, 64, 3)}, num_threads);
    const float* mine = all.data() + (17 + 70) * c.width();
    EXPECT_TRUE(SameBits(std::vector<float>(mine, mine + want.size()), want)) << num_threads << " threads";
  }
}

// The contract's order (kernels/ops/attention.h), one number after the other.
std::vector<float> InOrder(const Case& c, const std::vector<float>& qkv) {
  const int64_t rows = static_cast<int64_t>(qkv.size()) / (3 * c.width());
  const int64_t size = c.head_size;
  const auto exp = [](float x) {
    float y;
    cpu::ExpRange(&x, 1, &y);
    return y;
  };
  std::vector<float> out(static_cast<size_t>(rows * c.width()));
  for (int64_t h = 0; h < c.num_heads; ++h) {
    const auto row = [&](int64_t t, int64_t part) {
      return qkv.data() + (t * 3 + part) * c.width() + h * size;
    };
    for (int64_t t = 0; t < rows; ++t) {
      float all_m = -std::numeric_limits<float>::infinity(), all_l = 0.0f;
      std::vector<float> all_o(static_cast<size_t>(size), 0.0f);
      for (int64_t leaf = 0; leaf < rows; leaf += kAttentionLeaf) {
        float m = -std::numeric_limits<float>::infinity(), l[kAttentionRowSums] = {};
        std::vector<float> o(static_cast<size_t>(size), 0.0f);
        for (int64_t tile = leaf; tile < std::min(rows, leaf + kAttentionLeaf); tile += kAttentionTile) {
          std::vector<float> scores;
          for (int64_t j = tile; j < std::min(rows, tile + kAttentionTile); ++j) {
            float score = 0.0f;
            for (int64_t d = 0; d < size; ++d) score = std::fma(row(t, 0)[d], row(j, 1)[d], score);
            scores.push_back(score * c.scale());
          }
          const float m_new = std::max(m, *std::max_element(scores.begin(), scores.end()));
          const float factor = exp(m - m_new);
          m = m_new;
          for (float& sum : l) sum *= factor;
          for (float& sum : o) sum *= factor;
          for (int64_t j = 0; j < static_cast<int64_t>(scores.size()); ++j) {
            const float p = exp(scores[static_cast<size_t>(j)] - m);
            l[j % kAttentionRowSums] += p;
            for (int64_t d = 0; d < size; ++d) {
              float& sum = o[static_cast<size_t>(d)];
              sum = std::fma(p, row(tile + j, 2)[d], sum);
            }
          }
        }
        const float m_new = std::max(all_m, m);
        const float before = exp(all_m - m_new), now = exp(m - m_new);
        all_l = std::fma(all_l, before, AddRowSums(l) * now);
        for (size_t d = 0; d < o.size(); ++d) all_o[d] = std::fma(all_o[d], before, o[d] * now);
        all_m = m_new;
      }
      for (int64_t d = 0; d < size; ++d) {
        out[static_cast<size_t>(t * c.width() + h * size + d)] = all_o[static_cast<size_t>(d)] / all_l;
      }
    }
  }
  return out;
}

TEST_P(AttentionVarlenTest, EqualsTheContractsOrderBitForBit) {
  if (!__builtin_cpu_supports("avx2") || !__builtin_cpu_supports("fma")) {
    GTEST_SKIP() << "without fused multiply-adds a product is rounded before it is added";
  }
  const Case c = GetParam();
  for (const int64_t rows : {1, 7, 70, 300, 513}) {
    const std::vector<float> segment = Segment(c, rows, static_cast<uint32_t>(100 + rows));
    EXPECT_TRUE(SameBits(Attend(c, {segment}, 1), InOrder(c, segment))) << rows << " rows";
  }
}

TEST_P(AttentionVarlenTest, StaysFiniteWhenScoresAreFarApart) {
  const Case c = GetParam();
  std::vector<float> segment = Segment(c, 300, 5);
  for (float& value : segment) value *= 100.0f;
  for (const float value : Attend(c, {segment}, 1)) {
    ASSERT_TRUE(std::isfinite(value));
    ASSERT_LE(std::abs(value), 100.0f * (1.0f + 300.0f * static_cast<float>(test::kRounding)));
  }
}

INSTANTIATE_TEST_SUITE_P(Cpu, AttentionVarlenTest,
                         testing::Values(Case{2, 16}, Case{3, 64}, Case{2, 72}, Case{1, 128}, Case{2, 5},
                                         Case{1, 1}));

TEST(AttentionVarlenArgsTest, RefusesSegmentsThatDoNotCoverTheRows) {
  auto backend = CreateCpuBackend();
  auto stream = test::MakeStream(*backend);
  Guarded qkv(4 * 6, 1.0f), out(4 * 2);
  const auto message = [&](std::vector<int32_t> starts) {
    return std::string(AttentionVarlen(*stream, {.qkv = qkv.view({4, 6}),
                                                 .num_heads = 1,
                                                 .segment_starts = TensorView(starts.data(), Shape{3}),
                                                 .out = out.view({4, 2}),
                                                 .scale = 1.0f})
                           .message());
  };
  EXPECT_EQ(message({0, 3, 4}), "");
  EXPECT_EQ(message({0, 5, 4}), "AttentionVarlen: segment_starts[1] is 5, want ascending from 0 to 4");
  EXPECT_EQ(message({0, 3, 2}), "AttentionVarlen: segment_starts[2] is 2, want ascending from 0 to 4");
  EXPECT_EQ(message({0, -1, 4}), "AttentionVarlen: segment_starts[1] is -1, want ascending from 0 to 4");
}

}  // namespace
}  // namespace prism
