#include "common/text/byte_level.h"

#include <array>
#include <cstdint>

#include "common/base/utf8.h"

namespace prism {
namespace {

constexpr int16_t kNoByte = -1;
// The alphabet ends at U+0143: 256 + 68 characters.
constexpr char32_t kAlphabetEnd = 0x144;

constexpr bool WrittenAsItself(int byte) {
  return (byte >= 33 && byte <= 126) || (byte >= 161 && byte <= 172) || byte >= 174;
}

constexpr std::array<int16_t, kAlphabetEnd> MakeByteOf() {
  std::array<int16_t, kAlphabetEnd> byte_of{};
  for (auto& b : byte_of) b = kNoByte;
  int next = 0x100;
  for (int byte = 0; byte < 256; ++byte) {
    byte_of[WrittenAsItself(byte) ? byte : next++] = static_cast<int16_t>(byte);
  }
  return byte_of;
}
constexpr std::array<int16_t, kAlphabetEnd> kByteOf = MakeByteOf();

}  // namespace

std::optional<std::string> BytesOfByteLevel(absl::string_view written) {
  std::string bytes;
  bytes.reserve(written.size());
  for (size_t offset = 0; offset < written.size();) {
    const char32_t c = NextCodePoint(written, &offset);
    if (c >= kAlphabetEnd || kByteOf[c] == kNoByte) return std::nullopt;
    bytes.push_back(static_cast<char>(kByteOf[c]));
  }
  return bytes;
}

}  // namespace prism
