// ReplicaSet knows the replicas of one role: which answer, what they say of themselves, how much is
// in flight to each; and picks one for a piece of work.
//
// Replicas are listed by address, or found by name: "dns:///NAME:PORT" stands for every address that
// NAME has, asked for again every few seconds. A name without an answer keeps its last addresses; an
// address that is gone gets no new work, what runs there goes on.
//
// A replica is ready when its last Describe and GetLoad were answered, it is of the right role and
// model, and it agrees with the replicas that are ready already (weights and numerics decide whether
// an answer may be continued elsewhere). It stops being ready when a poll or a call finds it gone,
// until the next good poll.
//
// Threads: one that polls and, where there are names, one that resolves, its own; answers come on gRPC's. All
// methods may be called from any thread, but Stop() from no callback. Ownership: the set outlives every
// ReplicaUse.
#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "common/base/clock.h"
#include "common/base/mutex.h"
#include "common/base/thread.h"
#include "common/metrics/metrics.h"
#include "prism/v1/decoder.grpc.pb.h"
#include "prism/v1/router.pb.h"
#include "prism/v1/vision.grpc.pb.h"
#include "services/router/decoder_feed.h"
#include "services/router/hedge.h"
#include "services/router/placement.h"
#include "services/router/prefix_map.h"

namespace prism {

enum class ReplicaRole { kVisionEncoder, kDecoder };

// "vision-encoder" or "decoder", as Describe says it.
absl::string_view Name(ReplicaRole role);

// All addresses of "NAME:PORT" as host:port, in any order. May block for seconds.
using ResolveFn = std::function<absl::StatusOr<std::vector<std::string>>(const std::string& name_and_port)>;
// Asks the system's resolver.
absl::StatusOr<std::vector<std::string>> ResolveByDns(const std::string& name_and_port);

// Replicas of one role, listed and resolved together; more are left out.
inline constexpr size_t kReplicasMax = 1024;
// What a decoder is given beyond the sequences it computes at once, so that the next is there when one
// ends: a quarter of them, at least two.
inline constexpr int64_t kAheadSequencesMin = 2;

struct ReplicaSetOptions {
  ReplicaRole role = ReplicaRole::kDecoder;
  std::vector<std::string> addresses;  // host:port, or dns:///name:port
  // What the router's checkpoint says; a replica that differs gets no work.
  uint64_t hidden_size = 0;
  uint64_t num_deepstack = 0;
  std::chrono::milliseconds poll_interval{250};
  std::chrono::milliseconds poll_timeout{2000};
  std::chrono::milliseconds resolve_interval{5000};
  ResolveFn resolve = ResolveByDns;
  Gauge ready;  // kept at the number that are ready
};

class ReplicaSet;
struct Replica;

// One piece of work on one replica: counted as in flight while it lives.
// Thread safety: thread-compatible.
class ReplicaUse {
 public:
  ReplicaUse() = default;
  ReplicaUse(ReplicaUse&& other) noexcept { *this = std::move(other); }
  ReplicaUse& operator=(ReplicaUse&& other) noexcept;
  ~ReplicaUse() { End(); }

  // Which one; the same for as long as the use lives.
  size_t index() const { return index_; }
  const std::string& address() const;
  // The replica's stub. REQUIRES: of this role.
  v1::VisionEncoder::StubInterface* encoder() const;
  // By which generations come: a new one where the last was lost. REQUIRES: a decoder.
  std::shared_ptr<DecoderFeed> feed() const;

  // A call on it failed because the replica is gone or leaving: no new work until it answers a poll.
  void ReportGone(const absl::Status& why);
  // It refused the call because it has enough to do: no new work until it answers a poll or a call.
  void ReportFull();
  // A decoder's: the prompt is computed.
  void Prefilled();
  // No longer in flight. Idempotent.
  void End();

 private:
  friend class ReplicaSet;
  ReplicaUse(ReplicaSet* set, std::shared_ptr<Replica> replica, size_t index, int64_t slots, double tokens)
      : set_(set), replica_(std::move(replica)), index_(index), slots_(slots), pending_tokens_(tokens) {}
  ReplicaSet* set_ = nullptr;
  std::shared_ptr<Replica> replica_;  // kept while it is used, listed or not
  size_t index_ = 0;
  int64_t slots_ = 0;
  double pending_tokens_ = 0;
  bool full_ = false;
};

// A picture that wants an encoder.
struct EncoderWish {
  std::string sha256;            // of the file
  std::vector<size_t> excluded;  // indices that are left out where another one is ready
  bool only_others = false;      // ... even where none is
};

// A prompt that wants a decoder.
struct DecoderWish {
  int64_t prompt_tokens = 0;
  std::vector<uint64_t> blocks;  // PrefixBlocks() of the prompt
  int64_t choices = 1;
};

class ReplicaSet {
 public:
  explicit ReplicaSet(ReplicaSetOptions options);
  ~ReplicaSet();
  ReplicaSet(const ReplicaSet&) = delete;
  ReplicaSet& operator=(const ReplicaSet&) = delete;

  // Called, on any thread and with no lock held, when there may be room for more work than before.
  // Before Start().
  void WhenRoom(std::function<void()> listener) { listener_ = std::move(listener); }

