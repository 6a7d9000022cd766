// Encoder takes a picture file to an embedding under lease: image workers decode and resize, the
// batcher's device thread computes, the store keeps. It knows nothing of gRPC.
//
//   std::shared_ptr<EncodeCall> call = encoder.NewCall(std::move(input), done);
//   ... whoever may cancel keeps `call` and calls call->Cancel() ...
//   encoder.Start(call);
//
// Thread safety: all methods may be called from any thread but the destructor.
// Ownership: clock and metrics outlive the encoder, and the encoder its calls' work: destroy it
// when no call is under way, or accept that the rest end with Unavailable.
#pragma once

#include <atomic>
#include <chrono>
#include <functional>
#include <list>
#include <memory>
#include <optional>
#include <string>
#include <unordered_map>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "common/base/clock.h"
#include "common/base/mutex.h"
#include "common/base/thread.h"
#include "services/vision_encoder/batcher.h"
#include "services/vision_encoder/embedding_store.h"
#include "services/vision_encoder/media_store.h"
#include "services/vision_encoder/metrics.h"
#include "services/vision_encoder/pipeline.h"
#include "services/vision_encoder/tower.h"

namespace prism {

struct EncoderOptions {
  PipelineLimits limits;
  BatcherOptions batch;
  EmbeddingStoreOptions store;
  std::string weights_digest;  // of the vision half
  std::string numerics_id;
  int image_threads = 2;
  int64_t calls_max = 64;                    // Encode calls at once
  std::chrono::milliseconds lease{120'000};  // of an Encode's handle
  size_t recent_files_max = 4096;            // files whose content key is remembered
};

struct EncodeInput {
  SharedFile file;
  std::vector<uint32_t> frame_bytes;  // of a clip: where its frames end in the file; empty: a picture
  ProcessorChoice choice;
  std::string salt;
  SteadyTime deadline = SteadyTime::max();
};

struct EncodeOutcome {
  HandleId handle;
  std::chrono::milliseconds lease{0};
  SharedEmbedding embedding;
  ContentKey key;
  std::string media_sha256;
  bool cached = false;
  ImageSize size;  // of the picture or a frame as decoded, before the resize
  double decode_s = 0, preprocess_s = 0, queue_s = 0, encode_s = 0;
};
using EncodeDone = std::function<void(absl::StatusOr<EncodeOutcome>)>;

class Encoder;

// One Encode under way. Shared by whoever may cancel it and by the stage that works on it, because
// either may be the last to let go.
class EncodeCall {
 public:
  // Ends the call with Cancelled unless it is over, and takes its picture out of every queue.
  void Cancel();

 private:
  friend class Encoder;
  EncodeCall(Encoder* encoder, EncodeInput input, EncodeDone done)
      : encoder_(encoder),
        choice_(input.choice),
        frame_bytes_(std::move(input.frame_bytes)),
        salt_(std::move(input.salt)),
        deadline_(input.deadline),
        file_(std::move(input.file)),
        done_(std::move(done)) {}

  // Where the call waits in the batcher.
  using Spot = std::optional<std::pair<ContentKey, Batcher::WaiterId>>;

  bool over() const { return over_.load(std::memory_order_acquire); }
  // Calls done unless the call is over already; whether it did. `spot` gets where it waited.
  bool End(absl::StatusOr<EncodeOutcome> outcome, Spot* spot = nullptr) ABSL_LOCKS_EXCLUDED(mutex_);
  SharedFile TakeFile() ABSL_LOCKS_EXCLUDED(mutex_);

  Encoder* const encoder_;
  const ProcessorChoice choice_;
  const std::vector<uint32_t> frame_bytes_;
  const std::string salt_;
  const SteadyTime deadline_;
  std::atomic<bool> over_{false};
  Mutex mutex_;
  SharedFile file_ ABSL_GUARDED_BY(mutex_);  // until a worker takes it
  EncodeDone done_ ABSL_GUARDED_BY(mutex_);
  Spot spot_ ABSL_GUARDED_BY(mutex_);
};

class Encoder {
 public:
  // Starts the threads; the device thread makes the tower.
  Encoder(const EncoderOptions& options, TowerFactory factory, const Clock* clock, EncoderMetrics* metrics);
  // Calls under way end with Unavailable.
  ~Encoder();

  // Blocks until the tower is ready; the error if it could not be made.
  absl::Status WaitUntilReady() { return batcher_->WaitUntilReady(); }
  absl::Status Ready() const { return batcher_->Ready(); }
  absl::Status Live() const { return batcher_->Live(); }
  int64_t hidden_size() const { return batcher_->hidden_size(); }
  int64_t num_deepstack() const { return batcher_->num_deepstack(); }
  const EncoderOptions& options() const { return options_; }
  EmbeddingStore& store() { return store_; }

  std::shared_ptr<EncodeCall> NewCall(EncodeInput input, EncodeDone done);

  // Begins the work; never blocks. `done` is called exactly once, on any thread, with no lock
  // held. Errors: InvalidArgument (the picture), ResourceExhausted (calls_max under way, or the
  // store is full of leases), Cancelled, DeadlineExceeded, Unavailable (not ready, shutting down),
  // Internal (the tower gave no finite embedding). REQUIRES: called once for a call
  void Start(const std::shared_ptr<EncodeCall>& call);

  struct Load {
    int64_t num_running = 0;
    int64_t num_waiting = 0;
    double queued_work_s = 0;  // of what the workers prepare, too
    double tokens_per_s = 0;
    double item_s = 0;  // work of a picture, of late; 0: nothing measured
    uint32_t desired_replicas = 1;
  };
  Load load() const;

  // Sets the gauges of the stores; called before metrics are read or after they changed.
  void ShowUsage() ABSL_LOCKS_EXCLUDED(usage_mutex_);

 private:
  friend class EncodeCall;
  struct Seen {  // what a file turned out to be
    ContentKey key;
    ImageSize size;
  };

  // The image worker's part.
  void Prepare(const std::shared_ptr<EncodeCall>& call);
  // Answers from the store, which takes the outcome; false if it does not hold the key (any more).
  bool AnswerFromStore(EncodeCall& call, EncodeOutcome& outcome);
  // Leases the outcome's embedding and ends the call.
  void Finish(EncodeCall& call, EncodeOutcome outcome);
  void Fail(EncodeCall& call, absl::Status status);
  void OnBatchDone(EncodeCall& call, EncodeOutcome outcome, absl::StatusOr<BatchResult> result);
  // Tells the call where it waits, and leaves there if it is over already.
  void Place(EncodeCall& call, const ContentKey& key, Batcher::WaiterId waiter);

  std::optional<Seen> FindSeen(const std::string& file_key) ABSL_LOCKS_EXCLUDED(mutex_);
  void AddSeen(const std::string& file_key, const Seen& seen) ABSL_LOCKS_EXCLUDED(mutex_);

  const EncoderOptions options_;
  const Clock* const clock_;
  EncoderMetrics* const metrics_;
  EmbeddingStore store_;
  std::atomic<int64_t> num_calls_{0};      // in a worker's queue or hands, or in the batcher
  std::atomic<int64_t> num_preparing_{0};  // of these, not yet in the batcher
  Mutex usage_mutex_;
  Mutex mutex_;
  std::list<std::string> seen_order_ ABSL_GUARDED_BY(mutex_);  // oldest first
  std::unordered_map<std::string, Seen> seen_ ABSL_GUARDED_BY(mutex_);
  std::unique_ptr<Batcher> batcher_;  // before the pool goes, after it nothing is submitted
  std::unique_ptr<TaskPool> pool_;
};

}  // namespace prism
