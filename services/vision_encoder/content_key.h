// The content key: what an embedding is of, and by what it was made.
//
// Thread safety: pure functions.
#pragma once

#include <cstdint>
#include <string>

#include "absl/strings/string_view.h"
#include "absl/types/span.h"
#include "services/vision_encoder/image/image_decoder.h"
#include "services/vision_encoder/image/smart_resize.h"

namespace prism {

// 32 bytes, a sha256.
using ContentKey = std::string;

// How one picture or clip is processed. What a request left open is already filled in.
struct ProcessorChoice {
  AlphaMode alpha = AlphaMode::kWhite;
  PixelBounds bounds;
};

// What else an embedding depends on.
struct KeyScope {
  std::string weights_digest;  // of the vision half
  std::string numerics_id;     // backend, dtype and order of sums
  std::string salt;            // tenant that wants isolation; empty: shared
};

// sha256 over a version tag, the sides and RGB bytes of the picture or of the clip's frames, the choice
// and the scope, each of fixed length or preceded by its length, so that no two inputs run together.
// A single frame is a picture. REQUIRES: at least one frame, all of one size
ContentKey ComputeContentKey(absl::Span<const RgbImage> frames, const ProcessorChoice& choice,
                             const KeyScope& scope);

// The same over the file, and where a clip's frames end in it, instead of its pixels: equal keys mean
// equal content keys, so a file seen before need not be decoded to know its content key.
std::string ComputeFileKey(absl::string_view media_sha256, absl::Span<const uint32_t> frame_bytes,
                           const ProcessorChoice& choice, absl::string_view salt);

}  // namespace prism
