#include "services/vision_encoder/image/image_format.h"

#include <cstring>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"

namespace prism {
namespace {

constexpr char kPngMagic[] = "\x89PNG\r\n\x1a\n";
constexpr uint16_t kOrientationTag = 0x0112;

uint32_t Byte(absl::string_view s, size_t i) { return static_cast<uint8_t>(s[i]); }
uint32_t Big16(absl::string_view s, size_t i) { return Byte(s, i) << 8 | Byte(s, i + 1); }
uint32_t Big32(absl::string_view s, size_t i) { return Big16(s, i) << 16 | Big16(s, i + 2); }
uint32_t Little16(absl::string_view s, size_t i) { return Byte(s, i + 1) << 8 | Byte(s, i); }
uint32_t Little24(absl::string_view s, size_t i) { return Byte(s, i + 2) << 16 | Little16(s, i); }
uint32_t Little32(absl::string_view s, size_t i) { return Little16(s, i + 2) << 16 | Little16(s, i); }

bool HasAt(absl::string_view s, size_t at, absl::string_view what) {
  return s.size() >= at + what.size() && std::memcmp(s.data() + at, what.data(), what.size()) == 0;
}

// The name of a kind that people send and that we do not read; empty where unknown.
absl::string_view NameOfOther(absl::string_view file) {
  if (HasAt(file, 0, "GIF8")) return "GIF";
  if (HasAt(file, 0, "%PDF")) return "PDF";
  if (HasAt(file, 0, absl::string_view("II*\0", 4)) || HasAt(file, 0, absl::string_view("MM\0*", 4))) {
    return "TIFF";
  }
  if (HasAt(file, 4, "ftyp")) {
    if (HasAt(file, 8, "avif") || HasAt(file, 8, "avis")) return "AVIF";
    for (const absl::string_view brand : {"heic", "heix", "heim", "heis", "hevc", "hevx", "mif1", "msf1"}) {
      if (HasAt(file, 8, brand)) return "HEIC";
    }
    return "MP4";
  }
  if (HasAt(file, 0, absl::string_view("\0\0\0\x0cJXL ", 8)) || HasAt(file, 0, "\xff\x0a")) return "JPEG XL";
  if (HasAt(file, 0, absl::string_view("\0\0\0\x0cjP  ", 8)) || HasAt(file, 0, "\xff\x4f\xff\x51")) {
    return "JPEG 2000";
  }
  if (HasAt(file, 0, "\x1a\x45\xdf\xa3")) return "WebM";
  if (HasAt(file, 0, absl::string_view("\0\0\1\0", 4))) return "ICO";
  if (HasAt(file, 0, "8BPS")) return "PSD";
  if (HasAt(file, 0, "<svg") || HasAt(file, 0, "<?xml")) return "SVG";
  if (HasAt(file, 0, "<!DOC") || HasAt(file, 0, "<html") || HasAt(file, 0, "<!doc")) return "HTML";
  if (HasAt(file, 0, "BM")) return "BMP";
  return "";
}

// The bytes after an optional "Exif\0\0" prefix, which some writers put in every container.
absl::string_view WithoutExifPrefix(absl::string_view block) {
  const absl::string_view prefix("Exif\0\0", 6);
  return HasAt(block, 0, prefix) ? block.substr(prefix.size()) : block;
}

absl::string_view ExifOfJpeg(absl::string_view file) {
  size_t at = 2;
  while (at + 4 <= file.size()) {
    if (Byte(file, at) != 0xff) return "";
    const uint32_t marker = Byte(file, at + 1);
    if (marker == 0xff) {  // a fill byte before a marker
      ++at;
      continue;
    }
    if (marker == 0xda || marker == 0xd9) return "";  // the entropy-coded data, or the end
    if (marker == 0x01 || (marker >= 0xd0 && marker <= 0xd7)) {
      at += 2;
      continue;
    }
    const size_t length = Big16(file, at + 2);  // of its own two bytes and the payload
    if (length < 2 || length > file.size() - at - 2) return "";
    const absl::string_view payload = file.substr(at + 4, length - 2);
    if (marker == 0xe1 && HasAt(payload, 0, absl::string_view("Exif\0\0", 6))) return payload;
    at += 2 + length;
  }
  return "";
}

absl::string_view ExifOfPng(absl::string_view file) {
  size_t at = 8;
  while (file.size() >= 12 && at <= file.size() - 12) {
    const size_t length = Big32(file, at);
    if (length > file.size() - at - 12) return "";
    if (HasAt(file, at + 4, "eXIf")) return file.substr(at + 8, length);
    at += 12 + length;
  }
  return "";
}

}  // namespace

absl::string_view Name(ImageFormat format) {
  switch (format) {
    case ImageFormat::kJpeg:
      return "JPEG";
    case ImageFormat::kPng:
      return "PNG";
    case ImageFormat::kWebp:
      return "WebP";
  }
  return "?";
}

absl::StatusOr<ImageFormat> SniffFormat(absl::string_view file) {
  if (file.empty()) return absl::InvalidArgumentError("the picture has 0 bytes");
  if (HasAt(file, 0, "\xff\xd8\xff")) return ImageFormat::kJpeg;
  if (HasAt(file, 0, absl::string_view(kPngMagic, 8))) return ImageFormat::kPng;
  if (HasAt(file, 0, "RIFF") && HasAt(file, 8, "WEBP")) return ImageFormat::kWebp;
  const absl::string_view other = NameOfOther(file);
  if (!other.empty()) {
    return absl::InvalidArgumentError(
        absl::StrCat("the picture is a file of type ", other, "; JPEG, PNG and WebP are read"));
  }
  return absl::InvalidArgumentError(
      absl::StrCat("the ", file.size(), " bytes are no picture known here; JPEG, PNG and WebP are read"));
}

int OrientationInTiff(absl::string_view tiff) {
  tiff = tiff.substr(0, kExifBytesMax);
  if (tiff.size() < 8) return 1;
  const bool little = HasAt(tiff, 0, "II");
  if (!little && !HasAt(tiff, 0, "MM")) return 1;
  const auto read16 = [&](size_t i) { return little ? Little16(tiff, i) : Big16(tiff, i); };
  const auto read32 = [&](size_t i) { return little ? Little32(tiff, i) : Big32(tiff, i); };
  if (read16(2) != 42) return 1;
  const size_t directory = read32(4);
  if (directory > tiff.size() - 2) return 1;
  const size_t num_entries = read16(directory);
  for (size_t i = 0; i < num_entries; ++i) {
    const size_t entry = directory + 2 + i * 12;
    if (entry + 12 > tiff.size()) return 1;
    if (read16(entry) != kOrientationTag) continue;
    constexpr uint32_t kShort = 3, kLong = 4;
    const uint32_t type = read16(entry + 2);
    if (read32(entry + 4) != 1 || (type != kShort && type != kLong)) return 1;
    const uint32_t value = type == kShort ? read16(entry + 8) : read32(entry + 8);
    return value >= 1 && value <= 8 ? static_cast<int>(value) : 1;
  }
  return 1;
}

WebpChunks ReadWebpChunks(absl::string_view file) {
  WebpChunks chunks;
  if (file.size() < 12) return chunks;
  const uint64_t end = uint64_t{8} + Little32(file, 4);
  chunks.complete = end <= file.size();
  if (chunks.complete) file = file.substr(0, end);
  size_t at = 12;
  while (at + 8 <= file.size()) {
    const size_t length = Little32(file, at + 4);
    if (length > file.size() - at - 8) break;
    const absl::string_view payload = file.substr(at + 8, length);
    if (HasAt(file, at, "VP8X") && length >= 10 && chunks.canvas_width == 0) {
      chunks.animated = (Byte(payload, 0) & 0x02) != 0;
      chunks.canvas_width = Little24(payload, 4) + 1;
      chunks.canvas_height = Little24(payload, 7) + 1;
    } else if (HasAt(file, at, "EXIF") && chunks.exif.empty()) {
      chunks.exif = payload;
    } else if (HasAt(file, at, "ANMF") && length >= 16 && chunks.first_frame.empty()) {
      chunks.first_frame = payload;
    }
    at += 8 + length + (length & 1);
  }
  return chunks;
}

int ReadOrientation(ImageFormat format, absl::string_view file) {
  switch (format) {
    case ImageFormat::kJpeg:
      return OrientationInTiff(WithoutExifPrefix(ExifOfJpeg(file)));
    case ImageFormat::kPng:
      return OrientationInTiff(WithoutExifPrefix(ExifOfPng(file)));
    case ImageFormat::kWebp:
      return OrientationInTiff(WithoutExifPrefix(ReadWebpChunks(file).exif));
  }
  return 1;
}

}  // namespace prism
