// libjpeg-turbo reports errors by longjmp. The only frames it may jump over are C's and those of
// the functions marked "jumps" here, which hold nothing with a destructor; what owns memory lives
// in DecodeJpeg(), which never calls the library outside a guarded function.
// clang-format off
#include <cstdio>  // jpeglib.h needs it

#include <jpeglib.h>
#include <jerror.h>  // needs jpeglib.h
// clang-format on

#include <algorithm>
#include <csetjmp>
#include <memory>
#include <vector>

#include "absl/strings/str_cat.h"
#include "common/base/status.h"
#include "services/vision_encoder/image/codecs.h"

namespace prism {
namespace {

struct JpegReader {
  jpeg_decompress_struct codec;
  jpeg_error_mgr errors;
  jpeg_progress_mgr progress;
  std::jmp_buf jump;
  char message[JMSG_LENGTH_MAX];
  const DecodeOptions* options;
  int64_t pixels;  // of the picture, once the header is read
  bool was_cancelled;
  bool too_many_scans;
  int scans_max;
};

JpegReader* ReaderOf(j_common_ptr codec) { return static_cast<JpegReader*>(codec->client_data); }

[[noreturn]] void OnError(j_common_ptr codec) {  // jumps
  JpegReader* reader = ReaderOf(codec);
  codec->err->format_message(codec, reader->message);
  std::longjmp(reader->jump, 1);
}

// Warnings after which pixels are invented rather than read.
bool LosesPixels(int code) {
  switch (code) {
    case JWRN_HIT_MARKER:
    case JWRN_HUFF_BAD_CODE:
    case JWRN_ARITH_BAD_CODE:
    case JWRN_JPEG_EOF:
    case JWRN_MUST_RESYNC:
    case JWRN_BOGUS_PROGRESSION:
      return true;
    default:
      return false;
  }
}

void OnMessage(j_common_ptr codec, int level) {  // jumps
  if (level < 0 && LosesPixels(codec->err->msg_code)) OnError(codec);
}

// Called by the library for every row of blocks of every scan.
void OnProgress(j_common_ptr codec) {  // jumps
  JpegReader* reader = ReaderOf(codec);
  if (IsCancelled(*reader->options)) {
    reader->was_cancelled = true;
    std::longjmp(reader->jump, 1);
  }
  if (reader->codec.input_scan_number > reader->scans_max) {
    reader->too_many_scans = true;
    std::longjmp(reader->jump, 1);
  }
}

bool ReadHeader(JpegReader* reader, absl::string_view file) {  // jumps
  if (setjmp(reader->jump) != 0) return false;
  jpeg_create_decompress(&reader->codec);
  reader->codec.client_data = reader;
  reader->codec.mem->max_memory_to_use = static_cast<long>(reader->options->limits.codec_bytes_max);
  jpeg_mem_src(&reader->codec, reinterpret_cast<const unsigned char*>(file.data()), file.size());
  jpeg_read_header(&reader->codec, TRUE);
  return true;
}

// `cmyk_row` has room for one row of four samples where the picture has four components.
bool ReadPixels(JpegReader* reader, uint8_t* rgb, uint8_t* cmyk_row) {  // jumps
  if (setjmp(reader->jump) != 0) return false;
  jpeg_decompress_struct& codec = reader->codec;
  const bool cmyk = codec.num_components == 4;
  codec.out_color_space = cmyk ? JCS_CMYK : JCS_RGB;
  codec.progress = &reader->progress;
  jpeg_start_decompress(&codec);
  const size_t row_bytes = size_t{3} * codec.output_width;
  while (codec.output_scanline < codec.output_height) {
    if (cmyk) {
      uint8_t* to = rgb + codec.output_scanline * row_bytes;
      JSAMPROW row = cmyk_row;
      if (jpeg_read_scanlines(&codec, &row, 1) != 1) continue;
      const uint8_t* from = cmyk_row;
      for (JDIMENSION x = 0; x < codec.output_width; ++x, from += 4, to += 3) {
        const uint32_t k = from[3];
        for (int c = 0; c < 3; ++c) to[c] = static_cast<uint8_t>(k - Div255((255u - from[c]) * k));
      }
    } else {
      constexpr JDIMENSION kRows = 8;
      JSAMPROW rows[kRows];
      const JDIMENSION count = std::min(kRows, codec.output_height - codec.output_scanline);
      for (JDIMENSION i = 0; i < count; ++i) rows[i] = rgb + (codec.output_scanline + i) * row_bytes;
      jpeg_read_scanlines(&codec, rows, count);
    }
  }
  jpeg_finish_decompress(&codec);  // reads up to the end marker, so that a cut file is found out
  return true;
}

struct Destroy {
  void operator()(JpegReader* reader) const {
    jpeg_destroy_decompress(&reader->codec);
    delete reader;
  }
};

absl::Status ErrorOf(const JpegReader& reader) {
  if (reader.was_cancelled) return absl::CancelledError("decoding was cancelled");
  if (reader.too_many_scans) {
    return absl::InvalidArgumentError(absl::StrCat("the JPEG of ", reader.pixels, " pixels has more than ",
                                                   reader.scans_max, " scans, the limit at its size"));
  }
  return absl::InvalidArgumentError(absl::StrCat("the JPEG cannot be decoded: ", reader.message));
}

}  // namespace

absl::StatusOr<RgbImage> DecodeJpeg(absl::string_view file, const DecodeOptions& options) {
  std::unique_ptr<JpegReader, Destroy> reader(new JpegReader{});
  reader->options = &options;
  reader->codec.err = jpeg_std_error(&reader->errors);
  reader->codec.client_data = reader.get();
  reader->errors.error_exit = OnError;
  reader->errors.emit_message = OnMessage;
  reader->progress.progress_monitor = OnProgress;

  const PictureLimits& limits = options.limits;
  if (!ReadHeader(reader.get(), file)) return ErrorOf(*reader);
  const ImageSize size{.height = reader->codec.image_height, .width = reader->codec.image_width};
  PRISM_RETURN_IF_ERROR(CheckSize(size, limits));
  reader->pixels = size.height * size.width;
  reader->scans_max = static_cast<int>(std::min<int64_t>(
      limits.jpeg_scans_max, std::max<int64_t>(1, limits.jpeg_scan_pixels_max / reader->pixels)));
  const int components = reader->codec.num_components;
  if (components != 1 && components != 3 && components != 4) {
    return absl::InvalidArgumentError(
        absl::StrCat("the JPEG has ", components, " components; 1, 3 and 4 are read"));
  }

  RgbImage image(size);
  std::vector<uint8_t> cmyk_row(components == 4 ? static_cast<size_t>(size.width) * 4 : 0);
  if (!ReadPixels(reader.get(), image.data(), cmyk_row.data())) return ErrorOf(*reader);
  return image;
}

}  // namespace prism
