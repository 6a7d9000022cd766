#include "common/checkpoint/write_checkpoint.h"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <memory>
#include <system_error>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "common/base/status.h"
#include "common/base/thread.h"
#include "nlohmann/json.hpp"

namespace prism {
namespace {

using Json = nlohmann::ordered_json;

// Bytes that one write makes and hands over.
constexpr int64_t kPieceBytes = 64 << 20;
constexpr int64_t kElementBytes = 2;  // bf16

int64_t BytesOf(const WeightSpec& weight) { return weight.shape.num_elements() * kElementBytes; }

// The tensors of one file, and its name.
struct Shard {
  std::string name;
  std::vector<const WeightSpec*> weights;
  int64_t size_bytes = 0;
};

std::vector<Shard> Cut(const std::vector<WeightSpec>& weights, int64_t file_bytes_max) {
  std::vector<Shard> shards(1);
  for (const WeightSpec& weight : weights) {
    if (!shards.back().weights.empty() && shards.back().size_bytes + BytesOf(weight) > file_bytes_max) {
      shards.emplace_back();
    }
    shards.back().weights.push_back(&weight);
    shards.back().size_bytes += BytesOf(weight);
  }
  for (size_t i = 0; i < shards.size(); ++i) {
    shards[i].name = shards.size() == 1
                         ? "model.safetensors"
                         : absl::StrFormat("model-%05d-of-%05d.safetensors", i + 1, shards.size());
  }
  return shards;
}

// The length of the JSON and the JSON, filled up with spaces so that the elements are aligned.
std::string HeadOf(const Shard& shard) {
  Json json;
  json["__metadata__"] = {{"format", "pt"}};
  int64_t offset = 0;
  for (const WeightSpec* weight : shard.weights) {
    const std::vector<int64_t> shape(weight->shape.dims().begin(), weight->shape.dims().end());
    json[weight->name] = {
        {"dtype", "BF16"}, {"shape", shape}, {"data_offsets", {offset, offset + BytesOf(*weight)}}};
    offset += BytesOf(*weight);
  }
  std::string text = json.dump();
  text.append((8 - text.size() % 8) % 8, ' ');
  std::string head(8, '\0');
  for (size_t i = 0; i < 8; ++i) head[i] = static_cast<char>(text.size() >> (8 * i) & 0xFF);
  return head + text;
}

class OutputFile {
 public:
  explicit OutputFile(std::string path)
      : path_(std::move(path)), fd_(open(path_.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644)) {}
  ~OutputFile() {
    if (fd_ >= 0) close(fd_);
  }
  OutputFile(const OutputFile&) = delete;
  OutputFile& operator=(const OutputFile&) = delete;

  absl::Status Write(const void* data, int64_t size_bytes) {
    const auto* from = static_cast<const char*>(data);
    while (fd_ >= 0 && size_bytes > 0) {
      const ssize_t written = write(fd_, from, static_cast<size_t>(size_bytes));
      if (written < 0 && errno == EINTR) continue;
      if (written <= 0) return Refused();
      from += written;
      size_bytes -= written;
    }
    return fd_ >= 0 ? absl::OkStatus() : Refused();
  }
  absl::Status Sync() { return fd_ >= 0 && fsync(fd_) == 0 ? absl::OkStatus() : Refused(); }

 private:
  absl::Status Refused() const {
    return absl::FailedPreconditionError(absl::StrCat(path_, ": ", std::strerror(errno)));
  }

  const std::string path_;
  const int fd_;
};

absl::Status WriteShard(const Checkpoint& checkpoint, const std::string& directory, const Shard& shard,
                        int num_threads) {
  ParallelPool pool(num_threads);
  OutputFile file(absl::StrCat(directory, "/", shard.name));
  const std::string head = HeadOf(shard);
  PRISM_RETURN_IF_ERROR(file.Write(head.data(), static_cast<int64_t>(head.size())));
  for (const WeightSpec* weight : shard.weights) {
    const int64_t rows = weight->shape[0];
    const int64_t row_bytes = BytesOf(*weight) / std::max<int64_t>(rows, 1);
    const int64_t step = std::max<int64_t>(1, kPieceBytes / std::max<int64_t>(row_bytes, 1));
    for (int64_t begin = 0; begin < rows; begin += step) {
      PRISM_ASSIGN_OR_RETURN(const LoadedTensor piece,
                             checkpoint.GetRows(weight->name, {begin, std::min(rows, begin + step)}, &pool));
      PRISM_RETURN_IF_ERROR(file.Write(piece.view().raw(), piece.view().size_bytes()));
    }
  }
  return file.Sync();
}

absl::Status WriteText(const std::string& path, const std::string& text) {
  OutputFile file(path);
  PRISM_RETURN_IF_ERROR(file.Write(text.data(), static_cast<int64_t>(text.size())));
  return file.Sync();
}

}  // namespace

absl::Status WriteCheckpoint(const Checkpoint& checkpoint, const std::string& directory,
                             const WriteCheckpointOptions& options) {
  if (!checkpoint.synthetic()) {
    return absl::InvalidArgumentError(
        absl::StrCat(checkpoint.directory(), ": its weights are files already"));
  }
  std::error_code error;
  std::filesystem::create_directories(directory, error);
  if (error) return absl::FailedPreconditionError(absl::StrCat(directory, ": ", error.message()));
  for (const auto& entry : std::filesystem::directory_iterator(checkpoint.directory(), error)) {
    if (!entry.is_regular_file() || absl::StrContains(entry.path().filename().string(), ".safetensors"))
      continue;
    std::filesystem::copy_file(entry.path(), directory / entry.path().filename(),
                               std::filesystem::copy_options::overwrite_existing, error);
    if (error)
      return absl::FailedPreconditionError(absl::StrCat(entry.path().string(), ": ", error.message()));
  }
  const std::vector<Shard> shards = Cut(checkpoint.weights(), options.file_bytes_max);
  const int each = std::max(1, options.num_threads / static_cast<int>(shards.size()));
  std::vector<absl::Status> statuses(shards.size());
  {
    std::vector<NamedThread> writers;
    writers.reserve(shards.size());
    for (size_t i = 0; i < shards.size(); ++i) {
      writers.emplace_back("writer",
                           [&, i] { statuses[i] = WriteShard(checkpoint, directory, shards[i], each); });
    }
  }
  for (const absl::Status& status : statuses) PRISM_RETURN_IF_ERROR(status);
  if (shards.size() == 1) return absl::OkStatus();
  Json index;
  int64_t size_bytes = 0;
  for (const Shard& shard : shards) {
    size_bytes += shard.size_bytes;
    for (const WeightSpec* weight : shard.weights) index["weight_map"][weight->name] = shard.name;
  }
  index["metadata"]["total_size"] = size_bytes;
  return WriteText(absl::StrCat(directory, "/model.safetensors.index.json"), index.dump(2) + "\n");
}

}  // namespace prism
