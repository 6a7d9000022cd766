// Batcher owns the device thread: it gathers pictures that wait, as many as a budget of patches
// allows (the one that waited longest, then the largest first), runs the tower on them and puts the
// embeddings into the store.
//
// Pictures of one content key are computed once: later ones join the first. A waiter can leave at
// any time without harm to the others; a picture that nobody waits for any more leaves the queue,
// and a pass through the tower that nobody waits for ends at the next block.
//
// Thread safety: all methods may be called from any thread but the destructor. Callbacks run on
// the device thread with no lock held; they must be quick and must not destroy the batcher.
// Ownership: store, clock and metrics outlive the batcher; the tower is made, used and destroyed
// on the device thread.
#pragma once

#include <atomic>
#include <chrono>
#include <cstdint>
#include <functional>
#include <list>
#include <memory>
#include <optional>
#include <string>
#include <unordered_map>
#include <vector>

#include "absl/status/statusor.h"
#include "common/base/clock.h"
#include "common/base/mutex.h"
#include "common/base/thread.h"
#include "common/metrics/busy_share.h"
#include "services/vision_encoder/content_key.h"
#include "services/vision_encoder/embedding_store.h"
#include "services/vision_encoder/metrics.h"
#include "services/vision_encoder/tower.h"
#include "services/vision_encoder/vision_embedding.h"

namespace prism {

struct BatcherOptions {
  int64_t batch_patches_max = 16384;  // of one pass; a single picture never has more
  int64_t pictures_max = 64;          // that wait for the device
  // The device thread counts as dead when it made no progress for so long.
  std::chrono::milliseconds stall_max{120'000};
};

// What a waiter gets.
struct BatchResult {
  SharedEmbedding embedding;
  bool computed = false;    // false: it was in the store by the time the device came to it
  double preprocess_s = 0;  // patches
  double queue_s = 0;       // of the picture, before its pass
  double encode_s = 0;      // the whole pass
};
using BatchDone = std::function<void(absl::StatusOr<BatchResult>)>;

class Batcher {
 public:
  using WaiterId = uint64_t;

  struct Picture {
    ContentKey key;
    std::vector<RgbImage> frames;  // one of a picture, more of a clip; resized: sides are multiples of 32
    EmbeddingStore::Reservation reservation;
  };
  struct Waiter {
    SteadyTime deadline = SteadyTime::max();  // still queued then: DeadlineExceeded
    BatchDone done;                           // called once unless the waiter leaves before
  };

  // Starts the device thread, which makes the tower and tests it (SelfTest).
  Batcher(const BatcherOptions& options, TowerFactory factory, EmbeddingStore* store, const Clock* clock,
          EncoderMetrics* metrics);
  // Ends a running pass at its next block; who waits gets Unavailable.
  ~Batcher();
  Batcher(const Batcher&) = delete;
  Batcher& operator=(const Batcher&) = delete;

  // Blocks until the tower is ready; the error if it could not be made.
  absl::Status WaitUntilReady() ABSL_LOCKS_EXCLUDED(mutex_);
  // As above, at once: Unavailable while the tower is being made.
  absl::Status Ready() const ABSL_LOCKS_EXCLUDED(mutex_);
  // Unavailable if a pass is stuck.
  absl::Status Live() const;

  // Of the tower. REQUIRES: ready
  int64_t hidden_size() const { return hidden_size_.load(std::memory_order_acquire); }
  int64_t num_deepstack() const { return num_deepstack_.load(std::memory_order_acquire); }
  DType dtype() const { return dtype_.load(std::memory_order_acquire); }

  // Waits with the picture of that key if there is one that is queued or running. Moves from
  // `waiter` only then.
  std::optional<WaiterId> Join(const ContentKey& key, Waiter& waiter) ABSL_LOCKS_EXCLUDED(mutex_);

