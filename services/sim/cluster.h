// Cluster: the processes of a simulation, the network between them and the loop that moves time on,
// with the invariants of the process that an event happened to checked after it.
//
// Thread safety: thread-compatible.
#pragma once

#include <array>
#include <cstdint>
#include <functional>
#include <memory>
#include <set>
#include <string>
#include <vector>

#include "services/sim/network.h"
#include "services/sim/plant.h"
#include "services/sim/sim_clients.h"
#include "services/sim/sim_decoder.h"
#include "services/sim/sim_encoder.h"
#include "services/sim/sim_router.h"
#include "services/sim/workload.h"
#include "services/sim/world.h"

namespace prism::sim {

struct ClusterOptions {
  uint64_t seed = 1;
  int64_t num_decoders = 1;
  int64_t num_encoders = 1;
  SimDecoderOptions decoder;
  SimEncoderOptions encoder;
  SimRouterOptions router;  // which processes are replicas is filled in
  NetworkOptions network;
  bool faults = false;  // errors that only faults explain are allowed
  Plant plant = Plant::kNone;
  uint64_t show_chat = 0;  // its events are printed as they happen; 0: none
};

class Cluster {
 public:
  // `source` is called once, with the world's Random.
  Cluster(const ClusterOptions& options, const std::function<std::unique_ptr<ChatSource>(Random*)>& source);

  // The next event happens. Faults and recoveries go to `on_fault`.
  void Next(const std::function<void(const Event&)>& on_fault);

  bool healthy() const { return world_.violation().empty(); }
  // No chat is open and no process has anything to do.
  bool AllIdle() const;
  // REQUIRES: AllIdle()
  void CheckIdle();

  // Faults. Processes are replicas, first_replica() .. num_processes() - 1.
  static constexpr ProcessId first_replica() { return 2; }
  ProcessId num_processes() const { return static_cast<ProcessId>(world_.num_processes()); }
  bool IsDecoder(ProcessId id) const { return id >= 2 && id < 2 + decoders_.size(); }
  // `restart_mean_s`: until it is started again.
  void Kill(ProcessId id, double restart_mean_s);
  void Stop(ProcessId id, double stop_mean_s);
  void Drain(ProcessId id) { Decoder(id).Drain(); }
  void Evict(ProcessId id) { Encoder(id).Evict(); }
  // What is stopped goes on, what is dead is started; nothing for others.
  void Recover(ProcessId id);

  World& world() { return world_; }
  Network& network() { return network_; }
  SimRouter& router() { return *router_; }
  SimClients& clients() { return *clients_; }
  const std::vector<std::unique_ptr<SimDecoder>>& decoders() const { return decoders_; }
  int64_t events() const { return events_; }
  uint64_t trace_hash() const { return hash_; }
  // The last events, a line each.
  std::string DescribeLast() const;

 private:
  // Events that DescribeLast() shows.
  static constexpr size_t kShownEvents = 40;
  // How long a decoder that has drained is gone.
  static constexpr double kRestartMeanS = 1;
  struct Shown {
    SimTime time = 0;
    Event event;
  };

  SimDecoder& Decoder(ProcessId id) { return *decoders_[id - 2]; }
  SimEncoder& Encoder(ProcessId id) { return *encoders_[id - 2 - decoders_.size()]; }
  std::unique_ptr<SimDecoder> MakeDecoder(ProcessId id);
  std::unique_ptr<SimEncoder> MakeEncoder(ProcessId id);
  void ScheduleRecovery(ProcessId id, double mean_s);
  void Show(const Event& event);
  void Note(const Event& event);
  void Handle(const Event& event);
  void Check(ProcessId id);

  ClusterOptions options_;
  World world_;
  Network network_;
  std::vector<std::unique_ptr<SimDecoder>> decoders_;
  std::vector<std::unique_ptr<SimEncoder>> encoders_;
  std::unique_ptr<SimRouter> router_;
  std::unique_ptr<SimClients> clients_;
  int64_t events_ = 0;
  uint64_t hash_ = 0;
  std::set<StreamId> shown_streams_;
  std::array<Shown, kShownEvents> recent_;
};

}  // namespace prism::sim
