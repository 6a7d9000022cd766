#include "services/sim/simulation.h"

#include <algorithm>
#include <array>
#include <memory>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "services/sim/faults.h"
#include "services/sim/network.h"
#include "services/sim/sim_decoder.h"
#include "services/sim/sim_encoder.h"
#include "services/sim/sim_router.h"

namespace prism::sim {
namespace {

// Everything must have ended so long after faults stop; no chat may take longer undisturbed.
constexpr SimTime kEndBound = 100 * kSecond;
// A chat that dropped its connection is kept by the router for so long.
constexpr SimTime kKeep = 120 * kSecond;
// Events shown before a violation.
constexpr size_t kShownEvents = 40;

struct Sizes {
  int64_t num_decoders;
  int64_t num_encoders;
  SimDecoderOptions decoder;
  SimEncoderOptions encoder;
  SimRouterOptions router;
  NetworkOptions network;
  WorkloadOptions workload;
  FaultOptions faults;
};

// A different cluster for each seed: roomy and scarce ones, quick and slow ones.
Sizes DrawSizes(Random& random) {
  Sizes sizes{};
  sizes.faults = DrawFaults(random);
  sizes.num_decoders = random.Between(1, 4);
  sizes.num_encoders = random.Between(1, 3);

  SimDecoderOptions& decoder = sizes.decoder;
  decoder.scheduler.max_num_seqs = random.Between(2, 12);
  decoder.scheduler.max_num_batched_tokens =
      decoder.scheduler.max_num_seqs + random.Between(1, random.Chance(0.5) ? 64 : 512);
  decoder.scheduler.growth_tokens = random.Chance(0.3) ? 0 : random.Between(0, 64);
  decoder.scheduler.waiting_max = 1024;  // chats are bounded at the door
  decoder.kv_pages = random.Between(10, random.Chance(0.5) ? 16 : 64);
  decoder.prefix_caching = random.Chance(0.8);
  decoder.max_waiting = random.Between(2, 24);
  decoder.embedding_tokens_max = random.Between(40, 200);
  decoder.heartbeat = random.Chance(0.5) ? kSecond : 200 * kMillisecond;
  decoder.step_base = random.Between(2, 30) * kMillisecond;
  decoder.step_row = random.Between(10, 200);
  if (sizes.faults.mean_gap_s > 0 && random.Chance(0.2)) decoder.step_failure_chance = 0.002;

  SimEncoderOptions& encoder = sizes.encoder;
  encoder.store_tokens_max = random.Between(24, 200);
  encoder.batch_tokens_max = random.Between(12, 64);
  encoder.pictures_max = random.Between(1, 16);
  encoder.lease = random.Between(100, 8000) * kMillisecond;
  encoder.pass_base = random.Between(2, 50) * kMillisecond;
  if (sizes.faults.mean_gap_s > 0 && random.Chance(0.2)) encoder.corrupt_chance = 0.02;

  SimRouterOptions& router = sizes.router;
  router.waiting_max = random.Between(8, 64);
  router.keep = kKeep;
  if (random.Chance(0.5)) {
    router.attempts.silence = std::chrono::milliseconds(3 * decoder.heartbeat / kMillisecond);
  }

  sizes.network.delay_mean_us = static_cast<double>(random.Between(50, 3000));
  sizes.network.spike_chance = random.Chance(0.5) ? 0 : 0.005;
  sizes.network.detect_mean_us = static_cast<double>(random.Between(1, 200) * kMillisecond);
  sizes.network.late_chance = random.Uniform();

  WorkloadOptions& workload = sizes.workload;
  workload.arrivals_per_s = 2 + 20 * random.Uniform();
  workload.prompt_max = random.Between(8, 320);
  workload.max_tokens_max = random.Between(4, 80);
  workload.picture_chance = random.Chance(0.2) ? 0 : random.Uniform();
  workload.num_pictures = random.Between(2, 24);
  workload.prefix_chance = random.Uniform();
  workload.cancel_chance = random.Chance(0.3) ? 0 : 0.3 * random.Uniform();
  workload.disconnect_chance = random.Chance(0.3) ? 0 : 0.4 * random.Uniform();
  workload.deadline_chance = random.Chance(0.3) ? 0 : 0.3 * random.Uniform();
  return sizes;
}

class Cluster {
 public:
  explicit Cluster(const SimulationOptions& options)
      : options_(options),
        sizes_([&options] {
          Random random(options.seed ^ 0x517A1E5u);
          return DrawSizes(random);
        }()),
        world_(options.seed, static_cast<size_t>(2 + sizes_.num_decoders + sizes_.num_encoders),
               options.plant),
        network_(sizes_.network, &world_) {
    for (int64_t i = 0; i < sizes_.num_decoders; ++i) {
      sizes_.router.decoders.push_back(static_cast<ProcessId>(2 + i));
      decoders_.push_back(MakeDecoder(sizes_.router.decoders.back()));
    }
    for (int64_t i = 0; i < sizes_.num_encoders; ++i) {
      sizes_.router.encoders.push_back(static_cast<ProcessId>(2 + sizes_.num_decoders + i));
      encoders_.push_back(MakeEncoder(sizes_.router.encoders.back()));
    }
    router_ = std::make_unique<SimRouter>(sizes_.router, &world_, &network_);
    clients_ =
        std::make_unique<SimClients>(sizes_.workload, sizes_.faults.mean_gap_s > 0, &world_, &network_);
    if (sizes_.faults.mean_gap_s > 0) ScheduleFault();
  }

