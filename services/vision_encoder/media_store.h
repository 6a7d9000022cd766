// MediaStore keeps the files that were sent ahead of their Encode, by sha256, within a budget of
// bytes that counts uploads under way too. The least recently used file that nobody reads goes
// first.
//
// Thread safety: MediaStore from any thread; an Upload is thread-compatible. Ownership: the store
// outlives its uploads; a file found is shared because decoding it must outlive its place here.
#pragma once

#include <cstdint>
#include <list>
#include <memory>
#include <string>
#include <unordered_map>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "common/base/hash.h"
#include "common/base/mutex.h"

namespace prism {

struct MediaStoreOptions {
  int64_t bytes_max = int64_t{256} << 20;
  int64_t file_bytes_max = int64_t{32} << 20;
  int64_t uploads_max = 64;  // at once
};

using SharedFile = std::shared_ptr<const std::string>;

// A file and the sha256 of its bytes (32 bytes).
struct StoredFile {
  std::string sha256;
  SharedFile bytes;
};

class MediaStore {
 public:
  // A file that comes in pieces. Dropping it forgets the pieces.
  class Upload {
   public:
    ~Upload();
    Upload(const Upload&) = delete;
    Upload& operator=(const Upload&) = delete;

    // ResourceExhausted: the file or the store is too large, with the sizes.
    absl::Status Add(absl::string_view piece);
    // Keeps the file. InvalidArgument: it is empty. REQUIRES: called once, after which nothing is.
    absl::StatusOr<StoredFile> Finish();

   private:
    friend class MediaStore;
    explicit Upload(MediaStore* store) : store_(store) {}
    MediaStore* const store_;
    Sha256 sha_;
    std::string bytes_;
  };

  explicit MediaStore(const MediaStoreOptions& options) : options_(options) {}

  // ResourceExhausted: too many at once.
  absl::StatusOr<std::unique_ptr<Upload>> StartUpload() ABSL_LOCKS_EXCLUDED(mutex_);

  // Null if the file is not held. Counts as a use.
  SharedFile Find(const std::string& sha256) ABSL_LOCKS_EXCLUDED(mutex_);

  // Of files and uploads.
  int64_t used_bytes() const ABSL_LOCKS_EXCLUDED(mutex_);

 private:
  struct Entry {
    SharedFile bytes;
    std::list<std::string>::iterator use;
  };

  absl::Status Reserve(int64_t bytes) ABSL_LOCKS_EXCLUDED(mutex_);
  SharedFile Keep(const std::string& sha256, std::string bytes) ABSL_LOCKS_EXCLUDED(mutex_);
  void EndUpload(int64_t bytes_forgotten) ABSL_LOCKS_EXCLUDED(mutex_);

  const MediaStoreOptions options_;
  mutable Mutex mutex_;
  std::unordered_map<std::string, Entry> entries_ ABSL_GUARDED_BY(mutex_);
  std::list<std::string> uses_ ABSL_GUARDED_BY(mutex_);  // least recently used first
  int64_t used_bytes_ ABSL_GUARDED_BY(mutex_) = 0;
  int64_t num_uploads_ ABSL_GUARDED_BY(mutex_) = 0;
};

}  // namespace prism
