// The pipeline is what an image worker does with a picture: file -> RGB -> content key and target
// size -> RGB of that size. Patches are cut later, straight into the batch that the tower reads:
// they take eight times the bytes of the pixels.
//
// Thread safety: pure functions. Errors name what is wrong with the picture; they are the caller's.
#pragma once

#include <atomic>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "services/vision_encoder/content_key.h"
#include "services/vision_encoder/image/image_decoder.h"
#include "services/vision_encoder/image/patchify.h"

namespace prism {

struct PipelineLimits {
  PictureLimits picture;
  int64_t image_tokens_max = 4096;  // visual tokens of one picture
};

struct DecodedPicture {
  RgbImage image;
  ContentKey key;
  ImageSize target;  // to which it is to be resized
};

// InvalidArgument: not a picture we read, beyond a limit, or more visual tokens than allowed.
// Cancelled when `cancelled` was set meanwhile.
absl::StatusOr<DecodedPicture> DecodePicture(absl::string_view file, const ProcessorChoice& choice,
                                             const KeyScope& scope, const PipelineLimits& limits,
                                             const std::atomic<bool>* cancelled);

}  // namespace prism
