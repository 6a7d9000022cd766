#include "kernels/device/fault.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdlib>
#include <string>

#include "common/base/thread.h"

namespace prism {
namespace {

TEST(FaultTest, ReadsNameRankAndCount) {
  const auto plain = ParseFault("out_of_memory");
  ASSERT_TRUE(plain.ok()) << plain.status();
  EXPECT_EQ(plain->fault, Fault::kOutOfMemory);
  EXPECT_EQ(plain->rank, 0);
  EXPECT_EQ(plain->count, 1);
  const auto whole = ParseFault("rank_stops:3@200");
  ASSERT_TRUE(whole.ok()) << whole.status();
  EXPECT_EQ(whole->fault, Fault::kRankStops);
  EXPECT_EQ(whole->rank, 3);
  EXPECT_EQ(whole->count, 200);
  EXPECT_EQ(ParseFault("").value().fault, Fault::kNone);
}

TEST(FaultTest, EveryFaultHasAName) {
  for (const Fault fault : {Fault::kDriverTooOld, Fault::kNoPeerAccess, Fault::kOutOfMemory,
                            Fault::kRankStops, Fault::kEndlessKernel}) {
    const auto parsed = ParseFault(Name(fault));
    ASSERT_TRUE(parsed.ok()) << parsed.status();
    EXPECT_EQ(parsed->fault, fault);
  }
}

TEST(FaultTest, RefusesWhatItDoesNotKnow) {
  for (const char* text : {"none", "rank", "rank_stops:", "rank_stops:-1", "rank_stops@0", "rank_stops@",
                           "@3", "rank_stops@1:0", "rank_stops "}) {
    const auto parsed = ParseFault(text);
    EXPECT_EQ(parsed.status().code(), absl::StatusCode::kInvalidArgument) << text;
    EXPECT_THAT(std::string(parsed.status().message()), testing::HasSubstr("driver_too_old")) << text;
  }
}

TEST(FaultTest, StrikesItsRankFromTheCountOn) {
  EXPECT_FALSE(Strikes(Fault::kRankStops, 1)) << "nothing is armed";
  ArmFault({.fault = Fault::kRankStops, .rank = 1, .count = 3});
  for (int time = 1; time <= 5; ++time) {
    EXPECT_FALSE(Strikes(Fault::kRankStops, 0));
    EXPECT_FALSE(Strikes(Fault::kEndlessKernel, 1));
    EXPECT_EQ(Strikes(Fault::kRankStops, 1), time >= 3) << time;
  }
  ArmFault({});
  EXPECT_FALSE(Strikes(Fault::kRankStops, 1));
}

TEST(FaultTest, DisarmingFreesWhoWaits) {
  ArmFault({.fault = Fault::kRankStops});
  NamedThread waiting("waiting", [] { WaitWhileArmed(); });
  ArmFault({});
  waiting.Join();
  EXPECT_FALSE(Strikes(Fault::kRankStops));
}

TEST(FaultTest, ComesFromTheEnvironment) {
  ASSERT_EQ(setenv("PRISM_FAULT", "no_peer_access", 1), 0);
  EXPECT_TRUE(ArmFaultFromEnvironment().ok());
  EXPECT_TRUE(Strikes(Fault::kNoPeerAccess));
  ArmFault({});
  ASSERT_EQ(setenv("PRISM_FAULT", "rubbish", 1), 0);
  EXPECT_EQ(ArmFaultFromEnvironment().code(), absl::StatusCode::kInvalidArgument);
  ASSERT_EQ(unsetenv("PRISM_FAULT"), 0);
  EXPECT_TRUE(ArmFaultFromEnvironment().ok());
  EXPECT_FALSE(Strikes(Fault::kNoPeerAccess));
}

}  // namespace
}  // namespace prism
