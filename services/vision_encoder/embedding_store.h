// EmbeddingStore keeps embeddings by content key within a budget of bytes, and lends them out by
// handle for a time.
//
// An embedding with a lease that has not run out, or that somebody holds (is being sent), is never
// thrown out; of the others the least recently used goes first. Room is reserved before an
// embedding is computed, so that work whose result could not be kept is refused before it is done.
//
// Thread safety: all methods may be called from any thread. Ownership: `clock` outlives the store,
// and the store its reservations.
#pragma once

#include <chrono>
#include <cstdint>
#include <list>
#include <set>
#include <string>
#include <unordered_map>
#include <utility>

#include "absl/status/statusor.h"
#include "common/base/clock.h"
#include "common/base/mutex.h"
#include "services/vision_encoder/content_key.h"
#include "services/vision_encoder/vision_embedding.h"

namespace prism {

struct EmbeddingStoreOptions {
  int64_t bytes_max = int64_t{1} << 30;
  int64_t handles_max = 65536;  // leases at once, those that ran out but were not given back included
};

// 16 bytes, random.
using HandleId = std::string;

class EmbeddingStore {
 public:
  // Room for an embedding to come; given back on destruction unless Insert() took it.
  class Reservation {
   public:
    Reservation() = default;
    Reservation(Reservation&& other) noexcept { *this = std::move(other); }
    Reservation& operator=(Reservation&& other) noexcept;
    ~Reservation() { Return(); }

   private:
    friend class EmbeddingStore;
    Reservation(EmbeddingStore* store, int64_t bytes) : store_(store), bytes_(bytes) {}
    void Return();
    EmbeddingStore* store_ = nullptr;
    int64_t bytes_ = 0;
  };

  struct Usage {
    int64_t bytes = 0;           // of embeddings held
    int64_t reserved_bytes = 0;  // of embeddings to come
    int64_t num_embeddings = 0;
    int64_t num_handles = 0;
  };

  // REQUIRES: bytes_max >= 1, handles_max >= 1
  EmbeddingStore(const EmbeddingStoreOptions& options, const Clock* clock);

  // Throws out what it must. ResourceExhausted, naming the bytes, if leased and reserved ones
  // leave no room.
  absl::StatusOr<Reservation> Reserve(int64_t bytes) ABSL_LOCKS_EXCLUDED(mutex_);

  // Keeps the embedding in the place of its reservation. One that is there already stays.
  // REQUIRES: the reservation is of as many bytes
  void Insert(const ContentKey& key, SharedEmbedding embedding, Reservation reservation)
      ABSL_LOCKS_EXCLUDED(mutex_);

  // Null if it is not held. Counts as a use.
  SharedEmbedding Find(const ContentKey& key) ABSL_LOCKS_EXCLUDED(mutex_);

  // Does not count as a use.
  bool Holds(const ContentKey& key) const ABSL_LOCKS_EXCLUDED(mutex_);

  // A new handle, which is no other caller's. NotFound: the key is not held. ResourceExhausted:
  // all handles are out. REQUIRES: duration > 0
  absl::StatusOr<HandleId> Lease(const ContentKey& key, std::chrono::milliseconds duration)
      ABSL_LOCKS_EXCLUDED(mutex_);

  // The embedding behind a handle, also after the lease as long as it is still there. NotFound.
  absl::StatusOr<SharedEmbedding> Fetch(const HandleId& handle) ABSL_LOCKS_EXCLUDED(mutex_);

  // The lease runs for `duration` from now, unless it runs longer already. NotFound.
  absl::Status Extend(const HandleId& handle, std::chrono::milliseconds duration) ABSL_LOCKS_EXCLUDED(mutex_);

  // Ends the lease and forgets the handle. Does nothing for an unknown one.
  void Release(const HandleId& handle) ABSL_LOCKS_EXCLUDED(mutex_);

  Usage usage() const ABSL_LOCKS_EXCLUDED(mutex_);
  int64_t bytes_max() const { return options_.bytes_max; }

 private:
  struct Entry {
    SharedEmbedding embedding;
    std::multiset<SteadyTime> leases;  // when each runs out
    std::set<HandleId> handles;
    std::list<ContentKey>::iterator use;  // in uses_
  };
  struct Handle {
    ContentKey key;
    SteadyTime until;
  };

  bool IsEvictable(const Entry& entry, SteadyTime now) const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void Touch(Entry& entry) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void Evict(const ContentKey& key) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void EraseHandle(const HandleId& handle) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void GiveBack(int64_t bytes) ABSL_LOCKS_EXCLUDED(mutex_);

  const EmbeddingStoreOptions options_;
  const Clock* const clock_;
  mutable Mutex mutex_;
  std::unordered_map<ContentKey, Entry> entries_ ABSL_GUARDED_BY(mutex_);
  std::unordered_map<HandleId, Handle> handles_ ABSL_GUARDED_BY(mutex_);
  std::list<ContentKey> uses_ ABSL_GUARDED_BY(mutex_);  // least recently used first
  int64_t bytes_ ABSL_GUARDED_BY(mutex_) = 0;
  int64_t reserved_bytes_ ABSL_GUARDED_BY(mutex_) = 0;
};

}  // namespace prism