  // Begins to poll. Call once.
  void Start();
  // Ends polling and waits for polls under way. Idempotent.
  void Stop();
  // Waits for the uses under way, which must end soon: their calls are cancelled already.
  void WaitUnused() ABSL_LOCKS_EXCLUDED(mutex_);

  // A ready replica with room for the work. ResourceExhausted when none has room; Unavailable with
  // reason NO_REPLICA and RetryInfo, saying of each replica why not, when none is ready.
  absl::StatusOr<ReplicaUse> TryEncoder(const EncoderWish& wish) ABSL_LOCKS_EXCLUDED(mutex_);
  absl::StatusOr<ReplicaUse> TryDecoder(const DecoderWish& wish) ABSL_LOCKS_EXCLUDED(mutex_);

  // A ready decoder, full or not, for a stream that goes on: it was admitted before. Leaves out the
  // indices in `excluded` where another one is ready (`only_others`: even where none is).
  // Unavailable as above.
  absl::StatusOr<ReplicaUse> PickDecoder(const std::vector<size_t>& excluded, bool only_others)
      ABSL_LOCKS_EXCLUDED(mutex_);

  // Gives embeddings' leases back to the encoder of this index, soon and without an answer.
  // REQUIRES: encoders.
  void ReleaseHandles(size_t index, const std::vector<std::string>& handle_ids) ABSL_LOCKS_EXCLUDED(mutex_);

  // For HedgePolicy: a call took so long; how long the next may take; whether it may be hedged.
  void RecordSeconds(double seconds) ABSL_LOCKS_EXCLUDED(mutex_);
  std::optional<std::chrono::milliseconds> HedgeDelay() const ABSL_LOCKS_EXCLUDED(mutex_);
  bool TakeHedge() ABSL_LOCKS_EXCLUDED(mutex_);

  int num_ready() const ABSL_LOCKS_EXCLUDED(mutex_);
  // OK, or the error Pick would give.
  absl::Status ready() const ABSL_LOCKS_EXCLUDED(mutex_);

  // The smallest model_length_max of ready decoders; nullopt if none is ready or says so.
  std::optional<uint64_t> model_length_max() const ABSL_LOCKS_EXCLUDED(mutex_);
  // The weights of a ready replica; empty if none is ready.
  v1::DescribeResponse AnyDescription() const ABSL_LOCKS_EXCLUDED(mutex_);

  void AppendTo(v1::ListReplicasResponse* response) const ABSL_LOCKS_EXCLUDED(mutex_);

 private:
  friend class ReplicaUse;
  using ReplicaPtr = std::shared_ptr<Replica>;

  // Indices of ready replicas but the excluded; with the excluded if there are none and not `only_others`.
  std::vector<size_t> OpenLocked(const std::vector<size_t>& excluded, bool only_others) const
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  Candidate CandidateLocked(const Replica& replica, SteadyTime now) const
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  absl::StatusOr<ReplicaUse> DecoderLocked(const std::vector<size_t>& open, const DecoderWish& wish,
                                           bool also_full) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  ReplicaUse UseLocked(size_t index, int64_t slots, double tokens) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  absl::Status NoneReadyLocked() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  ReplicaPtr NewReplica(const std::string& address) const;
  // Makes the listed replicas those of `addresses`.
  void SetAddresses(const std::vector<std::string>& addresses) ABSL_LOCKS_EXCLUDED(mutex_);
  void Resolve() ABSL_LOCKS_EXCLUDED(mutex_);
  void Poll() ABSL_LOCKS_EXCLUDED(mutex_);
  void StartDescribe(const ReplicaPtr& replica) ABSL_LOCKS_EXCLUDED(mutex_);
  void StartGetLoad(const ReplicaPtr& replica) ABSL_LOCKS_EXCLUDED(mutex_);
  void PollEnded(const ReplicaPtr& replica, const absl::Status& status) ABSL_LOCKS_EXCLUDED(mutex_);
  absl::Status CheckLocked(const Replica& replica, const v1::DescribeResponse& description) const
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void SetReadyLocked(Replica* replica, const absl::Status& status) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void Room() const {
    if (listener_) listener_();
  }

  const ReplicaSetOptions options_;
  std::function<void()> listener_;
  mutable Mutex mutex_;
  CondVar changed_;
  // A replica keeps its index while it is listed or used. Its address and stubs are constant, the
  // rest of it is guarded.
  std::vector<ReplicaPtr> replicas_ ABSL_GUARDED_BY(mutex_);
  bool stopping_ ABSL_GUARDED_BY(mutex_) = false;
  int polls_under_way_ ABSL_GUARDED_BY(mutex_) = 0;
  int64_t uses_ ABSL_GUARDED_BY(mutex_) = 0;
  uint64_t turn_ ABSL_GUARDED_BY(mutex_) = 0;
  HedgePolicy hedge_ ABSL_GUARDED_BY(mutex_);
  Gauge ready_gauge_ ABSL_GUARDED_BY(mutex_);
  NamedThread poller_;
  NamedThread resolver_;
};

}  // namespace prism
