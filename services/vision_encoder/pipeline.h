// The pipeline is what an image worker does with a picture or a clip: file -> RGB -> content key and
// target size -> RGB of that size. Patches are cut later, straight into the batch that the tower reads:
// they take eight times the bytes of the pixels.
//
// Thread safety: pure functions. Errors name what is wrong with the picture; they are the caller's.
#pragma once

#include <atomic>
#include <cstdint>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"
#include "services/vision_encoder/content_key.h"
#include "services/vision_encoder/image/image_decoder.h"
#include "services/vision_encoder/image/patchify.h"

namespace prism {

struct PipelineLimits {
  PictureLimits picture;            // of one picture, or of all frames of a clip together
  int64_t image_tokens_max = 4096;  // visual tokens of one picture or clip
};

struct DecodedPicture {
  std::vector<RgbImage> frames;  // one of a picture, more of a clip; of one size
  ContentKey key;
  ImageSize target;  // to which they are to be resized
};

// InvalidArgument: not a picture we read, beyond a limit, or more visual tokens than allowed.
// Cancelled when `cancelled` was set meanwhile.
absl::StatusOr<DecodedPicture> DecodePicture(absl::string_view file, const ProcessorChoice& choice,
                                             const KeyScope& scope, const PipelineLimits& limits,
                                             const std::atomic<bool>* cancelled);

// The same for a clip: `files` is its frames' files one after the other, of `frame_bytes` each.
// InvalidArgument also: fewer than 2 or more than kClipFramesMax frames, sizes that are not all of `files`,
// frames of different sizes in pixels. REQUIRES: the choice's bounds are of all frames together
absl::StatusOr<DecodedPicture> DecodeClip(absl::string_view files, absl::Span<const uint32_t> frame_bytes,
                                          const ProcessorChoice& choice, const KeyScope& scope,
                                          const PipelineLimits& limits, const std::atomic<bool>* cancelled);

}  // namespace prism
