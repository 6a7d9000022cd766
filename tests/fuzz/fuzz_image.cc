// Bytes of a picture file, as anybody may send them: decoding gives a picture within the limits or
// InvalidArgument, and the picture can be resized and cut into patches.
//
// An odd number of bytes drops transparency, an even one composites it. Small limits keep a case
// fast.
#include <cstddef>
#include <cstdint>
#include <utility>

#include "common/base/check.h"
#include "services/vision_encoder/image/image_decoder.h"
#include "services/vision_encoder/image/image_format.h"
#include "services/vision_encoder/image/patchify.h"
#include "services/vision_encoder/image/resize.h"
#include "services/vision_encoder/image/smart_resize.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace prism;
  const absl::string_view file(reinterpret_cast<const char*>(data), size);
  const int orientation = OrientationInTiff(file);
  PRISM_CHECK(orientation >= 1 && orientation <= 8);

  DecodeOptions options{.alpha = size % 2 == 0 ? AlphaMode::kWhite : AlphaMode::kDrop};
  options.limits.pixels_max = 1 << 18;
  options.limits.jpeg_scan_pixels_max = 1 << 21;
  absl::StatusOr<RgbImage> image = DecodeImage(file, options);
  if (!image.ok()) {
    PRISM_CHECK(absl::IsInvalidArgument(image.status()));
    return 0;
  }
  PRISM_CHECK(image->height() * image->width() <= options.limits.pixels_max);
  const auto bounds = PixelBounds{.min_pixels = 4096, .max_pixels = 16384};
  const absl::StatusOr<ImageSize> to = SmartResize(image->size(), bounds);
  PRISM_CHECK(to.ok());
  const PatchGrid grid = Patchify(ResizeBicubic(*std::move(image), *to));
  PRISM_CHECK(grid.patches.shape()[0] == grid.size.num_patches());
  return 0;
}
