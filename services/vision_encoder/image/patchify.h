// Patchify cuts resized pictures into what the tower's first layer reads.
//
// A grid of t x h x w patches of 16 x 16 pixels; each patch spans two frames (a picture's only frame
// stands for both, and so does the last of an odd number). Rows come in blocks of 2 x 2 patches, which become
// one visual token:
//
//   for t, block row, block column, i < 2, j < 2:
//     row[((c * 2 + f) * 16 + y) * 16 + x] =
//         (pixel(frame 2t + f, channel c, (2 br + i) * 16 + y, (2 bc + j) * 16 + x) - 127.5) / 127.5
//
// in float32. Thread safety: pure functions.
#pragma once

#include <cstdint>

#include "absl/types/span.h"
#include "common/tensor/tensor.h"
#include "services/vision_encoder/image/rgb_image.h"

namespace prism {

inline constexpr int64_t kFramesPerPatch = 2;
inline constexpr int64_t kPatchValues = 3 * kFramesPerPatch * 16 * 16;  // 1536
inline constexpr size_t kPatchAlignment = 64;                           // bytes

// Patches along time, height and width.
struct PatchGridSize {
  int64_t t = 0;
  int64_t h = 0;  // even
  int64_t w = 0;  // even
  int64_t num_patches() const { return t * h * w; }
  int64_t num_tokens() const { return t * h * w / 4; }
  friend bool operator==(const PatchGridSize& a, const PatchGridSize& b) = default;
};

struct PatchGrid {
  PatchGridSize size;
  Tensor patches;  // [P, 1536] f32, host
};

// The grid of `num_frames` frames of one size, a single one being a picture.
// REQUIRES: num_frames >= 1, sides that are multiples of 32
PatchGridSize GridOf(int64_t num_frames, ImageSize size);

// Writes GridOf(frames.size(), ...).num_patches() * 1536 values to `patches`.
// REQUIRES: frames of one size, as GridOf(); patches.size() is exactly that and its first value is
// aligned to kPatchAlignment
void PatchifyInto(absl::Span<const RgbImage* const> frames, absl::Span<float> patches);

// PatchifyInto() a tensor of its own.
PatchGrid Patchify(absl::Span<const RgbImage* const> frames);
PatchGrid Patchify(const RgbImage& image);

}  // namespace prism
