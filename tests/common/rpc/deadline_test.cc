#include "common/rpc/deadline.h"

#include <gtest/gtest.h>

namespace prism {
namespace {

using std::chrono::milliseconds;

TEST(HopDeadlineTest, KeepsTheMarginForItself) {
  const SteadyTime now = Clock::Real().Now();
  EXPECT_EQ(HopDeadline(now + milliseconds(10000), now), now + milliseconds(9950));
}

TEST(HopDeadlineTest, KeepsNoMoreThanATenth) {
  const SteadyTime now = Clock::Real().Now();
  EXPECT_EQ(HopDeadline(now + milliseconds(100), now), now + milliseconds(90));
}

TEST(HopDeadlineTest, NoDeadlineAndAPassedOneStay) {
  const SteadyTime now = Clock::Real().Now();
  EXPECT_EQ(HopDeadline(kNoDeadline, now), kNoDeadline);
  EXPECT_EQ(HopDeadline(now - milliseconds(5), now), now - milliseconds(5));
}

TEST(EarlierOfTest, TakesTheEarlier) {
  const SteadyTime now = Clock::Real().Now();
  EXPECT_EQ(EarlierOf(kNoDeadline, now, milliseconds(7)), now + milliseconds(7));
  EXPECT_EQ(EarlierOf(now + milliseconds(3), now, milliseconds(7)), now + milliseconds(3));
}

TEST(SetDeadlineTest, GivesTheCallWhatIsLeft) {
  grpc::ClientContext context;
  SetDeadline(&context, Clock::Real().Now() + milliseconds(5000));
  const auto left = context.deadline() - std::chrono::system_clock::now();
  EXPECT_GT(left, milliseconds(4000));
  EXPECT_LE(left, milliseconds(5001));
}

}  // namespace
}  // namespace prism
