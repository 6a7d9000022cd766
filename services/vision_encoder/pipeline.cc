#include "services/vision_encoder/pipeline.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "common/base/status.h"
#include "services/vision_encoder/image/smart_resize.h"

namespace prism {

absl::StatusOr<DecodedPicture> DecodePicture(absl::string_view file, const ProcessorChoice& choice,
                                             const KeyScope& scope, const PipelineLimits& limits,
                                             const std::atomic<bool>* cancelled) {
  DecodedPicture picture;
  PRISM_ASSIGN_OR_RETURN(
      picture.image,
      DecodeImage(file, {.alpha = choice.alpha, .limits = limits.picture, .cancelled = cancelled}));
  PRISM_ASSIGN_OR_RETURN(picture.target, SmartResize(picture.image.size(), choice.bounds));
  // The rounding of sizes may step over a maximum, far over it where the picture is long and thin.
  const int64_t tokens = NumVisualTokens(picture.target);
  if (tokens > limits.image_tokens_max) {
    return absl::InvalidArgumentError(absl::StrCat("the picture of ", picture.image.width(), " x ",
                                                   picture.image.height(), " pixels needs ", tokens,
                                                   " visual tokens, limit ", limits.image_tokens_max));
  }
  picture.key = ComputeContentKey(picture.image, choice, scope);
  return picture;
}

}  // namespace prism