  SimulationResult Run() {
    while (events_ < options_.events && Healthy()) Next();
    Calm();
    const SimTime calm_since = world_.now();
    while (Healthy() && !AllIdle()) {
      if (world_.now() - calm_since > kEndBound) {
        world_.Violate(absl::StrCat(
            "not all has ended ", kEndBound / kSecond, " s after the last fault; ", clients_->num_open(),
            " chats have no outcome, the oldest: ", clients_->DescribeChat(clients_->oldest()),
            "; at the router: ", router_->DescribeChat(clients_->oldest())));
      }
      Next();
    }
    if (Healthy()) CheckIdle();
    return Result();
  }

 private:
  bool Healthy() const { return world_.violation().empty(); }
  bool IsDecoder(ProcessId id) const { return id >= 2 && id < 2 + decoders_.size(); }
  SimDecoder& Decoder(ProcessId id) { return *decoders_[id - 2]; }
  SimEncoder& Encoder(ProcessId id) { return *encoders_[id - 2 - decoders_.size()]; }
  std::unique_ptr<SimDecoder> MakeDecoder(ProcessId id) {
    return std::make_unique<SimDecoder>(id, sizes_.decoder, &world_, &network_);
  }
  std::unique_ptr<SimEncoder> MakeEncoder(ProcessId id) {
    return std::make_unique<SimEncoder>(id, sizes_.encoder, &world_, &network_);
  }

  void Next() {
    const SimTime time = world_.queue().next_time();
    Event event = world_.queue().Pop();
    world_.AdvanceTo(std::max(time, world_.now()));
    if (event.kind == EventKind::kFault) return Fault();
    if (event.kind == EventKind::kRecover) return Recover(static_cast<ProcessId>(event.index));
    if (world_.stopped(event.to)) return world_.Hold(std::move(event));
    if (event.stream != 0) {
      if (!network_.Arrives(event)) return;
    } else if (!world_.alive(event.to) || event.incarnation != world_.incarnation(event.to)) {
      return;
    }
    ++events_;
    Note(event);
    Handle(event);
    Check(event.to);
  }

  void Note(const Event& event) {
    const auto mix = [this](uint64_t value) { hash_ = SplitMix64(hash_ * 0x9E3779B97F4A7C15u + value); };
    mix(static_cast<uint64_t>(world_.now()));
    mix(uint64_t{event.to} << 48 | uint64_t{static_cast<uint8_t>(event.kind)} << 40 |
        uint64_t{static_cast<uint8_t>(event.code)} << 32 | event.choice);
    mix(event.stream);
    mix(static_cast<uint64_t>(event.index) << 32 ^ static_cast<uint64_t>(event.value));
    recent_[static_cast<size_t>(events_) % kShownEvents] = {.time = world_.now(), .event = event};
    recent_[static_cast<size_t>(events_) % kShownEvents].event.request.reset();
    recent_[static_cast<size_t>(events_) % kShownEvents].event.handle.reset();
  }

  void Handle(const Event& event) {
    if (event.to == kClients) return clients_->Handle(event);
    if (event.to == kRouter) return router_->Handle(event);
    if (IsDecoder(event.to)) {
      Decoder(event.to).Handle(event);
      if (Decoder(event.to).draining() && Decoder(event.to).idle()) Kill(event.to);
      return;
    }
    Encoder(event.to).Handle(event);
  }

  void Check(ProcessId id) {
    if (id == kRouter) {
      router_->Check();
    } else if (IsDecoder(id)) {
      Decoder(id).Check();
    } else if (id != kClients) {
      Encoder(id).Check();
    }
  }

  // Faults.

  void ScheduleFault() {
    world_.After(1 + world_.random().Exponential(sizes_.faults.mean_gap_s * kSecond),
                 {.kind = EventKind::kFault, .to = kClients});
  }

