// SafetensorsView, SafetensorsFile, SafetensorsSet: read-only access to weights in the safetensors
// format: 8 bytes of header length (little-endian), that many bytes of JSON, then the elements.
//
// A header is believed only after every entry was checked: known type, shape and byte range that
// agree, ranges inside the file, no two overlapping, no byte between them unaccounted for.
//
// Thread safety: const methods from any thread.
// Ownership: a SafetensorsFile owns its mapping; entries and views point into it.
#pragma once

#include <atomic>
#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "common/tensor/tensor.h"

namespace prism {

inline constexpr int64_t kSafetensorsHeaderBytesMax = 100'000'000;
inline constexpr int64_t kSafetensorsTensorsMax = 1 << 20;  // in one file
inline constexpr int kSafetensorsRankMax = Shape::kRankMax;
inline constexpr int64_t kSafetensorsIndexBytesMax = 64 << 20;
inline constexpr int64_t kSafetensorsShardsMax = 4096;

// One tensor as the header describes it.
struct SafetensorsEntry {
  std::string name;
  DType dtype = DType::kF32;
  Shape shape;
  int64_t offset = 0;  // of its first byte, from the start of the file
  int64_t size_bytes = 0;
};

// Checks a whole file image. `image` may hold the head of the file alone, as long as the header is
// in it; `file_bytes` is then the size of the file. Entries come ascending by offset.
// InvalidArgument naming `file`, the tensor, the value and the bound.
absl::StatusOr<std::vector<SafetensorsEntry>> ParseSafetensors(absl::string_view file,
                                                               absl::string_view image, int64_t file_bytes);

// One file, mapped. A file that shrinks while it is mapped ends the process (SIGBUS): checkpoints
// are replaced by renaming, never by rewriting.
class SafetensorsFile {
 public:
  // NotFound if it cannot be opened, else as ParseSafetensors().
  static absl::StatusOr<std::unique_ptr<SafetensorsFile>> Open(const std::string& path);
  ~SafetensorsFile();
  SafetensorsFile(const SafetensorsFile&) = delete;
  SafetensorsFile& operator=(const SafetensorsFile&) = delete;

  const std::string& path() const { return path_; }
  const std::vector<SafetensorsEntry>& entries() const { return entries_; }
  // The bytes of an entry of this file.
  const uint8_t* bytes(const SafetensorsEntry& entry) const { return data_ + entry.offset; }
  // The byte at `offset` of the file and those behind it.
  const uint8_t* bytes_at(int64_t offset) const { return data_ + offset; }
  // A view of an entry of this file. The memory is read-only whatever the view's type says.
  // REQUIRES: aligned(entry)
  TensorView view(const SafetensorsEntry& entry) const;
  // Whether the elements lie at a multiple of their size; writers seldom fail to see to it.
  bool aligned(const SafetensorsEntry& entry) const;
  // Whether `data` points into the mapping.
  bool Holds(const void* data) const {
    const auto* const byte = static_cast<const uint8_t*>(data);
    return byte >= data_ && byte < data_ + size_bytes_;
  }
  // Gives the pages of `size_bytes` bytes at `data` (inside the mapping) back to the system; they
  // are read again from the file when touched. Keeps a process's resident memory at what it packs.
  void Release(const void* data, int64_t size_bytes) const;
  // All that Release() was called for, so far.
  int64_t bytes_released() const { return bytes_released_.load(); }
  // Blocks until the bytes [offset, offset + size_bytes) of the file were read into memory, as far as
  // the system can; no error if it cannot. REQUIRES: they are in the file
  void Populate(int64_t offset, int64_t size_bytes) const;
  // The same past the page cache, which costs a disk a part of its speed: the bytes are read by O_DIRECT into
  // memory of their own, which takes the mapping's place until it is released. What the page cache holds
  // already is taken from there. Falls back to Populate() where the system refuses.
  void PopulateDirect(int64_t offset, int64_t size_bytes) const;

 private:
  SafetensorsFile() = default;

  // Puts memory with the bytes of the whole pages [begin, end) of the file in their place; false if refused.
  bool ReadInPlace(int64_t begin, int64_t end) const;

  std::string path_;
  int fd_ = -1;         // of the mapping
  int direct_fd_ = -1;  // for O_DIRECT; -1: refused
  uint8_t* data_ = nullptr;
  int64_t size_bytes_ = 0;
  std::vector<SafetensorsEntry> entries_;
  mutable std::atomic<int64_t> bytes_released_{0};
  mutable std::atomic<bool> read_in_place_{false};  // parts of the mapping were replaced by memory
};

// Where the index places each tensor: name -> file name.
using SafetensorsIndex = std::map<std::string, std::string>;

// Parses model.safetensors.index.json. File names must be plain (no '/', not ".."), end in
// ".safetensors" and be at most kSafetensorsShardsMax. InvalidArgument naming `file`.
absl::StatusOr<SafetensorsIndex> ParseSafetensorsIndex(absl::string_view file, absl::string_view json);

}  // namespace prism
