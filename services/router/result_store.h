// ResultStore keeps finished answers by key; MemoryResultStore does so in this process. Keys are 32
// bytes, values opaque: whoever puts and gets them tells garbage apart.
#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <list>
#include <string>
#include <unordered_map>

#include "common/base/clock.h"
#include "common/base/mutex.h"

namespace prism {

// Thread safety: all methods may be called from any thread; none blocks.
class ResultStore {
 public:
  enum class Lookup {
    kHit,
    kMiss,
    kError,   // it was asked and failed
    kBypass,  // it was not asked, because it fails or is busy
  };
  struct Found {
    Lookup lookup = Lookup::kMiss;
    std::string value;  // of a hit
  };
  using DoneFn = std::function<void(Found)>;

  virtual ~ResultStore() = default;
  // Calls `done` exactly once, at once or from a thread of the store's, with no lock held.
  virtual void Get(const std::string& key, DoneFn done) = 0;
  // Soon, if at all.
  virtual void Put(const std::string& key, std::string value) = 0;
};

// The least recently used goes first; nothing stays longer than its time.
class MemoryResultStore final : public ResultStore {
 public:
  // What an entry costs besides its key and value.
  static constexpr int64_t kEntryBytes = 128;

  MemoryResultStore(int64_t bytes_max, std::chrono::milliseconds ttl, const Clock* clock)
      : bytes_max_(bytes_max), ttl_(ttl), clock_(clock) {}

  void Get(const std::string& key, DoneFn done) override ABSL_LOCKS_EXCLUDED(mutex_);
  void Put(const std::string& key, std::string value) override ABSL_LOCKS_EXCLUDED(mutex_);

  int64_t bytes() const ABSL_LOCKS_EXCLUDED(mutex_) {
    MutexLock lock(&mutex_);
    return bytes_;
  }

 private:
  struct Entry {
    std::string key;
    std::string value;
    SteadyTime put;
  };
  using Entries = std::list<Entry>;
  static int64_t BytesOf(const Entry& entry) {
    return static_cast<int64_t>(entry.key.size() + entry.value.size()) + kEntryBytes;
  }
  void EraseLocked(Entries::iterator entry) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  const int64_t bytes_max_;
  const std::chrono::milliseconds ttl_;
  const Clock* const clock_;
  mutable Mutex mutex_;
  Entries entries_ ABSL_GUARDED_BY(mutex_);  // the most recently used first
  std::unordered_map<std::string, Entries::iterator> by_key_ ABSL_GUARDED_BY(mutex_);
  int64_t bytes_ ABSL_GUARDED_BY(mutex_) = 0;
};

}  // namespace prism
