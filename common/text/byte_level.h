// The byte alphabet of byte-level BPE files: each of the 256 bytes is written as one printable character.
//
// Bytes 33..126, 161..172 and 174..255 are written as the code points of the same number; the other 68,
// in increasing order, as U+0100, U+0101, ... Thread safety: pure functions.
#pragma once

#include <optional>
#include <string>

#include "absl/strings/string_view.h"

namespace prism {

// The bytes that `written` stands for, or nullopt when one of its characters stands for none.
// REQUIRES: `written` is valid UTF-8.
std::optional<std::string> BytesOfByteLevel(absl::string_view written);

}  // namespace prism
