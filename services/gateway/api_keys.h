// API keys: whose the key is that a client presents.
//
// A key is known by its SHA-256 alone, so neither the file nor this process's tables give one away:
//
//   {"tenants": {"class-7b": {"api_key_sha256": ["9f86d081...0f00a08"]}}}
//
// A tenant may have several keys, so that one can be replaced while the other still works. The file may be
// the router's of --limits: what that one is for is passed over here.
//
// Ownership: plain values, and one thread of an ApiKeyFile's own.
#pragma once

#include <chrono>
#include <cstddef>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "common/base/hash.h"
#include "common/base/mutex.h"
#include "common/base/thread.h"

namespace prism {

inline constexpr size_t kApiKeyBytesMax = 256;  // a longer one is no key
inline constexpr size_t kApiKeysMax = 4096;     // of all tenants together
inline constexpr size_t kApiKeyFileBytesMax = 4 << 20;
inline constexpr size_t kTenantBytesMax = 256;  // of a name, as of `user`

// Thread safety: immutable.
class ApiKeyTable {
 public:
  // InvalidArgument says which key of the JSON is wrong and what is wanted; it quotes no hash.
  static absl::StatusOr<ApiKeyTable> Parse(absl::string_view json);

  // The tenant of `key`; nullptr: nobody's. Takes as long whichever key of one length it is.
  const std::string* TenantOf(absl::string_view key) const;
  size_t num_keys() const { return keys_.size(); }

 private:
  struct Key {
    Sha256Digest sha256;
    std::string tenant;
  };
  std::vector<Key> keys_;
};

// A file of keys, read again while it is used: as Kubernetes replaces a mounted secret, or an editor a file.
//
// Thread safety: all methods may be called from any thread.
class ApiKeyFile {
 public:
  // Told of each new content: the number of its keys, or why the keys are still those of before.
  using ReadFn = std::function<void(absl::StatusOr<size_t> num_keys)>;

  // NotFound, or InvalidArgument, with the path in front. From then on the file is looked at every
  // `interval` by a thread that calls `read`, the first content included, before Open() returns.
  static absl::StatusOr<std::unique_ptr<ApiKeyFile>> Open(const std::string& path,
                                                          std::chrono::milliseconds interval, ReadFn read);
  ~ApiKeyFile();
  ApiKeyFile(const ApiKeyFile&) = delete;

  // As ApiKeyTable, of the last content that was one.
  std::optional<std::string> TenantOf(absl::string_view key) const ABSL_LOCKS_EXCLUDED(mutex_);

 private:
  ApiKeyFile(std::string path, std::chrono::milliseconds interval, ReadFn read);
  // Takes the file's content if it is another than the last one looked at.
  absl::Status Look() ABSL_LOCKS_EXCLUDED(mutex_);
  void Run() ABSL_LOCKS_EXCLUDED(mutex_);

  const std::string path_;
  const std::chrono::milliseconds interval_;
  const ReadFn read_;
  std::optional<std::string> seen_;  // what was looked at last: a content or why there was none
  mutable Mutex mutex_;
  CondVar stop_;
  bool stopped_ ABSL_GUARDED_BY(mutex_) = false;
  std::shared_ptr<const ApiKeyTable> table_ ABSL_GUARDED_BY(mutex_);
  NamedThread thread_;
};

}  // namespace prism
