// PictureEncode has one picture or clip encoded: it waits for an encoder with room, picked by content,
// sends the file, and asks another encoder once when the first dies or leaves. One that is full is
// waited for. When the first is slow, as HedgePolicy says, a second is asked besides; the first good
// answer counts, the other call is cancelled.
//
// Threads: Start() from any; answers come on gRPC's threads; `done` is called exactly once, on any
// thread, with no lock held.
// Ownership: keeps itself alive until `done` has returned, hence shared_ptr. The parts outlive it.
#pragma once

#include <grpcpp/alarm.h>

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "common/base/clock.h"
#include "common/base/mutex.h"
#include "prism/v1/vision.pb.h"
#include "services/router/cancellation.h"
#include "services/router/media_store.h"
#include "services/router/parts.h"

namespace prism {

struct PictureRequest {
  std::shared_ptr<const MediaFile> file;
  std::vector<uint32_t> frame_bytes;  // of a clip's frames in the file; empty: a picture
  v1::ProcessorOptions options;
  std::string cache_salt;
  std::string path;  // of the picture in the request: "messages.0.content.1"
  SteadyTime deadline;
  std::vector<size_t> avoid;  // encoders to leave out where another one is ready
  std::string traceparent;    // empty: none
  Share share;
};

struct EncodedPicture {
  v1::EncodeResponse response;
  size_t encoder = 0;  // index of the encoder that holds it
};

class PictureEncode : public std::enable_shared_from_this<PictureEncode> {
 public:
  using DoneFn = std::function<void(absl::StatusOr<EncodedPicture>)>;

  // Errors: InvalidArgument with the path as BadRequest for a picture that is refused; otherwise the
  // encoder's status with the path in front; Unavailable with NO_REPLICA when none is ready.
  static void Start(const RouterParts* parts, PictureRequest request,
                    std::shared_ptr<Cancellation> cancellation, DoneFn done);

 private:
  // One encoder that works on it.
  struct Attempt {
    ReplicaUse use;
    bool is_hedge = false;
    SteadyTime begun;
    // The lock's.
    std::function<void()> cancel;
    bool encoding = false;  // nothing is left to upload
    bool over = false;
  };
  using AttemptPtr = std::shared_ptr<Attempt>;
  // Whoever takes it, and nobody else, says how the picture ended.
  struct Ending {
    DoneFn done;                            // null: another one took it
    std::shared_ptr<const MediaFile> file;  // nobody needs it any more
  };

  PictureEncode(const RouterParts* parts, PictureRequest request, std::shared_ptr<Cancellation> cancellation,
                DoneFn done);

  void Queue(bool urgent);
  void Begin(ReplicaUse use, bool is_hedge) ABSL_LOCKS_EXCLUDED(mutex_);
  void Upload(const AttemptPtr& attempt);
  void Encode(const AttemptPtr& attempt);
  // Makes the attempt's call end with the request, or when the other attempt has answered.
  template <typename Call>
  void Track(const AttemptPtr& attempt, const std::shared_ptr<Call>& call) ABSL_LOCKS_EXCLUDED(mutex_);
  void Hedge() ABSL_LOCKS_EXCLUDED(mutex_);
  // Whether one encoder works on it, and none has failed.
  bool MayHedgeLocked() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    return done_ && attempts_.size() == 1 && failed_.empty();
  }
  void Answered(const AttemptPtr& attempt, const absl::Status& status, v1::EncodeResponse response)
      ABSL_LOCKS_EXCLUDED(mutex_);
  Ending TakeEnding() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void Finish(absl::StatusOr<EncodedPicture> result) ABSL_LOCKS_EXCLUDED(mutex_);
  void Finish(Ending ending, absl::StatusOr<EncodedPicture> result) ABSL_LOCKS_EXCLUDED(mutex_);
  // Null once the picture is answered.
  std::shared_ptr<const MediaFile> File() ABSL_LOCKS_EXCLUDED(mutex_);
  absl::Status CheckHandle(const v1::EmbeddingHandle& handle) const;
  SteadyTime CallDeadline() const;

  const RouterParts* const parts_;
  PictureRequest request_;  // without the file
  const std::shared_ptr<Cancellation> cancellation_;
  const std::string sha256_;  // of the file
  const bool by_id_;          // it is too large for one message
  SteadyTime queued_at_;
  grpc::Alarm hedge_alarm_;
  bool hedge_armed_ = false;

  Mutex mutex_;
  std::shared_ptr<const MediaFile> file_ ABSL_GUARDED_BY(mutex_);  // until the end
  DoneFn done_ ABSL_GUARDED_BY(mutex_);                            // null once it is known how it ended
  std::vector<AttemptPtr> attempts_ ABSL_GUARDED_BY(mutex_);       // under way
  std::vector<size_t> failed_ ABSL_GUARDED_BY(mutex_);             // encoders that were tried in vain
  absl::Status last_error_ ABSL_GUARDED_BY(mutex_);                // of an encoder that failed
  // Every encoder asked since then was full.
  std::optional<SteadyTime> full_since_ ABSL_GUARDED_BY(mutex_);
  bool hedged_ ABSL_GUARDED_BY(mutex_) = false;
};

}  // namespace prism
