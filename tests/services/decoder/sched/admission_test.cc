#include "services/decoder/sched/admission.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace prism {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;
using testing::HasSubstr;
using Outcome = AdmissionDecision::Outcome;

constexpr SteadyTime kNow = SteadyTime(seconds(1000));

// Steps of 100 rows take a second.
QueuedWork Work(int64_t running_rows, std::vector<QueuedWork::Waiting> waiting = {}) {
  QueuedWork work{.running_rows = running_rows, .waiting = std::move(waiting), .times = {}};
  work.times.Observe(100, 1);
  return work;
}

constexpr AdmissionLimits kLimits = {
    .waiting_max = 3, .waiting_rows_max = 1000, .waiting_bytes_max = 500, .rows_per_step_max = 100};

TEST(AdmissionTest, TakesWhatFitsTheQueue) {
  EXPECT_EQ(Decide(kLimits, {.rows = 100, .bytes = 10}, {2, 900, 490}, Work(0), kNow).outcome,
            Outcome::kAccept);
}

TEST(AdmissionTest, RefusesWhenTooManyTooManyRowsOrTooManyBytesWaitAndSaysWhenToComeBack) {
  const AdmissionRequest request{.rows = 100, .bytes = 10};
  const AdmissionDecision many = Decide(kLimits, request, {3, 0, 0}, Work(500), kNow);
  EXPECT_EQ(many.outcome, Outcome::kQueueFull);
  EXPECT_EQ(many.message, "3 generations are waiting, at most 3 may");
  EXPECT_EQ(many.retry_after_s, 5);
  const AdmissionDecision rows = Decide(kLimits, request, {1, 901, 0}, Work(0), kNow);
  EXPECT_EQ(rows.outcome, Outcome::kQueueFull);
  EXPECT_THAT(rows.message, HasSubstr("901 tokens are waiting and 100 more would, at most 1000"));
  const AdmissionDecision bytes = Decide(kLimits, request, {1, 0, 491}, Work(0), kNow);
  EXPECT_EQ(bytes.outcome, Outcome::kQueueFull);
  EXPECT_THAT(bytes.message, HasSubstr("491 bytes are waiting and 10 more would, at most 500"));
  EXPECT_EQ(Decide(kLimits, {.rows = 99, .bytes = 0}, {1, 901, 600}, Work(0), kNow).outcome, Outcome::kAccept)
      << "it has no embeddings";
}

TEST(AdmissionTest, TakesOneThatIsLargerThanTheQueueAlone) {
  EXPECT_EQ(Decide(kLimits, {.rows = 5000, .bytes = 5000}, {0, 0, 0}, Work(0), kNow).outcome,
            Outcome::kAccept);
}

TEST(AdmissionTest, RefusesWhatCannotMakeItsDeadlineAtTheMeasuredSpeed) {
  AdmissionRequest request{.rows = 200, .deadline = kNow + seconds(4)};
  request.due = request.deadline;
  EXPECT_EQ(Decide(kLimits, request, {}, Work(200), kNow).outcome, Outcome::kAccept);
  const AdmissionDecision busy = Decide(kLimits, request, {}, Work(350), kNow);
  EXPECT_EQ(busy.outcome, Outcome::kBusy);
  EXPECT_NEAR(busy.retry_after_s, 2, 1e-9);
  EXPECT_THAT(busy.message, HasSubstr("about 6 s of work come first and 4 s are left"));
  request.rows = 500;
  const AdmissionDecision alone = Decide(kLimits, request, {}, Work(0), kNow);
  EXPECT_EQ(alone.outcome, Outcome::kDeadlinePast) << "it is of no use to come back";
  request.deadline = kNow;
  EXPECT_EQ(Decide(kLimits, request, {}, Work(0), kNow).outcome, Outcome::kDeadlinePast);
}

TEST(AdmissionTest, CountsOnlyTheWorkThatGoesFirst) {
  const QueuedWork work = Work(100, {{.priority = 0, .due = kNow + seconds(1), .rows = 10},
                                     {.priority = 0, .due = kNow + seconds(9), .rows = 20},
                                     {.priority = 1, .due = kNow + seconds(9), .rows = 40}});
  EXPECT_EQ(work.total_rows(), 170);
  EXPECT_EQ(work.RowsBefore(0, kNow + seconds(5)), 150);
  EXPECT_EQ(work.RowsBefore(0, kNow + seconds(50)), 170);
  EXPECT_EQ(work.RowsBefore(2, kNow + seconds(50)), 100);
}

TEST(AdmissionTest, RefusesNoResumedGenerationForAQueue) {
  AdmissionRequest request{.rows = 5000, .bytes = 5000, .resumed = true};
  request.deadline = kNow + seconds(1);
  EXPECT_EQ(Decide(kLimits, request, {kLimits.waiting_max + 7, 5000, 5000}, Work(9000), kNow).outcome,
            Outcome::kAccept);
  EXPECT_EQ(Decide(kLimits, request, {kLimits.waiting_max + kResumedMax, 0, 0}, Work(0), kNow).outcome,
            Outcome::kQueueFull);
  request.deadline = kNow;
  EXPECT_EQ(Decide(kLimits, request, {}, Work(0), kNow).outcome, Outcome::kDeadlinePast);
}

TEST(AdmissionTest, IsDueItsObjectiveAfterArrivalButNotAfterItsDeadline) {
  EXPECT_EQ(DueOf(kNow, SteadyTime::max(), milliseconds(1500)), kNow + milliseconds(1500));
  EXPECT_EQ(DueOf(kNow, kNow + seconds(1), milliseconds(1500)), kNow + seconds(1));
}

}  // namespace
}  // namespace prism
