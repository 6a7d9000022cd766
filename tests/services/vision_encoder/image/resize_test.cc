#include "services/vision_encoder/image/resize.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <hwy/targets.h>

#include <algorithm>
#include <cstring>
#include <random>

namespace prism {
namespace {

using ::testing::ElementsAre;

std::vector<int> Row(const AxisWeights& axis, int64_t i) {
  const auto begin = axis.weights.begin() + i * axis.stride;
  return std::vector<int>(begin, begin + axis.count[static_cast<size_t>(i)]);
}

TEST(AxisWeightsTest, HasTheReferencesWeightsWhenHalving) {
  const AxisWeights axis = ComputeAxisWeights(4, 2);
  EXPECT_EQ(axis.precision, 16);
  EXPECT_EQ(axis.first[0], 0);
  EXPECT_THAT(Row(axis, 0), ElementsAre(30060, 30060, 7853, -2437));
  EXPECT_THAT(Row(axis, 1), ElementsAre(-2437, 7853, 30060, 30060));
}

TEST(AxisWeightsTest, HasTheReferencesWeightsWhenDoubling) {
  const AxisWeights axis = ComputeAxisWeights(2, 4);
  EXPECT_EQ(axis.precision, 14);
  EXPECT_THAT(axis.first, ElementsAre(0, 0, 0, 0));
  EXPECT_THAT(Row(axis, 0), ElementsAre(17830, -1446));
  EXPECT_THAT(Row(axis, 1), ElementsAre(12990, 3394));
  EXPECT_THAT(Row(axis, 2), ElementsAre(3394, 12990));
  EXPECT_THAT(Row(axis, 3), ElementsAre(-1446, 17830));
}

TEST(AxisWeightsTest, HasTheReferencesWeightsWhenEnlargingAlot) {
  const AxisWeights axis = ComputeAxisWeights(30, 320);
  EXPECT_EQ(axis.precision, 14);
  EXPECT_THAT(Row(axis, 0), ElementsAre(18372, -1988));
}

TEST(AxisWeightsTest, StaysInsideTheInput) {
  for (const auto& [in, out] :
       {std::pair<int64_t, int64_t>{1, 256}, {65535, 32}, {33, 32}, {3, 1000}, {50000, 49984}}) {
    const AxisWeights axis = ComputeAxisWeights(in, out);
    EXPECT_LE(axis.precision, 21);
    for (size_t i = 0; i < static_cast<size_t>(out); ++i) {
      ASSERT_GE(axis.first[i], 0);
      ASSERT_GE(axis.count[i], 1);
      ASSERT_LE(axis.first[i] + axis.count[i], in);
      ASSERT_LE(axis.count[i], axis.stride);
    }
  }
}

RgbImage Random(ImageSize size, uint32_t seed) {
  std::mt19937 rng(seed);
  RgbImage image(size);
  for (int64_t i = 0; i < image.size_bytes(); ++i) {
    // Extremes often, so that overshoot is clamped.
    const uint32_t r = rng();
    image.data()[i] = r % 4 == 0 ? 0 : r % 4 == 1 ? 255 : static_cast<uint8_t>(r >> 8);
  }
  return image;
}

// The formula, one sample at a time.
RgbImage Reference(const RgbImage& image, ImageSize to) {
  RgbImage wide({.height = image.height(), .width = to.width});
  const auto apply = [](const AxisWeights& axis, int64_t i, auto sample) {
    int64_t sum = int64_t{1} << (axis.precision - 1);
    for (int64_t j = 0; j < axis.count[static_cast<size_t>(i)]; ++j) {
      sum += axis.weights[static_cast<size_t>(i * axis.stride + j)] *
             sample(axis.first[static_cast<size_t>(i)] + j);
    }
    return static_cast<uint8_t>(std::clamp<int64_t>(sum >> axis.precision, 0, 255));
  };
  const AxisWeights across = ComputeAxisWeights(image.width(), to.width);
  for (int64_t y = 0; y < wide.height(); ++y) {
    for (int64_t x = 0; x < wide.width(); ++x) {
      for (int64_t c = 0; c < 3; ++c) {
        wide.row(y)[x * 3 + c] = image.width() == to.width
                                     ? image.row(y)[x * 3 + c]
                                     : apply(across, x, [&](int64_t k) { return image.row(y)[k * 3 + c]; });
      }
    }
  }
  RgbImage out(to);
  const AxisWeights down = ComputeAxisWeights(image.height(), to.height);
  for (int64_t y = 0; y < out.height(); ++y) {
    for (int64_t k = 0; k < out.row_bytes(); ++k) {
      out.row(y)[k] = image.height() == to.height
                          ? wide.row(y)[k]
                          : apply(down, y, [&](int64_t row) { return wide.row(row)[k]; });
    }
  }
  return out;
}

RgbImage Copy(const RgbImage& image) {
  RgbImage copy(image.size());
  std::memcpy(copy.data(), image.data(), static_cast<size_t>(image.size_bytes()));
  return copy;
}

TEST(ResizeTest, GivesTheFormulasBytesOnEveryInstructionSet) {
  std::mt19937 rng(3);
  std::vector<std::pair<ImageSize, ImageSize>> shapes = {
      {{1, 1}, {256, 256}},   {{2, 3}, {1, 1}},       {{5, 1}, {3, 1}},
      {{64, 64}, {64, 96}},   {{64, 64}, {96, 64}},   {{40, 384}, {96, 800}},
      {{333, 500}, {32, 32}}, {{7, 1400}, {32, 320}}, {{33, 2}, {31, 5}},
  };
  for (int i = 0; i < 12; ++i) {
    const auto side = [&rng] { return static_cast<int64_t>(1 + rng() % 90); };
    shapes.push_back({{side(), side()}, {side(), side()}});
  }
  const auto targets = hwy::SupportedTargets();
  int num_targets = 0;
  for (auto left = targets; left != 0; left &= left - 1) {
    const auto target = left & -left;
    hwy::SetSupportedTargetsForTest(target);
    hwy::GetChosenTarget().Update(hwy::SupportedTargets());
    ++num_targets;
    uint32_t seed = 0;
    for (const auto& [from, to] : shapes) {
      const RgbImage image = Random(from, ++seed);
      const RgbImage want = Reference(image, to);
      const RgbImage got = ResizeBicubic(Copy(image), to);
      ASSERT_EQ(got.size(), to);
      ASSERT_EQ(std::memcmp(got.data(), want.data(), static_cast<size_t>(want.size_bytes())), 0)
          << hwy::TargetName(target) << " from " << from.height << " x " << from.width << " to " << to.height
          << " x " << to.width;
    }
  }
  hwy::SetSupportedTargetsForTest(0);
  hwy::GetChosenTarget().Update(hwy::SupportedTargets());
  EXPECT_GE(num_targets, 1);
}

TEST(ResizeTest, LeavesAPictureOfTheWantedSizeAlone) {
  RgbImage image = Random({.height = 32, .width = 64}, 1);
  const uint8_t* pixels = image.data();
  EXPECT_EQ(ResizeBicubic(std::move(image), {.height = 32, .width = 64}).data(), pixels);
}

}  // namespace
}  // namespace prism
