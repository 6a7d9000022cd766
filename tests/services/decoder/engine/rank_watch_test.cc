#include "services/decoder/engine/rank_watch.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <chrono>
#include <string>

namespace prism {
namespace {

using std::chrono::milliseconds;
using testing::HasSubstr;

// A flag that one thread raises and another waits for.
class Signal {
 public:
  void Raise() {
    MutexLock lock(&mutex_);
    raised_ = true;
    changed_.NotifyAll();
  }
  void Await() {
    MutexLock lock(&mutex_);
    while (!raised_) changed_.Wait(&mutex_);
  }
  bool raised() {
    MutexLock lock(&mutex_);
    return raised_;
  }

 private:
  Mutex mutex_;
  CondVar changed_;
  bool raised_ ABSL_GUARDED_BY(mutex_) = false;
};

TEST(RankWatchTest, SaysWhichRankIsLateAtWhatAndAbortsTheGroup) {
  Signal aborted, lost;
  RankWatch watch(2, {.step_max = milliseconds(50),
                      .grace = milliseconds(50),
                      .abort = [&] { aborted.Raise(); },
                      .lost = [&] { lost.Raise(); }});
  watch.WarmedUp();
  watch.Begin(0);
  watch.Queued(0);
  watch.End(0);
  EXPECT_TRUE(watch.Verdict().ok());
  watch.Begin(0);
  watch.Begin(1);
  watch.Queued(0);
  aborted.Await();
  lost.Await();
  const absl::Status verdict = watch.Verdict();
  EXPECT_EQ(verdict.code(), absl::StatusCode::kUnavailable);
  EXPECT_THAT(std::string(verdict.message()), HasSubstr("rank 0 has not ended step 2"));
  EXPECT_THAT(std::string(verdict.message()), HasSubstr("it waits for its device"));
  EXPECT_THAT(std::string(verdict.message()), HasSubstr("rank 1 has not ended step 1"));
  EXPECT_THAT(std::string(verdict.message()), HasSubstr("its thread queues its work"));
}

TEST(RankWatchTest, LosesNobodyWhoComesBackInTime) {
  Signal aborted, lost;
  {
    RankWatch watch(1, {.step_max = milliseconds(20),
                        .grace = std::chrono::minutes(10),
                        .abort = [&] { aborted.Raise(); },
                        .lost = [&] { lost.Raise(); }});
    watch.WarmedUp();
    watch.Begin(0);
    aborted.Await();
    watch.End(0);
    EXPECT_FALSE(watch.Verdict().ok()) << "the group stays given up";
  }
  EXPECT_FALSE(lost.raised());
}

TEST(RankWatchTest, GivesTheFirstStepsMoreTime) {
  Signal aborted;
  RankWatch watch(1, {.step_max = milliseconds(1),
                      .warm_up_max = std::chrono::minutes(10),
                      .grace = milliseconds(1),
                      .abort = [&] { aborted.Raise(); },
                      .lost = [] {}});
  watch.Begin(0);
  EXPECT_TRUE(watch.Verdict().ok());
  EXPECT_FALSE(aborted.raised());
  watch.WarmedUp();
  aborted.Await();
  EXPECT_FALSE(watch.Verdict().ok());
}

TEST(RankWatchTest, WatchesNothingWithoutALimit) {
  RankWatch watch(1, {.abort = [] { FAIL() << "aborted"; }, .lost = [] { FAIL() << "lost"; }});
  watch.Begin(0);
  EXPECT_TRUE(watch.Verdict().ok());
}

}  // namespace
}  // namespace prism
