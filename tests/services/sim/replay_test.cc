#include "services/sim/replay.h"

#include <gtest/gtest.h>

#include <vector>

namespace prism::sim {
namespace {

// Conversations that take turns, each turn beginning with all before it.
std::vector<TraceChat> Conversations(int64_t conversations, int64_t turns) {
  std::vector<TraceChat> trace;
  for (int64_t turn = 0; turn < turns; ++turn) {
    for (int64_t i = 0; i < conversations; ++i) {
      trace.push_back({.arrival_ms = static_cast<double>(trace.size()) * 25,
                       .tenant = "a",
                       .prefix_id = static_cast<uint64_t>(i),
                       .prefix_tokens = 256 * (turn + 1),
                       .prompt_tokens = 256 * (turn + 1) + 64,
                       .pictures = {static_cast<uint64_t>(i)},
                       .picture_tokens = 16,
                       .output_tokens = 20});
    }
  }
  return trace;
}

TEST(ReplayTest, EveryChatFinishesUnderEveryPlacement) {
  const std::vector<TraceChat> trace = Conversations(8, 4);
  for (const Placement placement :
       {Placement::kRoundRobin, Placement::kLeastLoaded, Placement::kPrefixAffinity}) {
    const ReplayResult result = Replay(trace, {.placement = placement});
    EXPECT_EQ(result.violation, "");
    EXPECT_EQ(result.finished, 32);
    EXPECT_EQ(result.refused, 0);
    EXPECT_GT(result.ttft_p50_ms, 0);
    EXPECT_LE(result.ttft_p50_ms, result.ttft_p99_ms);
    EXPECT_GT(result.embedding_hit_ratio, 0.5) << "each picture comes four times";
    EXPECT_NEAR(result.tokens_per_s * result.wall_s, 32 * 20, 1e-6);
  }
}

TEST(ReplayTest, AffinityFindsPrefixesThatRoundRobinSpreads) {
  // Seven conversations on four decoders: the turns of one never go round to the same decoder by themselves.
  const std::vector<TraceChat> trace = Conversations(7, 4);
  const ReplayResult spread = Replay(trace, {.placement = Placement::kRoundRobin});
  const ReplayResult found = Replay(trace, {.placement = Placement::kPrefixAffinity});
  EXPECT_GT(found.prefix_hit_ratio, 2 * spread.prefix_hit_ratio);
  EXPECT_EQ(Replay(trace, {.prefix_caching = false}).prefix_hit_ratio, 0);
}

TEST(ReplayTest, TheSameTraceGivesTheSameResult) {
  const std::vector<TraceChat> trace = Conversations(5, 3);
  const ReplayResult first = Replay(trace, {});
  const ReplayResult again = Replay(trace, {});
  EXPECT_EQ(first.ttft_p99_ms, again.ttft_p99_ms);
  EXPECT_EQ(first.tokens_per_s, again.tokens_per_s);
}

TEST(ReplayTest, OverloadIsRefusedAtTheDoor) {
  std::vector<TraceChat> trace = Conversations(400, 1);
  for (TraceChat& chat : trace) chat.arrival_ms = 0;
  const ReplayResult result = Replay(trace, {.num_decoders = 1, .max_num_seqs = 4, .wait_max_ms = 200});
  EXPECT_EQ(result.violation, "");
  EXPECT_GT(result.refused, 0);
  EXPECT_EQ(result.finished + result.refused, 400);
}

}  // namespace
}  // namespace prism::sim
