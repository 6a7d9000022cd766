#include "services/router/result_store.h"

#include <utility>

namespace prism {

void MemoryResultStore::Get(const std::string& key, DoneFn done) {
  Found found;
  {
    MutexLock lock(&mutex_);
    const auto entry = by_key_.find(key);
    if (entry != by_key_.end() && clock_->Now() - entry->second->put >= ttl_) {
      EraseLocked(entry->second);
    } else if (entry != by_key_.end()) {
      entries_.splice(entries_.begin(), entries_, entry->second);
      found = {.lookup = Lookup::kHit, .value = entry->second->value};
    }
  }
  done(std::move(found));
}

void MemoryResultStore::Put(const std::string& key, std::string value) {
  Entry entry{.key = key, .value = std::move(value), .put = clock_->Now()};
  const int64_t bytes = BytesOf(entry);
  if (bytes > bytes_max_) return;
  MutexLock lock(&mutex_);
  if (const auto before = by_key_.find(key); before != by_key_.end()) EraseLocked(before->second);
  while (bytes_ + bytes > bytes_max_) EraseLocked(std::prev(entries_.end()));
  entries_.push_front(std::move(entry));
  by_key_[key] = entries_.begin();
  bytes_ += bytes;
}

void MemoryResultStore::EraseLocked(Entries::iterator entry) {
  bytes_ -= BytesOf(*entry);
  by_key_.erase(entry->key);
  entries_.erase(entry);
}

}  // namespace prism
