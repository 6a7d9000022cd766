// RgbImage: one picture as bytes [H, W, 3], red first, rows without gaps.
//
// Thread safety: thread-compatible. Ownership: an RgbImage owns its pixels; it moves, never copies.
#pragma once

#include <cstdint>
#include <cstdlib>
#include <memory>

namespace prism {

// Pixels along each side.
struct ImageSize {
  int64_t height = 0;
  int64_t width = 0;
  friend bool operator==(const ImageSize& a, const ImageSize& b) = default;
};

class RgbImage {
 public:
  // Bytes after the last pixel that may be read, so that vector loads need no special last pixel.
  static constexpr int64_t kReadableTail = 64;

  RgbImage() = default;
  // Pixels are not initialised; the tail is zero. REQUIRES: both sides >= 1
  explicit RgbImage(ImageSize size);

  int64_t height() const { return size_.height; }
  int64_t width() const { return size_.width; }
  ImageSize size() const { return size_; }
  int64_t row_bytes() const { return size_.width * 3; }
  int64_t size_bytes() const { return size_.height * size_.width * 3; }
  bool empty() const { return pixels_ == nullptr; }

  uint8_t* data() { return pixels_.get(); }
  const uint8_t* data() const { return pixels_.get(); }
  uint8_t* row(int64_t y) { return pixels_.get() + y * row_bytes(); }
  const uint8_t* row(int64_t y) const { return pixels_.get() + y * row_bytes(); }

 private:
  struct Free {
    void operator()(uint8_t* p) const { std::free(p); }
  };
  ImageSize size_;
  std::unique_ptr<uint8_t[], Free> pixels_;
};

// The picture as it is to be looked at, from the stored one and its EXIF orientation.
// 1 as it is, 2 mirrored, 3 turned by 180 degrees, 4 upside down, 5 transposed, 6 turned
// clockwise by 90, 7 transposed the other way, 8 turned counterclockwise by 90.
// REQUIRES: 1 <= orientation <= 8
RgbImage ApplyOrientation(RgbImage image, int orientation);

}  // namespace prism
