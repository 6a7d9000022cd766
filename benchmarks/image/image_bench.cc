// What one picture costs before the tower, on one core: decode, resize and patches of a JPEG of
// 1920 x 1080, beside the bare decoding by libjpeg-turbo, and of one of 4032 x 3024 as a phone
// sends it. The picture is tests/oracle/images/coffee.jpg, enlarged, with a little fixed noise.
//
//   image_bench [PATH/TO/coffee.jpg]
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <functional>
#include <iterator>
#include <string>
#include <vector>

// jpeglib.h names size_t and FILE without including what declares them, so it comes after.
// clang-format off
#include <jpeglib.h>
// clang-format on

#include "services/vision_encoder/image/image_decoder.h"
#include "services/vision_encoder/image/patchify.h"
#include "services/vision_encoder/image/resize.h"
#include "services/vision_encoder/image/smart_resize.h"

namespace prism {
namespace {

constexpr int kRepeats = 15;

// The median of kRepeats runs, in ms.
double MedianMs(const std::function<void()>& body) {
  std::vector<double> times;
  for (int i = 0; i < kRepeats; ++i) {
    const auto start = std::chrono::steady_clock::now();
    body();
    times.push_back(
        std::chrono::duration<double, std::milli>(std::chrono::steady_clock::now() - start).count());
  }
  std::sort(times.begin(), times.end());
  return times[kRepeats / 2];
}

RgbImage Copy(const RgbImage& image) {
  RgbImage copy(image.size());
  std::memcpy(copy.data(), image.data(), static_cast<size_t>(image.size_bytes()));
  return copy;
}

std::string EncodeJpeg(const RgbImage& image) {
  jpeg_compress_struct codec;
  jpeg_error_mgr errors;
  codec.err = jpeg_std_error(&errors);
  jpeg_create_compress(&codec);
  unsigned char* bytes = nullptr;
  unsigned long size = 0;
  jpeg_mem_dest(&codec, &bytes, &size);
  codec.image_width = static_cast<JDIMENSION>(image.width());
  codec.image_height = static_cast<JDIMENSION>(image.height());
  codec.input_components = 3;
  codec.in_color_space = JCS_RGB;
  jpeg_set_defaults(&codec);
  jpeg_set_quality(&codec, 90, TRUE);
  jpeg_start_compress(&codec, TRUE);
  while (codec.next_scanline < codec.image_height) {
    JSAMPROW row = const_cast<uint8_t*>(image.row(codec.next_scanline));
    jpeg_write_scanlines(&codec, &row, 1);
  }
  jpeg_finish_compress(&codec);
  jpeg_destroy_compress(&codec);
  std::string file(reinterpret_cast<char*>(bytes), size);
  std::free(bytes);
  return file;
}

// libjpeg-turbo alone, into a buffer that is there already.
void DecodeBare(const std::string& file, std::vector<uint8_t>& rgb) {
  jpeg_decompress_struct codec;
  jpeg_error_mgr errors;
  codec.err = jpeg_std_error(&errors);
  jpeg_create_decompress(&codec);
  jpeg_mem_src(&codec, reinterpret_cast<const unsigned char*>(file.data()), file.size());
  jpeg_read_header(&codec, TRUE);
  jpeg_start_decompress(&codec);
  rgb.resize(size_t{3} * codec.output_width * codec.output_height);
  while (codec.output_scanline < codec.output_height) {
    JSAMPROW row = rgb.data() + size_t{3} * codec.output_width * codec.output_scanline;
    jpeg_read_scanlines(&codec, &row, 1);
  }
  jpeg_finish_decompress(&codec);
  jpeg_destroy_decompress(&codec);
}

int Measure(const RgbImage& photo, ImageSize size) {
  RgbImage image = ResizeBicubic(Copy(photo), size);
  uint32_t noise = 1;
  for (int64_t i = 0; i < image.size_bytes(); ++i) {
    noise = noise * 1664525 + 1013904223;
    image.data()[i] =
        static_cast<uint8_t>(std::clamp(image.data()[i] + static_cast<int>(noise >> 28) - 8, 0, 255));
  }
  const std::string file = EncodeJpeg(image);
  const ImageSize to = *SmartResize(size, {.min_pixels = 65536, .max_pixels = 4096 * kBlockPixels});
  const PatchGridSize grid = GridOf(1, to);
  const Tensor tensor = Tensor::Host(DType::kF32, {grid.num_patches(), kPatchValues});
  const absl::Span<float> patches = tensor.span<float>();

  std::vector<uint8_t> rgb;
  const double bare_ms = MedianMs([&] { DecodeBare(file, rgb); });
  RgbImage decoded, resized;
  const double decode_ms = MedianMs([&] { decoded = *DecodeImage(file); });
  std::vector<RgbImage> copies;
  for (int i = 0; i < kRepeats; ++i) copies.push_back(Copy(decoded));
  const double resize_ms = MedianMs([&] {
    resized = ResizeBicubic(std::move(copies.back()), to);
    copies.pop_back();
  });
  const RgbImage* frame = &resized;
  const double patchify_ms = MedianMs([&] { PatchifyInto({&frame, 1}, patches); });
  const double total_ms = MedianMs([&] {
    RgbImage whole = ResizeBicubic(*DecodeImage(file), to);
    const RgbImage* one = &whole;
    PatchifyInto({&one, 1}, patches);
  });
  std::printf(
      "%4lld x %-4lld JPEG, %5.0f kB -> %lld x %lld: decode %.2f ms, resize %.2f ms, patches %.2f ms; whole "
      "%.2f ms\n"
      "            libjpeg-turbo's bare decode %.2f ms; whole / bare %.2f\n",
      static_cast<long long>(size.width), static_cast<long long>(size.height),
      static_cast<double>(file.size()) / 1e3, static_cast<long long>(to.width),
      static_cast<long long>(to.height), decode_ms, resize_ms, patchify_ms, total_ms, bare_ms,
      total_ms / bare_ms);
  return total_ms > 0 ? 0 : 1;
}

int Run(const std::string& path) {
  std::ifstream in(path, std::ios::binary);
  const std::string file{std::istreambuf_iterator<char>(in), {}};
  const auto photo = DecodeImage(file);
  if (!photo.ok()) {
    std::fprintf(stderr, "%s: %s\n", path.c_str(), std::string(photo.status().message()).c_str());
    return 1;
  }
  return Measure(*photo, {.height = 1080, .width = 1920}) | Measure(*photo, {.height = 3024, .width = 4032});
}

}  // namespace
}  // namespace prism

int main(int argc, char** argv) { return prism::Run(argc > 1 ? argv[1] : "tests/oracle/images/coffee.jpg"); }
