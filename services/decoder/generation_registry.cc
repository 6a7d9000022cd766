#include "services/decoder/generation_registry.h"

#include "absl/strings/str_cat.h"

namespace prism {

absl::StatusOr<std::shared_ptr<Generation>> GenerationRegistry::Add(
    const std::shared_ptr<Generation>& generation) {
  const GenerationRequest& request = generation->request();
  MutexLock lock(&mutex_);
  std::shared_ptr<Generation>& place = generations_[request.generation_id];
  if (place == nullptr) {
    place = generation;
    return std::shared_ptr<Generation>();
  }
  const uint32_t other = place->request().attempt;
  if (other == request.attempt) {
    return absl::AlreadyExistsError(absl::StrCat("attempt ", other, " of this generation is under way"));
  }
  if (other > request.attempt) {
    return absl::AbortedError(
        absl::StrCat("attempt ", request.attempt, " is older than attempt ", other, ", which is under way"));
  }
  std::shared_ptr<Generation> older = std::move(place);
  place = generation;
  return older;
}

void GenerationRegistry::Remove(const std::string& generation_id, uint32_t attempt) {
  std::shared_ptr<Generation> removed;  // let go of after the lock
  MutexLock lock(&mutex_);
  const auto found = generations_.find(generation_id);
  if (found == generations_.end() || found->second->request().attempt != attempt) return;
  removed = std::move(found->second);
  generations_.erase(found);
}

std::shared_ptr<Generation> GenerationRegistry::Find(const std::string& generation_id) const {
  MutexLock lock(&mutex_);
  const auto found = generations_.find(generation_id);
  return found == generations_.end() ? nullptr : found->second;
}

}  // namespace prism
