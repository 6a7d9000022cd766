// The GPU's samples against the host's sampler, for the same logits: no tolerance.
#include "kernels/ops/sampling.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <functional>
#include <limits>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "services/decoder/sampling/logprobs.h"
#include "services/decoder/sampling/sampler.h"
#include "tests/kernels/cuda/cuda_test.h"

namespace prism {
namespace {

class CudaSamplingTest : public test::CudaTest {
 protected:
  absl::StatusOr<std::vector<RowSample>> Sample(const std::vector<std::vector<float>>& logits,
                                                const std::vector<RowSampling>& rows) {
    const auto vocabulary = static_cast<int64_t>(logits[0].size());
    const Shape shape = {static_cast<int64_t>(logits.size()), vocabulary};
    const Tensor host = Tensor::Host(DType::kF32, shape);
    for (size_t r = 0; r < logits.size(); ++r) {
      std::copy(logits[r].begin(), logits[r].end(),
                host.data<float>() + static_cast<int64_t>(r) * vocabulary);
    }
    stream().workspace().Reset();
    absl::StatusOr<Tensor> device = stream().Allocate(DType::kF32, shape);
    if (!device.ok()) return device.status();
    absl::Status status = stream().CopyToDevice(host.view(), device->view());
    std::vector<RowSample> samples(rows.size());
    status.Update(
        SampleRows(stream(), {.logits = device->view(), .rows = rows, .samples = absl::MakeSpan(samples)}));
    if (!status.ok()) return status;
    return samples;
  }

