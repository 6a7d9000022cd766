#include "services/decoder/sampling/sampler.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <map>
#include <numeric>
#include <set>
#include <vector>

#include "common/base/philox.h"
#include "tests/services/decoder/sampling/random_logits.h"

namespace prism {
namespace {

int32_t SampleOnce(const SamplingParameters& parameters, const std::vector<float>& logits,
                   uint32_t choice = 0) {
  SamplingScratch scratch;
  return *Sampler(parameters, choice, {}).Sample(logits, scratch);
}

TEST(SamplerTest, TakesTheGreatestLogitWhenColdAndTheLowerIdOfEquals) {
  EXPECT_EQ(SampleOnce({.temperature = 0}, {1, 4, 2, 4}), 1);
  EXPECT_EQ(SampleOnce({.temperature = 0.9e-5}, {1, 4, 2, 4}), 1);
}

TEST(SamplerTest, KeepsOneIdWithTopKOfOne) {
  for (uint64_t seed = 0; seed < 50; ++seed) {
    EXPECT_EQ(SampleOnce({.top_k = 1, .seed = seed}, {1, 4, 2, 4}), 1);
  }
}

TEST(SamplerTest, NamesALogitThatIsNotFinite) {
  SamplingScratch scratch;
  for (const float bad : {std::numeric_limits<float>::quiet_NaN(), std::numeric_limits<float>::infinity(),
                          -std::numeric_limits<float>::infinity()}) {
    std::vector<float> logits(100, 1.0f);
    logits[70] = bad;
    const absl::Status status = Sampler({}, 0, {}).Sample(logits, scratch).status();
    EXPECT_EQ(status.code(), absl::StatusCode::kInternal);
    EXPECT_THAT(std::string(status.message()),
                testing::StartsWith("the logit of id 70 of answer token 0 is"));
  }
}

// What the header says, computed plainly: everything sorted, probabilities in long double.
std::set<int32_t> KeptPlainly(const SamplingParameters& p, const std::vector<float>& logits) {
  std::vector<int32_t> ids(logits.size());
  std::iota(ids.begin(), ids.end(), 0);
  std::sort(ids.begin(), ids.end(),
            [&](int32_t a, int32_t b) { return logits[a] != logits[b] ? logits[a] > logits[b] : a < b; });
  const auto weight = [&](int32_t id) {
    return std::exp((static_cast<long double>(logits[id]) - logits[ids[0]]) / p.temperature);
  };
  std::vector<int32_t> kept;
  for (const int32_t id : ids) {
    if (weight(id) >= p.min_p) kept.push_back(id);
  }
  if (p.top_k > 0 && kept.size() > static_cast<size_t>(p.top_k)) kept.resize(p.top_k);
  long double total = 0;
  for (const int32_t id : kept) total += weight(id);
  std::set<int32_t> result;
  long double before = 0;
  for (const int32_t id : kept) {
    if (!result.empty() && before >= p.top_p * total) break;
    result.insert(id);
    before += weight(id);
  }
  return result;
}

TEST(SamplerTest, DrawsTheGreatestScoreAmongWhatTheFiltersKeep) {
  const std::vector<SamplingParameters> cases = {
      {.temperature = 0.7},
      {.temperature = 1.5, .top_k = 20},
      {.temperature = 0.7, .top_p = 0.8, .top_k = 20},
      {.temperature = 1.0, .top_p = 0.9},
      {.temperature = 2.0, .top_p = 0.999},
      {.temperature = 1.0, .min_p = 0.05},
      {.temperature = 0.9, .top_p = 0.95, .top_k = 7, .min_p = 0.01}};
  for (SamplingParameters parameters : cases) {
    for (uint32_t seed = 0; seed < 60; ++seed) {
      parameters.seed = seed;
      const std::vector<float> logits = RandomLogits(997, seed);
      int32_t best = -1;
      double best_score = -std::numeric_limits<double>::infinity();
      for (const int32_t id : KeptPlainly(parameters, logits)) {
        const double u = UniformDraw({.seed = seed, .choice = 3, .token_id = static_cast<uint32_t>(id)});
        const double score = logits[id] / parameters.temperature - std::log(-std::log(u));
        if (score > best_score) {
          best_score = score;
          best = id;
        }
      }
      ASSERT_EQ(SampleOnce(parameters, logits, 3), best) << seed;
    }
  }
}

TEST(SamplerTest, KeepsExactlyTheMassOfTopP) {
  // Probabilities 1/2, 1/4, 1/8, 1/8: the first three are needed for 0.8, the first for 0.5.
  const std::vector<float> logits = {std::log(0.125f), std::log(0.5f), std::log(0.125f), std::log(0.25f)};
  std::set<int32_t> seen_80, seen_30;
  for (uint64_t seed = 0; seed < 500; ++seed) {
    seen_80.insert(SampleOnce({.top_p = 0.8, .seed = seed}, logits));
    seen_30.insert(SampleOnce({.top_p = 0.3, .seed = seed}, logits));
  }
  EXPECT_THAT(seen_80, testing::ElementsAre(0, 1, 3));
  EXPECT_THAT(seen_30, testing::ElementsAre(1));
}

// Pearson's test against softmax(l / T): 60 ids, one draw a token index.
TEST(SamplerTest, DrawsAsOftenAsTheProbabilitiesSay) {
  constexpr int kDraws = 60000;
  const std::vector<float> logits = RandomLogits(60, 8);
  const double temperature = 1.3;
  std::vector<double> probability;
  for (const float logit : logits) probability.push_back(std::exp(logit / temperature));
  const double total = std::accumulate(probability.begin(), probability.end(), 0.0);

  SamplingScratch scratch;
  Sampler sampler({.temperature = temperature, .seed = 2024}, 0, {});
  std::vector<int> count(logits.size());
  for (int i = 0; i < kDraws; ++i) {
    const int32_t id = *sampler.Sample(logits, scratch);
    ++count[id];
    sampler.Accept(id);
  }
  // Rare ids join one bin, so that each expects at least five draws.
  double chi_square = 0, rare_expected = 0, rare_count = 0;
  int bins = 0;
  const auto add = [&chi_square, &bins](double expected, double seen) {
    chi_square += (seen - expected) * (seen - expected) / expected;
    ++bins;
  };
  for (size_t id = 0; id < logits.size(); ++id) {
    const double expected = kDraws * probability[id] / total;
    if (expected >= 5) {
      add(expected, count[id]);
    } else {
      rare_expected += expected;
      rare_count += count[id];
    }
  }
  if (rare_expected >= 5) add(rare_expected, rare_count);
  // Wilson and Hilferty's approximation of the 0.999 quantile.
  const double degrees = bins - 1;
  const double h = 2 / (9 * degrees);
  EXPECT_GT(bins, 20);
  EXPECT_LT(chi_square, degrees * std::pow(1 - h + 3.09 * std::sqrt(h), 3));
}

TEST(SamplerTest, DrawsTheSameWhenResumed) {
  const SamplingParameters parameters{.temperature = 0.8,
                                      .top_p = 0.9,
                                      .top_k = 40,
                                      .seed = 5,
                                      .presence_penalty = 0.7,
                                      .frequency_penalty = 0.3};
  SamplingScratch scratch;
  Sampler whole(parameters, 1, {});
  std::vector<int32_t> ids;
  for (uint32_t i = 0; i < 20; ++i) {
    ids.push_back(*whole.Sample(RandomLogits(300, i), scratch));
    whole.Accept(ids.back());
  }
  Sampler resumed(parameters, 1, {});
  for (uint32_t i = 0; i < 20; ++i) {
    if (i >= 9) {
      EXPECT_EQ(*resumed.Sample(RandomLogits(300, i), scratch), ids[i]);
    }
    resumed.Accept(ids[i]);
  }
}

TEST(SamplerTest, DrawsDifferentlyForEachChoice) {
  const std::vector<float> logits(1000, 0.0f);
  EXPECT_NE(SampleOnce({.seed = 1}, logits, 0), SampleOnce({.seed = 1}, logits, 1));
}

TEST(SamplerTest, HoldsBackEndIdsUntilMinTokens) {
  SamplingScratch scratch;
  Sampler sampler({.temperature = 0, .min_tokens = 2, .end_token_ids = {0, 2}}, 0, {});
  const std::vector<float> logits = {9, 1, 8, 2};
  for (int i = 0; i < 2; ++i) {
    EXPECT_EQ(*sampler.Sample(logits, scratch), 3);
    sampler.Accept(3);
  }
  EXPECT_EQ(*sampler.Sample(logits, scratch), 0);
}

TEST(SamplerTest, DoesNotLetABiasUnmaskAnEndId) {
  SamplingScratch scratch;
  const Sampler sampler({.temperature = 0, .logit_bias = {{0, 100}}, .min_tokens = 1, .end_token_ids = {0}},
                        0, {});
  EXPECT_EQ(*sampler.Sample(std::vector<float>{9, 1, 8}, scratch), 2);
}

TEST(SamplerTest, AddsLogitBias) {
  EXPECT_EQ(SampleOnce({.temperature = 0, .logit_bias = {{2, 100}, {0, -100}}}, {9, 8, 1}), 2);
}

TEST(SamplerTest, PenalisesRepetitionOfPromptAndAnswerOncePerId) {
  SamplingScratch scratch;
  const std::vector<int32_t> prompt = {0, 0, 1};
  Sampler sampler({.temperature = 0, .repetition_penalty = 2}, 0, prompt);
  // 0: 6 -> 3; 1: -1 -> -2; 2 stays.
  EXPECT_EQ(*sampler.Sample(std::vector<float>{6, -1, 3.5f}, scratch), 2);
  EXPECT_EQ(*sampler.Sample(std::vector<float>{-9, -1, -1.9f}, scratch), 2);
  sampler.Accept(2);
  sampler.Accept(0);
  EXPECT_EQ(*sampler.Sample(std::vector<float>{6, -1, 5.9f}, scratch), 0);
}

TEST(SamplerTest, PenalisesPresenceOnceAndFrequencyByCountOfTheAnswer) {
  SamplingScratch scratch;
  const std::vector<int32_t> prompt = {0, 0, 0};
  Sampler sampler({.temperature = 0, .presence_penalty = 1, .frequency_penalty = 0.5}, 0, prompt);
  EXPECT_EQ(*sampler.Sample(std::vector<float>{5, 4.9f}, scratch), 0) << "the prompt does not count";
  sampler.Accept(0);
  EXPECT_EQ(*sampler.Sample(std::vector<float>{5, 3.6f}, scratch), 1) << "5 - 1 - 0.5 is less";
  EXPECT_EQ(*sampler.Sample(std::vector<float>{5, 3.4f}, scratch), 0);
  sampler.Accept(0);
  EXPECT_EQ(*sampler.Sample(std::vector<float>{5, 3.4f}, scratch), 1) << "5 - 1 - 2 * 0.5 is less";
}

TEST(SamplerTest, StaysFiniteAtTheEdgeOfFloat) {
  const float huge = std::numeric_limits<float>::max();
  EXPECT_EQ(SampleOnce({.temperature = 0, .logit_bias = {{1, 100}}}, {1, huge, -huge}), 1);
  EXPECT_EQ(SampleOnce({.temperature = 1e-5, .top_p = 0.5}, {1, huge, -huge}), 1);
}

TEST(FindNonFiniteTest, FindsTheFirst) {
  std::vector<float> logits(100, 0.0f);
  EXPECT_EQ(FindNonFinite(logits), -1);
  logits[99] = std::numeric_limits<float>::infinity();
  logits[98] = std::numeric_limits<float>::quiet_NaN();
  EXPECT_EQ(FindNonFinite(logits), 98);
}

TEST(GumbelBoundTest, NoDrawIsAboveItsBound) {
  double closest = 100;
  for (uint32_t id = 0; id < 200000; ++id) {
    const double u = UniformDraw({.seed = 3, .choice = 0, .token_index = 1, .token_id = id});
    const double gumbel = -PortableLog(-PortableLog(u));
    ASSERT_LE(gumbel, GumbelBound(u)) << u;
    closest = std::min(closest, GumbelBound(u) - gumbel);
  }
  EXPECT_LT(closest, 0.01) << "a bound too far to be of use";
  for (const double u : {0x1p-54, 0.5, 1 - 0x1p-20, 1 - 0x1p-53}) {
    EXPECT_LE(-PortableLog(-PortableLog(u)), GumbelBound(u)) << u;
  }
}

}  // namespace
}  // namespace prism
