#include "services/vision_encoder/media_store.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "common/base/status.h"

namespace prism {

MediaStore::Upload::~Upload() { store_->EndUpload(static_cast<int64_t>(bytes_.size())); }

absl::Status MediaStore::Upload::Add(absl::string_view piece) {
  const int64_t size = static_cast<int64_t>(bytes_.size() + piece.size());
  if (size > store_->options_.file_bytes_max) {
    return absl::ResourceExhaustedError(absl::StrCat(
        "the file has more than ", store_->options_.file_bytes_max, " bytes, the limit of one file"));
  }
  PRISM_RETURN_IF_ERROR(store_->Reserve(static_cast<int64_t>(piece.size())));
  sha_.Update(piece);
  bytes_.append(piece.data(), piece.size());
  return absl::OkStatus();
}

absl::StatusOr<StoredFile> MediaStore::Upload::Finish() {
  if (bytes_.empty()) return absl::InvalidArgumentError("the file has 0 bytes");
  const Sha256Digest digest = sha_.Finish();
  StoredFile file{.sha256 = std::string(digest.begin(), digest.end()), .bytes = nullptr};
  file.bytes = store_->Keep(file.sha256, std::exchange(bytes_, {}));
  return file;
}

absl::StatusOr<std::unique_ptr<MediaStore::Upload>> MediaStore::StartUpload() {
  MutexLock lock(&mutex_);
  if (num_uploads_ >= options_.uploads_max) {
    return absl::ResourceExhaustedError(absl::StrCat(num_uploads_, " uploads are under way, the limit"));
  }
  ++num_uploads_;
  return std::unique_ptr<Upload>(new Upload(this));
}

void MediaStore::EndUpload(int64_t bytes_forgotten) {
  MutexLock lock(&mutex_);
  --num_uploads_;
  used_bytes_ -= bytes_forgotten;
}

absl::Status MediaStore::Reserve(int64_t bytes) {
  MutexLock lock(&mutex_);
  for (auto use = uses_.begin(); used_bytes_ + bytes > options_.bytes_max && use != uses_.end();) {
    const auto entry = entries_.find(*use);
    // Copies are handed out under the lock alone, so a count of one cannot grow meanwhile.
    if (entry->second.bytes.use_count() > 1) {
      ++use;
      continue;
    }
    used_bytes_ -= static_cast<int64_t>(entry->second.bytes->size());
    entries_.erase(entry);
    use = uses_.erase(use);
  }
  if (used_bytes_ + bytes > options_.bytes_max) {
    return absl::ResourceExhaustedError(absl::StrCat(
        used_bytes_, " of ", options_.bytes_max, " bytes for media are in use; ", bytes, " more do not fit"));
  }
  used_bytes_ += bytes;
  return absl::OkStatus();
}

SharedFile MediaStore::Keep(const std::string& sha256, std::string bytes) {
  MutexLock lock(&mutex_);
  const int64_t size = static_cast<int64_t>(bytes.size());
  auto [entry, is_new] = entries_.try_emplace(sha256);
  if (is_new) {
    entry->second.bytes = std::make_shared<const std::string>(std::move(bytes));
    entry->second.use = uses_.insert(uses_.end(), sha256);
  } else {
    used_bytes_ -= size;  // it was here already
    uses_.splice(uses_.end(), uses_, entry->second.use);
  }
  return entry->second.bytes;
}

SharedFile MediaStore::Find(const std::string& sha256) {
  MutexLock lock(&mutex_);
  const auto found = entries_.find(sha256);
  if (found == entries_.end()) return nullptr;
  uses_.splice(uses_.end(), uses_, found->second.use);
  return found->second.bytes;
}

int64_t MediaStore::used_bytes() const {
  MutexLock lock(&mutex_);
  return used_bytes_;
}

}  // namespace prism
