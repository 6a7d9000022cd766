#include "common/checkpoint/read_ahead.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstring>
#include <filesystem>
#include <map>
#include <thread>

#include "common/checkpoint/checkpoint.h"
#include "tests/common/base/eventually.h"
#include "tests/common/checkpoint/test_files.h"

namespace prism {
namespace {

constexpr int64_t kTensorBytes = 20 << 20;

// Parameter: whether it reads past the page cache.
class ReadAheadTest : public testing::TestWithParam<bool> {};

// A file of three tensors of 20 MiB.
std::unique_ptr<SafetensorsFile> BigFile(const ScratchFolder& folder) {
  std::vector<TensorToWrite> tensors;
  for (const char name : {'a', 'b', 'c'}) {
    tensors.push_back({std::string(1, name), "U8", {kTensorBytes}, std::string(kTensorBytes, name)});
  }
  folder.Write("big.safetensors", SafetensorsImage(tensors));
  absl::StatusOr<std::unique_ptr<SafetensorsFile>> file =
      SafetensorsFile::Open(folder.File("big.safetensors"));
  EXPECT_TRUE(file.ok()) << file.status();
  return *std::move(file);
}

std::vector<ReadAhead::Piece> PiecesOf(const SafetensorsFile& file) {
  std::vector<ReadAhead::Piece> pieces;
  for (const SafetensorsEntry& entry : file.entries())
    pieces.push_back({&file, entry.offset, entry.size_bytes});
  return pieces;
}

// Waits until it has read `bytes`.
bool Reads(const ReadAhead& ahead, int64_t bytes) {
  return Eventually([&] { return ahead.bytes_read() >= bytes; });
}

TEST_P(ReadAheadTest, ReadsEverythingOnceTheWindowIsWideEnough) {
  const ScratchFolder folder;
  const std::unique_ptr<SafetensorsFile> file = BigFile(folder);
  ReadAhead ahead(PiecesOf(*file),
                  {.num_threads = 3, .window_bytes = int64_t{1} << 30, .direct = GetParam()});
  EXPECT_TRUE(Reads(ahead, 3 * kTensorBytes));
  EXPECT_EQ(ahead.bytes_read(), 3 * kTensorBytes);
  for (const SafetensorsEntry& entry : file->entries()) {
    EXPECT_EQ(file->bytes(entry)[0], static_cast<uint8_t>(entry.name[0]));
    EXPECT_EQ(file->bytes(entry)[kTensorBytes - 1], static_cast<uint8_t>(entry.name[0]));
  }
}

TEST_P(ReadAheadTest, TellsEachReadOnceInPieces) {
  const ScratchFolder folder;
  const std::unique_ptr<SafetensorsFile> file = BigFile(folder);
  Mutex mutex;
  std::map<int64_t, int64_t> reads;  // by offset
  {
    ReadAhead ahead(PiecesOf(*file), {.num_threads = 3,
                                      .window_bytes = int64_t{1} << 30,
                                      .direct = GetParam(),
                                      .on_read = [&](const ReadAhead::Piece& read) {
                                        MutexLock lock(&mutex);
                                        EXPECT_TRUE(reads.emplace(read.offset, read.size_bytes).second)
                                            << read.offset;
                                      }});
    EXPECT_TRUE(Reads(ahead, 3 * kTensorBytes));
  }
  std::map<int64_t, int64_t> expected;
  for (const SafetensorsEntry& entry : file->entries()) {
    expected[entry.offset] = ReadAhead::kReadBytes;
    expected[entry.offset + ReadAhead::kReadBytes] = kTensorBytes - ReadAhead::kReadBytes;
  }
  EXPECT_EQ(reads, expected);
}

TEST_P(ReadAheadTest, StaysWithinTheWindowUntilTensorsAreReleased) {
  const ScratchFolder folder;
  const std::unique_ptr<SafetensorsFile> file = BigFile(folder);
  const std::vector<SafetensorsEntry>& entries = file->entries();
  constexpr int64_t kWindow = 10 << 20;
  ReadAhead ahead(PiecesOf(*file), {.num_threads = 2, .window_bytes = kWindow, .direct = GetParam()});
  EXPECT_TRUE(Reads(ahead, kWindow));
  std::this_thread::sleep_for(std::chrono::milliseconds(50));
  EXPECT_LE(ahead.bytes_read(), kWindow + ReadAhead::kReadBytes);
  file->Release(file->bytes(entries[0]), kTensorBytes);
  EXPECT_TRUE(Reads(ahead, kWindow + kTensorBytes));
  std::this_thread::sleep_for(std::chrono::milliseconds(50));
  EXPECT_LE(ahead.bytes_read(), kWindow + kTensorBytes + ReadAhead::kReadBytes);
}

TEST_P(ReadAheadTest, EndsWhileItWaits) {
  const ScratchFolder folder;
  const std::unique_ptr<SafetensorsFile> file = BigFile(folder);
  const auto began = std::chrono::steady_clock::now();
  {
    const ReadAhead ahead(PiecesOf(*file), {.num_threads = 8, .direct = GetParam()});
  }
  EXPECT_LT(std::chrono::steady_clock::now() - began, std::chrono::seconds(20));
}

TEST_P(ReadAheadTest, GivesWhatItReadAndWhatTheFileHasOnceItIsReleased) {
  const ScratchFolder folder;
  const std::unique_ptr<SafetensorsFile> file = BigFile(folder);
  // Caches dropped, as far as this process may: a page cache that holds the file is read from instead.
  const int fd = open(folder.File("big.safetensors").c_str(), O_RDONLY);
  ASSERT_GE(fd, 0);
  fsync(fd);
  posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED);
  close(fd);
  const auto expect_all = [&](const SafetensorsEntry& entry) {
    const uint8_t* const bytes = file->bytes(entry);
    EXPECT_EQ(std::count(bytes, bytes + kTensorBytes, static_cast<uint8_t>(entry.name[0])), kTensorBytes);
  };
  ReadAhead ahead(PiecesOf(*file),
                  {.num_threads = 4, .window_bytes = ReadAhead::kReadBytes, .direct = GetParam()});
  for (const SafetensorsEntry& entry : file->entries()) {
    ahead.Await(file.get(), entry.offset, kTensorBytes);
    expect_all(entry);
    file->Release(file->bytes(entry), kTensorBytes);
    expect_all(entry);
  }
  EXPECT_TRUE(Reads(ahead, 3 * kTensorBytes));
}

INSTANTIATE_TEST_SUITE_P(Direct, ReadAheadTest, testing::Bool());

TEST(CheckpointReadAheadTest, ReadsTheTensorsOfItsPartAlone) {
  const ScratchFolder folder;
  for (const auto& file : std::filesystem::directory_iterator(ModelFolder("dense-micro"))) {
    std::filesystem::copy(file, folder.path());
  }
  const auto synthetic = Checkpoint::Open(folder.path(), {.format = LoadFormat::kSynthetic});
  ASSERT_TRUE(synthetic.ok()) << synthetic.status();
  EXPECT_EQ((*synthetic)->StartReadAhead(), nullptr);
  std::vector<TensorToWrite> tensors;
  int64_t text_bytes = 0;
  for (const WeightSpec& spec : (*synthetic)->weights()) {
    tensors.push_back(ToWrite(spec.name, (*synthetic)->Get(spec.name)->view()));
    if (PartOfName(spec.name) == CheckpointPart::kText)
      text_bytes += static_cast<int64_t>(tensors.back().bytes.size());
  }
  folder.Write("model.safetensors", SafetensorsImage(tensors));
  const auto stored = Checkpoint::Open(folder.path(), {.part = CheckpointPart::kText});
  ASSERT_TRUE(stored.ok()) << stored.status();
  std::unique_ptr<ReadAhead> ahead = (*stored)->StartReadAhead(/*direct=*/true);
  ASSERT_NE(ahead, nullptr);
  for (const WeightSpec& spec : (*stored)->weights()) {
    LoadedTensor read = *(*stored)->Get(spec.name);
    EXPECT_EQ(std::memcmp(read.view().raw(), (*synthetic)->Get(spec.name)->view().raw(),
                          static_cast<size_t>(read.view().size_bytes())),
              0)
        << spec.name;
    (*stored)->Release(std::move(read));
  }
  EXPECT_TRUE(Reads(*ahead, text_bytes));
  EXPECT_EQ(ahead->bytes_read(), text_bytes);
  // What it hashed is what the digest would have hashed.
  ahead.reset();
  const auto unread = Checkpoint::Open(folder.path(), {.part = CheckpointPart::kText});
  ASSERT_TRUE(unread.ok()) << unread.status();
  EXPECT_EQ((*stored)->WeightsDigest(CheckpointPart::kText).value(),
            (*unread)->WeightsDigest(CheckpointPart::kText).value());
}

}  // namespace
}  // namespace prism