  void ScheduleRecovery(ProcessId id, double mean_s) {
    world_.After(1 + world_.random().Exponential(mean_s * kSecond),
                 {.kind = EventKind::kRecover, .to = kClients, .index = static_cast<int64_t>(id)});
  }

  void Fault() {
    if (calm_) return;
    ScheduleFault();
    ++faults_;
    Random& random = world_.random();
    const auto id =
        static_cast<ProcessId>(random.Between(2, static_cast<int64_t>(world_.num_processes()) - 1));
    const FaultKind kind = DrawKind(sizes_.faults, random);
    if (kind != FaultKind::kBreak && !world_.alive(id)) return;
    switch (kind) {
      case FaultKind::kKill:
        return Kill(id);
      case FaultKind::kStop:
        if (world_.stopped(id)) return;
        world_.Stop(id);
        return ScheduleRecovery(id, sizes_.faults.stop_mean_s);
      case FaultKind::kBreak: {
        // Between a process and one of those that call it.
        const ProcessId other = random.Chance(0.2) ? kClients : id;
        if (other == kClients) return network_.Break(kClients, kRouter);
        if (!IsDecoder(id) && random.Chance(0.5)) {
          return network_.Break(id, static_cast<ProcessId>(random.Between(2, 1 + sizes_.num_decoders)));
        }
        return network_.Break(kRouter, id);
      }
      case FaultKind::kDrain:
        if (IsDecoder(id) && !world_.stopped(id)) Decoder(id).Drain();
        return;
      case FaultKind::kEvict:
        if (!IsDecoder(id)) Encoder(id).Evict();
        return;
    }
  }

  void Kill(ProcessId id) {
    world_.Kill(id);
    network_.Died(id);
    ScheduleRecovery(id, sizes_.faults.restart_mean_s);
  }

  void Recover(ProcessId id) {
    if (world_.stopped(id)) return world_.Continue(id);
    if (world_.alive(id)) return;
    world_.Start(id);
    if (IsDecoder(id)) {
      decoders_[id - 2] = MakeDecoder(id);
    } else {
      encoders_[id - 2 - decoders_.size()] = MakeEncoder(id);
    }
  }

  // No more faults, no more chats; what is stopped goes on, what is dead is started.
  void Calm() {
    calm_ = true;
    clients_->StopArrivals();
    for (ProcessId id = 2; id < world_.num_processes(); ++id) Recover(id);
  }

  // The end.

  bool AllIdle() const {
    if (clients_->num_open() > 0 || !router_->idle()) return false;
    for (const auto& decoder : decoders_) {
      if (!decoder->idle()) return false;
    }
    return std::all_of(encoders_.begin(), encoders_.end(), [](const auto& each) { return each->idle(); });
  }

  void CheckIdle() {
    for (const auto& decoder : decoders_) decoder->CheckIdle();
  }

  SimulationResult Result() {
    SimulationResult result{.seed = options_.seed,
                            .trace_hash = hash_,
                            .events = events_,
                            .simulated_s = static_cast<double>(world_.now()) / kSecond,
                            .violation = world_.violation(),
                            .outcomes = clients_->counts(),
                            .tokens = clients_->tokens(),
                            .faults = faults_,
                            .resumes = router_->resumes(),
                            .reencodes = router_->reencodes(),
                            .reconnects = clients_->reconnects(),
                            .dropped_events = router_->dropped_events()};
    for (const auto& decoder : decoders_) {
      result.preemptions += decoder->preemptions();
      result.computed_tokens += decoder->computed_tokens();
      result.cached_tokens += decoder->cached_tokens();
    }
    if (result.violation.empty()) return result;
    const auto first = std::max<int64_t>(1, events_ + 1 - static_cast<int64_t>(kShownEvents));
    for (int64_t number = first; number <= events_; ++number) {
      const Shown& shown = recent_[static_cast<size_t>(number) % kShownEvents];
      absl::StrAppend(&result.last_events, "  event ", number, " at ", shown.time,
                      " us: ", Describe(shown.event), "\n");
    }
    return result;
  }

  struct Shown {
    SimTime time = 0;
    Event event;
  };

  const SimulationOptions options_;
  Sizes sizes_;
  World world_;
  Network network_;
  std::vector<std::unique_ptr<SimDecoder>> decoders_;
  std::vector<std::unique_ptr<SimEncoder>> encoders_;
  std::unique_ptr<SimRouter> router_;
  std::unique_ptr<SimClients> clients_;
  bool calm_ = false;
  int64_t events_ = 0;
  int64_t faults_ = 0;
  uint64_t hash_ = 0;
  std::array<Shown, kShownEvents> recent_;
};

}  // namespace

SimulationResult Simulate(const SimulationOptions& options) { return Cluster(options).Run(); }

}  // namespace prism::sim
