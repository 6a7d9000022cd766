#include "services/decoder/sampling/logprobs.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <vector>

#include "tests/services/decoder/sampling/random_logits.h"

namespace prism {
namespace {

TEST(LogSumExpTest, AgreesWithExtendedPrecisionAtAwkwardSizes) {
  for (const size_t size : {1, 2, 15, 16, 17, 127, 128, 129, 1000, 1024, 151936}) {
    const std::vector<float> logits = RandomLogits(size, static_cast<uint32_t>(size));
    long double sum = 0;
    for (const float logit : logits) sum += std::exp(static_cast<long double>(logit));
    // n terms, each within an ulp, summed with n roundings.
    const double bound = 3 * static_cast<double>(size) * std::numeric_limits<double>::epsilon();
    EXPECT_NEAR(LogSumExp(logits), static_cast<double>(std::log(sum)), std::max(bound, 1e-14)) << size;
  }
}

TEST(LogSumExpTest, DoesNotOverflow) {
  const std::vector<float> logits = {3e38f, 3e38f, -3e38f};
  EXPECT_EQ(LogSumExp(logits), double{3e38f} + std::log(2.0));
}

TEST(TopLogprobsTest, DescendsAndGivesTiesToTheLowerId) {
  const std::vector<float> logits = {1, 3, 2, 3, 0};
  const double total = LogSumExp(logits);
  std::vector<int32_t> ids;
  for (const TokenProbability& token : TopLogprobs(logits, total, 4)) {
    ids.push_back(token.token_id);
    EXPECT_EQ(token.logprob, logits[token.token_id] - total);
  }
  EXPECT_THAT(ids, testing::ElementsAre(1, 3, 2, 0));
}

TEST(TopLogprobsTest, GivesNoMoreThanThereAre) {
  const std::vector<float> logits = {1, 2};
  EXPECT_EQ(TopLogprobs(logits, LogSumExp(logits), 20).size(), 2u);
  EXPECT_TRUE(TopLogprobs(logits, LogSumExp(logits), 0).empty());
}

TEST(TopLogprobsTest, ProbabilitiesOfAllIdsSumToOne) {
  const std::vector<float> logits = RandomLogits(1024, 3);
  double sum = 0;
  for (const TokenProbability& token : TopLogprobs(logits, LogSumExp(logits), 1024)) {
    sum += std::exp(token.logprob);
  }
  EXPECT_NEAR(sum, 1, 1e-12);
}

}  // namespace
}  // namespace prism
