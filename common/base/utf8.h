// UTF-8: checking text that must be valid, and making text of bytes that need not be.
//
// Thread safety: pure functions; Utf8Repairer belongs to its owner's thread.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"

namespace prism {

// Bytes at the start of `text` that are valid UTF-8 (RFC 3629: shortest form, no surrogates, at most
// U+10FFFF). Equal to text.size() when all of it is.
size_t Utf8ValidPrefix(absl::string_view text);

// Bytes of the whole, valid character that `text` begins with; 0 if there is none.
size_t Utf8CharacterSize(absl::string_view text);

// InvalidArgument "WHAT: byte 0xe4 at offset 3 is not UTF-8", or OK.
absl::Status CheckUtf8(absl::string_view text, absl::string_view what);

// The code point that starts at `text[*offset]`, which is moved past it.
// REQUIRES: `text` is valid UTF-8, *offset is the start of a character in it.
inline char32_t NextCodePoint(absl::string_view text, size_t* offset) {
  const auto at = [&](size_t i) { return static_cast<uint8_t>(text[*offset + i]); };
  const uint8_t lead = at(0);
  if (lead < 0x80) {
    *offset += 1;
    return lead;
  }
  if (lead < 0xe0) {
    const char32_t value = (lead & 0x1fu) << 6 | (at(1) & 0x3fu);
    *offset += 2;
    return value;
  }
  if (lead < 0xf0) {
    const char32_t value = (lead & 0x0fu) << 12 | (at(1) & 0x3fu) << 6 | (at(2) & 0x3fu);
    *offset += 3;
    return value;
  }
  const char32_t value =
      (lead & 0x07u) << 18 | (at(1) & 0x3fu) << 12 | (at(2) & 0x3fu) << 6 | (at(3) & 0x3fu);
  *offset += 4;
  return value;
}

// REQUIRES: a Unicode scalar value.
void AppendCodePoint(char32_t code_point, std::string* out);

// Utf8Repairer turns bytes that arrive in pieces into valid UTF-8: a whole character is passed on as it
// is completed, and each maximal part that cannot be the beginning of a character (Unicode 15, section
// 3.9, "substitution of maximal subparts") becomes one U+FFFD. The output does not depend on how the
// bytes were cut into pieces.
class Utf8Repairer {
 public:
  // Appends to `out` what is certain after `bytes`; up to 3 bytes of an unfinished character stay here.
  void Push(absl::string_view bytes, std::string* out);

  // The input has ended: an unfinished character becomes one U+FFFD. Ready for a new input afterwards.
  void Finish(std::string* out);

  size_t held_bytes() const { return held_size_; }

 private:
  char held_[4] = {};
  size_t held_size_ = 0;
};

}  // namespace prism
