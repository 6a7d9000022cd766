#include "services/router/media_store.h"

#include <algorithm>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "common/base/check.h"
#include "common/base/status.h"
#include "common/wire/status_codec.h"

namespace prism {
namespace {

constexpr int64_t kRetryMs = 2000;

int64_t SizeOfFile(const MediaFile& file) { return static_cast<int64_t>(file.bytes.size()); }

}  // namespace

MediaStore::MediaStore(int64_t budget_bytes, std::chrono::milliseconds idle, const Clock* clock,
                       RouterMetrics* metrics)
    : budget_bytes_(budget_bytes), idle_(idle), clock_(clock), metrics_(metrics) {
  PRISM_CHECK(budget_bytes > 0);
}

absl::StatusOr<std::shared_ptr<const MediaFile>> MediaStore::Hold(std::string bytes) {
  return Insert(std::move(bytes), false);
}

absl::StatusOr<std::shared_ptr<const MediaFile>> MediaStore::Upload(std::string bytes) {
  return Insert(std::move(bytes), true);
}

absl::StatusOr<std::shared_ptr<const MediaFile>> MediaStore::Insert(std::string bytes, bool uploaded) {
  const Sha256Digest digest = Sha256Of(bytes.data(), bytes.size());
  const std::string sha256(digest.begin(), digest.end());
  MutexLock lock(&mutex_);
  const auto found = entries_.find(sha256);
  if (found != entries_.end()) {
    found->second->uploaded |= uploaded;
    return UseLocked(found->second.get());
  }
  PRISM_RETURN_IF_ERROR(MakeRoomLocked(static_cast<int64_t>(bytes.size())));
  auto entry = std::make_unique<Entry>();
  entry->file = {.bytes = std::move(bytes), .sha256 = sha256};
  entry->uploaded = uploaded;
  Entry* const added = entry.get();
  entries_.emplace(sha256, std::move(entry));
  AddBytesLocked(SizeOfFile(added->file));
  return UseLocked(added);
}

absl::StatusOr<std::shared_ptr<const MediaFile>> MediaStore::Find(absl::string_view media_id) {
  MutexLock lock(&mutex_);
  const auto found = entries_.find(std::string(media_id));
  if (found == entries_.end()) {
    return absl::NotFoundError(
        absl::StrCat("media ", Hex(media_id), " is not here (any more); send it again"));
  }
  return UseLocked(found->second.get());
}

absl::Status MediaStore::Reserve(int64_t bytes) {
  MutexLock lock(&mutex_);
  PRISM_RETURN_IF_ERROR(MakeRoomLocked(bytes));
  AddBytesLocked(bytes);
  return absl::OkStatus();
}

void MediaStore::Unreserve(int64_t bytes) {
  MutexLock lock(&mutex_);
  AddBytesLocked(-bytes);
}

void MediaStore::AddBytesLocked(int64_t bytes) {
  bytes_ += bytes;
  metrics_->media_bytes.Set(static_cast<double>(bytes_));
  metrics_->media_files.Set(static_cast<double>(entries_.size()));
}

int64_t MediaStore::bytes() const {
  MutexLock lock(&mutex_);
  return bytes_;
}

std::shared_ptr<const MediaFile> MediaStore::UseLocked(Entry* entry) {
  ++entry->users;
  return std::shared_ptr<const MediaFile>(&entry->file,
                                          [this](const MediaFile* file) { Release(file->sha256); });
}

void MediaStore::Release(const std::string& sha256) {
  MutexLock lock(&mutex_);
  const auto found = entries_.find(sha256);
  PRISM_CHECK(found != entries_.end() && found->second->users > 0);
  Entry* const entry = found->second.get();
  if (--entry->users > 0) return;
  if (entry->uploaded) {
    entry->idle_since = clock_->Now();
  } else {
    EraseLocked(std::string(sha256));
  }
}

void MediaStore::EraseLocked(const std::string& sha256) {
  const auto found = entries_.find(sha256);
  const int64_t bytes = SizeOfFile(found->second->file);
  entries_.erase(found);
  AddBytesLocked(-bytes);
}

absl::Status MediaStore::MakeRoomLocked(int64_t bytes) {
  struct Idle {
    SteadyTime since;
    std::string sha256;
    int64_t bytes;
  };
  // Counted first, so that a file that cannot fit drives nothing out.
  std::vector<Idle> idle;
  int64_t idle_bytes = 0;
  for (const auto& [sha256, entry] : entries_) {
    if (entry->users > 0) continue;
    idle.push_back({entry->idle_since, sha256, SizeOfFile(entry->file)});
    idle_bytes += idle.back().bytes;
  }
  if (bytes_ - idle_bytes + bytes > budget_bytes_) {
    metrics_->reject_media_full.Increment();
    return RetryAfter(
        ErrorWithReason(absl::StatusCode::kResourceExhausted,
                        absl::StrCat("pictures of running chats have ", bytes_ - idle_bytes, " bytes, with ",
                                     bytes, " more they are over the budget of ", budget_bytes_),
                        kReasonQueueFull),
        kRetryMs);
  }
  std::sort(idle.begin(), idle.end(), [](const Idle& a, const Idle& b) { return a.since < b.since; });
  const SteadyTime now = clock_->Now();
  for (const Idle& file : idle) {
    if (bytes_ + bytes <= budget_bytes_ && now - file.since < idle_) break;
    EraseLocked(file.sha256);
  }
  return absl::OkStatus();
}

}  // namespace prism
