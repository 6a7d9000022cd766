// data: URLs, the one form in which a client gives a picture.
//
// Thread safety: functions only.
#pragma once

#include <cstdint>
#include <string>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace prism {

// What a picture's first bytes say it is: "image/jpeg", "image/png", "image/webp", or empty.
absl::string_view SniffImageType(absl::string_view bytes);

// The bytes of "data:image/TYPE[;parameter]...;base64,DATA".
//
// The length is checked before anything is decoded: ResourceExhausted beyond `bytes_max`.
// InvalidArgument: another scheme or media type, not base64, malformed, or empty. The type named is
// not compared with the bytes: the vision encoder goes by those.
absl::StatusOr<std::string> DecodeImageDataUrl(absl::string_view url, uint64_t bytes_max);

}  // namespace prism
