#include <webp/decode.h>

#include <cstring>
#include <vector>

#include "absl/strings/str_cat.h"
#include "common/base/status.h"
#include "services/vision_encoder/image/codecs.h"
#include "services/vision_encoder/image/image_format.h"

namespace prism {
namespace {

const uint8_t* Bytes(absl::string_view s) { return reinterpret_cast<const uint8_t*>(s.data()); }

absl::Status Corrupt(absl::string_view what) {
  return absl::InvalidArgumentError(absl::StrCat("the WebP cannot be decoded: ", what));
}

// Decodes a bitstream whose features are known, onto the canvas at (top, left).
struct Placement {
  int64_t top = 0;
  int64_t left = 0;
};

absl::Status DecodeOnto(absl::string_view bitstream, const WebPBitstreamFeatures& features, AlphaMode alpha,
                        Placement at, RgbImage& canvas) {
  const int64_t width = features.width;
  const int64_t height = features.height;
  uint8_t* const corner = canvas.row(at.top) + at.left * 3;
  const size_t canvas_bytes = static_cast<size_t>(canvas.data() + canvas.size_bytes() - corner);
  if (features.has_alpha == 0 || alpha == AlphaMode::kDrop) {
    if (WebPDecodeRGBInto(Bytes(bitstream), bitstream.size(), corner, canvas_bytes,
                          static_cast<int>(canvas.row_bytes())) == nullptr) {
      return Corrupt("corrupt or cut");
    }
    return absl::OkStatus();
  }
  std::vector<uint8_t> rgba(static_cast<size_t>(width * height * 4));
  if (WebPDecodeRGBAInto(Bytes(bitstream), bitstream.size(), rgba.data(), rgba.size(),
                         static_cast<int>(width * 4)) == nullptr) {
    return Corrupt("corrupt or cut");
  }
  for (int64_t y = 0; y < height; ++y) {
    OverWhiteRow(rgba.data() + y * width * 4, width, corner + y * canvas.row_bytes());
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<RgbImage> DecodeWebp(absl::string_view file, const DecodeOptions& options) {
  const WebpChunks chunks = ReadWebpChunks(file);
  if (chunks.canvas_width != 0) {
    PRISM_RETURN_IF_ERROR(
        CheckSize({.height = chunks.canvas_height, .width = chunks.canvas_width}, options.limits));
  }
  if (!chunks.complete) return Corrupt("the file ends too early");
  if (IsCancelled(options)) return absl::CancelledError("decoding was cancelled");

  WebPBitstreamFeatures features;
  if (!chunks.animated) {
    if (WebPGetFeatures(Bytes(file), file.size(), &features) != VP8_STATUS_OK)
      return Corrupt("no valid header");
    const ImageSize size{.height = features.height, .width = features.width};
    PRISM_RETURN_IF_ERROR(CheckSize(size, options.limits));
    RgbImage image(size);
    PRISM_RETURN_IF_ERROR(DecodeOnto(file, features, options.alpha, {}, image));
    return image;
  }

  // An animation: its first frame lies somewhere on a transparent black canvas.
  constexpr size_t kFrameHeaderBytes = 16;
  const absl::string_view frame = chunks.first_frame;
  if (frame.size() <= kFrameHeaderBytes) return Corrupt("an animation without frames");
  const auto twice24 = [&](size_t i) {
    return 2 * static_cast<int64_t>(Bytes(frame)[i] | Bytes(frame)[i + 1] << 8 | Bytes(frame)[i + 2] << 16);
  };
  const Placement at{.top = twice24(3), .left = twice24(0)};
  const absl::string_view bitstream = frame.substr(kFrameHeaderBytes);
  if (WebPGetFeatures(Bytes(bitstream), bitstream.size(), &features) != VP8_STATUS_OK) {
    return Corrupt("no valid first frame");
  }
  if (at.left + features.width > chunks.canvas_width || at.top + features.height > chunks.canvas_height) {
    return Corrupt(absl::StrCat("a frame of ", features.width, " x ", features.height, " at (", at.left, ", ",
                                at.top, ") leaves the canvas of ", chunks.canvas_width, " x ",
                                chunks.canvas_height));
  }
  RgbImage canvas({.height = chunks.canvas_height, .width = chunks.canvas_width});
  std::memset(canvas.data(), options.alpha == AlphaMode::kWhite ? 255 : 0,
              static_cast<size_t>(canvas.size_bytes()));
  PRISM_RETURN_IF_ERROR(DecodeOnto(bitstream, features, options.alpha, at, canvas));
  return canvas;
}

}  // namespace prism
