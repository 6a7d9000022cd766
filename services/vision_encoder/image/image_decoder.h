// image_decoder turns the bytes of a picture file into RGB, as Pillow's open, EXIF transpose and
// convert("RGB") would, within limits that are checked on the header before any pixel is made.
//
//   JPEG   libjpeg-turbo with its defaults (slow integer DCT, fancy upsampling); grey is repeated;
//          CMYK and YCCK are taken as inverted, whatever their Adobe marker says, and become RGB
//          by R = K - (255 - C) K / 255 on the stored values, rounded to nearest.
//   PNG    all colour types, depths and interlacing. 16 bits become 8 by their high byte, but in
//          grey pictures (without alpha samples) by min(value, 255): Pillow reads those as whole
//          numbers and clips. Gamma, colour profiles and animation are ignored.
//   WebP   lossy and lossless; of an animation the first frame on a transparent canvas.
//
// Transparency (alpha samples, a transparent colour or palette entry) is composited on white,
//   out = (255 (255 - a) + c a) / 255, rounded to nearest, as Pillow's paste does,
// or ignored, so that the colour below shows.
//
// Corrupt or cut files are refused: a codec's warning that pixels were lost is an error, and so is
// a wrong check sum. Bytes after the picture's end are ignored.
//
// Thread safety: pure function.
#pragma once

#include <atomic>
#include <cstdint>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "services/vision_encoder/image/rgb_image.h"

namespace prism {

enum class AlphaMode { kWhite, kDrop };

struct PictureLimits {
  int64_t file_bytes_max = int64_t{32} << 20;
  int64_t pixels_max = 50'000'000;               // width * height
  double aspect_max = 200.0;                     // long side / short side
  int jpeg_scans_max = 100;                      // scans of one JPEG
  int64_t jpeg_scan_pixels_max = 1'000'000'000;  // scans * width * height of one progressive JPEG
  int64_t codec_bytes_max = int64_t{512} << 20;  // memory of libjpeg-turbo beside the picture
};

struct DecodeOptions {
  AlphaMode alpha = AlphaMode::kWhite;
  PictureLimits limits;
  const std::atomic<bool>* cancelled = nullptr;  // looked at between rows; may be null
};

// InvalidArgument: empty, of another type, beyond a limit, corrupt or cut. Cancelled.
absl::StatusOr<RgbImage> DecodeImage(absl::string_view file, const DecodeOptions& options = {});

}  // namespace prism
