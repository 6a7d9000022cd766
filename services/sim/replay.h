// Replay runs a trace through a simulated cluster without faults, to compare policies by what
// clients would see.
//
// Thread safety: pure function.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "services/sim/sim_replicas.h"
#include "services/sim/trace.h"

namespace prism::sim {

struct ReplayOptions {
  Placement placement = Placement::kPrefixAffinity;
  int64_t num_decoders = 4;
  int64_t num_encoders = 2;
  int64_t max_num_seqs = 64;
  int64_t max_num_batched_tokens = 2048;
  int64_t kv_pages = 4096;
  bool prefix_caching = true;
  SimTime step_base_us = 8000;  // of a step without rows
  SimTime step_row_us = 25;     // a row more
  SimTime pass_base_us = 10'000;
  SimTime pass_token_us = 40;  // of an encoder's pass, a visual token more
  int64_t wait_max_ms = 8000;  // estimated wait above which the router refuses
  int64_t ttft_objective_ms = 2000;
  uint64_t seed = 1;
};

struct ReplayResult {
  int64_t finished = 0;
  int64_t refused = 0;
  double wall_s = 0;  // simulated, from the first arrival to the last end
  double ttft_p50_ms = 0;
  double ttft_p90_ms = 0;
  double ttft_p99_ms = 0;
  double token_gap_mean_ms = 0;  // of a chat after its first token, averaged over chats
  double tokens_per_s = 0;
  double goodput_per_s = 0;        // chats a second whose first token met the objective
  double prefix_hit_ratio = 0;     // of prompt tokens, out of prefix caches
  double embedding_hit_ratio = 0;  // of pictures, out of encoders' stores
  std::string violation;           // empty: all invariants hold
};

// The trace must have chats.
ReplayResult Replay(const std::vector<TraceChat>& trace, const ReplayOptions& options);

}  // namespace prism::sim
