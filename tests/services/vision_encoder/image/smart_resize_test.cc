#include "services/vision_encoder/image/smart_resize.h"

#include <gtest/gtest.h>

namespace prism {
namespace {

constexpr PixelBounds kCheckpoint{.min_pixels = 65536, .max_pixels = 16777216};
constexpr PixelBounds kVideo{.min_pixels = 4096, .max_pixels = 25165824};

struct Case {
  ImageSize from, to;
  int64_t tokens;
};

void ExpectBounds(const absl::StatusOr<PixelBounds>& bounds, int64_t min_pixels, int64_t max_pixels) {
  ASSERT_TRUE(bounds.ok()) << bounds.status();
  EXPECT_EQ(bounds->min_pixels, min_pixels);
  EXPECT_EQ(bounds->max_pixels, max_pixels);
}

class SmartResizeTest : public ::testing::TestWithParam<Case> {};

TEST_P(SmartResizeTest, ChoosesTheReferencesSize) {
  const auto size = SmartResize(GetParam().from, kCheckpoint);
  ASSERT_TRUE(size.ok());
  EXPECT_EQ(size->height, GetParam().to.height);
  EXPECT_EQ(size->width, GetParam().to.width);
  EXPECT_EQ(NumVisualTokens(*size), GetParam().tokens);
}

INSTANTIATE_TEST_SUITE_P(
    Table, SmartResizeTest,
    ::testing::Values(Case{{768, 1024}, {768, 1024}, 768}, Case{{1024, 768}, {1024, 768}, 768},
                      Case{{1080, 1920}, {1088, 1920}, 2040}, Case{{720, 1280}, {704, 1280}, 880},
                      Case{{427, 640}, {416, 640}, 260}, Case{{336, 336}, {320, 320}, 100},
                      Case{{3024, 4032}, {3008, 4032}, 11844}, Case{{100, 100}, {256, 256}, 64},
                      Case{{20, 30}, {224, 320}, 70}, Case{{40, 384}, {96, 800}, 75},
                      Case{{16, 3000}, {32, 3520}, 110}, Case{{6000, 8000}, {3520, 4704}, 16170},
                      Case{{4096, 4096}, {4096, 4096}, 16384}));

TEST(SmartResizeBoundsTest, RefusesAnAspectRatioAboveTwoHundred) {
  EXPECT_TRUE(SmartResize({.height = 28, .width = 5600}, kCheckpoint).ok());
  const auto size = SmartResize({.height = 28, .width = 5601}, kCheckpoint);
  EXPECT_EQ(size.status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(size.status().message(),
            "the picture is 5601 x 28 pixels; its aspect ratio is above the limit of 200");
}

TEST(SmartResizeBoundsTest, EnlargesOnePixel) {
  EXPECT_EQ(*SmartResize({.height = 1, .width = 1}, kCheckpoint), (ImageSize{.height = 256, .width = 256}));
}

TEST(SmartResizeBoundsTest, NeverGoesBelowOneBlock) {
  EXPECT_EQ(*SmartResize({.height = 10, .width = 10}, {.min_pixels = 1, .max_pixels = 1}),
            (ImageSize{.height = 32, .width = 32}));
  EXPECT_EQ(*SmartResize({.height = 40, .width = 4000}, {.min_pixels = 1, .max_pixels = 1024}),
            (ImageSize{.height = 32, .width = 320}));
}

struct VideoCase {
  int64_t num_frames;
  ImageSize from, to;
};

class SmartResizeVideoTest : public ::testing::TestWithParam<VideoCase> {};

TEST_P(SmartResizeVideoTest, ChoosesTheReferencesSize) {
  const VideoCase& c = GetParam();
  const auto size = SmartResizeVideo(c.num_frames, c.from, kVideo);
  ASSERT_TRUE(size.ok());
  EXPECT_EQ(size->height, c.to.height);
  EXPECT_EQ(size->width, c.to.width);
}

TEST(ResolveClipBoundsTest, KeepsAClipUnderTheServersTokens) {
  // Two frames share their tokens, so 256 tokens are 512 blocks of 1024 pixels.
  PixelBudget budget{.checkpoint_clip = kVideo, .image_tokens_max = 256};
  EXPECT_EQ(ResolveClipBounds(budget).max_pixels, 512 * 1024);
  EXPECT_EQ(ResolveClipBounds(budget).min_pixels, kVideo.min_pixels);
  budget.image_tokens_max = 1;
  EXPECT_EQ(ResolveClipBounds(budget).min_pixels, 2048);
  budget.image_tokens_max = 1 << 20;
  EXPECT_EQ(ResolveClipBounds(budget).max_pixels, kVideo.max_pixels);
}

INSTANTIATE_TEST_SUITE_P(Table, SmartResizeVideoTest,
                         ::testing::Values(VideoCase{20, {1080, 1920}, {832, 1472}},
                                           VideoCase{768, {1080, 1920}, {128, 224}},
                                           VideoCase{120, {720, 1280}, {320, 608}},
                                           VideoCase{60, {360, 640}, {352, 640}},
                                           VideoCase{9, {128, 160}, {128, 160}},
                                           // Enlarged to 32 x 64 first.
                                           VideoCase{8, {16, 32}, {32, 64}}));

TEST(ResolveBoundsTest, TakesTheCheckpointsBoundsUnderTheServersLimit) {
  const PixelBudget budget{.checkpoint = kCheckpoint, .image_tokens_max = 4096};
  ExpectBounds(ResolveBounds(budget, 0, 0), 65536, 4096 * 1024);
  ExpectBounds(ResolveBounds({.checkpoint = kCheckpoint, .image_tokens_max = 1 << 20}, 0, 0), 65536,
               16777216);
}

TEST(ResolveBoundsTest, LetsARequestChooseBelowTheLimit) {
  const PixelBudget budget{.checkpoint = kCheckpoint, .image_tokens_max = 4096};
  ExpectBounds(ResolveBounds(budget, 2048, 500'000), 2048, 500'000);
  EXPECT_EQ(ResolveBounds(budget, 0, 1'000'000'000)->max_pixels, 4096 * 1024);
  EXPECT_EQ(ResolveBounds(budget, 0, 10'000)->min_pixels, 10'000);
  const auto status = ResolveBounds(budget, 20'000'000, 0).status();
  EXPECT_EQ(status.message(), "min_pixels is 20000000, above the largest size of 4194304 pixels");
}

}  // namespace
}  // namespace prism
