#include "services/router/attempt_state.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace prism {
namespace {

using std::chrono::milliseconds;
using testing::ElementsAre;
using Ending = AttemptState::Ending;
using Health = AttemptState::Health;
using Next = AttemptState::Next;

const AttemptLimits kLimits{
    .silence = milliseconds(500), .stuck = milliseconds(2000), .crashes_max = 2, .reencodes_max = 2};

class AttemptStateTest : public testing::Test {
 protected:
  SteadyTime At(int ms) const { return begin_ + milliseconds(ms); }
  const SteadyTime begin_ = SteadyTime() + std::chrono::hours(1);
  AttemptState state_{kLimits};
};

TEST_F(AttemptStateTest, OnlyTheNewestAttemptSpeaksAndOnlyWhileItLives) {
  EXPECT_FALSE(state_.IsLive(0));
  EXPECT_EQ(state_.Begin(7, At(0)), 0u);
  EXPECT_TRUE(state_.IsLive(0));
  EXPECT_EQ(state_.End(Ending::kCrashed), Next::kAnother);
  EXPECT_FALSE(state_.IsLive(0));
  EXPECT_EQ(state_.Begin(8, At(1)), 1u);
  EXPECT_FALSE(state_.IsLive(0)) << "a decoder that was stopped and goes on does no harm";
  EXPECT_TRUE(state_.IsLive(1));
  EXPECT_FALSE(state_.IsLive(2));
  state_.Complete();
  EXPECT_FALSE(state_.IsLive(1));
}

TEST_F(AttemptStateTest, TwoCrashesInARowEndAGenerationThatHadStarted) {
  for (const Next want : {Next::kAnother, Next::kFail}) {
    state_.Begin(0, At(0));
    state_.OnStarted(At(1));
    EXPECT_EQ(state_.End(Ending::kCrashed), want);
  }
}

TEST_F(AttemptStateTest, ATokenInBetweenForgivesACrash) {
  for (int i = 0; i < 5; ++i) {
    state_.Begin(static_cast<size_t>(i), At(0));
    state_.OnStarted(At(1));
    state_.OnToken(At(2));
    EXPECT_TRUE(state_.tried().empty());
    EXPECT_EQ(state_.End(Ending::kCrashed), Next::kAnother);
    EXPECT_THAT(state_.tried(), ElementsAre(i));
  }
}

TEST_F(AttemptStateTest, ACrashBeforeTheStartIsNotTheRequestsFault) {
  for (size_t decoder = 0; decoder < 4; ++decoder) {
    state_.Begin(decoder, At(0));
    EXPECT_EQ(state_.End(Ending::kCrashed), Next::kAnother);
  }
  EXPECT_THAT(state_.tried(), ElementsAre(0, 1, 2, 3)) << "none of them is tried again";
}

TEST_F(AttemptStateTest, LeavingAndRefusingAreNoCrashes) {
  for (const Ending ending : {Ending::kLeft, Ending::kRefused, Ending::kLeft}) {
    state_.Begin(3, At(0));
    state_.OnStarted(At(0));
    EXPECT_EQ(state_.End(ending), Next::kAnother);
  }
}

TEST_F(AttemptStateTest, ALostEmbeddingIsEncodedAgainTwice) {
  for (const Next want : {Next::kReencode, Next::kReencodeElsewhere, Next::kFail}) {
    state_.Begin(0, At(0));
    EXPECT_EQ(state_.End(Ending::kEmbeddingLost), want);
  }
  EXPECT_TRUE(state_.tried().empty()) << "the decoder is not to blame";
}

TEST_F(AttemptStateTest, SilenceIsHeartbeatsIncluded) {
  EXPECT_EQ(state_.Check(At(5000)), Health::kAlive) << "nothing is live";
  state_.Begin(0, At(0));
  EXPECT_EQ(state_.Check(At(499)), Health::kAlive);
  EXPECT_EQ(state_.Check(At(500)), Health::kSilent);
  state_.OnHeartbeat(0, false, At(450));
  EXPECT_EQ(state_.Check(At(949)), Health::kAlive);
  EXPECT_EQ(state_.Check(At(950)), Health::kSilent);
}

TEST_F(AttemptStateTest, HeartbeatsWithoutAStepAreNoProgress) {
  state_.Begin(0, At(0));
  for (int ms = 0; ms <= 2000; ms += 250) state_.OnHeartbeat(7, false, At(ms));
  EXPECT_EQ(state_.Check(At(1999)), Health::kAlive);
  EXPECT_EQ(state_.Check(At(2000)), Health::kStuck);
}

TEST_F(AttemptStateTest, StepsTokensAndWaitingAreProgress) {
  state_.Begin(0, At(0));
  for (int ms = 0; ms <= 8000; ms += 250) {
    state_.OnHeartbeat(static_cast<uint64_t>(ms / 1000), false, At(ms));
    EXPECT_EQ(state_.Check(At(ms)), Health::kAlive);
  }
  for (int ms = 8000; ms <= 16000; ms += 250) {
    state_.OnHeartbeat(8, true, At(ms));
    EXPECT_EQ(state_.Check(At(ms)), Health::kAlive) << "it waits for an embedding";
  }
  state_.OnToken(At(17900));
  state_.OnHeartbeat(8, false, At(18200));
  EXPECT_EQ(state_.Check(At(18200)), Health::kAlive);
}

TEST_F(AttemptStateTest, TheNextAttemptBeginsWithAFreshClock) {
  state_.Begin(0, At(0));
  state_.End(Ending::kCrashed);
  state_.Begin(1, At(10000));
  EXPECT_EQ(state_.Check(At(10499)), Health::kAlive);
}

}  // namespace
}  // namespace prism
