#include "services/vision_encoder/image/video_frames.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "common/base/status.h"
#include "services/vision_encoder/image/resize.h"

namespace prism {

absl::StatusOr<PatchGrid> PatchifyVideo(std::vector<RgbImage> frames, PixelBounds bounds) {
  constexpr size_t kFramesMin = 2;
  if (frames.size() < kFramesMin) {
    return absl::InvalidArgumentError(
        absl::StrCat("the video has ", frames.size(), " frames, want at least ", kFramesMin));
  }
  const ImageSize size = frames[0].size();
  for (size_t f = 0; f < frames.size(); ++f) {
    if (frames[f].size() != size) {
      return absl::InvalidArgumentError(absl::StrCat("frame ", f, " is ", frames[f].width(), " x ",
                                                     frames[f].height(), " pixels, frame 0 is ", size.width,
                                                     " x ", size.height));
    }
  }
  PRISM_ASSIGN_OR_RETURN(const ImageSize to,
                         SmartResizeVideo(static_cast<int64_t>(frames.size()), size, bounds));
  std::vector<const RgbImage*> order;
  for (RgbImage& frame : frames) {
    frame = ResizeBicubic(std::move(frame), to);
    order.push_back(&frame);
  }
  return Patchify(order);
}

}  // namespace prism
