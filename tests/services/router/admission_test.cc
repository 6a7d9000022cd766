#include "services/router/admission.h"

#include <gtest/gtest.h>

namespace prism {
namespace {

using std::chrono::milliseconds;
using Reason = Refusal::Reason;

constexpr SteadyTime kNever = SteadyTime::max();

// Fills the queue and lets work leave at 100 a second (ten chats of 10) for `seconds`, topped up.
SteadyTime BackUp(Admission& admission, SteadyTime now, int64_t waiting, int seconds) {
  while (admission.waiting() < waiting) EXPECT_FALSE(admission.Admit(now, 10, kNever).has_value());
  for (int i = 0; i < 10 * seconds; ++i) {
    now += milliseconds(100);
    admission.Dispatched(now, 10);
    EXPECT_FALSE(admission.Admit(now, 10, kNever).has_value());
  }
  return now;
}

TEST(AdmissionTest, OnlyTheCountBoundsAQueueWhoseRateIsUnknown) {
  Admission admission({.waiting_max = 200});
  const SteadyTime start;
  for (int i = 0; i < 200; ++i) EXPECT_FALSE(admission.Admit(start, 1000, kNever).has_value());
  const auto refusal = admission.Admit(start, 1000, kNever);
  ASSERT_TRUE(refusal.has_value());
  EXPECT_EQ(refusal->reason, Reason::kQueueFull);
  EXPECT_EQ(refusal->retry_ms, 1000);
}

TEST(AdmissionTest, TheRateIsThatOfTheBackedUpQueue) {
  Admission admission({});
  BackUp(admission, SteadyTime(), 20, 10);
  EXPECT_NEAR(admission.rate(), 100, 2);
  EXPECT_NEAR(admission.queued_work_s(), 2, 0.05);
}

TEST(AdmissionTest, ALongWaitIsRefusedWithTheTimeUntilItIsShort) {
  Admission admission({.wait_max = milliseconds(4000)});
  SteadyTime now = BackUp(admission, SteadyTime(), 20, 10);
  std::optional<Refusal> refusal;
  while (!refusal.has_value()) refusal = admission.Admit(now, 10, kNever);
  EXPECT_EQ(refusal->reason, Reason::kWait);
  EXPECT_NEAR(static_cast<double>(admission.waiting()), 41, 2);  // 4 s of 100 a second, in tens
  EXPECT_NEAR(refusal->wait_s, 4.1, 0.1);
  // Until the queue is down to 4 s and there is room for this one: two chats' time.
  EXPECT_NEAR(static_cast<double>(refusal->retry_ms), 200, 60);
  // The next to be refused come one after the other, not all at once.
  EXPECT_NEAR(static_cast<double>(admission.Admit(now, 10, kNever)->retry_ms), 300, 60);
  EXPECT_NEAR(static_cast<double>(admission.Admit(now, 10, kNever)->retry_ms), 400, 60);
  // Who comes back in time finds room.
  now += milliseconds(250);
  for (int i = 0; i < 3; ++i) admission.Dispatched(now, 10);
  EXPECT_FALSE(admission.Admit(now, 10, kNever).has_value());
}

TEST(AdmissionTest, AFullQueueHasRoomWhenTheNextLeaves) {
  Admission admission({.waiting_max = 20});
  const SteadyTime now = BackUp(admission, SteadyTime(), 20, 10);
  const auto first = admission.Admit(now, 10, kNever);
  ASSERT_TRUE(first.has_value());
  EXPECT_EQ(first->reason, Reason::kQueueFull);
  EXPECT_NEAR(static_cast<double>(first->retry_ms), 100, 10);
  EXPECT_NEAR(static_cast<double>(admission.Admit(now, 10, kNever)->retry_ms), 200, 10);
}

TEST(AdmissionTest, WhoWouldStartAfterItsDeadlineIsRefused) {
  Admission admission({});
  const SteadyTime now = BackUp(admission, SteadyTime(), 30, 10);
  EXPECT_FALSE(admission.Admit(now, 10, now + milliseconds(3500)).has_value());
  const auto refusal = admission.Admit(now, 10, now + milliseconds(2500));
  ASSERT_TRUE(refusal.has_value());
  EXPECT_EQ(refusal->reason, Reason::kDeadline);
}

TEST(AdmissionTest, AShortQueueIsNeverRefusedForItsWait) {
  Admission admission({.wait_max = milliseconds(1000)});
  SteadyTime now = BackUp(admission, SteadyTime(), kBackedUp + 1, 2);
  while (admission.waiting() > 0) admission.Dispatched(now, 10);
  for (int i = 0; i < kBackedUp; ++i) EXPECT_FALSE(admission.Admit(now, 1e9, kNever).has_value());
  EXPECT_TRUE(admission.Admit(now, 1, kNever).has_value());
}

// When the decoders are gone nothing leaves the queue: it must not fill up to the count, and it must
// come to life again by itself.
TEST(AdmissionTest, AQueueThatDoesNotMoveIsClosedAndOpensAgain) {
  Admission admission({});
  SteadyTime now;
  for (int i = 0; i < kBackedUp; ++i) EXPECT_FALSE(admission.Admit(now, 10, kNever).has_value());
  now += milliseconds(2000);
  ASSERT_TRUE(admission.Admit(now, 10, kNever).has_value());
  for (int i = 0; i < kBackedUp; ++i) admission.Left(now, 10);
  now = BackUp(admission, now, kBackedUp, 8);
  EXPECT_NEAR(admission.rate(), 100, 30);
}

TEST(AdmissionTest, ChatsThatLeaveTakeTheirWorkWithThemAndAreNoProgress) {
  Admission admission({});
  SteadyTime now = BackUp(admission, SteadyTime(), 40, 10);
  const double rate = admission.rate();
  for (int i = 0; i < 20; ++i) admission.Left(now, 10);
  EXPECT_EQ(admission.waiting(), 20);
  EXPECT_NEAR(admission.queued_work_s(), 2, 0.1);
  EXPECT_EQ(admission.rate(), rate);
}

}  // namespace
}  // namespace prism
