// ReplicaSet knows the replicas of one role: which answer, what they say of themselves, how much is
// in flight to each; and picks one for a piece of work.
//
// A replica is ready when its last Describe and GetLoad were answered, it is of the right role and
// model, and it agrees with the replicas that are ready already (weights and numerics decide whether
// an answer may be continued elsewhere). It stops being ready when a poll or a call finds it gone,
// until the next good poll.
//
// Threads: one that polls, its own; answers come on gRPC's. All methods may be called from any
// thread, but Stop() from no callback.
// Ownership: the set outlives every ReplicaUse.
#pragma once

#include <chrono>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "common/base/mutex.h"
#include "common/base/thread.h"
#include "common/metrics/metrics.h"
#include "prism/v1/decoder.grpc.pb.h"
#include "prism/v1/router.pb.h"
#include "prism/v1/vision.grpc.pb.h"
#include "services/router/placement.h"

namespace prism {

enum class ReplicaRole { kVisionEncoder, kDecoder };

// "vision-encoder" or "decoder", as Describe says it.
absl::string_view Name(ReplicaRole role);

struct ReplicaSetOptions {
  ReplicaRole role = ReplicaRole::kDecoder;
  std::vector<std::string> addresses;  // host:port
  // What the router's checkpoint says; a replica that differs gets no work.
  uint64_t hidden_size = 0;
  uint64_t num_deepstack = 0;
  std::chrono::milliseconds poll_interval{250};
  std::chrono::milliseconds poll_timeout{2000};
  Gauge ready;  // kept at the number that are ready
};

class ReplicaSet;

// One piece of work on one replica: counted as in flight while it lives.
// Thread safety: thread-compatible.
class ReplicaUse {
 public:
  ReplicaUse() = default;
  ReplicaUse(ReplicaUse&& other) noexcept { *this = std::move(other); }
  ReplicaUse& operator=(ReplicaUse&& other) noexcept;
  ~ReplicaUse() { End(); }

  // Which one; the index in the list of addresses.
  size_t index() const { return index_; }
  const std::string& address() const;
  // The replica's stub. REQUIRES: of this role.
  v1::VisionEncoder::StubInterface* encoder() const;
  v1::Decoder::StubInterface* decoder() const;

  // A call on it failed because the replica is gone or leaving: no new work until it answers a poll.
  void ReportGone(const absl::Status& why);
  // No longer in flight. Idempotent.
  void End();

 private:
  friend class ReplicaSet;
  ReplicaUse(ReplicaSet* set, size_t index) : set_(set), index_(index) {}
  ReplicaSet* set_ = nullptr;
  size_t index_ = 0;
};

class ReplicaSet {
 public:
  explicit ReplicaSet(ReplicaSetOptions options);
  ~ReplicaSet();
  ReplicaSet(const ReplicaSet&) = delete;
  ReplicaSet& operator=(const ReplicaSet&) = delete;

  // Begins to poll. Call once.
  void Start();
  // Ends polling and waits for polls under way. Idempotent.
  void Stop();

  // The best ready encoder for the file with this sha256, or the best ready decoder, leaving out the
  // indices in `excluded` where another one is ready (`only_others`: even where none is).
  // Unavailable with reason NO_REPLICA and RetryInfo, saying of each replica why not.
  absl::StatusOr<ReplicaUse> PickEncoder(absl::string_view sha256, const std::vector<size_t>& excluded,
                                         bool only_others) ABSL_LOCKS_EXCLUDED(mutex_);
  absl::StatusOr<ReplicaUse> PickDecoder(const std::vector<size_t>& excluded, bool only_others)
      ABSL_LOCKS_EXCLUDED(mutex_);

  // Gives embeddings' leases back to the encoder of this index, soon and without an answer.
  // REQUIRES: encoders.
  void ReleaseHandles(size_t index, const std::vector<std::string>& handle_ids);

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
  struct Replica;

  absl::StatusOr<ReplicaUse> Pick(const std::vector<size_t>& excluded, bool only_others,
                                  absl::string_view sha256) ABSL_LOCKS_EXCLUDED(mutex_);
  absl::Status NoneReadyLocked() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void Poll() ABSL_LOCKS_EXCLUDED(mutex_);
  void StartDescribe(size_t index) ABSL_LOCKS_EXCLUDED(mutex_);
  void StartGetLoad(size_t index) ABSL_LOCKS_EXCLUDED(mutex_);
  void PollEnded(size_t index, const absl::Status& status) ABSL_LOCKS_EXCLUDED(mutex_);
  absl::Status CheckLocked(const Replica& replica, const v1::DescribeResponse& description) const
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void SetReadyLocked(Replica* replica, const absl::Status& status) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  const ReplicaSetOptions options_;
  mutable Mutex mutex_;
  CondVar changed_;
  // The list and each replica's address and stubs are constant; the rest is guarded.
  std::vector<std::unique_ptr<Replica>> replicas_;
  bool stopping_ ABSL_GUARDED_BY(mutex_) = false;
  int polls_under_way_ ABSL_GUARDED_BY(mutex_) = 0;
  uint64_t turn_ ABSL_GUARDED_BY(mutex_) = 0;
  Gauge ready_gauge_ ABSL_GUARDED_BY(mutex_);
  NamedThread poller_;
};

}  // namespace prism
