#include "services/vision_encoder/image/smart_resize.h"

#include <algorithm>
#include <cmath>

#include "absl/strings/str_cat.h"
#include "common/base/check.h"
#include "common/base/status.h"

namespace prism {
namespace {

// Ties go to the even multiple, in the default rounding mode.
double NearestBlocks(double side) { return std::nearbyint(side / kBlockSide) * kBlockSide; }

absl::Status CheckAspect(ImageSize size) {
  const int64_t longer = std::max(size.height, size.width);
  const int64_t shorter = std::min(size.height, size.width);
  if (static_cast<double>(longer) / static_cast<double>(shorter) > kAspectMax) {
    return absl::InvalidArgumentError(absl::StrCat("the picture is ", size.width, " x ", size.height,
                                                   " pixels; its aspect ratio is above the limit of ",
                                                   kAspectMax));
  }
  return absl::OkStatus();
}

struct Area {
  double frames_true;     // that the scale is taken from
  double frames_counted;  // that the budget is compared with
};

ImageSize Fit(ImageSize size, PixelBounds bounds, Area area) {
  const double height = static_cast<double>(size.height);
  const double width = static_cast<double>(size.width);
  const double block = kBlockSide;
  double h = NearestBlocks(height);
  double w = NearestBlocks(width);
  if (area.frames_counted * h * w > static_cast<double>(bounds.max_pixels)) {
    const double beta = std::sqrt(area.frames_true * height * width / static_cast<double>(bounds.max_pixels));
    h = std::max(block, std::floor(height / beta / block) * block);
    w = std::max(block, std::floor(width / beta / block) * block);
  } else if (area.frames_counted * h * w < static_cast<double>(bounds.min_pixels)) {
    const double beta =
        std::sqrt(static_cast<double>(bounds.min_pixels) / (area.frames_true * height * width));
    h = std::ceil(height * beta / block) * block;
    w = std::ceil(width * beta / block) * block;
  }
  return {.height = static_cast<int64_t>(h), .width = static_cast<int64_t>(w)};
}

void CheckArguments(ImageSize size, PixelBounds bounds) {
  PRISM_CHECK(size.height >= 1 && size.width >= 1);
  PRISM_CHECK(bounds.min_pixels >= 1 && bounds.max_pixels >= 1);
}

}  // namespace

absl::StatusOr<ImageSize> SmartResize(ImageSize size, PixelBounds bounds) {
  CheckArguments(size, bounds);
  PRISM_RETURN_IF_ERROR(CheckAspect(size));
  ImageSize fitted = Fit(size, bounds, {.frames_true = 1, .frames_counted = 1});
  // Only a minimum below one block lets a side round to nothing.
  fitted.height = std::max(fitted.height, kBlockSide);
  fitted.width = std::max(fitted.width, kBlockSide);
  return fitted;
}

absl::StatusOr<ImageSize> SmartResizeVideo(int64_t num_frames, ImageSize size, PixelBounds bounds) {
  PRISM_CHECK(num_frames >= 1);
  CheckArguments(size, bounds);
  if (size.height < kBlockSide || size.width < kBlockSide) {
    const double scale = std::max(static_cast<double>(kBlockSide) / static_cast<double>(size.height),
                                  static_cast<double>(kBlockSide) / static_cast<double>(size.width));
    size = {.height = static_cast<int64_t>(static_cast<double>(size.height) * scale),
            .width = static_cast<int64_t>(static_cast<double>(size.width) * scale)};
  }
  PRISM_RETURN_IF_ERROR(CheckAspect(size));
  const double frames = static_cast<double>(num_frames);
  return Fit(size, bounds, {.frames_true = frames, .frames_counted = std::nearbyint(frames / 2) * 2});
}

absl::StatusOr<PixelBounds> ResolveBounds(const PixelBudget& budget, int64_t min_pixels, int64_t max_pixels) {
  PRISM_CHECK(min_pixels >= 0 && max_pixels >= 0);
  PixelBounds bounds;
  bounds.max_pixels = std::min(max_pixels != 0 ? max_pixels : budget.checkpoint.max_pixels,
                               budget.image_tokens_max * kBlockPixels);
  if (min_pixels > bounds.max_pixels) {
    return absl::InvalidArgumentError(absl::StrCat(
        "min_pixels is ", min_pixels, ", above the largest size of ", bounds.max_pixels, " pixels"));
  }
  bounds.min_pixels =
      min_pixels != 0 ? min_pixels : std::min(budget.checkpoint.min_pixels, bounds.max_pixels);
  return bounds;
}

PixelBounds ResolveClipBounds(const PixelBudget& budget) {
  constexpr int64_t kFramesPerToken = 2;
  const int64_t max_pixels =
      std::min(budget.checkpoint_clip.max_pixels, budget.image_tokens_max * kBlockPixels * kFramesPerToken);
  return {.min_pixels = std::min(budget.checkpoint_clip.min_pixels, max_pixels), .max_pixels = max_pixels};
}

}  // namespace prism
