// SimReplicas: what the router knows of the replicas of one role, and which one does a piece of
// work. Where work goes is decided by the product's placement.
//
// Thread safety: thread-compatible.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "services/router/placement.h"
#include "services/router/prefix_map.h"
#include "services/sim/network.h"
#include "services/sim/world.h"

namespace prism::sim {

// How decoders are picked.
enum class Placement {
  kRoundRobin,
  kLeastLoaded,     // the fewest sequences in flight
  kPrefixAffinity,  // as the router does: PickDecoder() with what prefix caches are believed to hold
};

struct SimReplicasOptions {
  std::vector<ProcessId> processes;
  int64_t capacity = 16;  // sequences, or pictures, that one takes at once
  Placement placement = Placement::kPrefixAffinity;
  size_t prefix_blocks_max = 4096;  // of a decoder, that are remembered
  SimTime poll_timeout = 2 * kSecond;
};

class SimReplicas {
 public:
  // A piece of work on a replica.
  struct Use {
    size_t replica = 0;
    int64_t slots = 0;
    double pending_tokens = 0;
  };
  // What a prompt wants of a decoder.
  struct Wish {
    int64_t prompt_tokens = 0;
    std::vector<uint64_t> blocks;
    int64_t choices = 1;
  };
  enum class Lack { kRoom, kReplica };

  // `name` makes addresses: "decoder" gives "decoder-2".
  SimReplicas(const SimReplicasOptions& options, const std::string& name, World* world, Network* network);

  // Asks every replica for its load.
  void Poll();
  // Whether the event is of a poll; then it is dealt with.
  bool TakePollEvent(const Event& event);

  // An encoder with room for the picture of this name, but the excluded.
  std::optional<Use> TryEncoder(const std::string& picture, const std::vector<size_t>& excluded, Lack* lack);
  // A decoder with room.
  std::optional<Use> TryDecoder(const Wish& wish, Lack* lack);
  // A decoder but the excluded, full or not, for what goes on.
  std::optional<Use> PickDecoder(const Wish& wish, const std::vector<size_t>& excluded);
  bool AnyReady(const std::vector<size_t>& excluded) const { return !ReadyOf(excluded).empty(); }

  // The prompt is computed.
  void Prefilled(Use& use);
  // `refused`: it had enough to do.
  void End(const Use& use, bool refused);
  void ReportGone(size_t replica) { replicas_[replica].ready = false; }

  ProcessId process(size_t replica) const { return replicas_[replica].process; }
  bool leaves(size_t replica) const { return replicas_[replica].leaves; }
  void SetLeaves(size_t replica) { replicas_[replica].leaves = true; }
  // Nothing is in flight, or the world is told.
  void CheckIdle() const;

 private:
  struct Replica {
    ProcessId process = 0;
    std::string address;
    bool ready = true;
    bool leaves = false;
    bool refused = false;
    int64_t in_flight = 0;
    int64_t others = 0;
    double pending_tokens = 0;
    std::unique_ptr<PrefixMap> prefixes;
    StreamId poll = 0;
    SimTime polled_at = 0;
  };

  std::vector<size_t> ReadyOf(const std::vector<size_t>& excluded) const;
  Candidate CandidateOf(const Replica& replica) const;
  std::optional<size_t> Best(const std::vector<Candidate>& candidates, const Wish& wish, bool also_full);
  std::optional<Use> DecoderOf(const std::vector<size_t>& ready, const Wish& wish, bool also_full,
                               Lack* lack);
  Use Begin(size_t replica, int64_t slots, double tokens);

  const SimReplicasOptions options_;
  World* const world_;
  Network* const network_;
  std::vector<Replica> replicas_;
  uint64_t turn_ = 0;
};

}  // namespace prism::sim
