#include "services/router/media_store.h"

#include <gtest/gtest.h>

#include "common/base/hash.h"
#include "common/wire/status_codec.h"
#include "tests/common/base/manual_clock.h"

namespace prism {
namespace {

class MediaStoreTest : public testing::Test {
 protected:
  std::shared_ptr<const MediaFile> Hold(size_t size, char fill) {
    auto file = store_.Hold(std::string(size, fill));
    EXPECT_TRUE(file.ok()) << file.status();
    return file.ok() ? *file : nullptr;
  }
  std::string Upload(size_t size, char fill) {
    auto file = store_.Upload(std::string(size, fill));
    EXPECT_TRUE(file.ok()) << file.status();
    clock_.Advance(std::chrono::seconds(1));
    return file.ok() ? (*file)->sha256 : "";
  }

  MetricRegistry registry_;
  RouterMetrics metrics_{&registry_};
  ManualClock clock_;
  MediaStore store_{1000, std::chrono::seconds(60), &clock_, &metrics_};
};

TEST_F(MediaStoreTest, AHeldFileIsThereUntilItIsLetGo) {
  std::shared_ptr<const MediaFile> file = Hold(100, 'a');
  EXPECT_EQ(file->bytes, std::string(100, 'a'));
  const Sha256Digest digest = Sha256Of(file->bytes.data(), 100);
  EXPECT_EQ(file->sha256, std::string(digest.begin(), digest.end()));
  EXPECT_EQ(store_.bytes(), 100);
  file.reset();
  EXPECT_EQ(store_.bytes(), 0);
}

TEST_F(MediaStoreTest, TheSameBytesAreKeptOnce) {
  const std::shared_ptr<const MediaFile> one = Hold(100, 'a');
  std::shared_ptr<const MediaFile> two = Hold(100, 'a');
  EXPECT_EQ(one.get(), two.get());
  EXPECT_EQ(store_.bytes(), 100);
  two.reset();
  EXPECT_EQ(store_.bytes(), 100);
}

TEST_F(MediaStoreTest, AnUploadStaysAndIsFoundByItsId) {
  const std::string id = Upload(100, 'a');
  EXPECT_EQ(store_.bytes(), 100);
  const auto found = store_.Find(id);
  ASSERT_TRUE(found.ok());
  EXPECT_EQ((*found)->bytes.size(), 100u);
  EXPECT_EQ(store_.Find(std::string(32, 'x')).status().code(), absl::StatusCode::kNotFound);
}

TEST_F(MediaStoreTest, WhatIsInUseIsRefusedRoomAndNeverGivenUp) {
  const std::shared_ptr<const MediaFile> used = Hold(900, 'a');
  const absl::Status full = store_.Hold(std::string(101, 'b')).status();
  EXPECT_EQ(full.code(), absl::StatusCode::kResourceExhausted);
  EXPECT_EQ(full.message(),
            "pictures of running chats have 900 bytes, with 101 more they are over the budget of 1000");
  EXPECT_TRUE(RetryDelayMsOf(full).has_value());
  EXPECT_TRUE(store_.Hold(std::string(100, 'b')).ok());
}

TEST_F(MediaStoreTest, IdleUploadsMakeRoomOldestFirst) {
  const std::string oldest = Upload(300, 'a');
  const std::string middle = Upload(300, 'b');
  const std::string newest = Upload(300, 'c');
  // Using the oldest makes it the youngest.
  {
    const auto use = store_.Find(oldest);
  }
  const std::shared_ptr<const MediaFile> held = Hold(400, 'd');
  EXPECT_TRUE(store_.Find(oldest).ok());
  EXPECT_FALSE(store_.Find(middle).ok());
  EXPECT_TRUE(store_.Find(newest).ok());
}

TEST_F(MediaStoreTest, AFileThatCannotFitDrivesNothingOut) {
  const std::string id = Upload(300, 'a');
  EXPECT_FALSE(store_.Hold(std::string(1001, 'b')).ok());
  EXPECT_TRUE(store_.Find(id).ok());
}

TEST_F(MediaStoreTest, UploadsNobodyUsesGoAfterTheirTime) {
  const std::string id = Upload(300, 'a');
  clock_.Advance(std::chrono::seconds(61));
  Upload(1, 'b');
  EXPECT_FALSE(store_.Find(id).ok());
  EXPECT_EQ(store_.bytes(), 1);
}

TEST_F(MediaStoreTest, ReservationsCountAgainstTheBudget) {
  EXPECT_TRUE(store_.Reserve(800).ok());
  EXPECT_FALSE(store_.Hold(std::string(201, 'a')).ok());
  EXPECT_FALSE(store_.Reserve(201).ok());
  EXPECT_EQ(metrics_.media_bytes.value(), 800);
  store_.Unreserve(800);
  EXPECT_EQ(metrics_.media_bytes.value(), 0);
  EXPECT_TRUE(store_.Hold(std::string(201, 'a')).ok());
}

}  // namespace
}  // namespace prism
