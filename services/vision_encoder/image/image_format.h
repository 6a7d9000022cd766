// What kind of file some bytes are, told by their first bytes alone, and where a picture file
// keeps its EXIF orientation.
//
// Thread safety: pure functions.
#pragma once

#include <cstdint>
#include <string>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace prism {

enum class ImageFormat { kJpeg, kPng, kWebp };

// "JPEG", "PNG", "WebP".
absl::string_view Name(ImageFormat format);

// InvalidArgument for anything but the three, by name where the kind is recognised ("the picture
// is a file of type GIF; JPEG, PNG and WebP are read"). File names and claimed types are not asked.
absl::StatusOr<ImageFormat> SniffFormat(absl::string_view file);

// At most so many bytes of an EXIF block are looked at.
inline constexpr size_t kExifBytesMax = 64 * 1024;

// The orientation (tag 0x0112) in the first directory of a TIFF block, the form in which EXIF is
// kept: 1 .. 8, or 1 where there is none or the block is malformed. Follows no offset but that
// of the first directory, so there is nothing to loop over.
int OrientationInTiff(absl::string_view tiff);

// The orientation from the file's EXIF: JPEG's first APP1 "Exif", PNG's eXIf, WebP's EXIF chunk.
// 1 where there is none or it is malformed: a picture with bad metadata is still a picture.
int ReadOrientation(ImageFormat format, absl::string_view file);

// Chunks of a WebP file that are needed before its pixels are decoded.
struct WebpChunks {
  bool complete = false;  // the file is as long as its header says
  bool animated = false;
  int64_t canvas_width = 0;  // 0 where the file has no extended header
  int64_t canvas_height = 0;
  absl::string_view exif;         // empty where absent
  absl::string_view first_frame;  // payload of the first ANMF chunk, 16 byte header included
};
WebpChunks ReadWebpChunks(absl::string_view file);

}  // namespace prism
