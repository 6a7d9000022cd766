#include "common/checkpoint/safetensors.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <iterator>
#include <optional>
#include <set>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "common/base/check.h"
#include "common/base/status.h"
#include "nlohmann/json.hpp"

namespace prism {
namespace {

using Json = nlohmann::json;

constexpr int64_t kLengthBytes = 8;
// The longest name that a message repeats.
constexpr size_t kShownBytesMax = 200;

// A name as a message may show it: bounded, printable, on one line.
std::string Shown(absl::string_view name) {
  std::string text = "\"";
  for (const char c : name.substr(0, kShownBytesMax)) text += c >= 0x20 && c < 0x7F ? c : '?';
  if (name.size() > kShownBytesMax) text += "...";
  return text + "\"";
}

std::optional<DType> ParseDType(absl::string_view name) {
  static constexpr std::pair<const char*, DType> kNames[] = {
      {"BF16", DType::kBF16}, {"F32", DType::kF32}, {"F16", DType::kF16}, {"F8_E4M3", DType::kF8E4M3},
      {"I64", DType::kI64},   {"I32", DType::kI32}, {"U8", DType::kU8},   {"I8", DType::kI8},
  };
  for (const auto& [known, dtype] : kNames) {
    if (name == known) return dtype;
  }
  return std::nullopt;
}

// Receives the header's JSON token by token, so that a header of 100 MB needs no tree and a name
// given twice is seen:
//
//   { "__metadata__": { "key": "value" }, "name": { "dtype": "BF16", "shape": [2, 3], "data_offsets": [0, 12]
//   } } ^ kTop            ^ kMetadata                 ^ kTensor                  ^ kShape                  ^
//   kOffsets
class HeaderReader {
 public:
  explicit HeaderReader(absl::string_view file) : file_(file) {}

  const absl::Status& status() const { return status_; }
  std::vector<SafetensorsEntry>& entries() { return entries_; }

  bool null() { return Unexpected("null"); }
  bool boolean(bool) { return Unexpected("a truth value"); }
  bool number_float(double, const std::string& text) { return Unexpected(text); }
  bool number_integer(int64_t value) { return Unexpected(absl::StrCat(value)); }
  bool binary(Json::binary_t&) { return Unexpected("binary"); }

  bool number_unsigned(uint64_t value) {
    if (place_ != Place::kShape && place_ != Place::kOffsets) return Unexpected(absl::StrCat(value));
    if (value > static_cast<uint64_t>(INT64_MAX)) {
      return Fail(absl::StrCat(Tensor(), " has ", Field(), " ", value, ", want at most ", INT64_MAX));
    }
    std::vector<int64_t>& list = place_ == Place::kShape ? shape_ : offsets_;
    const size_t length_max = place_ == Place::kShape ? static_cast<size_t>(kSafetensorsRankMax) : 2;
    if (list.size() == length_max) {
      return Fail(absl::StrCat(Tensor(), " has more than ", length_max, " numbers in ", Field()));
    }
    list.push_back(static_cast<int64_t>(value));
    return true;
  }

  bool string(std::string& value) {
    if (place_ == Place::kMetadata) return true;
    if (place_ != Place::kTensor || field_ != "dtype") return Unexpected(Shown(value));
    const std::optional<DType> dtype = ParseDType(value);
    if (!dtype.has_value()) {
      return Fail(absl::StrCat(Tensor(), " has dtype ", Shown(value),
                               ", want one of BF16, F32, F16, F8_E4M3, I64, I32, U8, I8"));
    }
    dtype_ = *dtype;
    return true;
  }

  bool key(std::string& value) {
    if (place_ == Place::kTop) {
      name_ = std::move(value);
    } else if (place_ == Place::kTensor) {
      bool* const seen = value == "dtype"          ? &has_dtype_
                         : value == "shape"        ? &has_shape_
                         : value == "data_offsets" ? &has_offsets_
                                                   : nullptr;
      if (seen == nullptr) return Fail(absl::StrCat(Tensor(), " has a field ", Shown(value)));
      if (*seen) return Fail(absl::StrCat(Tensor(), " has ", value, " twice"));
      *seen = true;
      field_ = std::move(value);
    }
    return true;
  }

