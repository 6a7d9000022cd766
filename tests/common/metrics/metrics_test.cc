#include "common/metrics/metrics.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "common/metrics/buckets.h"
#include "common/metrics/build_info.h"

namespace prism {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::Not;

TEST(MetricsTest, ValuesStandInTheText) {
  MetricRegistry registry;
  Counter counter = registry.AddCounter("prism_things_total", "Things.", {{"kind", "a"}});
  Gauge gauge = registry.AddGauge("vllm:num_requests_running", "Running.");
  Histogram histogram =
      registry.AddHistogram("prism_stage_seconds", "Stages.", kStageBuckets, {{"stage", "queue"}});
  counter.Increment();
  counter.Increment(2);
  gauge.Set(5);
  gauge.Add(-1.5);
  histogram.Observe(0.02);
  EXPECT_EQ(counter.value(), 3);
  EXPECT_EQ(gauge.value(), 3.5);
  const std::string text = registry.Text();
  EXPECT_THAT(text, HasSubstr("# TYPE prism_things_total counter"));
  EXPECT_THAT(text, HasSubstr("prism_things_total{kind=\"a\"} 3"));
  EXPECT_THAT(text, HasSubstr("vllm:num_requests_running 3.5"));
  EXPECT_THAT(text, HasSubstr("prism_stage_seconds_bucket{stage=\"queue\",le=\"0.025\"} 1"));
  EXPECT_THAT(text, HasSubstr("prism_stage_seconds_bucket{stage=\"queue\",le=\"0.01\"} 0"));
}

TEST(MetricsTest, TheSameNameAndLabelsAreTheSameMetric) {
  MetricRegistry registry;
  registry.AddCounter("prism_x_total", "X.", {{"code", "OK"}}).Increment();
  registry.AddCounter("prism_x_total", "X.", {{"code", "OK"}}).Increment();
  EXPECT_EQ(registry.AddCounter("prism_x_total", "X.", {{"code", "OK"}}).value(), 2);
  EXPECT_EQ(registry.AddCounter("prism_x_total", "X.", {{"code", "UNAVAILABLE"}}).value(), 0);
}

TEST(MetricsTest, TwoRegistriesShareNothing) {
  MetricRegistry one, two;
  one.AddCounter("prism_x_total", "X.").Increment();
  EXPECT_EQ(two.AddCounter("prism_x_total", "X.").value(), 0);
}

TEST(MetricsTest, AHandleOfNoRegistryDropsValues) {
  Counter counter;
  Gauge gauge;
  Histogram histogram;
  counter.Increment();
  gauge.Set(2);
  histogram.Observe(1);
  EXPECT_EQ(counter.value(), 0);
  EXPECT_EQ(gauge.value(), 0);
}

TEST(MetricsTest, BuildInfoNamesTheVersion) {
  MetricRegistry registry;
  AddBuildInfo(&registry, "abc");
  EXPECT_THAT(registry.Text(), HasSubstr("version=\"" + std::string(BuildVersion()) + "\""));
  EXPECT_THAT(registry.Text(), HasSubstr("model_sha=\"abc\""));
  EXPECT_THAT(BuildName(), HasSubstr(std::string(BuildCommit())));
}

TEST(BucketsTest, OneTwoFiveReachesTheMaximum) {
  EXPECT_THAT(OneTwoFiveBuckets(1), ElementsAre(1));
  EXPECT_THAT(OneTwoFiveBuckets(64), ElementsAre(1, 2, 5, 10, 20, 50, 100));
}

TEST(BucketsTest, EveryListAscends) {
  EXPECT_TRUE(std::is_sorted(std::begin(kFirstTokenBuckets), std::end(kFirstTokenBuckets)));
  EXPECT_TRUE(std::is_sorted(std::begin(kInterTokenBuckets), std::end(kInterTokenBuckets)));
  EXPECT_TRUE(std::is_sorted(std::begin(kRequestBuckets), std::end(kRequestBuckets)));
  EXPECT_TRUE(std::is_sorted(std::begin(kStageBuckets), std::end(kStageBuckets)));
}

TEST(MetricsDeathTest, AnInvalidNameIsOurMistake) {
  MetricRegistry registry;
  EXPECT_DEATH(registry.AddCounter("not a name", "X."), "CheckMetricName");
}

}  // namespace
}  // namespace prism
