#include "services/vision_encoder/image/image_decoder.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/base/status.h"
#include "services/vision_encoder/image/codecs.h"
#include "services/vision_encoder/image/image_format.h"

namespace prism {

absl::Status CheckSize(ImageSize size, const PictureLimits& limits) {
  if (size.height < 1 || size.width < 1) {
    return absl::InvalidArgumentError(absl::StrCat("the picture is ", size.width, " x ", size.height,
                                                   " pixels; each side must be at least 1"));
  }
  // Both sides are below 2^31, so their product is exact.
  const int64_t pixels = size.height * size.width;
  if (pixels > limits.pixels_max) {
    return absl::InvalidArgumentError(absl::StrCat("the picture is ", size.width, " x ", size.height, " = ",
                                                   pixels, " pixels, limit ", limits.pixels_max));
  }
  const int64_t longer = std::max(size.height, size.width);
  const int64_t shorter = std::min(size.height, size.width);
  if (static_cast<double>(longer) / static_cast<double>(shorter) > limits.aspect_max) {
    return absl::InvalidArgumentError(
        absl::StrCat("the picture is ", size.width, " x ", size.height, " pixels, aspect ratio ",
                     longer / shorter, longer % shorter != 0 ? "+" : "", ", limit ", limits.aspect_max));
  }
  return absl::OkStatus();
}

void OverWhiteRow(const uint8_t* from, int64_t count, uint8_t* to) {
  for (int64_t x = 0; x < count; ++x, from += 4, to += 3) {
    const uint32_t alpha = from[3];
    const uint8_t red = OverWhite(from[0], alpha);
    const uint8_t green = OverWhite(from[1], alpha);
    const uint8_t blue = OverWhite(from[2], alpha);
    to[0] = red;
    to[1] = green;
    to[2] = blue;
  }
}

absl::StatusOr<RgbImage> DecodeImage(absl::string_view file, const DecodeOptions& options) {
  if (static_cast<int64_t>(file.size()) > options.limits.file_bytes_max) {
    return absl::InvalidArgumentError(
        absl::StrCat("the picture file has ", file.size(), " bytes, limit ", options.limits.file_bytes_max));
  }
  PRISM_ASSIGN_OR_RETURN(const ImageFormat format, SniffFormat(file));
  const auto decode = [&]() -> absl::StatusOr<RgbImage> {
    switch (format) {
      case ImageFormat::kJpeg:
        return DecodeJpeg(file, options);
      case ImageFormat::kPng:
        return DecodePng(file, options);
      case ImageFormat::kWebp:
        return DecodeWebp(file, options);
    }
    return absl::InternalError("no such format");
  };
  PRISM_ASSIGN_OR_RETURN(RgbImage image, decode());
  return ApplyOrientation(std::move(image), ReadOrientation(format, file));
}

}  // namespace prism
