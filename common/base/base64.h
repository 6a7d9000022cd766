// Base64 of RFC 4648 section 4: the standard alphabet, padded.
//
// Thread safety: functions only.
#pragma once

#include <string>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace prism {

// Decodes strictly: no white space, padding where it belongs, the unused bits zero. InvalidArgument
// names the first offending byte's position and value.
absl::StatusOr<std::string> DecodeBase64(absl::string_view text);

// Without line breaks.
std::string EncodeBase64(absl::string_view bytes);

}  // namespace prism