  // Each row as the host gives it.
  void ExpectAsOnTheHost(const std::vector<std::vector<float>>& logits, const std::vector<RowSampling>& rows,
                         const std::string& what) {
    const absl::StatusOr<std::vector<RowSample>> samples = Sample(logits, rows);
    ASSERT_TRUE(samples.ok()) << samples.status();
    SamplingScratch scratch;
    for (size_t r = 0; r < rows.size(); ++r) {
      const RowSampling& row = rows[r];
      const RowSample& sample = (*samples)[r];
      Sampler sampler({.temperature = row.temperature,
                       .top_p = row.top_p,
                       .top_k = row.top_k,
                       .min_p = row.min_p,
                       .seed = row.seed},
                      row.choice, {});
      for (uint32_t i = 0; i < row.token_index; ++i) sampler.Accept(0);
      const int32_t id = row.target_id >= 0 ? row.target_id : sampler.Sample(logits[r], scratch).value();
      EXPECT_EQ(sample.non_finite_id, -1) << what << " row " << r;
      EXPECT_EQ(sample.token_id, id) << what << " row " << r;
      EXPECT_EQ(sample.logit, logits[r][static_cast<size_t>(id)]) << what << " row " << r;
      const double total = LogSumExp(logits[r]);
      EXPECT_EQ(sample.log_sum_exp, row.with_log_sum_exp ? total : 0) << what << " row " << r;
      const std::vector<TokenProbability> top = TopLogprobs(logits[r], total, row.num_top);
      ASSERT_EQ(sample.num_top, static_cast<int32_t>(top.size())) << what << " row " << r;
      for (size_t i = 0; i < top.size(); ++i) {
        EXPECT_EQ(sample.top[i].id, top[i].token_id) << what << " row " << r << " place " << i;
        EXPECT_EQ(sample.top[i].logit - total, top[i].logprob) << what << " row " << r << " place " << i;
      }
    }
  }
};

// Logits of several natures: bell-shaped, all equal, rounded to few values (ties), sparse peaks, and
// with the largest ones all in the places that one thread of a kernel reads.
std::vector<std::vector<float>> ManyLogits(int64_t vocabulary, uint32_t seed) {
  std::mt19937 random(seed);
  std::normal_distribution<float> bell(0, 3);
  std::vector<std::vector<float>> rows(5, std::vector<float>(static_cast<size_t>(vocabulary)));
  for (int64_t i = 0; i < vocabulary; ++i) {
    const auto place = static_cast<size_t>(i);
    rows[0][place] = bell(random);
    rows[1][place] = i % 2 == 0 ? 0.0f : -0.0f;
    rows[2][place] = std::round(bell(random));
    rows[3][place] = i % 997 == 5 ? 20 + bell(random) : -80.0f;
    rows[4][place] = i % 1024 == 7 ? 10 + bell(random) : bell(random) - 10;
  }
  return rows;
}

TEST_F(CudaSamplingTest, EqualsTheHostsSamplerInEveryWayOfDrawing) {
  const std::vector<std::pair<std::string, std::function<void(RowSampling&)>>> ways = {
      {"greedy", [](RowSampling& r) { r.temperature = 0; }},
      {"temperature 1", [](RowSampling&) {}},
      {"temperature 0.3", [](RowSampling& r) { r.temperature = 0.3; }},
      {"temperature 2", [](RowSampling& r) { r.temperature = 2; }},
      {"top_k 1", [](RowSampling& r) { r.top_k = 1; }},
      {"top_k 20, top_p 0.8", [](RowSampling& r) { r.top_k = 20, r.top_p = 0.8, r.temperature = 0.7; }},
      {"top_k 1000", [](RowSampling& r) { r.top_k = 1000; }},
      {"top_k 1025", [](RowSampling& r) { r.top_k = 1025; }},
      {"top_k 5000, top_p 0.5", [](RowSampling& r) { r.top_k = 5000, r.top_p = 0.5; }},
      {"top_k of more than all", [](RowSampling& r) { r.top_k = 1 << 30; }},
      {"top_p 0.9", [](RowSampling& r) { r.top_p = 0.9; }},
      {"top_p 1e-9", [](RowSampling& r) { r.top_p = 1e-9; }},
      {"top_p 0.999999999999", [](RowSampling& r) { r.top_p = 0.999999999999; }},
      {"min_p 0.05", [](RowSampling& r) { r.min_p = 0.05; }},
      {"min_p 1", [](RowSampling& r) { r.min_p = 1; }},
      {"min_p 0.01, top_k 50, top_p 0.95",
       [](RowSampling& r) { r.min_p = 0.01, r.top_k = 50, r.top_p = 0.95; }},
      {"min_p 0.001, top_p 0.7", [](RowSampling& r) { r.min_p = 0.001, r.top_p = 0.7; }},
      {"a target", [](RowSampling& r) { r.target_id = 3; }},
  };
  for (const int64_t vocabulary : {5, 100, 512, 4099, 151936}) {
    const std::vector<std::vector<float>> logits = ManyLogits(vocabulary, static_cast<uint32_t>(vocabulary));
    uint32_t draw = 0;
    for (const auto& [name, set] : ways) {
      std::vector<RowSampling> rows;
      for (size_t r = 0; r < logits.size(); ++r) {
        RowSampling row = {.temperature = 1,
                           .seed = 0x0123456789ABCDEFu + draw,
                           .choice = draw % 3,
                           .token_index = draw % 5,
                           .with_log_sum_exp = draw % 2 == 0,
                           .num_top = static_cast<int32_t>(draw % 3 == 0 ? 20 : 0)};
        ++draw;
        set(row);
        rows.push_back(row);
      }
      ExpectAsOnTheHost(logits, rows, name + " of " + std::to_string(vocabulary));
    }
  }
}

TEST_F(CudaSamplingTest, RowsOfOneCallMayWishForDifferentThings) {
  std::vector<std::vector<float>> logits;
  std::vector<RowSampling> rows;
  for (uint32_t i = 0; i < 64; ++i) {
    logits.push_back(ManyLogits(2000, i)[i % 5]);
    rows.push_back({.temperature = i % 4 == 0 ? 0 : 0.5 + i * 0.01,
                    .top_p = i % 3 == 0 ? 0.9 : 1,
                    .min_p = i % 7 == 0 ? 0.02 : 0,
                    .top_k = i % 5 == 0 ? 40 : 0,
                    .seed = i,
                    .choice = i,
                    .token_index = i,
                    .target_id = i % 11 == 0 ? 17 : -1,
                    .with_log_sum_exp = i % 2 == 0,
                    .num_top = static_cast<int32_t>(i % 21)});
  }
  ExpectAsOnTheHost(logits, rows, "mixed");
}

TEST_F(CudaSamplingTest, ALogitThatIsNotFiniteIsNamed) {
  std::vector<std::vector<float>> logits(4, std::vector<float>(3000, 0.5f));
  logits[1][2999] = std::numeric_limits<float>::infinity();
  logits[1][17] = std::numeric_limits<float>::quiet_NaN();
  logits[3][0] = -std::numeric_limits<float>::infinity();
  const std::vector<RowSampling> rows(
      4, {.temperature = 1, .top_p = 0.9, .top_k = 7, .with_log_sum_exp = true, .num_top = 5});
  const absl::StatusOr<std::vector<RowSample>> samples = Sample(logits, rows);
  ASSERT_TRUE(samples.ok()) << samples.status();
  EXPECT_EQ((*samples)[0].non_finite_id, -1);
  EXPECT_EQ((*samples)[1].non_finite_id, 17);
  EXPECT_TRUE(std::isnan((*samples)[1].logit));
  EXPECT_EQ((*samples)[2].non_finite_id, -1);
  EXPECT_EQ((*samples)[3].non_finite_id, 0);
}

TEST_F(CudaSamplingTest, WishesOutOfRangeAreRefused) {
  const std::vector<std::vector<float>> logits(1, std::vector<float>(100));
  for (const RowSampling& row :
       {RowSampling{.top_p = 0}, RowSampling{.top_k = -1}, RowSampling{.target_id = 100},
        RowSampling{.num_top = 21}, RowSampling{.min_p = 1.5}}) {
    EXPECT_TRUE(absl::IsInvalidArgument(Sample(logits, {row}).status()));
  }
}

}  // namespace
}  // namespace prism
