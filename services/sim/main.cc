// prism-sim: runs a cluster in simulated time under faults and checks what must always hold.
#include <chrono>
#include <cstdio>
#include <optional>
#include <string>
#include <vector>

#include "common/base/hash.h"
#include "common/rpc/flags.h"
#include "services/sim/plant.h"
#include "services/sim/simulation.h"

namespace prism::sim {
namespace {

struct Flags {
  uint64_t seed = 1;
  int64_t seeds = 1;
  int64_t events = 10'000;
  std::string plant = "none";
};

void PrintFailure(const SimulationResult& result, const Flags& flags) {
  std::printf("seed %llu: after event %lld: %s\n%s", static_cast<unsigned long long>(result.seed),
              static_cast<long long>(result.events), result.violation.c_str(), result.last_events.c_str());
  std::printf("again: prism-sim --seed %llu --events %lld --plant %s\n",
              static_cast<unsigned long long>(result.seed), static_cast<long long>(flags.events),
              flags.plant.c_str());
}

int Run(const Flags& flags) {
  const auto began = std::chrono::steady_clock::now();
  SimulationResult sum;
  for (int64_t i = 0; i < flags.seeds; ++i) {
    const SimulationResult result = Simulate({.seed = flags.seed + static_cast<uint64_t>(i),
                                              .events = flags.events,
                                              .plant = *PlantOf(flags.plant)});
    if (!result.violation.empty()) {
      PrintFailure(result, flags);
      return 1;
    }
    sum.trace_hash = SplitMix64(sum.trace_hash * 0x9E3779B97F4A7C15u + result.trace_hash);
    sum.events += result.events;
    sum.simulated_s += result.simulated_s;
    for (size_t k = 0; k < result.outcomes.size(); ++k) sum.outcomes[k] += result.outcomes[k];
    sum.tokens += result.tokens;
    sum.faults += result.faults;
    sum.resumes += result.resumes;
    sum.reencodes += result.reencodes;
    sum.reconnects += result.reconnects;
    sum.preemptions += result.preemptions;
    sum.computed_tokens += result.computed_tokens;
    sum.cached_tokens += result.cached_tokens;
    sum.dropped_events += result.dropped_events;
  }
  const double wall_s = std::chrono::duration<double>(std::chrono::steady_clock::now() - began).count();
  const auto number = [](int64_t value) { return static_cast<long long>(value); };
  std::printf("%lld seeds, %lld events in %.1f s (%.2f million a second), %.0f s simulated\n",
              number(flags.seeds), number(sum.events), wall_s, static_cast<double>(sum.events) / wall_s / 1e6,
              sum.simulated_s);
  std::printf("chats: %lld finished, %lld refused, %lld failed, %lld cancelled, %lld lost their connection\n",
              number(sum.outcomes[0]), number(sum.outcomes[1]), number(sum.outcomes[2]),
              number(sum.outcomes[3]), number(sum.outcomes[4]));
  std::printf(
      "%lld tokens, %lld computed, %lld from prefix caches, %lld faults, %lld resumes, %lld pictures encoded "
      "again, %lld reconnects, "
      "%lld preemptions, %lld late events dropped\n",
      number(sum.tokens), number(sum.computed_tokens), number(sum.cached_tokens), number(sum.faults),
      number(sum.resumes), number(sum.reencodes), number(sum.reconnects), number(sum.preemptions),
      number(sum.dropped_events));
  std::printf("trace %016llx\n", static_cast<unsigned long long>(sum.trace_hash));
  return 0;
}

}  // namespace
}  // namespace prism::sim

int main(int argc, char** argv) {
  prism::sim::Flags flags;
  prism::FlagSet set(
      "prism-sim",
      "Runs a cluster in simulated time under faults, one run a seed, and checks what must always hold.");
  set.Add("--seed", &flags.seed, "The first seed; equal seeds give equal runs");
  set.Add("--seeds", &flags.seeds, "Runs, of seeds that follow each other", {.min = 1});
  set.Add("--events", &flags.events, "Events of a run until faults stop and what is left must end",
          {.min = 1});
  std::vector<std::string> plants = {"none"};
  for (const prism::sim::Plant plant : prism::sim::AllPlants()) plants.emplace_back(NameOf(plant));
  set.Add("--plant", &flags.plant, "A bug to plant, to see it found", {.choices = plants});
  if (const std::optional<int> exit_code = set.Parse(argc, argv)) return *exit_code;
  return prism::sim::Run(flags);
}
