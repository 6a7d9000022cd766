// Frames of a video to patches: one size for all of them, the last repeated where their number is
// odd. Nothing is decoded or sampled here.
//
// Thread safety: pure functions.
#pragma once

#include <vector>

#include "absl/status/statusor.h"
#include "services/vision_encoder/image/patchify.h"
#include "services/vision_encoder/image/rgb_image.h"
#include "services/vision_encoder/image/smart_resize.h"

namespace prism {

// Resizes every frame to SmartResizeVideo() and cuts them; grid t = ceil(frames / 2).
// `bounds` are for all frames together.
// InvalidArgument: no frames, fewer than 2, frames of different sizes, aspect ratio above 200.
absl::StatusOr<PatchGrid> PatchifyVideo(std::vector<RgbImage> frames, PixelBounds bounds);

}  // namespace prism
