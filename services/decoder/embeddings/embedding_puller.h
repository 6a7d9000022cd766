// EmbeddingPuller pulls embeddings by handle from the encoders that hold them, over
// FetchEmbedding, and keeps them in memory within a budget: those in use, and as many of the
// others as fit, least recently used out first.
//
// Everything that arrives is checked: frames (order, length, CRC-32C), size, sha256, finiteness.
// The grid, the number of rows and the model's sizes were checked against the handle before
// (CheckEmbeddingRef). A stream that broke off is asked for once more from where it stopped.
//
// Threads: a pool of its own, one pull a thread at a time.
// Thread safety: all methods may be called from any thread.
#pragma once

#include <chrono>
#include <cstdint>
#include <list>
#include <memory>
#include <string>
#include <unordered_map>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "common/base/mutex.h"
#include "common/base/thread.h"
#include "common/metrics/metrics.h"
#include "services/decoder/embeddings/embedding_source.h"

namespace grpc {
class Channel;
class ClientContext;
}  // namespace grpc

namespace prism {

class FrameAssembler;

struct EmbeddingPullerOptions {
  int64_t memory_bytes = int64_t{1} << 30;  // of embeddings in use and cached, >= 1
  int num_threads = 4;
  size_t queue_max = 4096;                   // embeddings that may wait for a thread
  std::chrono::milliseconds timeout{30000};  // of one pull; the request's deadline if that is earlier
  Gauge memory_used_bytes = {};              // told what the memory holds
};

class EmbeddingPuller final : public EmbeddingSource {
 public:
  // Encoders whose connections are kept.
  static constexpr size_t kChannelsMax = 64;

  explicit EmbeddingPuller(const EmbeddingPullerOptions& options);
  // REQUIRES: no pull is alive
  ~EmbeddingPuller() override;

  absl::Status CheckFits(absl::Span<const EmbeddingRef> refs) const override;
  std::unique_ptr<EmbeddingPull> Start(absl::Span<const EmbeddingRef> refs, SteadyTime deadline,
                                       std::function<void()> on_change) override ABSL_LOCKS_EXCLUDED(mutex_);

  // Bytes of embeddings in memory or promised to pulls.
  int64_t memory_used_bytes() const ABSL_LOCKS_EXCLUDED(mutex_);

 private:
  // An embedding that is here. Unpinned ones are in lru_.
  struct Entry {
    PulledEmbedding embedding;
    int64_t size_bytes = 0;
    int pins = 0;
    std::list<std::string>::iterator place;  // in lru_, valid if pins is 0
  };
  struct Slot {
    EmbeddingRef ref;
    std::string key;         // of entries_
    Entry* entry = nullptr;  // pinned, once it is here
    bool cached = false;
  };
  // One Start(), kept until its pull is destroyed and its last task has ended.
  struct Job {
    std::vector<Slot> slots;
    SteadyTime deadline;
    std::function<void()> on_change;
    size_t remaining = 0;                        // tasks not ended
    bool abandoned = false;                      // the pull was destroyed
    absl::Status status;                         // the first failure
    std::vector<grpc::ClientContext*> contexts;  // of calls under way
  };
  class Pull;
  using JobId = uint64_t;

  void RunTask(JobId id, size_t slot);
  void EndTask(JobId id, size_t slot, absl::StatusOr<PulledEmbedding> embedding) ABSL_LOCKS_EXCLUDED(mutex_);
  // The embedding, checked. Blocks.
  absl::StatusOr<PulledEmbedding> Fetch(Job& job, const EmbeddingRef& ref);
  absl::Status FetchRest(Job& job, const EmbeddingRef& ref, SteadyTime deadline, FrameAssembler& assembler);
  // What the end of a call means for the request.
  absl::Status Classify(const absl::Status& status, const EmbeddingRef& ref, bool callers_deadline) const;
  bool BeginCall(Job& job, grpc::ClientContext* context) ABSL_LOCKS_EXCLUDED(mutex_);
  void EndCall(Job& job, grpc::ClientContext* context) ABSL_LOCKS_EXCLUDED(mutex_);
  std::shared_ptr<grpc::Channel> ChannelTo(const std::string& address) ABSL_LOCKS_EXCLUDED(mutex_);
  void Abandon(JobId id) ABSL_LOCKS_EXCLUDED(mutex_);

  bool MakeRoom(int64_t size_bytes) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void Keep(Slot& slot, PulledEmbedding embedding) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void Pin(Slot& slot, Entry& entry) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void Unpin(Slot& slot) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void Forget(JobId id) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void AddUsed(int64_t size_bytes) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  const EmbeddingPullerOptions options_;
  mutable Mutex mutex_;
  Gauge memory_gauge_;
  int64_t used_bytes_ ABSL_GUARDED_BY(mutex_) = 0;
  std::unordered_map<std::string, Entry> entries_ ABSL_GUARDED_BY(mutex_);
  std::list<std::string> lru_ ABSL_GUARDED_BY(mutex_);  // keys; least recently used first
  std::unordered_map<JobId, std::unique_ptr<Job>> jobs_ ABSL_GUARDED_BY(mutex_);
  JobId last_job_ ABSL_GUARDED_BY(mutex_) = 0;
  std::unordered_map<std::string, std::shared_ptr<grpc::Channel>> channels_ ABSL_GUARDED_BY(mutex_);

  std::unique_ptr<TaskPool> pool_;
};

}  // namespace prism
