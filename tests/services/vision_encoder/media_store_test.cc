#include "services/vision_encoder/media_store.h"

#include <gtest/gtest.h>

#include "services/vision_encoder/content_key.h"
#include "tests/services/vision_encoder/fakes.h"

namespace prism {
namespace {

using ::prism::testing::PictureOf;

absl::StatusOr<StoredFile> Put(MediaStore& store, const std::string& bytes) {
  auto upload = store.StartUpload();
  if (!upload.ok()) return upload.status();
  for (size_t at = 0; at < bytes.size(); at += 7) {
    const absl::Status status = (*upload)->Add(absl::string_view(bytes).substr(at, 7));
    if (!status.ok()) return status;
  }
  return (*upload)->Finish();
}

TEST(MediaStoreTest, GivesTheSameIdForTheSameBytesHoweverTheyCame) {
  MediaStore store({});
  const auto first = Put(store, "a picture's bytes");
  ASSERT_TRUE(first.ok());
  const Sha256Digest digest = Sha256Of("a picture's bytes", 17);
  EXPECT_EQ(first->sha256, std::string(digest.begin(), digest.end()));
  const auto again = Put(store, "a picture's bytes");
  ASSERT_TRUE(again.ok());
  EXPECT_EQ(again->sha256, first->sha256);
  EXPECT_EQ(*store.Find(first->sha256), "a picture's bytes");
  EXPECT_EQ(store.used_bytes(), 17);
  EXPECT_EQ(store.Find("unknown"), nullptr);
}

TEST(MediaStoreTest, RefusesAFileAboveItsLimitAndAnEmptyOne) {
  MediaStore store({.file_bytes_max = 10});
  EXPECT_TRUE(Put(store, "0123456789").ok());
  EXPECT_EQ(Put(store, "0123456789a").status().message(),
            "the file has more than 10 bytes, the limit of one file");
  EXPECT_EQ(Put(store, "").status().message(), "the file has 0 bytes");
  EXPECT_EQ(store.used_bytes(), 10);
}

TEST(MediaStoreTest, ThrowsOutTheLeastRecentlyUsedFileThatNobodyReads) {
  MediaStore store({.bytes_max = 30});
  const std::string a = Put(store, "aaaaaaaaaa")->sha256;
  const std::string b = Put(store, "bbbbbbbbbb")->sha256;
  const std::string c = Put(store, "cccccccccc")->sha256;
  const SharedFile reading = store.Find(a);
  store.Find(b);
  EXPECT_TRUE(Put(store, "dddddddddd").ok());
  EXPECT_NE(store.Find(a), nullptr);
  EXPECT_NE(store.Find(b), nullptr);
  EXPECT_EQ(store.Find(c), nullptr);
}

TEST(MediaStoreTest, CountsUploadsUnderWayAndForgetsThoseThatStop) {
  MediaStore store({.bytes_max = 20, .uploads_max = 2});
  {
    auto first = store.StartUpload();
    ASSERT_TRUE((*first)->Add("0123456789").ok());
    auto second = store.StartUpload();
    ASSERT_TRUE((*second)->Add("0123456789").ok());
    EXPECT_EQ((*second)->Add("x").message(), "20 of 20 bytes for media are in use; 1 more do not fit");
    EXPECT_EQ(store.StartUpload().status().message(), "2 uploads are under way, the limit");
  }
  EXPECT_EQ(store.used_bytes(), 0);
  EXPECT_TRUE(Put(store, "0123456789").ok());
}

ContentKey KeyOf(const RgbImage& image, const ProcessorChoice& choice, const KeyScope& scope) {
  return ComputeContentKey(absl::MakeConstSpan(&image, 1), choice, scope);
}

TEST(ContentKeyTest, DependsOnEverythingThatAnEmbeddingDependsOn) {
  const RgbImage image = PictureOf(1);
  const ProcessorChoice choice{.alpha = AlphaMode::kWhite,
                               .bounds = {.min_pixels = 1024, .max_pixels = 4096}};
  const KeyScope scope{.weights_digest = "w", .numerics_id = "n", .salt = "s"};
  std::vector<ContentKey> keys = {KeyOf(image, choice, scope)};
  EXPECT_EQ(keys[0].size(), 32u);
  EXPECT_EQ(KeyOf(PictureOf(1), choice, scope), keys[0]);
  keys.push_back(KeyOf(PictureOf(2), choice, scope));
  // The same bytes in another shape.
  keys.push_back(KeyOf(PictureOf(1, {.height = 16, .width = 64}), choice, scope));
  keys.push_back(KeyOf(image, {.alpha = AlphaMode::kDrop, .bounds = choice.bounds}, scope));
  keys.push_back(KeyOf(image, {.bounds = {.min_pixels = 1025, .max_pixels = 4096}}, scope));
  keys.push_back(KeyOf(image, {.bounds = {.min_pixels = 1024, .max_pixels = 4097}}, scope));
  keys.push_back(KeyOf(image, choice, {.weights_digest = "W", .numerics_id = "n", .salt = "s"}));
  keys.push_back(KeyOf(image, choice, {.weights_digest = "w", .numerics_id = "N", .salt = "s"}));
  keys.push_back(KeyOf(image, choice, {.weights_digest = "w", .numerics_id = "n", .salt = ""}));
  keys.push_back(KeyOf(image, choice, {.weights_digest = "w", .numerics_id = "ns", .salt = ""}));
  // Clips: of the same frames twice, in another order, and one frame more.
  std::vector<RgbImage> frames;
  for (const uint8_t mark : {1, 1}) frames.push_back(PictureOf(mark));
  keys.push_back(ComputeContentKey(frames, choice, scope));
  frames.push_back(PictureOf(2));
  keys.push_back(ComputeContentKey(frames, choice, scope));
  std::swap(frames[0], frames[2]);
  keys.push_back(ComputeContentKey(frames, choice, scope));
  for (size_t i = 0; i < keys.size(); ++i) {
    for (size_t j = 0; j < i; ++j) EXPECT_NE(keys[i], keys[j]) << i << " and " << j;
  }
  EXPECT_NE(ComputeFileKey("a", {}, choice, ""), ComputeFileKey("a", {}, choice, "tenant"));
  EXPECT_NE(ComputeFileKey("a", {}, choice, ""), ComputeFileKey("b", {}, choice, ""));
  const std::vector<uint32_t> halves = {2, 2}, other_halves = {1, 3};
  EXPECT_NE(ComputeFileKey("a", halves, choice, ""), ComputeFileKey("a", {}, choice, ""));
  EXPECT_NE(ComputeFileKey("a", halves, choice, ""), ComputeFileKey("a", other_halves, choice, ""));
}

}  // namespace
}  // namespace prism
