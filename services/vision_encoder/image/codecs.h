// The three codecs behind DecodeImage(): each reads the header, checks it against the limits, then
// decodes. No orientation is applied here. Errors as DecodeImage().
//
// Thread safety: pure functions.
#pragma once

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "services/vision_encoder/image/image_decoder.h"

namespace prism {

absl::StatusOr<RgbImage> DecodeJpeg(absl::string_view file, const DecodeOptions& options);
absl::StatusOr<RgbImage> DecodePng(absl::string_view file, const DecodeOptions& options);
absl::StatusOr<RgbImage> DecodeWebp(absl::string_view file, const DecodeOptions& options);

// InvalidArgument with both sides and the bound, unless the size is within the limits.
absl::Status CheckSize(ImageSize size, const PictureLimits& limits);

// a / 255 rounded to nearest, for 0 <= a <= 255 * 255, as Pillow computes it.
inline uint8_t Div255(uint32_t a) {
  const uint32_t t = a + 128;
  return static_cast<uint8_t>(((t >> 8) + t) >> 8);
}

// One sample over white.
inline uint8_t OverWhite(uint32_t sample, uint32_t alpha) {
  return Div255(255 * (255 - alpha) + sample * alpha);
}

// `count` pixels [R, G, B, A] to RGB over white. `to` may be `from`.
void OverWhiteRow(const uint8_t* from, int64_t count, uint8_t* to);

inline bool IsCancelled(const DecodeOptions& options) {
  return options.cancelled != nullptr && options.cancelled->load(std::memory_order_relaxed);
}

}  // namespace prism
