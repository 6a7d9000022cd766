#include "services/decoder/engine/work_meter.h"

#include <gtest/gtest.h>

#include "common/metrics/desired_replicas.h"

namespace prism {
namespace {

using std::chrono::milliseconds;

constexpr int64_t kSequences = 8;
constexpr int64_t kRows = 64;
constexpr WorkMeter::Pages kNoPages{.in_use = 0, .total = 100};

// A meter under the same steps, one behind the other, for ten minutes: what they take of it.
class WorkMeterTest : public testing::Test {
 protected:
  double Steadily(int64_t num_rows, int64_t num_answer_rows, milliseconds step) {
    for (SteadyTime end = now_ + std::chrono::minutes(10); now_ < end; now_ += step) {
      const SteadyTime computed = now_ + step;
      meter_.ObserveStep({.began = now_,
                          .computed = computed,
                          .ended = computed,
                          .num_rows = num_rows,
                          .num_answer_rows = num_answer_rows},
                         times_);
    }
    return meter_.InUse(kNoPages, now_);
  }

  SteadyTime now_ = SteadyTime() + std::chrono::hours(1);
  StepTimes times_;
  WorkMeter meter_{kSequences, kRows, now_};
};

TEST_F(WorkMeterTest, PromptsTakeTheWholeDevice) {
  times_.Observe(64, 0.2);
  EXPECT_NEAR(Steadily(64, 0, milliseconds(200)), 1, 1e-9);
}

TEST_F(WorkMeterTest, AnswersTakeTheRoomOfTheirRows) {
  times_.Observe(1, 0.02);
  EXPECT_NEAR(Steadily(2, 2, milliseconds(20)), 0.25, 1e-9);
  EXPECT_NEAR(Steadily(8, 8, milliseconds(20)), 1, 1e-9);
}

TEST_F(WorkMeterTest, AStepOfBothIsDividedByWhatAnswersAloneTake) {
  times_.Observe(4, 0.05);
  times_.Observe(64, 0.2);
  // 50 of 200 ms are those of four answers, which half of the room would hold: 0.75 + 0.25 / 2.
  EXPECT_NEAR(Steadily(64, 4, milliseconds(200)), 0.875, 1e-9);
}

TEST_F(WorkMeterTest, AStepFasterThanItsAnswersAloneIsAllTheirs) {
  times_.Observe(4, 0.05);
  EXPECT_NEAR(Steadily(64, 4, milliseconds(40)), 0.5, 1e-9);
}

TEST_F(WorkMeterTest, ForgetsWhatItDidAndNeverItsPages) {
  times_.Observe(64, 0.2);
  Steadily(64, 0, milliseconds(200));
  const SteadyTime later = now_ + std::chrono::seconds(15);
  EXPECT_NEAR(meter_.InUse(kNoPages, later), 0.5, 1e-9);
  EXPECT_EQ(meter_.InUse({.in_use = 90, .total = 100}, later), 0.9);
}

TEST_F(WorkMeterTest, WhatWaitsIsItsPromptsAndTheAnswersThatFollow) {
  times_.Observe(8, 0.02);
  times_.Observe(64, 0.2);
  // Two full steps; how long an answer is nobody knows yet.
  EXPECT_NEAR(meter_.QueuedWorkS(128, 5, times_), 0.4, 1e-9);
  meter_.ObserveAnswer(100);
  // 5 answers of 100 tokens, eight of which take 20 ms.
  EXPECT_NEAR(meter_.QueuedWorkS(128, 5, times_), 0.4 + 5 * 100 * 0.02 / 8, 1e-9);
  meter_.ObserveAnswer(200);
  EXPECT_NEAR(meter_.QueuedWorkS(0, 1, times_), 110 * 0.02 / 8, 1e-9);
}

TEST_F(WorkMeterTest, AFullDecoderWithAQueueWantsMore) {
  times_.Observe(8, 0.04);
  meter_.ObserveAnswer(500);
  const double in_use = Steadily(8, 8, milliseconds(40));
  EXPECT_EQ(DesiredReplicas(in_use, meter_.QueuedWorkS(0, 0, times_)), 2u);  // 1 / 0.7
  // 10 answers of 500 tokens, 5 ms each: 25 s of work, to be done in 5.
  EXPECT_EQ(DesiredReplicas(in_use, meter_.QueuedWorkS(0, 10, times_)), 7u);  // 1 / 0.7 + 5
}

TEST_F(WorkMeterTest, KnowsNothingAtFirst) {
  EXPECT_EQ(meter_.InUse(kNoPages, now_), 0);
  EXPECT_EQ(meter_.QueuedWorkS(1000, 10, times_), 0);
}

}  // namespace
}  // namespace prism
