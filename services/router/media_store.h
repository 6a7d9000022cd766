// MediaStore keeps picture files by content: those of running chats until the last choice has ended
// (so that a lost embedding can be made again), and uploaded ones that wait to be named by a chat.
//
// The bytes of all of them stay under a budget. Files in use are never given up; idle ones go,
// longest unused first, when room is needed or their time is over. A file that comes twice is kept
// once.
//
// Thread safety: all methods may be called from any thread.
// Ownership: a file is shared by the chats that use it and by the store, hence shared_ptr: the last
// chat to let go of it makes it idle, or frees it if it was never uploaded. The store outlives every
// file it gave out.
#pragma once

#include <chrono>
#include <cstdint>
#include <list>
#include <map>
#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "common/base/clock.h"
#include "common/base/hash.h"
#include "common/base/mutex.h"
#include "services/router/metrics.h"

namespace prism {

struct MediaFile {
  std::string bytes;
  std::string sha256;  // 32 bytes, also its id
};

class MediaStore {
 public:
  // REQUIRES: budget_bytes > 0
  MediaStore(int64_t budget_bytes, std::chrono::milliseconds idle, const Clock* clock,
             RouterMetrics* metrics);

  // Keeps `bytes` for as long as the pointer lives. ResourceExhausted (QUEUE_FULL, RetryInfo) when
  // files in use leave no room for it.
  absl::StatusOr<std::shared_ptr<const MediaFile>> Hold(std::string bytes) ABSL_LOCKS_EXCLUDED(mutex_);

  // As Hold(), and keeps the file when the pointer is gone, until its time is over.
  absl::StatusOr<std::shared_ptr<const MediaFile>> Upload(std::string bytes) ABSL_LOCKS_EXCLUDED(mutex_);

  // An uploaded or held file by its 32-byte id. NotFound.
  absl::StatusOr<std::shared_ptr<const MediaFile>> Find(absl::string_view media_id)
      ABSL_LOCKS_EXCLUDED(mutex_);

  // Sets bytes aside for an upload that is under way, so that uploads together stay under the
  // budget as well; give them back with Unreserve(). ResourceExhausted as above.
  absl::Status Reserve(int64_t bytes) ABSL_LOCKS_EXCLUDED(mutex_);
  void Unreserve(int64_t bytes) ABSL_LOCKS_EXCLUDED(mutex_);

  int64_t bytes() const ABSL_LOCKS_EXCLUDED(mutex_);

 private:
  struct Entry {
    MediaFile file;
    int64_t users = 0;
    bool uploaded = false;
    SteadyTime idle_since;
  };

  absl::StatusOr<std::shared_ptr<const MediaFile>> Insert(std::string bytes, bool uploaded)
      ABSL_LOCKS_EXCLUDED(mutex_);
  std::shared_ptr<const MediaFile> UseLocked(Entry* entry) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  absl::Status MakeRoomLocked(int64_t bytes) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  // Counts and shows them.
  void AddBytesLocked(int64_t bytes) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void EraseLocked(const std::string& sha256) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void Release(const std::string& sha256) ABSL_LOCKS_EXCLUDED(mutex_);

  const int64_t budget_bytes_;
  const std::chrono::milliseconds idle_;
  const Clock* const clock_;
  RouterMetrics* const metrics_;
  mutable Mutex mutex_;
  std::map<std::string, std::unique_ptr<Entry>> entries_ ABSL_GUARDED_BY(mutex_);
  int64_t bytes_ ABSL_GUARDED_BY(mutex_) = 0;  // of entries and reservations
};

}  // namespace prism
