#include "common/base/utf8.h"

#include <cstring>

#include "absl/strings/str_cat.h"
#include "common/base/check.h"

namespace prism {
namespace {

constexpr absl::string_view kReplacement = "\xef\xbf\xbd";

// What a lead byte asks for: the length of the character and the range of its second byte, which is
// narrower than 80..BF where that keeps out long forms, surrogates and what is beyond U+10FFFF.
struct Lead {
  uint8_t length;  // 0: no lead byte
  uint8_t second_min;
  uint8_t second_max;
};

constexpr Lead LeadOf(uint8_t byte) {
  if (byte < 0x80) return {1, 0, 0};
  if (byte < 0xc2) return {0, 0, 0};
  if (byte < 0xe0) return {2, 0x80, 0xbf};
  if (byte == 0xe0) return {3, 0xa0, 0xbf};
  if (byte == 0xed) return {3, 0x80, 0x9f};
  if (byte < 0xf0) return {3, 0x80, 0xbf};
  if (byte == 0xf0) return {4, 0x90, 0xbf};
  if (byte < 0xf4) return {4, 0x80, 0xbf};
  if (byte == 0xf4) return {4, 0x80, 0x8f};
  return {0, 0, 0};
}

// Bytes of `data` that are the beginning of a character, and whether they are all of it.
struct Part {
  size_t size;  // 0 when the first byte begins no character
  bool complete;
};

Part PartAt(const char* data, size_t size) {
  const auto byte = [data](size_t i) { return static_cast<uint8_t>(data[i]); };
  const Lead lead = LeadOf(byte(0));
  if (lead.length <= 1) return {lead.length, lead.length == 1};
  if (size < 2 || byte(1) < lead.second_min || byte(1) > lead.second_max) return {1, false};
  for (size_t i = 2; i < lead.length; ++i) {
    if (i == size || (byte(i) & 0xc0) != 0x80) return {i, false};
  }
  return {lead.length, true};
}

// Bytes of ASCII at the start of `data`.
size_t AsciiPrefix(const char* data, size_t size) {
  size_t i = 0;
  for (; i + 8 <= size; i += 8) {
    uint64_t word;
    std::memcpy(&word, data + i, 8);
    if ((word & 0x8080808080808080u) != 0) break;
  }
  while (i < size && static_cast<uint8_t>(data[i]) < 0x80) ++i;
  return i;
}

}  // namespace

size_t Utf8CharacterSize(absl::string_view text) {
  if (text.empty()) return 0;
  const Part part = PartAt(text.data(), text.size());
  return part.complete ? part.size : 0;
}

size_t Utf8ValidPrefix(absl::string_view text) {
  size_t offset = 0;
  while (true) {
    offset += AsciiPrefix(text.data() + offset, text.size() - offset);
    // A run of longer characters, without asking for ASCII between each two.
    while (offset < text.size() && static_cast<uint8_t>(text[offset]) >= 0x80) {
      const Part part = PartAt(text.data() + offset, text.size() - offset);
      if (!part.complete) return offset;
      offset += part.size;
    }
    if (offset == text.size()) return offset;
  }
}

absl::Status CheckUtf8(absl::string_view text, absl::string_view what) {
  const size_t valid = Utf8ValidPrefix(text);
  if (valid == text.size()) return absl::OkStatus();
  return absl::InvalidArgumentError(
      absl::StrCat(what, ": byte 0x", absl::Hex(static_cast<uint8_t>(text[valid]), absl::kZeroPad2),
                   " at offset ", valid, " is not UTF-8"));
}

void AppendCodePoint(char32_t code_point, std::string* out) {
  PRISM_CHECK(code_point <= 0x10ffff && (code_point < 0xd800 || code_point > 0xdfff));
  if (code_point < 0x80) {
    out->push_back(static_cast<char>(code_point));
    return;
  }
  if (code_point < 0x800) {
    out->push_back(static_cast<char>(0xc0 | code_point >> 6));
  } else if (code_point < 0x10000) {
    out->push_back(static_cast<char>(0xe0 | code_point >> 12));
    out->push_back(static_cast<char>(0x80 | (code_point >> 6 & 0x3f)));
  } else {
    out->push_back(static_cast<char>(0xf0 | code_point >> 18));
    out->push_back(static_cast<char>(0x80 | (code_point >> 12 & 0x3f)));
    out->push_back(static_cast<char>(0x80 | (code_point >> 6 & 0x3f)));
  }
  out->push_back(static_cast<char>(0x80 | (code_point & 0x3f)));
}

void Utf8Repairer::Push(absl::string_view bytes, std::string* out) {
  // First the character begun by an earlier piece, byte by byte.
  while (held_size_ > 0 && !bytes.empty()) {
    held_[held_size_] = bytes[0];
    const Part part = PartAt(held_, held_size_ + 1);
    if (part.complete) {
      out->append(held_, part.size);
      held_size_ = 0;
      bytes.remove_prefix(1);
    } else if (part.size == held_size_ + 1) {
      ++held_size_;
      bytes.remove_prefix(1);
    } else {
      // The new byte does not go on with it: it is looked at again, as a beginning.
      out->append(kReplacement.data(), kReplacement.size());
      held_size_ = 0;
    }
  }
  while (!bytes.empty()) {
    const size_t valid = Utf8ValidPrefix(bytes);
    out->append(bytes.data(), valid);
    bytes.remove_prefix(valid);
    if (bytes.empty()) return;
    const Part part = PartAt(bytes.data(), bytes.size());
    if (part.size == bytes.size() && part.size > 0) {
      std::memcpy(held_, bytes.data(), part.size);
      held_size_ = part.size;
      return;
    }
    out->append(kReplacement.data(), kReplacement.size());
    bytes.remove_prefix(part.size > 0 ? part.size : 1);
  }
}

void Utf8Repairer::Finish(std::string* out) {
  if (held_size_ > 0) out->append(kReplacement.data(), kReplacement.size());
  held_size_ = 0;
}

}  // namespace prism
