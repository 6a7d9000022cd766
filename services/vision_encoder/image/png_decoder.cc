// libpng reports errors by longjmp. The only frames it may jump over are C's and those of the
// functions marked "jumps" here, which hold nothing with a destructor; what owns memory lives in
// DecodePng(), which never calls the library outside a guarded function.
#include <png.h>

#include <algorithm>
#include <cstring>
#include <memory>
#include <vector>

#include "absl/strings/str_cat.h"
#include "common/base/status.h"
#include "services/vision_encoder/image/codecs.h"

namespace prism {
namespace {

// Memory that one chunk may take; only the palette and its transparency are kept.
constexpr png_alloc_size_t kChunkBytesMax = 1 << 20;

// How a decoded row lies before it becomes RGB.
enum class RowForm { kRgb8, kRgba8, kGrey16, kGreyAlpha16 };

constexpr int64_t BytesPerPixel(RowForm form) {
  switch (form) {
    case RowForm::kRgb8:
      return 3;
    case RowForm::kRgba8:
    case RowForm::kGreyAlpha16:
      return 4;
    case RowForm::kGrey16:
      return 2;
  }
  return 0;
}

struct PngReader {
  png_structp codec;
  png_infop header;
  const char* next;
  size_t left;
  char message[96];
  png_uint_32 width, height;
  int bit_depth, colour_type, num_passes;
  bool was_cancelled;
};

[[noreturn]] void OnError(png_structp codec, png_const_charp text) {  // jumps
  PngReader* reader = static_cast<PngReader*>(png_get_error_ptr(codec));
  std::strncpy(reader->message, text, sizeof reader->message - 1);
  png_longjmp(codec, 1);
}

void OnWarning(png_structp, png_const_charp) {}

void OnRead(png_structp codec, png_bytep to, size_t size) {  // jumps
  PngReader* reader = static_cast<PngReader*>(png_get_io_ptr(codec));
  if (size > reader->left) png_error(codec, "the file ends too early");
  std::memcpy(to, reader->next, size);
  reader->next += size;
  reader->left -= size;
}

bool ReadHeader(PngReader* reader) {  // jumps
  if (setjmp(png_jmpbuf(reader->codec)) != 0) return false;
  png_set_read_fn(reader->codec, reader, OnRead);
  png_set_user_limits(reader->codec, PNG_UINT_31_MAX, PNG_UINT_31_MAX);  // CheckSize() says it better
  png_set_chunk_malloc_max(reader->codec, kChunkBytesMax);
  png_set_crc_action(reader->codec, PNG_CRC_ERROR_QUIT, PNG_CRC_ERROR_QUIT);
  // Skips every chunk but those that pixels are made of.
  png_set_keep_unknown_chunks(reader->codec, PNG_HANDLE_CHUNK_NEVER, nullptr, -1);
  png_read_info(reader->codec, reader->header);
  png_get_IHDR(reader->codec, reader->header, &reader->width, &reader->height, &reader->bit_depth,
               &reader->colour_type, nullptr, nullptr, nullptr);
  return true;
}

// Asks the library for one of our row forms.
bool ChooseForm(PngReader* reader, AlphaMode alpha, RowForm* form) {  // jumps
  if (setjmp(png_jmpbuf(reader->codec)) != 0) return false;
  png_structp codec = reader->codec;
  const bool has_samples = (reader->colour_type & PNG_COLOR_MASK_ALPHA) != 0;
  const bool has_key = !has_samples && png_get_valid(codec, reader->header, PNG_INFO_tRNS) != 0;
  const bool composites = alpha == AlphaMode::kWhite && (has_samples || has_key);
  if (reader->colour_type == PNG_COLOR_TYPE_PALETTE) png_set_palette_to_rgb(codec);
  if (composites && has_key) png_set_tRNS_to_alpha(codec);
  if (has_samples && !composites) png_set_strip_alpha(codec);
  // Expanding a palette brings its transparency along unless that is taken away again.
  if (has_key && !composites && reader->colour_type == PNG_COLOR_TYPE_PALETTE) png_set_strip_alpha(codec);
  if (reader->colour_type == PNG_COLOR_TYPE_GRAY && reader->bit_depth == 16) {
    *form = composites ? RowForm::kGreyAlpha16 : RowForm::kGrey16;
  } else {
    if (reader->bit_depth == 16) png_set_strip_16(codec);
    if (reader->colour_type == PNG_COLOR_TYPE_GRAY && reader->bit_depth < 8)
      png_set_expand_gray_1_2_4_to_8(codec);
    if ((reader->colour_type & PNG_COLOR_MASK_COLOR) == 0) png_set_gray_to_rgb(codec);
    *form = composites ? RowForm::kRgba8 : RowForm::kRgb8;
  }
  reader->num_passes = png_set_interlace_handling(codec);
  png_read_update_info(codec, reader->header);
  const size_t want = static_cast<size_t>(BytesPerPixel(*form)) * reader->width;
  if (png_get_rowbytes(codec, reader->header) != want) png_error(codec, "unexpected row size");
  return true;
}

void ToRgb(RowForm form, const uint8_t* from, int64_t count, uint8_t* to) {
  switch (form) {
    case RowForm::kRgb8:
      break;
    case RowForm::kRgba8:
      OverWhiteRow(from, count, to);
      break;
    case RowForm::kGrey16:
      for (int64_t x = 0; x < count; ++x, from += 2, to += 3) {
        to[0] = to[1] = to[2] = from[0] == 0 ? from[1] : 255;
      }
      break;
    case RowForm::kGreyAlpha16:  // a colour key: alpha is all or nothing
      for (int64_t x = 0; x < count; ++x, from += 4, to += 3) {
        to[0] = to[1] = to[2] = from[2] == 0 || from[0] != 0 ? 255 : from[1];
      }
      break;
  }
}

struct PixelRows {
  RowForm form;
  uint8_t* rgb;      // [H, W, 3], the result
  uint8_t* scratch;  // in `form`: one row, or the whole picture where it is interlaced; null for kRgb8
};

bool ReadPixels(PngReader* reader, const DecodeOptions& options, const PixelRows& rows) {  // jumps
  if (setjmp(png_jmpbuf(reader->codec)) != 0) return false;
  const int64_t width = reader->width;
  const int64_t row_bytes = width * BytesPerPixel(rows.form);
  const bool direct = rows.form == RowForm::kRgb8;
  const bool whole = reader->num_passes > 1;
  for (int pass = 0; pass < reader->num_passes; ++pass) {
    for (int64_t y = 0; y < reader->height; ++y) {
      if (IsCancelled(options)) {
        reader->was_cancelled = true;
        png_longjmp(reader->codec, 1);
      }
      uint8_t* to = direct ? rows.rgb + y * row_bytes : rows.scratch + (whole ? y * row_bytes : 0);
      png_read_row(reader->codec, to, nullptr);
      if (pass + 1 == reader->num_passes) ToRgb(rows.form, to, width, rows.rgb + y * width * 3);
    }
  }
  png_read_end(reader->codec, nullptr);  // so that a cut file is found out
  return true;
}

struct Destroy {
  void operator()(PngReader* reader) const {
    png_destroy_read_struct(&reader->codec, &reader->header, nullptr);
    delete reader;
  }
};

absl::Status ErrorOf(const PngReader& reader) {
  if (reader.was_cancelled) return absl::CancelledError("decoding was cancelled");
  return absl::InvalidArgumentError(absl::StrCat("the PNG cannot be decoded: ", reader.message));
}

}  // namespace

absl::StatusOr<RgbImage> DecodePng(absl::string_view file, const DecodeOptions& options) {
  std::unique_ptr<PngReader, Destroy> reader(new PngReader{});
  reader->next = file.data();
  reader->left = file.size();
  reader->codec = png_create_read_struct(PNG_LIBPNG_VER_STRING, reader.get(), OnError, OnWarning);
  if (reader->codec != nullptr) reader->header = png_create_info_struct(reader->codec);
  if (reader->header == nullptr) return absl::ResourceExhaustedError("no memory to decode a PNG");
  if (!ReadHeader(reader.get())) return ErrorOf(*reader);
  const ImageSize size{.height = reader->height, .width = reader->width};
  PRISM_RETURN_IF_ERROR(CheckSize(size, options.limits));

  RowForm form;
  if (!ChooseForm(reader.get(), options.alpha, &form)) return ErrorOf(*reader);
  RgbImage image(size);
  std::vector<uint8_t> scratch;
  if (form != RowForm::kRgb8) {
    const int64_t num_rows = reader->num_passes > 1 ? size.height : 1;
    scratch.resize(static_cast<size_t>(num_rows * size.width * BytesPerPixel(form)));
  }
  const PixelRows rows{.form = form, .rgb = image.data(), .scratch = scratch.data()};
  if (!ReadPixels(reader.get(), options, rows)) return ErrorOf(*reader);
  return image;
}

}  // namespace prism
