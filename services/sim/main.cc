// prism-sim: runs a cluster in simulated time under faults and checks what must always hold; or
// replays a trace through one without faults, to compare policies.
#include <chrono>
#include <cstdio>
#include <fstream>
#include <optional>
#include <sstream>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "common/base/hash.h"
#include "common/rpc/flags.h"
#include "services/sim/plant.h"
#include "services/sim/replay.h"
#include "services/sim/simulation.h"
#include "services/sim/trace.h"

namespace prism::sim {
namespace {

struct Flags {
  uint64_t seed = 1;
  int64_t seeds = 1;
  int64_t events = 10'000;
  std::string plant = "none";
  uint64_t chat = 0;
  std::string replay;
  std::string placement = "all";
  ReplayOptions options;
};

struct NamedPlacement {
  const char* name;
  Placement placement;
};
constexpr NamedPlacement kPlacements[] = {{"round-robin", Placement::kRoundRobin},
                                          {"least-loaded", Placement::kLeastLoaded},
                                          {"prefix-affinity", Placement::kPrefixAffinity}};

long long Number(int64_t value) { return static_cast<long long>(value); }

void PrintFailure(const SimulationResult& result, const Flags& flags) {
  std::printf("seed %llu: after event %lld: %s\n%s", static_cast<unsigned long long>(result.seed),
              Number(result.events), result.violation.c_str(), result.last_events.c_str());
  std::printf("again: prism-sim --seed %llu --events %lld --plant %s\n",
              static_cast<unsigned long long>(result.seed), Number(flags.events), flags.plant.c_str());
}

void PrintSum(const SimulationResult& sum, const Flags& flags, double wall_s) {
  std::printf("%lld seeds, %lld events in %.1f s (%.2f million a second), %.0f s simulated\n",
              Number(flags.seeds), Number(sum.events), wall_s, static_cast<double>(sum.events) / wall_s / 1e6,
              sum.simulated_s);
  const SimClients::Counts& outcomes = sum.outcomes;
  std::printf(
      "chats: %lld finished, %lld refused, %lld late, %lld failed, %lld cancelled, %lld lost their "
      "connection\n",
      Number(outcomes[0]), Number(outcomes[1]), Number(outcomes[2]), Number(outcomes[3]), Number(outcomes[4]),
      Number(outcomes[5]));
  std::printf("tokens: %lld shown; of prompts %lld computed, %lld from prefix caches; %lld preemptions\n",
              Number(sum.tokens), Number(sum.computed_tokens), Number(sum.cached_tokens),
              Number(sum.preemptions));
  std::printf(
      "%lld faults, %lld resumes, %lld chats whose pictures were encoded again, %lld hedges, %lld "
      "reconnects, "
      "%lld late events dropped\n",
      Number(sum.faults), Number(sum.resumes), Number(sum.reencodes), Number(sum.hedges),
      Number(sum.reconnects), Number(sum.dropped_events));
  std::printf("trace %016llx\n", static_cast<unsigned long long>(sum.trace_hash));
}

int RunSeeds(const Flags& flags) {
  const auto began = std::chrono::steady_clock::now();
  SimulationResult sum;
  for (int64_t i = 0; i < flags.seeds; ++i) {
    const SimulationResult result = Simulate({.seed = flags.seed + static_cast<uint64_t>(i),
                                              .events = flags.events,
                                              .plant = *PlantOf(flags.plant),
                                              .show_chat = flags.chat});
    if (!result.violation.empty()) {
      PrintFailure(result, flags);
      return 1;
    }
    sum.Add(result);
  }
  PrintSum(sum, flags, std::chrono::duration<double>(std::chrono::steady_clock::now() - began).count());
  return 0;
}

absl::StatusOr<std::vector<TraceChat>> ReadTrace(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  std::ostringstream text;
  text << file.rdbuf();
  if (!file.good()) return absl::NotFoundError("cannot be read");
  return ParseTrace(text.str());
}

int RunReplay(const Flags& flags) {
  const absl::StatusOr<std::vector<TraceChat>> trace = ReadTrace(flags.replay);
  if (!trace.ok()) {
    std::fprintf(stderr, "--replay %s: %s\n", flags.replay.c_str(),
                 std::string(trace.status().message()).c_str());
    return 2;
  }
  std::printf("%-16s %8s %7s %9s %9s %9s %7s %9s %8s %7s %9s\n", "placement", "finished", "refused",
              "TTFT p50", "p90", "p99 ms", "gap ms", "tokens/s", "good/s", "prefix", "embedding");
  for (const NamedPlacement& named : kPlacements) {
    if (flags.placement != "all" && flags.placement != named.name) continue;
    ReplayOptions options = flags.options;
    options.placement = named.placement;
    options.seed = flags.seed;
    const ReplayResult result = Replay(*trace, options);
    if (!result.violation.empty()) {
      std::fprintf(stderr, "%s: %s\n", named.name, result.violation.c_str());
      return 1;
    }
    std::printf("%-16s %8lld %7lld %9.0f %9.0f %9.0f %7.1f %9.0f %8.2f %6.1f%% %8.1f%%\n", named.name,
                Number(result.finished), Number(result.refused), result.ttft_p50_ms, result.ttft_p90_ms,
                result.ttft_p99_ms, result.token_gap_mean_ms, result.tokens_per_s, result.goodput_per_s,
                100 * result.prefix_hit_ratio, 100 * result.embedding_hit_ratio);
  }
  return 0;
}

void AddReplayFlags(FlagSet* set, Flags* flags) {
  ReplayOptions* o = &flags->options;
  set->Add("--replay", &flags->replay,
           "A trace to replay without faults, in place of seeds; see docs/simulation.md");
  std::vector<std::string> names = {"all"};
  for (const NamedPlacement& named : kPlacements) names.emplace_back(named.name);
  set->Add("--placement", &flags->placement, "How a replay's decoders are picked", {.choices = names});
  set->Add("--decoders", &o->num_decoders, "A replay's decoders", {.min = 1, .max = 1024});
  set->Add("--vision-encoders", &o->num_encoders, "A replay's encoders", {.min = 1, .max = 1024});
  set->Add("--max-num-seqs", &o->max_num_seqs, "Sequences each decoder runs at once",
           {.min = 1, .max = 65536});
  set->Add("--max-num-batched-tokens", &o->max_num_batched_tokens, "Tokens of a decoder's step",
           {.unit = "tokens", .min = 1, .max = 1 << 20});
  set->Add("--kv-pages", &o->kv_pages, "A decoder's KV pages of 64 tokens",
           {.unit = "pages", .min = 1, .max = 1 << 24});
  set->Add("--prefix-caching", &o->prefix_caching, "Keep pages for prompts that begin alike");
  set->Add("--step-base-us", &o->step_base_us, "Time of a decoder's step without rows",
           {.unit = "us", .min = 1, .max = 1e9});
  set->Add("--step-row-us", &o->step_row_us, "Time of a row more", {.unit = "us", .min = 0, .max = 1e6});
  set->Add("--pass-base-us", &o->pass_base_us, "Time of an encoder's pass without pictures",
           {.unit = "us", .min = 1, .max = 1e9});
  set->Add("--pass-token-us", &o->pass_token_us, "Time of a visual token more",
           {.unit = "us", .min = 0, .max = 1e6});
  set->Add("--wait-max-ms", &o->wait_max_ms, "Estimated wait above which the router refuses",
           {.unit = "ms", .min = 1, .max = 1e9});
  set->Add("--ttft-objective-ms", &o->ttft_objective_ms, "Time to the first token that counts as good",
           {.unit = "ms", .min = 1, .max = 1e9});
}

}  // namespace
}  // namespace prism::sim

int main(int argc, char** argv) {
  prism::sim::Flags flags;
  prism::FlagSet set(
      "prism-sim",
      "Runs a cluster in simulated time: under faults, one run a seed, checking what must always hold; "
      "or without, replaying a trace.");
  set.Add("--seed", &flags.seed, "The first seed; equal seeds give equal runs");
  set.Add("--seeds", &flags.seeds, "Runs, of seeds that follow each other", {.min = 1});
  set.Add("--events", &flags.events, "Events of a run until faults stop and what is left must end",
          {.min = 1});
  std::vector<std::string> plants = {"none"};
  for (const prism::sim::Plant plant : prism::sim::AllPlants()) plants.emplace_back(NameOf(plant));
  set.Add("--plant", &flags.plant, "A bug to plant, to see it found", {.choices = plants});
  set.Add("--chat", &flags.chat, "A chat whose events are printed as they happen; 0: none");
  prism::sim::AddReplayFlags(&set, &flags);
  if (const std::optional<int> exit_code = set.Parse(argc, argv)) return *exit_code;
  return flags.replay.empty() ? prism::sim::RunSeeds(flags) : prism::sim::RunReplay(flags);
}
