#include "services/vision_encoder/image/rgb_image.h"

#include <sys/mman.h>

#include <algorithm>
#include <cstring>

#include "common/base/check.h"

namespace prism {

RgbImage::RgbImage(ImageSize size) : size_(size) {
  PRISM_CHECK(size.height >= 1 && size.width >= 1);
  constexpr size_t kHugePage = size_t{2} << 20;
  size_t bytes = static_cast<size_t>(size_bytes() + kReadableTail);
  if (bytes >= 2 * kHugePage) {
    // A large picture in small pages spends a third of its decoding in page faults.
    bytes = (bytes + kHugePage - 1) / kHugePage * kHugePage;
    pixels_.reset(static_cast<uint8_t*>(std::aligned_alloc(kHugePage, bytes)));
    if (pixels_ != nullptr) madvise(pixels_.get(), bytes, MADV_HUGEPAGE);
  } else {
    pixels_.reset(static_cast<uint8_t*>(std::malloc(bytes)));
  }
  PRISM_CHECK(pixels_ != nullptr);
  std::memset(pixels_.get() + size_bytes(), 0, kReadableTail);
}

RgbImage ApplyOrientation(RgbImage image, int orientation) {
  PRISM_CHECK(orientation >= 1 && orientation <= 8);
  if (orientation == 1) return image;
  const int64_t height = image.height();
  const int64_t width = image.width();
  const bool transposes = orientation >= 5;
  RgbImage out(transposes ? ImageSize{.height = width, .width = height} : image.size());

  // Where the stored pixel (y, x) goes is linear in y and x: start + y * step_y + x * step_x.
  const int64_t row = out.row_bytes();
  const bool flips_x = orientation == 2 || orientation == 3 || orientation == 7 || orientation == 8;
  const bool flips_y = orientation == 3 || orientation == 4 || orientation == 6 || orientation == 7;
  const int64_t along_x = transposes ? row : 3;
  const int64_t along_y = transposes ? 3 : row;
  const int64_t step_x = flips_x ? -along_x : along_x;
  const int64_t step_y = flips_y ? -along_y : along_y;
  uint8_t* const start =
      out.data() + (flips_x ? (width - 1) * along_x : 0) + (flips_y ? (height - 1) * along_y : 0);

  // Blocks of this side keep both the rows read and the rows written in the first cache level.
  constexpr int64_t kBlock = 32;
  for (int64_t y0 = 0; y0 < height; y0 += kBlock) {
    for (int64_t x0 = 0; x0 < width; x0 += kBlock) {
      const int64_t y_end = std::min(height, y0 + kBlock);
      const int64_t x_end = std::min(width, x0 + kBlock);
      for (int64_t y = y0; y < y_end; ++y) {
        const uint8_t* from = image.row(y) + x0 * 3;
        uint8_t* to = start + y * step_y + x0 * step_x;
        for (int64_t x = x0; x < x_end; ++x, from += 3, to += step_x) {
          to[0] = from[0];
          to[1] = from[1];
          to[2] = from[2];
        }
      }
    }
  }
  return out;
}

}  // namespace prism
