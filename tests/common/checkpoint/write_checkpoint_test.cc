#include "common/checkpoint/write_checkpoint.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstring>
#include <filesystem>
#include <set>
#include <string>

#include "tests/common/checkpoint/test_files.h"

namespace prism {
namespace {

// Writes the micro model's synthetic weights and compares all that can be read back.
void ExpectWritten(const ScratchFolder& folder, int64_t file_bytes_max) {
  const auto made = Checkpoint::Open(ModelFolder("moe-micro"), {.format = LoadFormat::kSynthetic});
  ASSERT_TRUE(made.ok()) << made.status();
  const absl::Status written =
      WriteCheckpoint(**made, folder.path(), {.file_bytes_max = file_bytes_max, .num_threads = 2});
  ASSERT_TRUE(written.ok()) << written;
  const auto read = Checkpoint::Open(folder.path(), {.format = LoadFormat::kSafetensors});
  ASSERT_TRUE(read.ok()) << read.status();
  ASSERT_EQ((*read)->weights().size(), (*made)->weights().size());
  for (const WeightSpec& weight : (*made)->weights()) {
    const auto a = (*made)->Get(weight.name), b = (*read)->Get(weight.name);
    ASSERT_TRUE(a.ok() && b.ok()) << weight.name << b.status();
    ASSERT_EQ(a->view().shape(), b->view().shape()) << weight.name;
    ASSERT_EQ(b->view().dtype(), DType::kBF16) << weight.name;
    EXPECT_EQ(std::memcmp(a->view().raw(), b->view().raw(), static_cast<size_t>(a->view().size_bytes())), 0)
        << weight.name;
  }
}

std::set<std::string> FilesOf(const ScratchFolder& folder) {
  std::set<std::string> names;
  for (const auto& entry : std::filesystem::directory_iterator(folder.path())) {
    names.insert(entry.path().filename());
  }
  return names;
}

TEST(WriteCheckpointTest, WhatIsReadBackIsWhatWasMade) {
  const ScratchFolder folder;
  ExpectWritten(folder, int64_t{1} << 40);
  EXPECT_TRUE(FilesOf(folder).contains("model.safetensors"));
  EXPECT_TRUE(FilesOf(folder).contains("config.json"));
  EXPECT_FALSE(FilesOf(folder).contains("model.safetensors.index.json"));
}

TEST(WriteCheckpointTest, CutsItIntoFilesWithAnIndex) {
  const ScratchFolder folder;
  ExpectWritten(folder, 300'000);
  EXPECT_TRUE(FilesOf(folder).contains("model.safetensors.index.json"));
  EXPECT_FALSE(FilesOf(folder).contains("model.safetensors"));
  EXPECT_GT(FilesOf(folder).size(), 5u);
}

TEST(WriteCheckpointTest, SaysWhatIsRefused) {
  const ScratchFolder folder;
  ExpectWritten(folder, int64_t{1} << 40);
  const auto stored = Checkpoint::Open(folder.path());
  ASSERT_TRUE(stored.ok()) << stored.status();
  EXPECT_EQ(WriteCheckpoint(**stored, folder.File("again")).code(), absl::StatusCode::kInvalidArgument);
  const auto made = Checkpoint::Open(ModelFolder("moe-micro"), {.format = LoadFormat::kSynthetic});
  ASSERT_TRUE(made.ok()) << made.status();
  const absl::Status refused = WriteCheckpoint(**made, folder.File("config.json"));
  EXPECT_EQ(refused.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(std::string(refused.message()), testing::HasSubstr("config.json"));
}

}  // namespace
}  // namespace prism
