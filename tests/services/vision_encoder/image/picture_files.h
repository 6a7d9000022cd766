// What the tests of pictures share: files, digests and small edits of files.
#pragma once

#include <cstdint>
#include <fstream>
#include <iterator>
#include <string>

#include "common/base/check.h"
#include "common/base/hash.h"
#include "services/vision_encoder/image/rgb_image.h"

namespace prism::testing {

inline std::string ReadFile(const std::string& path) {
  std::ifstream in(path, std::ios::binary);
  PRISM_CHECK(in.good());
  return std::string(std::istreambuf_iterator<char>(in), {});
}

inline std::string OraclePicture(const std::string& name) {
  return ReadFile(std::string(PRISM_SOURCE_DIR) + "/tests/oracle/images/" + name);
}

inline std::string SmallPicturePath(const std::string& name) {
  return std::string(PRISM_SOURCE_DIR) + "/tests/services/vision_encoder/image/pictures/" + name;
}

inline std::string SmallPicture(const std::string& name) { return ReadFile(SmallPicturePath(name)); }

inline std::string DigestOf(const RgbImage& image) {
  return Hex(Sha256Of(image.data(), static_cast<size_t>(image.size_bytes())));
}

inline std::string Big(uint64_t value, int num_bytes) {
  std::string out;
  for (int i = num_bytes - 1; i >= 0; --i) out.push_back(static_cast<char>(value >> (8 * i)));
  return out;
}

// A PNG chunk with its length and its CRC-32 (reflected polynomial 0xEDB88320).
inline std::string PngChunk(const std::string& kind_and_data) {
  uint32_t crc = 0xffffffff;
  for (const char c : kind_and_data) {
    crc ^= static_cast<uint8_t>(c);
    for (int bit = 0; bit < 8; ++bit) crc = crc >> 1 ^ ((crc & 1) != 0 ? 0xedb88320u : 0);
  }
  return Big(kind_and_data.size() - 4, 4) + kind_and_data + Big(~crc, 4);
}

// A PNG of that size with hardly any data.
inline std::string PngBomb(uint32_t width, uint32_t height) {
  return std::string("\x89PNG\r\n\x1a\n", 8) +
         PngChunk("IHDR" + Big(width, 4) + Big(height, 4) + std::string("\x08\x02\0\0\0", 5)) +
         PngChunk("IDAT" + std::string(200, 'x')) + PngChunk("IEND");
}

// The JPEG with the sides in its frame header replaced.
inline std::string JpegWithSize(std::string jpeg, uint16_t width, uint16_t height) {
  for (size_t at = 2; at + 9 < jpeg.size();) {
    const uint8_t marker = static_cast<uint8_t>(jpeg[at + 1]);
    if (marker >= 0xc0 && marker <= 0xc2) {
      jpeg.replace(at + 5, 4, Big(height, 2) + Big(width, 2));
      return jpeg;
    }
    at += 2 + (static_cast<uint8_t>(jpeg[at + 2]) << 8 | static_cast<uint8_t>(jpeg[at + 3]));
  }
  PRISM_CHECK(false);
}

// The JPEG with an APP1 segment of that payload right after its first marker.
inline std::string JpegWithApp1(const std::string& jpeg, const std::string& payload) {
  return jpeg.substr(0, 2) + "\xff\xe1" + Big(payload.size() + 2, 2) + payload + jpeg.substr(2);
}

// An EXIF block (big-endian) whose only entry is the orientation.
inline std::string ExifBlock(int orientation) {
  return std::string("Exif\0\0MM\0*\0\0\0\x08\0\x01", 16) + Big(0x0112, 2) + Big(3, 2) + Big(1, 4) +
         Big(static_cast<uint64_t>(orientation), 2) + std::string(6, '\0');
}

}  // namespace prism::testing
