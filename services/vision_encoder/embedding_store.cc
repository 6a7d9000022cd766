#include "services/vision_encoder/embedding_store.h"

#include <algorithm>
#include <vector>

#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "common/base/check.h"
#include "common/base/ids.h"

namespace prism {
namespace {

absl::Status UnknownHandle(const HandleId& handle) {
  return absl::NotFoundError(
      absl::StrCat("embedding handle ", absl::BytesToHexString(handle.substr(0, 16)), " is not known here"));
}

}  // namespace

EmbeddingStore::Reservation& EmbeddingStore::Reservation::operator=(Reservation&& other) noexcept {
  if (this == &other) return *this;
  Return();
  store_ = std::exchange(other.store_, nullptr);
  bytes_ = std::exchange(other.bytes_, 0);
  return *this;
}

void EmbeddingStore::Reservation::Return() {
  if (store_ != nullptr) std::exchange(store_, nullptr)->GiveBack(bytes_);
}

EmbeddingStore::EmbeddingStore(const EmbeddingStoreOptions& options, const Clock* clock)
    : options_(options), clock_(clock) {
  PRISM_CHECK(options.bytes_max >= 1 && options.handles_max >= 1);
}

bool EmbeddingStore::IsEvictable(const Entry& entry, SteadyTime now) const {
  // Copies are handed out under the lock alone, so a count of one cannot grow meanwhile.
  return entry.embedding.use_count() == 1 && (entry.leases.empty() || *entry.leases.rbegin() <= now);
}

void EmbeddingStore::Touch(Entry& entry) { uses_.splice(uses_.end(), uses_, entry.use); }

void EmbeddingStore::Evict(const ContentKey& key) {
  const auto found = entries_.find(key);
  PRISM_CHECK(found != entries_.end());
  for (const HandleId& handle : found->second.handles) handles_.erase(handle);
  bytes_ -= found->second.embedding->size_bytes();
  uses_.erase(found->second.use);
  entries_.erase(found);
}

void EmbeddingStore::GiveBack(int64_t bytes) {
  MutexLock lock(&mutex_);
  reserved_bytes_ -= bytes;
}

absl::StatusOr<EmbeddingStore::Reservation> EmbeddingStore::Reserve(int64_t bytes) {
  PRISM_CHECK(bytes >= 1);
  MutexLock lock(&mutex_);
  const SteadyTime now = clock_->Now();
  // First count, so that nothing is thrown out for a reservation that fails after all.
  int64_t missing = bytes_ + reserved_bytes_ + bytes - options_.bytes_max;
  std::vector<ContentKey> victims;
  for (auto use = uses_.begin(); missing > 0 && use != uses_.end(); ++use) {
    const Entry& entry = entries_.at(*use);
    if (!IsEvictable(entry, now)) continue;
    missing -= entry.embedding->size_bytes();
    victims.push_back(*use);
  }
  if (missing > 0) {
    return absl::ResourceExhaustedError(
        absl::StrCat("an embedding of ", bytes, " bytes does not fit: ", bytes_, " of ", options_.bytes_max,
                     " bytes are held, ", reserved_bytes_, " reserved, too many of them leased"));
  }
  for (const ContentKey& key : victims) Evict(key);
  reserved_bytes_ += bytes;
  return Reservation(this, bytes);
}

void EmbeddingStore::Insert(const ContentKey& key, SharedEmbedding embedding, Reservation reservation) {
  PRISM_CHECK(reservation.store_ == this && reservation.bytes_ == embedding->size_bytes());
  MutexLock lock(&mutex_);
  reservation.store_ = nullptr;
  reserved_bytes_ -= reservation.bytes_;
  if (entries_.contains(key)) return;
  bytes_ += embedding->size_bytes();
  Entry& entry = entries_[key];
  entry.embedding = std::move(embedding);
  entry.use = uses_.insert(uses_.end(), key);
}

SharedEmbedding EmbeddingStore::Find(const ContentKey& key) {
  MutexLock lock(&mutex_);
  const auto found = entries_.find(key);
  if (found == entries_.end()) return nullptr;
  Touch(found->second);
  return found->second.embedding;
}

bool EmbeddingStore::Holds(const ContentKey& key) const {
  MutexLock lock(&mutex_);
  return entries_.contains(key);
}

absl::StatusOr<HandleId> EmbeddingStore::Lease(const ContentKey& key, std::chrono::milliseconds duration) {
  PRISM_CHECK(duration.count() > 0);
  MutexLock lock(&mutex_);
  const auto found = entries_.find(key);
  if (found == entries_.end()) return absl::NotFoundError("the embedding is not held");
  const SteadyTime now = clock_->Now();
  if (static_cast<int64_t>(handles_.size()) >= options_.handles_max) {
    std::vector<HandleId> over;
    for (const auto& [id, handle] : handles_) {
      if (handle.until <= now) over.push_back(id);
    }
    for (const HandleId& id : over) EraseHandle(id);
  }
  if (static_cast<int64_t>(handles_.size()) >= options_.handles_max) {
    return absl::ResourceExhaustedError(
        absl::StrCat("all ", options_.handles_max, " embedding handles are leased"));
  }
  const HandleId id = NewIdBytes();
  const SteadyTime until = now + duration;
  handles_[id] = {.key = key, .until = until};
  found->second.handles.insert(id);
  found->second.leases.insert(until);
  Touch(found->second);
  return id;
}

absl::StatusOr<SharedEmbedding> EmbeddingStore::Fetch(const HandleId& handle) {
  MutexLock lock(&mutex_);
  const auto found = handles_.find(handle);
  if (found == handles_.end()) return UnknownHandle(handle);
  Entry& entry = entries_.at(found->second.key);
  Touch(entry);
  return entry.embedding;
}

absl::Status EmbeddingStore::Extend(const HandleId& handle, std::chrono::milliseconds duration) {
  MutexLock lock(&mutex_);
  const auto found = handles_.find(handle);
  if (found == handles_.end()) return UnknownHandle(handle);
  Entry& entry = entries_.at(found->second.key);
  const SteadyTime until = std::max(found->second.until, clock_->Now() + duration);
  entry.leases.erase(entry.leases.find(found->second.until));
  entry.leases.insert(until);
  found->second.until = until;
  Touch(entry);
  return absl::OkStatus();
}

void EmbeddingStore::EraseHandle(const HandleId& handle) {
  const auto found = handles_.find(handle);
  if (found == handles_.end()) return;
  Entry& entry = entries_.at(found->second.key);
  entry.leases.erase(entry.leases.find(found->second.until));
  entry.handles.erase(handle);
  handles_.erase(found);
}

void EmbeddingStore::Release(const HandleId& handle) {
  MutexLock lock(&mutex_);
  EraseHandle(handle);
}

EmbeddingStore::Usage EmbeddingStore::usage() const {
  MutexLock lock(&mutex_);
  return {.bytes = bytes_,
          .reserved_bytes = reserved_bytes_,
          .num_embeddings = static_cast<int64_t>(entries_.size()),
          .num_handles = static_cast<int64_t>(handles_.size())};
}

}  // namespace prism