  // Queues a picture, or joins as above. Never blocks. ResourceExhausted: pictures_max wait.
  // Unavailable: not ready. InvalidArgument: more patches than a batch may have.
  // REQUIRES: the reservation is of EmbeddingBytes(its patches)
  absl::StatusOr<WaiterId> Submit(Picture picture, Waiter waiter) ABSL_LOCKS_EXCLUDED(mutex_);

  // The waiter leaves; its callback is not called any more (it may be under way). Ids that are
  // over are ignored.
  void Leave(const ContentKey& key, WaiterId waiter) ABSL_LOCKS_EXCLUDED(mutex_);

  // Bytes of the embedding of a picture with so many patches. REQUIRES: ready
  int64_t EmbeddingBytes(int64_t num_patches) const;

  struct Load {
    int64_t num_running = 0;   // pictures in the tower
    int64_t num_waiting = 0;   // pictures queued
    double queued_work_s = 0;  // estimate until the queue and the running pass are done
    double tokens_per_s = 0;   // visual tokens, of the passes of late
    double item_s = 0;         // work of a picture, of late; 0: nothing measured
    double busy = 0;           // share of the time of late that the device worked, 0 .. 1
  };
  Load load() const ABSL_LOCKS_EXCLUDED(mutex_);

 private:
  struct Entry;  // one picture under way, and who waits for it
  struct Batch;

  void Run(const TowerFactory& factory);
  // The next batch, blocking; nullopt when stopped.
  std::optional<Batch> TakeBatch() ABSL_LOCKS_EXCLUDED(mutex_);
  void Process(Tower& tower, Batch batch) ABSL_LOCKS_EXCLUDED(mutex_);
  // OK while somebody waits for a picture of the running batch. If nobody does, its pictures are
  // under way no more: who asks for one from now on queues it anew.
  absl::Status Continue() ABSL_LOCKS_EXCLUDED(mutex_);
  // Takes the running picture out and answers everybody who waits for it.
  void Answer(const ContentKey& key, absl::StatusOr<BatchResult> result) ABSL_LOCKS_EXCLUDED(mutex_);
  // Answers whoever is left when the device thread ends.
  void AnswerAll(const absl::Status& status) ABSL_LOCKS_EXCLUDED(mutex_);
  void MarkProgress(bool busy);
  double QueuedWorkS() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void ShowLoad() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  const BatcherOptions options_;
  EmbeddingStore* const store_;
  const Clock* const clock_;
  EncoderMetrics* const metrics_;
  std::atomic<int64_t> hidden_size_{0};
  std::atomic<int64_t> num_deepstack_{0};
  std::atomic<DType> dtype_{DType::kF32};
  std::atomic<int64_t> progress_ns_{0};  // clock at the last progress
  std::atomic<bool> busy_{false};
  Tensor patches_;  // [.., 1536] f32, kept from batch to batch; device thread only

  mutable Mutex mutex_;
  CondVar changed_;
  bool stopping_ ABSL_GUARDED_BY(mutex_) = false;
  std::optional<absl::Status> ready_ ABSL_GUARDED_BY(mutex_);
  std::unordered_map<ContentKey, std::unique_ptr<Entry>> entries_ ABSL_GUARDED_BY(mutex_);
  std::list<ContentKey> queue_ ABSL_GUARDED_BY(mutex_);
  std::vector<ContentKey> running_ ABSL_GUARDED_BY(mutex_);
  int64_t running_patches_ ABSL_GUARDED_BY(mutex_) = 0;
  int64_t queued_patches_ ABSL_GUARDED_BY(mutex_) = 0;
  double seconds_per_patch_ ABSL_GUARDED_BY(mutex_) = 0;  // running mean; 0: nothing measured
  double patches_per_picture_ ABSL_GUARDED_BY(mutex_) = 0;
  BusyShare busy_share_ ABSL_GUARDED_BY(mutex_);  // of passes that have ended
  WaiterId next_waiter_ ABSL_GUARDED_BY(mutex_) = 1;
  NamedThread device_;
};

}  // namespace prism
