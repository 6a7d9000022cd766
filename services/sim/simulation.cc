#include "services/sim/simulation.h"

#include <memory>

#include "absl/strings/str_cat.h"
#include "services/sim/cluster.h"
#include "services/sim/draw.h"
#include "services/sim/faults.h"

namespace prism::sim {
namespace {

// Everything must have ended so long after faults stop; no chat may take longer undisturbed.
constexpr SimTime kEndBound = 100 * kSecond;
// Keeps what a seed draws apart from what happens in its run.
constexpr uint64_t kDrawSalt = 0x517A1E5;

Drawn DrawOf(const SimulationOptions& options) {
  Random random(options.seed ^ kDrawSalt);
  Drawn drawn = Draw(random);
  drawn.cluster.seed = options.seed;
  drawn.cluster.plant = options.plant;
  drawn.cluster.show_chat = options.show_chat;
  return drawn;
}

class Run {
 public:
  explicit Run(const SimulationOptions& options)
      : options_(options), drawn_(DrawOf(options)), cluster_(drawn_.cluster, [this](Random* random) {
          return std::make_unique<Workload>(drawn_.workload, random);
        }) {
    if (drawn_.faults.mean_gap_s > 0) ScheduleFault();
  }

  SimulationResult ToTheEnd() {
    const auto on_fault = [this](const Event&) { Fault(); };
    while (cluster_.events() < options_.events && cluster_.healthy()) cluster_.Next(on_fault);
    Calm();
    const SimTime calm_since = cluster_.world().now();
    while (cluster_.healthy() && !cluster_.AllIdle()) {
      if (cluster_.world().now() - calm_since > kEndBound) {
        const uint64_t oldest = cluster_.clients().oldest();
        cluster_.world().Violate(
            absl::StrCat("not all has ended ", kEndBound / kSecond, " s after the last fault; ",
                         cluster_.clients().num_open(),
                         " chats have no outcome, the oldest: ", cluster_.clients().DescribeChat(oldest),
                         "; at the router: ", cluster_.router().DescribeChat(oldest)));
      }
      cluster_.Next(on_fault);
    }
    if (cluster_.healthy()) cluster_.CheckIdle();
    return Result();
  }

 private:
  void ScheduleFault() {
    World& world = cluster_.world();
    world.After(1 + world.random().Exponential(drawn_.faults.mean_gap_s * kSecond),
                {.kind = EventKind::kFault, .to = kClients});
  }

  void Fault() {
    if (calm_) return;
    ScheduleFault();
    ++faults_;
    World& world = cluster_.world();
    const auto id = static_cast<ProcessId>(
        world.random().Between(Cluster::first_replica(), cluster_.num_processes() - 1));
    const FaultKind kind = DrawKind(drawn_.faults, world.random());
    if (kind == FaultKind::kBreak) return Break(id);
    if (!world.alive(id)) return;
    switch (kind) {
      case FaultKind::kKill:
        return cluster_.Kill(id, drawn_.faults.restart_mean_s);
      case FaultKind::kStop:
        if (!world.stopped(id)) cluster_.Stop(id, drawn_.faults.stop_mean_s);
        return;
      case FaultKind::kDrain:
        if (cluster_.IsDecoder(id) && !world.stopped(id)) cluster_.Drain(id);
        return;
      case FaultKind::kEvict:
        if (!cluster_.IsDecoder(id)) cluster_.Evict(id);
        return;
      case FaultKind::kBreak:
        return;
    }
  }

  // A connection between a process and one of those that call it, or those of all clients.
  void Break(ProcessId id) {
    Random& random = cluster_.world().random();
    if (random.Chance(0.2)) return cluster_.network().Break(kClients, kRouter);
    if (cluster_.IsDecoder(id) || random.Chance(0.5)) return cluster_.network().Break(kRouter, id);
    const int64_t decoder = random.Below(drawn_.cluster.num_decoders);
    cluster_.network().Break(id, Cluster::first_replica() + static_cast<ProcessId>(decoder));
  }

  // No more faults, no more chats; what is stopped goes on, what is dead is started.
  void Calm() {
    calm_ = true;
    cluster_.clients().StopArrivals();
    for (ProcessId id = Cluster::first_replica(); id < cluster_.num_processes(); ++id) cluster_.Recover(id);
  }

  SimulationResult Result() {
    SimulationResult result{.seed = options_.seed,
                            .trace_hash = cluster_.trace_hash(),
                            .events = cluster_.events(),
                            .simulated_s = static_cast<double>(cluster_.world().now()) / kSecond,
                            .violation = cluster_.world().violation(),
                            .outcomes = cluster_.clients().counts(),
                            .tokens = cluster_.clients().tokens(),
                            .faults = faults_,
                            .resumes = cluster_.router().resumes(),
                            .reencodes = cluster_.router().reencodes(),
                            .reconnects = cluster_.clients().reconnects(),
                            .hedges = cluster_.router().pictures().hedges(),
                            .dropped_events = cluster_.router().dropped_events()};
    for (const auto& decoder : cluster_.decoders()) {
      result.preemptions += decoder->preemptions();
      result.computed_tokens += decoder->computed_tokens();
      result.cached_tokens += decoder->cached_tokens();
    }
    if (!result.violation.empty()) result.last_events = cluster_.DescribeLast();
    return result;
  }

  const SimulationOptions options_;
  const Drawn drawn_;
  Cluster cluster_;
  bool calm_ = false;
  int64_t faults_ = 0;
};

}  // namespace

void SimulationResult::Add(const SimulationResult& other) {
  trace_hash = SplitMix64(trace_hash * 0x9E3779B97F4A7C15u + other.trace_hash);
  events += other.events;
  simulated_s += other.simulated_s;
  for (size_t i = 0; i < outcomes.size(); ++i) outcomes[i] += other.outcomes[i];
  tokens += other.tokens;
  faults += other.faults;
  resumes += other.resumes;
  reencodes += other.reencodes;
  reconnects += other.reconnects;
  preemptions += other.preemptions;
  computed_tokens += other.computed_tokens;
  cached_tokens += other.cached_tokens;
  hedges += other.hedges;
  dropped_events += other.dropped_events;
}

SimulationResult Simulate(const SimulationOptions& options) { return Run(options).ToTheEnd(); }

}  // namespace prism::sim
