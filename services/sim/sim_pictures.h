// SimPictures: the router's part that has pictures encoded: waiting for a turn, placing, asking
// another encoder when one fails, hedging a slow one, giving leases back.
//
// Thread safety: thread-compatible.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <unordered_map>
#include <vector>

#include "services/router/hedge.h"
#include "services/sim/messages.h"
#include "services/sim/network.h"
#include "services/sim/sim_replicas.h"
#include "services/sim/turn_queue.h"
#include "services/sim/world.h"

namespace prism::sim {

struct SimPicturesOptions {
  SimReplicasOptions encoders;
  SimTime encode_timeout = 10 * kSecond;
  SimTime full_wait = 10 * kSecond;  // for encoders that refuse because they are full
};

class SimPictures {
 public:
  // kOk: all pictures of the generation are encoded.
  using DoneFn = std::function<void(uint64_t generation, EndCode code)>;

  SimPictures(const SimPicturesOptions& options, World* world, Network* network, DoneFn done);

  // REQUIRES: the generation is not under way here
  void Encode(uint64_t generation, std::shared_ptr<const ChatSpec> chat, double weight);
  // All anew, its client waiting in the middle of an answer; with `elsewhere`, not on the encoders of last
  // time where others are ready.
  void EncodeAgain(uint64_t generation, bool elsewhere);
  // Stops what is under way and gives leases back.
  void Drop(uint64_t generation);
  // REQUIRES: done with kOk
  std::vector<std::shared_ptr<const EmbeddingHandle>> HandlesOf(uint64_t generation) const;

  // Whether the event is of a call of this part; then it is dealt with.
  bool TakeEvent(const Event& event);
  void Poll() { encoders_.Poll(); }
  void Tick();
  void CheckIdle() const;

  int64_t hedges() const { return hedges_; }
  int64_t encodes() const { return encodes_; }
  int64_t cached() const { return cached_; }

 private:
  struct Call {
    StreamId stream = 0;
    SimReplicas::Use use;
    SimTime asked_at = 0;
  };
  struct Picture {
    std::shared_ptr<const EmbeddingHandle> handle;  // null: not encoded
    size_t encoder = 0;                             // that holds it
    std::vector<Call> calls;                        // under way; two if it is hedged
    std::vector<size_t> failed;
    std::vector<size_t> avoid;  // where another one is ready
    SimTime full_since = kNever;
    bool hedged = false;
  };
  struct Job {
    std::shared_ptr<const ChatSpec> chat;
    double weight = 1;
    bool again = false;  // its client waits in the middle of an answer
    std::vector<Picture> pictures;
  };

  static uint64_t WorkOf(uint64_t generation, size_t picture) { return generation << 8 | picture; }
  bool Try(uint64_t work);
  void Ask(uint64_t generation, size_t picture, const SimReplicas::Use& use);
  void OnEncoded(const Event& event, uint64_t work);
  void OnEnd(const Event& event, uint64_t work);
  // A call has ended without an embedding.
  void Failed(uint64_t generation, size_t index, const Call& call, EndCode code);
  void Hedge(uint64_t generation, size_t index);
  void CloseCalls(Picture& picture);
  void Release(std::shared_ptr<const EmbeddingHandle> handle);
  void Done(uint64_t generation, EndCode code);

  const SimPicturesOptions options_;
  World* const world_;
  Network* const network_;
  const DoneFn done_;
  SimReplicas encoders_;
  TurnQueue queue_;
  HedgePolicy hedge_;
  std::map<uint64_t, Job> jobs_;
  std::unordered_map<StreamId, uint64_t> calls_;  // of which work; 0: of a lease that is given back
  int64_t hedges_ = 0;
  int64_t encodes_ = 0;
  int64_t cached_ = 0;
};

}  // namespace prism::sim
