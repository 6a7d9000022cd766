#include "common/base/base64.h"

#include <array>
#include <cstdint>

#include "absl/strings/str_cat.h"
#include "common/base/status.h"

namespace prism {
namespace {

constexpr char kAlphabet[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
constexpr uint8_t kNotInAlphabet = 0xff;

constexpr std::array<uint8_t, 256> MakeDecodeTable() {
  std::array<uint8_t, 256> table{};
  for (auto& entry : table) entry = kNotInAlphabet;
  for (uint8_t i = 0; i < 64; ++i) table[static_cast<uint8_t>(kAlphabet[i])] = i;
  return table;
}
constexpr std::array<uint8_t, 256> kDecodeTable = MakeDecodeTable();

absl::Status CheckAlphabet(absl::string_view text) {
  for (size_t i = 0; i < text.size(); ++i) {
    const uint8_t byte = static_cast<uint8_t>(text[i]);
    if (kDecodeTable[byte] == kNotInAlphabet) {
      return absl::InvalidArgumentError(
          absl::StrCat("base64: byte ", i, " is 0x", absl::Hex(byte, absl::kZeroPad2),
                       ", not of the standard alphabet (no white space, no URL-safe letters)"));
    }
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<std::string> DecodeBase64(absl::string_view text) {
  if (text.size() % 4 != 0) {
    PRISM_RETURN_IF_ERROR(CheckAlphabet(text.substr(0, text.find('='))));
    return absl::InvalidArgumentError(absl::StrCat(
        "base64: length ", text.size(), " is not a multiple of 4 (padding missing, or cut short)"));
  }
  if (text.empty()) return std::string();
  size_t padding = 0;
  if (text[text.size() - 1] == '=') padding = text[text.size() - 2] == '=' ? 2 : 1;
  const absl::string_view digits = text.substr(0, text.size() - padding);

  std::string bytes(text.size() / 4 * 3 - padding, '\0');
  const auto* in = reinterpret_cast<const uint8_t*>(digits.data());
  auto* out = reinterpret_cast<uint8_t*>(bytes.data());
  uint32_t seen = 0;  // 0x80 is set once a byte outside the alphabet was met
  const size_t num_groups = digits.size() / 4;
  for (size_t i = 0; i < num_groups; ++i, in += 4, out += 3) {
    const uint32_t a = kDecodeTable[in[0]], b = kDecodeTable[in[1]];
    const uint32_t c = kDecodeTable[in[2]], d = kDecodeTable[in[3]];
    seen |= a | b | c | d;
    const uint32_t group = a << 18 | b << 12 | c << 6 | d;
    out[0] = static_cast<uint8_t>(group >> 16);
    out[1] = static_cast<uint8_t>(group >> 8);
    out[2] = static_cast<uint8_t>(group);
  }
  uint32_t left_over = 0;
  if (padding == 1) {
    const uint32_t a = kDecodeTable[in[0]], b = kDecodeTable[in[1]], c = kDecodeTable[in[2]];
    seen |= a | b | c;
    out[0] = static_cast<uint8_t>(a << 2 | b >> 4);
    out[1] = static_cast<uint8_t>(b << 4 | c >> 2);
    left_over = c & 3;
  } else if (padding == 2) {
    const uint32_t a = kDecodeTable[in[0]], b = kDecodeTable[in[1]];
    seen |= a | b;
    out[0] = static_cast<uint8_t>(a << 2 | b >> 4);
    left_over = b & 15;
  }
  if ((seen & 0x80) != 0) return CheckAlphabet(digits);
  if (left_over != 0) {
    return absl::InvalidArgumentError("base64: the unused bits before the padding are not zero");
  }
  return bytes;
}

std::string EncodeBase64(absl::string_view bytes) {
  std::string text;
  text.reserve((bytes.size() + 2) / 3 * 4);
  size_t i = 0;
  const auto at = [&](size_t k) { return static_cast<uint32_t>(static_cast<uint8_t>(bytes[k])); };
  for (; i + 3 <= bytes.size(); i += 3) {
    const uint32_t group = at(i) << 16 | at(i + 1) << 8 | at(i + 2);
    text += kAlphabet[group >> 18];
    text += kAlphabet[group >> 12 & 63];
    text += kAlphabet[group >> 6 & 63];
    text += kAlphabet[group & 63];
  }
  if (bytes.size() - i == 1) {
    const uint32_t group = at(i) << 16;
    text += kAlphabet[group >> 18];
    text += kAlphabet[group >> 12 & 63];
    text += "==";
  } else if (bytes.size() - i == 2) {
    const uint32_t group = at(i) << 16 | at(i + 1) << 8;
    text += kAlphabet[group >> 18];
    text += kAlphabet[group >> 12 & 63];
    text += kAlphabet[group >> 6 & 63];
    text += '=';
  }
  return text;
}

}  // namespace prism