  bool start_object(size_t) {
    if (place_ == Place::kStart) {
      place_ = Place::kTop;
    } else if (place_ == Place::kTop && name_ == "__metadata__") {
      place_ = Place::kMetadata;
    } else if (place_ == Place::kTop) {
      place_ = Place::kTensor;
      has_dtype_ = has_shape_ = has_offsets_ = false;
      shape_.clear();
      offsets_.clear();
    } else {
      return Unexpected("an object");
    }
    return true;
  }

  bool end_object() {
    if (place_ == Place::kTensor && !AddEntry()) return false;
    place_ = place_ == Place::kTop ? Place::kEnd : Place::kTop;
    return true;
  }

  bool start_array(size_t) {
    if (place_ == Place::kTensor && field_ == "shape") {
      place_ = Place::kShape;
    } else if (place_ == Place::kTensor && field_ == "data_offsets") {
      place_ = Place::kOffsets;
    } else {
      return Unexpected("a list");
    }
    return true;
  }
  bool end_array() {
    place_ = Place::kTensor;
    return true;
  }

  bool parse_error(size_t position, const std::string&, const Json::exception&) {
    return Fail(absl::StrCat("header is not well-formed JSON at byte ", position));
  }

 private:
  enum class Place { kStart, kTop, kMetadata, kTensor, kShape, kOffsets, kEnd };

  bool Fail(absl::string_view problem) {
    if (status_.ok()) status_ = absl::InvalidArgumentError(absl::StrCat(file_, ": ", problem));
    return false;
  }
  bool Unexpected(absl::string_view what) {
    switch (place_) {
      case Place::kStart:
        return Fail(absl::StrCat("header is ", what, ", want an object"));
      case Place::kTop:
        return Fail(absl::StrCat("header entry ", Shown(name_), " is ", what, ", want an object"));
      case Place::kMetadata:
        return Fail(absl::StrCat("header entry __metadata__ holds ", what, ", want strings"));
      default:
        return Fail(absl::StrCat(Tensor(), " has ", what, " as or in ", Field()));
    }
  }
  std::string Tensor() const { return absl::StrCat("tensor ", Shown(name_)); }
  const std::string& Field() const { return field_; }

  // Turns the fields of one tensor into an entry whose offset still counts from the first element.
  bool AddEntry() {
    if (!has_dtype_ || !has_shape_ || !has_offsets_) {
      return Fail(absl::StrCat(Tensor(), " has no ",
                               !has_dtype_   ? "dtype"
                               : !has_shape_ ? "shape"
                                             : "data_offsets"));
    }
    if (offsets_.size() != 2) {
      return Fail(absl::StrCat(Tensor(), " has ", offsets_.size(), " data_offsets, want 2"));
    }
    if (static_cast<int64_t>(entries_.size()) == kSafetensorsTensorsMax) {
      return Fail(absl::StrCat("has more than ", kSafetensorsTensorsMax, " tensors"));
    }
    // Overflow is looked for even if a later dimension is 0: no product of such dimensions may
    // appear anywhere.
    int64_t size_bytes = static_cast<int64_t>(SizeOf(dtype_));
    bool overflows = false;
    bool empty = false;
    for (const int64_t dim : shape_) {
      empty = empty || dim == 0;
      overflows = overflows || __builtin_mul_overflow(size_bytes, std::max<int64_t>(dim, 1), &size_bytes);
    }
    if (overflows) {
      return Fail(absl::StrCat(Tensor(), " of shape ", Shape(shape_).ToString(), " has more than ", INT64_MAX,
                               " bytes"));
    }
    if (empty) size_bytes = 0;
    const int64_t begin = offsets_[0];
    const int64_t end = offsets_[1];
    if (end < begin) return Fail(absl::StrCat(Tensor(), " has data_offsets [", begin, ", ", end, "]"));
    if (end - begin != size_bytes) {
      return Fail(absl::StrCat(Tensor(), " has ", end - begin, " bytes at data_offsets [", begin, ", ", end,
                               "], want ", size_bytes, " for ", Name(dtype_), " ", Shape(shape_).ToString()));
    }
    entries_.push_back(
        {.name = name_, .dtype = dtype_, .shape = Shape(shape_), .offset = begin, .size_bytes = size_bytes});
    return true;
  }

