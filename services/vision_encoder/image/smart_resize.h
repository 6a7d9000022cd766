// smart_resize chooses the size to which a picture or the frames of a video are scaled: whole
// blocks of 2 x 2 patches of 16 pixels, near the original's proportions, within a budget of pixels.
// All arithmetic is in double, in the order of the reference implementation, because its floors
// and ceilings sit on the rounded results.
//
// Thread safety: pure functions.
#pragma once

#include <cstdint>

#include "absl/status/statusor.h"
#include "common/checkpoint/model_config.h"
#include "services/vision_encoder/image/rgb_image.h"

namespace prism {

inline constexpr int64_t kPatchSide = 16;                         // pixels
inline constexpr int64_t kMergeSide = 2;                          // patches
inline constexpr int64_t kBlockSide = kPatchSide * kMergeSide;    // pixels of one visual token's side
inline constexpr int64_t kBlockPixels = kBlockSide * kBlockSide;  // pixels of one visual token
inline constexpr double kAspectMax = 200.0;

// Rounds both sides to multiples of 32 (half to even); then, above the maximum, scales down and
// floors (never below 32), or, below the minimum, scales up and ceils. The result may lie a little
// outside of bounds that are near each other, or far outside where 32 pixels are too many.
// InvalidArgument: long side / short side above 200.
// REQUIRES: sides >= 1, bounds >= 1
absl::StatusOr<ImageSize> SmartResize(ImageSize size, PixelBounds bounds);

// The same for `num_frames` frames whose pixels count together: `bounds` are for all of them. A frame below
// 32 pixels on a side is first enlarged to 32. The budget is compared with the frames rounded to an even
// number, half to even, while the scale is taken from their true number, as the reference does.
// REQUIRES: num_frames >= 1, sides >= 1, bounds >= 1
absl::StatusOr<ImageSize> SmartResizeVideo(int64_t num_frames, ImageSize size, PixelBounds bounds);

// Visual tokens of a picture of that size. REQUIRES: sides are multiples of 32
inline int64_t NumVisualTokens(ImageSize size) {
  return size.height / kBlockSide * (size.width / kBlockSide);
}

// What a server and a request say about the budget of one picture or clip.
struct PixelBudget {
  PixelBounds checkpoint;           // of a picture, in the checkpoint's processor config
  PixelBounds checkpoint_clip;      // of all frames of a clip together
  int64_t image_tokens_max = 4096;  // --max-image-tokens
};

// The bounds of one request. Absent (0) bounds are the checkpoint's; the maximum is never above
// image_tokens_max * 1024, and a minimum that was not asked for never above the maximum.
// InvalidArgument: the minimum asked for lies above the maximum.
absl::StatusOr<PixelBounds> ResolveBounds(const PixelBudget& budget, int64_t min_pixels, int64_t max_pixels);

// The bounds of a clip's frames together: the checkpoint's, the maximum never above what gives
// image_tokens_max (two frames share their tokens), the minimum never above the maximum.
PixelBounds ResolveClipBounds(const PixelBudget& budget);

}  // namespace prism
