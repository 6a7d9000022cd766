#include "services/vision_encoder/pipeline.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/base/status.h"
#include "common/wire/request_limits.h"
#include "services/vision_encoder/image/smart_resize.h"

namespace prism {

absl::StatusOr<DecodedPicture> DecodePicture(absl::string_view file, const ProcessorChoice& choice,
                                             const KeyScope& scope, const PipelineLimits& limits,
                                             const std::atomic<bool>* cancelled) {
  DecodedPicture picture;
  PRISM_ASSIGN_OR_RETURN(
      RgbImage image,
      DecodeImage(file, {.alpha = choice.alpha, .limits = limits.picture, .cancelled = cancelled}));
  PRISM_ASSIGN_OR_RETURN(picture.target, SmartResize(image.size(), choice.bounds));
  // The rounding of sizes may step over a maximum, far over it where the picture is long and thin.
  const int64_t tokens = NumVisualTokens(picture.target);
  if (tokens > limits.image_tokens_max) {
    return absl::InvalidArgumentError(absl::StrCat("the picture of ", image.width(), " x ", image.height(),
                                                   " pixels needs ", tokens, " visual tokens, limit ",
                                                   limits.image_tokens_max));
  }
  picture.frames.push_back(std::move(image));
  picture.key = ComputeContentKey(picture.frames, choice, scope);
  return picture;
}

absl::StatusOr<DecodedPicture> DecodeClip(absl::string_view files, absl::Span<const uint32_t> frame_bytes,
                                          const ProcessorChoice& choice, const KeyScope& scope,
                                          const PipelineLimits& limits, const std::atomic<bool>* cancelled) {
  if (frame_bytes.size() < kClipFramesMin || frame_bytes.size() > kClipFramesMax) {
    return absl::InvalidArgumentError(absl::StrCat("the clip has ", frame_bytes.size(), " frames, want ",
                                                   kClipFramesMin, " to ", kClipFramesMax));
  }
  const auto num_frames = static_cast<int64_t>(frame_bytes.size());
  PictureLimits frame_limits = limits.picture;
  frame_limits.pixels_max = std::max<int64_t>(1, limits.picture.pixels_max / num_frames);
  DecodedPicture clip;
  absl::string_view rest = files;
  for (size_t f = 0; f < frame_bytes.size(); ++f) {
    const size_t size = frame_bytes[f];
    if (size == 0 || size > rest.size()) {
      return absl::InvalidArgumentError(absl::StrCat("frame ", f, " of the clip has ", size, " bytes, ",
                                                     rest.size(), " are left of the media"));
    }
    absl::StatusOr<RgbImage> frame = DecodeImage(
        rest.substr(0, size), {.alpha = choice.alpha, .limits = frame_limits, .cancelled = cancelled});
    if (!frame.ok()) {
      return absl::Status(frame.status().code(), absl::StrCat("frame ", f, " of the clip of ", num_frames,
                                                              ": ", frame.status().message()));
    }
    rest.remove_prefix(size);
    if (!clip.frames.empty() && frame->size() != clip.frames[0].size()) {
      return absl::InvalidArgumentError(absl::StrCat("frame ", f, " of the clip is ", frame->width(), " x ",
                                                     frame->height(), " pixels, frame 0 is ",
                                                     clip.frames[0].width(), " x ", clip.frames[0].height()));
    }
    clip.frames.push_back(*std::move(frame));
  }
  if (!rest.empty()) {
    return absl::InvalidArgumentError(
        absl::StrCat("the clip's frames leave ", rest.size(), " bytes of the media"));
  }
  const ImageSize size = clip.frames[0].size();
  PRISM_ASSIGN_OR_RETURN(clip.target, SmartResizeVideo(num_frames, size, choice.bounds));
  const int64_t tokens = (num_frames + 1) / kFramesPerPatch * NumVisualTokens(clip.target);
  if (tokens > limits.image_tokens_max) {
    return absl::InvalidArgumentError(absl::StrCat("the clip of ", num_frames, " frames of ", size.width,
                                                   " x ", size.height, " pixels needs ", tokens,
                                                   " visual tokens, limit ", limits.image_tokens_max));
  }
  clip.key = ComputeContentKey(clip.frames, choice, scope);
  return clip;
}

}  // namespace prism
