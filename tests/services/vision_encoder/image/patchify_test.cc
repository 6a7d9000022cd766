#include "services/vision_encoder/image/patchify.h"

#include <gtest/gtest.h>
#include <hwy/targets.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <random>

#include "services/vision_encoder/image/image_decoder.h"
#include "services/vision_encoder/image/resize.h"
#include "services/vision_encoder/image/smart_resize.h"
#include "services/vision_encoder/image/video_frames.h"
#include "tests/services/vision_encoder/image/picture_files.h"

namespace prism {
namespace {

using ::prism::testing::OraclePicture;

constexpr PixelBounds kCheckpoint{.min_pixels = 65536, .max_pixels = 16777216};

RgbImage Random(ImageSize size, uint32_t seed) {
  std::mt19937 rng(seed);
  RgbImage image(size);
  for (int64_t i = 0; i < image.size_bytes(); ++i) image.data()[i] = static_cast<uint8_t>(rng() >> 8);
  return image;
}

void ExpectFormula(const std::vector<const RgbImage*>& frames, absl::Span<const float> patches) {
  const PatchGridSize grid = GridOf(static_cast<int64_t>(frames.size()), frames[0]->size());
  size_t at = 0;
  for (int64_t t = 0; t < grid.t; ++t)
    for (int64_t br = 0; br < grid.h / 2; ++br)
      for (int64_t bc = 0; bc < grid.w / 2; ++bc)
        for (int64_t i = 0; i < 2; ++i)
          for (int64_t j = 0; j < 2; ++j)
            for (int64_t c = 0; c < 3; ++c)
              for (int64_t f = 0; f < 2; ++f)
                for (int64_t y = 0; y < 16; ++y)
                  for (int64_t x = 0; x < 16; ++x, ++at) {
                    const RgbImage& frame = *frames[frames.size() == 1 ? 0 : static_cast<size_t>(2 * t + f)];
                    const uint8_t sample = frame.row((2 * br + i) * 16 + y)[((2 * bc + j) * 16 + x) * 3 + c];
                    ASSERT_EQ(patches[at], (static_cast<float>(sample) - 127.5f) / 127.5f) << at;
                  }
  EXPECT_EQ(at, patches.size());
}

TEST(PatchifyTest, FollowsTheFormulaOnEveryInstructionSet) {
  const RgbImage a = Random({.height = 64, .width = 96}, 1);
  const RgbImage b = Random({.height = 64, .width = 96}, 2);
  const auto targets = hwy::SupportedTargets();
  for (auto left = targets; left != 0; left &= left - 1) {
    hwy::SetSupportedTargetsForTest(left & -left);
    hwy::GetChosenTarget().Update(hwy::SupportedTargets());
    for (const std::vector<const RgbImage*>& frames :
         {std::vector<const RgbImage*>{&a}, std::vector<const RgbImage*>{&a, &b, &b, &a}}) {
      const int64_t count =
          GridOf(static_cast<int64_t>(frames.size()), a.size()).num_patches() * kPatchValues;
      const Tensor tensor = Tensor::Host(DType::kF32, {count + 16});
      const absl::Span<float> patches = tensor.span<float>();
      std::fill(patches.begin(), patches.end(), std::numeric_limits<float>::quiet_NaN());
      PatchifyInto(frames, patches.subspan(0, static_cast<size_t>(count)));
      ExpectFormula(frames, patches.subspan(0, static_cast<size_t>(count)));
      for (size_t i = static_cast<size_t>(count); i < patches.size(); ++i) {
        EXPECT_TRUE(std::isnan(patches[i])) << "wrote past the end";
      }
    }
  }
  hwy::SetSupportedTargetsForTest(0);
  hwy::GetChosenTarget().Update(hwy::SupportedTargets());
}

// The patches as the bytes they were made of: [P, 3 * 256] of a picture, [P, 1536] of a video.
std::string AsBytes(const PatchGrid& grid, bool one_frame) {
  std::string bytes;
  const absl::Span<const float> values = grid.patches.span<float>();
  for (size_t i = 0; i < values.size(); ++i) {
    if (one_frame && i / 256 % 2 == 1) {
      EXPECT_EQ(values[i], values[i - 256]);
      continue;
    }
    const int sample = static_cast<int>(std::lround(values[i] * 127.5 + 127.5));
    EXPECT_EQ(values[i], (static_cast<float>(sample) - 127.5f) / 127.5f);
    bytes.push_back(static_cast<char>(sample));
  }
  return bytes;
}

struct OracleCase {
  const char* picture;
  PatchGridSize grid;
  const char* digest;  // sha256 of the reference's patches as bytes, one frame
};

class OracleTest : public ::testing::TestWithParam<OracleCase> {};

TEST_P(OracleTest, GivesTheReferencesPatchesByteForByte) {
  const OracleCase& c = GetParam();
  auto image = DecodeImage(OraclePicture(c.picture), {.alpha = AlphaMode::kDrop});
  ASSERT_TRUE(image.ok()) << image.status();
  const auto size = SmartResize(image->size(), kCheckpoint);
  ASSERT_TRUE(size.ok());
  const PatchGrid grid = Patchify(ResizeBicubic(*std::move(image), *size));
  EXPECT_EQ(grid.size, c.grid);
  const std::string bytes = AsBytes(grid, true);
  EXPECT_EQ(Hex(Sha256Of(bytes.data(), bytes.size())), c.digest);
}

// From pixel_values of the cases image_photo, image_rgba, image_small, image_two_turns and
// image_wide_gray.
INSTANTIATE_TEST_SUITE_P(
    Cases, OracleTest,
    ::testing::Values(
        OracleCase{
            "astronaut.jpg", {1, 22, 30}, "834b47533b59d67a7b2df40712c9046bf37b869cb2bd510047abcfdd824028c8"},
        OracleCase{
            "rgba.png", {1, 16, 16}, "3471902ad4015187e4c06ea01bbc76928624ece2126911beb1f85b328a165f8b"},
        OracleCase{
            "tiny.png", {1, 14, 20}, "3d6938ade2532c0a01885fd801eacd971b58fa32d9c24567d636c36be7fca0b7"},
        OracleCase{
            "coffee.jpg", {1, 24, 38}, "5fe7221ea89e0bdde0c7215299043a8d512f6ca018097d1fb02c9b01343799f7"},
        OracleCase{
            "rocket.jpg", {1, 26, 40}, "5e86a8a82f2c86579298b489535a5e976ad2605f67f5496dc3876124638bd185"},
        OracleCase{"wide_gray.png",
                   {1, 6, 50},
                   "07d542b102e9492fe2dc334f2d610d80d401719b28251afbdeaa9db335ff7187"}));

TEST(OracleFloatTest, GivesTheReferencesPixelValuesBitForBit) {
  auto image = DecodeImage(OraclePicture("tiny.png"));
  ASSERT_TRUE(image.ok());
  const PatchGrid grid = Patchify(ResizeBicubic(*std::move(image), {.height = 224, .width = 320}));
  const absl::Span<const float> values = grid.patches.span<float>();
  EXPECT_EQ(Hex(Sha256Of(values.data(), values.size() * sizeof(float))),
            "1385900bb3f56e23c9709213f3c2286bd6974c760b5cdfaffbe5aecc5e55d4b5");
}

// Crops of `image` that move by (step, step / 2) a frame.
std::vector<RgbImage> Pan(const RgbImage& image, int num_frames, ImageSize size, int64_t step) {
  std::vector<RgbImage> frames;
  for (int i = 0; i < num_frames; ++i) {
    RgbImage& frame = frames.emplace_back(size);
    for (int64_t y = 0; y < size.height; ++y) {
      std::copy_n(image.row(step * i / 2 + y) + step * i * 3, frame.row_bytes(), frame.row(y));
    }
  }
  return frames;
}

TEST(VideoFramesTest, GivesTheReferencesPatchesOfAnOddNumberOfFrames) {
  const auto image = DecodeImage(OraclePicture("astronaut.jpg"));
  ASSERT_TRUE(image.ok());
  const auto grid = PatchifyVideo(Pan(*image, 9, {.height = 128, .width = 160}, 24),
                                  {.min_pixels = 4096, .max_pixels = 25165824});
  ASSERT_TRUE(grid.ok()) << grid.status();
  EXPECT_EQ(grid->size, (PatchGridSize{5, 8, 10}));
  const std::string bytes = AsBytes(*grid, false);
  EXPECT_EQ(Hex(Sha256Of(bytes.data(), bytes.size())),
            "b1bb12845b38e83ff9d11cdc6121ea2b078bf879581edc66ccd6c408ef296fd6");
}

TEST(VideoFramesTest, RefusesTooFewFramesAndFramesOfDifferentSizes) {
  const PixelBounds bounds{.min_pixels = 4096, .max_pixels = 25165824};
  std::vector<RgbImage> one;
  one.emplace_back(ImageSize{.height = 64, .width = 64});
  EXPECT_EQ(PatchifyVideo(std::move(one), bounds).status().message(),
            "the video has 1 frames, want at least 2");
  std::vector<RgbImage> two;
  two.push_back(Random({.height = 64, .width = 64}, 1));
  two.push_back(Random({.height = 64, .width = 32}, 1));
  EXPECT_EQ(PatchifyVideo(std::move(two), bounds).status().message(),
            "frame 1 is 32 x 64 pixels, frame 0 is 64 x 64");
}

}  // namespace
}  // namespace prism
