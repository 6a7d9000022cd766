// GenerationRegistry knows the generations that are under way by id, so that Cancel finds them and
// at most one attempt of each lives.
//
// Thread safety: all methods may be called from any thread.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <unordered_map>

#include "absl/status/statusor.h"
#include "common/base/mutex.h"
#include "services/decoder/engine/generation.h"

namespace prism {

class GenerationRegistry {
 public:
  // Takes `generation` in, in place of an older attempt, which is returned and to be cancelled
  // (null if there is none). Aborted if a newer attempt is here, AlreadyExists if this one is.
  absl::StatusOr<std::shared_ptr<Generation>> Add(const std::shared_ptr<Generation>& generation)
      ABSL_LOCKS_EXCLUDED(mutex_);

  // Forgets this attempt; nothing if a newer one has taken its place.
  void Remove(const std::string& generation_id, uint32_t attempt) ABSL_LOCKS_EXCLUDED(mutex_);

  // Null if unknown.
  std::shared_ptr<Generation> Find(const std::string& generation_id) const ABSL_LOCKS_EXCLUDED(mutex_);

 private:
  mutable Mutex mutex_;
  std::unordered_map<std::string, std::shared_ptr<Generation>> generations_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace prism
