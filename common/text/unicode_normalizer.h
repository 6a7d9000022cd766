// Normalisation form C (Unicode Standard Annex 15), as tokenizer.json's "NFC" asks for.
//
// Thread safety: pure functions.
#pragma once

#include <string>

#include "absl/strings/string_view.h"

namespace prism {

// True when NormalizeNfc would return `text` itself, told by a scan that may say false for some text
// that is normalised already.
// REQUIRES: `text` is valid UTF-8.
bool IsQuicklyNfc(absl::string_view text);

// `text` in form C. Only the parts that could change are taken apart, and a long run of combining marks
// costs O(n log n), so that no text is slow.
// REQUIRES: `text` is valid UTF-8.
std::string NormalizeNfc(absl::string_view text);

}  // namespace prism
