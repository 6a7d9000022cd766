#include "services/sim/cluster.h"

#include <algorithm>
#include <cstdio>
#include <utility>

#include "absl/strings/str_cat.h"

namespace prism::sim {

Cluster::Cluster(const ClusterOptions& options,
                 const std::function<std::unique_ptr<ChatSource>(Random*)>& source)
    : options_(options),
      world_(options.seed, static_cast<size_t>(2 + options.num_decoders + options.num_encoders),
             options.plant),
      network_(options.network, &world_) {
  for (int64_t i = 0; i < options.num_decoders; ++i) {
    const auto id = static_cast<ProcessId>(2 + i);
    options_.router.decoders.processes.push_back(id);
    decoders_.push_back(MakeDecoder(id));
  }
  for (int64_t i = 0; i < options.num_encoders; ++i) {
    const auto id = static_cast<ProcessId>(2 + options.num_decoders + i);
    options_.router.pictures.encoders.processes.push_back(id);
    encoders_.push_back(MakeEncoder(id));
  }
  router_ = std::make_unique<SimRouter>(options_.router, &world_, &network_);
  clients_ = std::make_unique<SimClients>(source(&world_.random()), options.faults, &world_, &network_);
}

std::unique_ptr<SimDecoder> Cluster::MakeDecoder(ProcessId id) {
  return std::make_unique<SimDecoder>(id, options_.decoder, &world_, &network_);
}

std::unique_ptr<SimEncoder> Cluster::MakeEncoder(ProcessId id) {
  return std::make_unique<SimEncoder>(id, options_.encoder, &world_, &network_);
}

void Cluster::Next(const std::function<void(const Event&)>& on_fault) {
  const SimTime time = world_.queue().next_time();
  Event event = world_.queue().Pop();
  world_.AdvanceTo(std::max(time, world_.now()));
  if (event.kind == EventKind::kFault) return on_fault(event);
  if (event.kind == EventKind::kRecover) return Recover(static_cast<ProcessId>(event.index));
  if (world_.stopped(event.to)) return world_.Hold(std::move(event));
  if (event.stream != 0) {
    if (!network_.Arrives(event)) return;
  } else if (!world_.alive(event.to) || event.incarnation != world_.incarnation(event.to)) {
    return;
  }
  ++events_;
  if (options_.show_chat != 0) Show(event);
  Note(event);
  Handle(event);
  Check(event.to);
}

// Messages after a stream's first do not all name their generation.
void Cluster::Show(const Event& event) {
  const bool ours = event.generation == options_.show_chat;
  if (ours && event.stream != 0) shown_streams_.insert(event.stream);
  if (!ours && !shown_streams_.contains(event.stream)) return;
  std::printf("event %lld at %lld us: %s\n", static_cast<long long>(events_),
              static_cast<long long>(world_.now()), Describe(event).c_str());
}

void Cluster::Note(const Event& event) {
  const auto mix = [this](uint64_t value) { hash_ = SplitMix64(hash_ * 0x9E3779B97F4A7C15u + value); };
  mix(static_cast<uint64_t>(world_.now()));
  mix(uint64_t{event.to} << 48 | uint64_t{static_cast<uint8_t>(event.kind)} << 40 |
      uint64_t{static_cast<uint8_t>(event.code)} << 32 | event.choice);
  mix(event.stream);
  mix(static_cast<uint64_t>(event.index) << 32 ^ static_cast<uint64_t>(event.value));
  Shown& shown = recent_[static_cast<size_t>(events_) % kShownEvents];
  shown = {.time = world_.now(), .event = event};
  shown.event.request.reset();
  shown.event.handle.reset();
  shown.event.chat_event.reset();
}

void Cluster::Handle(const Event& event) {
  if (event.to == kClients) return clients_->Handle(event);
  if (event.to == kRouter) return router_->Handle(event);
  if (!IsDecoder(event.to)) return Encoder(event.to).Handle(event);
  Decoder(event.to).Handle(event);
  if (Decoder(event.to).draining() && Decoder(event.to).idle()) Kill(event.to, kRestartMeanS);
}

void Cluster::Check(ProcessId id) {
  if (id == kRouter) {
    router_->Check();
  } else if (IsDecoder(id)) {
    Decoder(id).Check();
  } else if (id != kClients) {
    Encoder(id).Check();
  }
}

void Cluster::ScheduleRecovery(ProcessId id, double mean_s) {
  world_.After(1 + world_.random().Exponential(mean_s * kSecond),
               {.kind = EventKind::kRecover, .to = kClients, .index = static_cast<int64_t>(id)});
}

void Cluster::Kill(ProcessId id, double restart_mean_s) {
  world_.Kill(id);
  network_.Died(id);
  ScheduleRecovery(id, restart_mean_s);
}

void Cluster::Stop(ProcessId id, double stop_mean_s) {
  world_.Stop(id);
  ScheduleRecovery(id, stop_mean_s);
}

void Cluster::Recover(ProcessId id) {
  if (world_.stopped(id)) return world_.Continue(id);
  if (world_.alive(id)) return;
  world_.Start(id);
  if (IsDecoder(id)) {
    decoders_[id - 2] = MakeDecoder(id);
  } else {
    encoders_[id - 2 - decoders_.size()] = MakeEncoder(id);
  }
}

bool Cluster::AllIdle() const {
  if (clients_->num_open() > 0 || !router_->idle()) return false;
  for (const auto& decoder : decoders_) {
    if (!decoder->idle()) return false;
  }
  return std::all_of(encoders_.begin(), encoders_.end(), [](const auto& each) { return each->idle(); });
}

void Cluster::CheckIdle() {
  for (const auto& decoder : decoders_) decoder->CheckIdle();
  router_->CheckIdle();
}

std::string Cluster::DescribeLast() const {
  std::string text;
  const auto first = std::max<int64_t>(1, events_ + 1 - static_cast<int64_t>(kShownEvents));
  for (int64_t number = first; number <= events_; ++number) {
    const Shown& shown = recent_[static_cast<size_t>(number) % kShownEvents];
    absl::StrAppend(&text, "  event ", number, " at ", shown.time, " us: ", Describe(shown.event), "\n");
  }
  return text;
}

}  // namespace prism::sim