  const std::string file_;
  absl::Status status_;
  std::vector<SafetensorsEntry> entries_;
  Place place_ = Place::kStart;
  std::string name_, field_;
  bool has_dtype_ = false, has_shape_ = false, has_offsets_ = false;
  DType dtype_ = DType::kF32;
  std::vector<int64_t> shape_, offsets_;
};

absl::Status CheckNames(absl::string_view file, const std::vector<SafetensorsEntry>& entries) {
  std::vector<absl::string_view> names;
  names.reserve(entries.size());
  for (const SafetensorsEntry& entry : entries) names.push_back(entry.name);
  std::sort(names.begin(), names.end());
  const auto twice = std::adjacent_find(names.begin(), names.end());
  if (twice == names.end()) return absl::OkStatus();
  return absl::InvalidArgumentError(absl::StrCat(file, ": tensor ", Shown(*twice), " is there twice"));
}

// Entries ascending by offset must follow each other without a gap from 0 to `data_bytes`.
absl::Status CheckRanges(absl::string_view file, const std::vector<SafetensorsEntry>& entries,
                         int64_t data_bytes) {
  const auto fail = [&](const SafetensorsEntry& entry, absl::string_view problem) {
    return absl::InvalidArgumentError(absl::StrCat(file, ": tensor ", Shown(entry.name), " at data_offsets [",
                                                   entry.offset, ", ", entry.offset + entry.size_bytes, "] ",
                                                   problem));
  };
  int64_t next = 0;
  for (size_t i = 0; i < entries.size(); ++i) {
    const SafetensorsEntry& entry = entries[i];
    if (entry.offset > data_bytes || entry.size_bytes > data_bytes - entry.offset) {
      return fail(entry, absl::StrCat("ends after the file's ", data_bytes, " bytes of data"));
    }
    if (entry.offset < next) return fail(entry, absl::StrCat("overlaps tensor ", Shown(entries[i - 1].name)));
    if (entry.offset > next)
      return fail(entry, absl::StrCat("leaves a gap: the tensor before it ends at ", next));
    next = entry.offset + entry.size_bytes;
  }
  if (next != data_bytes) {
    return absl::InvalidArgumentError(
        absl::StrCat(file, ": its tensors end at byte ", next, " of ", data_bytes, " bytes of data"));
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<std::vector<SafetensorsEntry>> ParseSafetensors(absl::string_view file,
                                                               absl::string_view image, int64_t file_bytes) {
  PRISM_CHECK(static_cast<int64_t>(image.size()) <= file_bytes);
  if (static_cast<int64_t>(image.size()) < kLengthBytes) {
    return absl::InvalidArgumentError(
        absl::StrCat(file, ": ", image.size(), " bytes, want at least ", kLengthBytes));
  }
  uint64_t length = 0;
  std::memcpy(&length, image.data(), sizeof(length));
  if (length > static_cast<uint64_t>(kSafetensorsHeaderBytesMax)) {
    return absl::InvalidArgumentError(
        absl::StrCat(file, ": header of ", length, " bytes, want at most ", kSafetensorsHeaderBytesMax));
  }
  if (length > image.size() - kLengthBytes) {
    return absl::InvalidArgumentError(
        absl::StrCat(file, ": header of ", length, " bytes in a file of ", file_bytes, " bytes"));
  }
  const absl::string_view header = image.substr(kLengthBytes, static_cast<size_t>(length));
  if (header.empty() || header[0] != '{') {
    return absl::InvalidArgumentError(absl::StrCat(file, ": header does not begin with '{'"));
  }
  HeaderReader reader(file);
  const bool parsed = Json::sax_parse(header.data(), header.data() + header.size(), &reader);
  PRISM_RETURN_IF_ERROR(reader.status());
  if (!parsed) return absl::InvalidArgumentError(absl::StrCat(file, ": header is not well-formed JSON"));

  std::vector<SafetensorsEntry> entries = std::move(reader.entries());
  PRISM_RETURN_IF_ERROR(CheckNames(file, entries));
  // Empty tensors come before the one that begins where they lie.
  std::sort(entries.begin(), entries.end(), [](const SafetensorsEntry& a, const SafetensorsEntry& b) {
    return std::pair(a.offset, a.size_bytes) < std::pair(b.offset, b.size_bytes);
  });
  const int64_t data_begin = kLengthBytes + static_cast<int64_t>(length);
  PRISM_RETURN_IF_ERROR(CheckRanges(file, entries, file_bytes - data_begin));
  for (SafetensorsEntry& entry : entries) entry.offset += data_begin;
  return entries;
}

absl::StatusOr<std::unique_ptr<SafetensorsFile>> SafetensorsFile::Open(const std::string& path) {
  const int fd = open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK);
  if (fd < 0) {
    const int error = errno;
    const std::string message = absl::StrCat(path, ": ", std::strerror(error));
    return error == ENOENT ? absl::NotFoundError(message) : absl::FailedPreconditionError(message);
  }
  std::unique_ptr<SafetensorsFile> file(new SafetensorsFile());
  file->path_ = path;
  struct stat info{};
  absl::Status status;
  if (fstat(fd, &info) != 0 || !S_ISREG(info.st_mode)) {
    status = absl::InvalidArgumentError(absl::StrCat(path, ": not a regular file"));
  } else if (info.st_size < kLengthBytes) {
    status = absl::InvalidArgumentError(
        absl::StrCat(path, ": ", info.st_size, " bytes, want at least ", kLengthBytes));
  } else {
    void* const data = mmap(nullptr, static_cast<size_t>(info.st_size), PROT_READ, MAP_PRIVATE, fd, 0);
    if (data == MAP_FAILED) {
      status = absl::ResourceExhaustedError(absl::StrCat(path, ": cannot be mapped: ", std::strerror(errno)));
    } else {
      file->data_ = static_cast<uint8_t*>(data);
      file->size_bytes_ = info.st_size;
    }
  }
  file->fd_ = fd;
  PRISM_RETURN_IF_ERROR(status);
  file->direct_fd_ = open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_DIRECT);
  const absl::string_view image(reinterpret_cast<const char*>(file->data_),
                                static_cast<size_t>(file->size_bytes_));
  PRISM_ASSIGN_OR_RETURN(file->entries_, ParseSafetensors(path, image, file->size_bytes_));
  return file;
}

SafetensorsFile::~SafetensorsFile() {
  if (data_ != nullptr) munmap(data_, static_cast<size_t>(size_bytes_));
  if (fd_ >= 0) close(fd_);
  if (direct_fd_ >= 0) close(direct_fd_);
}

bool SafetensorsFile::aligned(const SafetensorsEntry& entry) const {
  // The mapping begins at a page, so the offset decides.
  return entry.offset % static_cast<int64_t>(SizeOf(entry.dtype)) == 0;
}

TensorView SafetensorsFile::view(const SafetensorsEntry& entry) const {
  PRISM_CHECK(aligned(entry));
  return TensorView(data_ + entry.offset, entry.dtype, entry.shape);
}

void SafetensorsFile::Release(const void* data, int64_t size_bytes) const {
  const auto* const begin = static_cast<const uint8_t*>(data);
  PRISM_CHECK(begin >= data_ && size_bytes >= 0 && size_bytes <= data_ + size_bytes_ - begin);
  bytes_released_.fetch_add(size_bytes);
  // Border pages may hold neighbours; they too are only read again.
  const auto page = static_cast<int64_t>(sysconf(_SC_PAGESIZE));
  const int64_t first = (begin - data_) / page * page;
  const int64_t last = begin - data_ + size_bytes;
  if (last <= first) return;
  const auto size = static_cast<size_t>(last - first);
  if (!read_in_place_.load()) {
    madvise(data_ + first, size, MADV_DONTNEED);
    return;
  }
  // In the place of memory of PopulateDirect()'s the file's own pages come back.
  PRISM_CHECK(mmap(data_ + first, size, PROT_READ, MAP_PRIVATE | MAP_FIXED, fd_, first) != MAP_FAILED);
}

bool SafetensorsFile::ReadInPlace(int64_t begin, int64_t end) const {
  const auto size = static_cast<size_t>(end - begin);
  void* const memory = mmap(nullptr, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (memory == MAP_FAILED) return false;
  madvise(memory, size, MADV_HUGEPAGE);  // fewer, larger transfers
  size_t done = 0;
  while (done < size) {
    const ssize_t got =
        pread(direct_fd_, static_cast<char*>(memory) + done, size - done, begin + static_cast<int64_t>(done));
    if (got < 0 && errno == EINTR) continue;
    if (got <= 0) break;
    done += static_cast<size_t>(got);
  }
  // The last page of a file may be read in part; behind its end are zeros in a mapping, too.
  const bool whole = begin + static_cast<int64_t>(done) >= std::min(end, size_bytes_);
  if (!whole || mprotect(memory, size, PROT_READ) != 0 ||
      mremap(memory, size, size, MREMAP_MAYMOVE | MREMAP_FIXED, data_ + begin) == MAP_FAILED) {
    munmap(memory, size);
    return false;
  }
  read_in_place_.store(true);
  return true;
}

void SafetensorsFile::PopulateDirect(int64_t offset, int64_t size_bytes) const {
  PRISM_CHECK(offset >= 0 && size_bytes >= 0 && size_bytes <= size_bytes_ - offset);
  const auto page = static_cast<int64_t>(sysconf(_SC_PAGESIZE));
  const int64_t begin = offset / page * page;
  const int64_t end = (offset + size_bytes + page - 1) / page * page;
  std::vector<unsigned char> resident(static_cast<size_t>((end - begin) / page));
  const bool cached =
      mincore(data_ + begin, static_cast<size_t>(end - begin), resident.data()) != 0 ||
      std::count_if(resident.begin(), resident.end(), [](unsigned char in) { return (in & 1) != 0; }) * 2 >
          std::ssize(resident);
  if (cached || direct_fd_ < 0 || !ReadInPlace(begin, end)) Populate(offset, size_bytes);
}

void SafetensorsFile::Populate(int64_t offset, int64_t size_bytes) const {
  PRISM_CHECK(offset >= 0 && size_bytes >= 0 && size_bytes <= size_bytes_ - offset);
#ifndef MADV_POPULATE_READ
  constexpr int MADV_POPULATE_READ = 22;  // Linux 5.14
#endif
  const auto page = static_cast<int64_t>(sysconf(_SC_PAGESIZE));
  const int64_t first = offset / page * page;
  if (size_bytes > 0) {
    madvise(data_ + first, static_cast<size_t>(offset + size_bytes - first), MADV_POPULATE_READ);
  }
}

absl::StatusOr<SafetensorsIndex> ParseSafetensorsIndex(absl::string_view file, absl::string_view json_text) {
  const auto fail = [&](absl::string_view problem) {
    return absl::InvalidArgumentError(absl::StrCat(file, ": ", problem));
  };
  if (static_cast<int64_t>(json_text.size()) > kSafetensorsIndexBytesMax) {
    return fail(absl::StrCat(json_text.size(), " bytes, want at most ", kSafetensorsIndexBytesMax));
  }
  const Json json = Json::parse(json_text.begin(), json_text.end(), nullptr, /*allow_exceptions=*/false);
  const auto map = json.is_object() ? json.find("weight_map") : json.end();
  if (!json.is_object() || map == json.end() || !map->is_object())
    return fail("has no object \"weight_map\"");
  SafetensorsIndex index;
  std::set<absl::string_view> shards;
  for (const auto& [name, shard] : map->items()) {
    if (!shard.is_string()) return fail(absl::StrCat("tensor ", Shown(name), " is not placed in a file"));
    const std::string& path = shard.get_ref<const std::string&>();
    if (path.find('/') != std::string::npos || path.find('\0') != std::string::npos ||
        !absl::EndsWith(path, ".safetensors")) {
      return fail(absl::StrCat("tensor ", Shown(name), " is in ", Shown(path),
                               ", want the plain name of a .safetensors file in this folder"));
    }
    index.emplace(name, path);
    shards.insert(path);
    if (static_cast<int64_t>(shards.size()) > kSafetensorsShardsMax) {
      return fail(absl::StrCat("names more than ", kSafetensorsShardsMax, " files"));
    }
  }
  return index;
}

}  // namespace prism
