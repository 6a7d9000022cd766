#include "services/vision_encoder/image/image_decoder.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <sstream>

#include "tests/services/vision_encoder/image/picture_files.h"

namespace prism {
namespace {

using ::prism::testing::Big;
using ::prism::testing::DigestOf;
using ::prism::testing::ExifBlock;
using ::prism::testing::JpegWithApp1;
using ::prism::testing::JpegWithSize;
using ::prism::testing::OraclePicture;
using ::prism::testing::PngBomb;
using ::prism::testing::PngChunk;
using ::prism::testing::SmallPicture;
using ::testing::HasSubstr;

std::string Message(const absl::StatusOr<RgbImage>& image) { return std::string(image.status().message()); }

struct Expected {
  std::string file;
  int64_t width = 0, height = 0;
  std::string drop, white;
};

std::vector<Expected> AllExpected() {
  std::istringstream in(SmallPicture("expected.txt"));
  std::vector<Expected> all;
  for (Expected e; in >> e.file >> e.width >> e.height >> e.drop >> e.white;) all.push_back(e);
  return all;
}

TEST(ImageDecoderTest, ReadsEveryKindOfPictureAsPillowDoes) {
  const std::vector<Expected> all = AllExpected();
  ASSERT_EQ(all.size(), 36u);
  for (const Expected& e : all) {
    for (const AlphaMode alpha : {AlphaMode::kDrop, AlphaMode::kWhite}) {
      const auto image = DecodeImage(SmallPicture(e.file), {.alpha = alpha});
      ASSERT_TRUE(image.ok()) << e.file << ": " << image.status();
      EXPECT_EQ(image->width(), e.width) << e.file;
      EXPECT_EQ(image->height(), e.height) << e.file;
      EXPECT_EQ(DigestOf(*image), alpha == AlphaMode::kDrop ? e.drop : e.white)
          << e.file << (alpha == AlphaMode::kDrop ? " dropped" : " on white");
    }
  }
}

TEST(ImageDecoderTest, RefusesOtherTypesByName) {
  const std::pair<std::string, std::string> cases[] = {
      {"GIF89a;<script>", "GIF"},
      {std::string("\0\0\0\x18"
                   "ftypheic",
                   12),
       "HEIC"},
      {std::string("\0\0\0\x18"
                   "ftypavif",
                   12),
       "AVIF"},
      {std::string("\0\0\0\x18"
                   "ftypisom",
                   12),
       "MP4"},
      {"BM123456", "BMP"},
      {"%PDF-1.7\n\x89PNG\r\n\x1a\n", "PDF"},
      {std::string("II*\0", 4), "TIFF"},
      {std::string("MM\0*", 4), "TIFF"},
      {"<svg xmlns=", "SVG"},
      {"<!DOCTYPE html>", "HTML"},
      {"\xff\x0a", "JPEG XL"},
  };
  for (const auto& [file, name] : cases) {
    const auto image = DecodeImage(file);
    EXPECT_EQ(image.status().code(), absl::StatusCode::kInvalidArgument);
    EXPECT_EQ(Message(image), "the picture is a file of type " + name + "; JPEG, PNG and WebP are read");
  }
  EXPECT_EQ(Message(DecodeImage("")), "the picture has 0 bytes");
  EXPECT_EQ(Message(DecodeImage("hello")),
            "the 5 bytes are no picture known here; JPEG, PNG and WebP are read");
}

TEST(ImageDecoderTest, DecidesByTheFirstBytesAndIgnoresWhatFollowsThePicture) {
  for (const std::string name : {"rgb8.png", "baseline_420.jpg", "lossless.webp"}) {
    const std::string file = SmallPicture(name);
    const auto plain = DecodeImage(file);
    const auto polyglot = DecodeImage(file + "<script>alert(1)</script>");
    ASSERT_TRUE(polyglot.ok()) << name << ": " << polyglot.status();
    EXPECT_EQ(DigestOf(*polyglot), DigestOf(*plain));
  }
}

TEST(ImageDecoderTest, RefusesAFileAboveTheLimitOfBytes) {
  const std::string file = SmallPicture("rgb8.png");
  DecodeOptions options;
  options.limits.file_bytes_max = static_cast<int64_t>(file.size());
  EXPECT_TRUE(DecodeImage(file, options).ok());
  options.limits.file_bytes_max -= 1;
  EXPECT_EQ(Message(DecodeImage(file, options)), "the picture file has " + std::to_string(file.size()) +
                                                     " bytes, limit " + std::to_string(file.size() - 1));
}

TEST(ImageDecoderTest, RefusesBombsByTheirHeader) {
  EXPECT_EQ(Message(DecodeImage(PngBomb(20000, 20000))),
            "the picture is 20000 x 20000 = 400000000 pixels, limit 50000000");
  EXPECT_EQ(Message(DecodeImage(PngBomb(0x7fffffff, 0x7fffffff))),
            "the picture is 2147483647 x 2147483647 = 4611686014132420609 pixels, limit 50000000");
  EXPECT_EQ(Message(DecodeImage(JpegWithSize(SmallPicture("baseline_420.jpg"), 64250, 64250))),
            "the picture is 64250 x 64250 = 4128062500 pixels, limit 50000000");
  // A WebP's extended header: canvas of 16777216 x 16777216.
  std::string webp = SmallPicture("lossy_exif8.webp");
  ASSERT_EQ(webp.substr(12, 4), "VP8X");
  webp.replace(24, 6, std::string(6, '\xff'));
  EXPECT_EQ(Message(DecodeImage(webp)),
            "the picture is 16777216 x 16777216 = 281474976710656 pixels, limit 50000000");
}

TEST(ImageDecoderTest, RefusesAnAspectRatioAboveTwoHundredAndAPictureOfNoPixels) {
  EXPECT_EQ(Message(DecodeImage(PngBomb(100000, 1))),
            "the picture is 100000 x 1 pixels, aspect ratio 100000, limit 200");
  EXPECT_EQ(Message(DecodeImage(PngBomb(28, 5601))),
            "the picture is 28 x 5601 pixels, aspect ratio 200+, limit 200");
  EXPECT_FALSE(DecodeImage(PngBomb(0, 0)).ok());
  EXPECT_FALSE(DecodeImage(JpegWithSize(SmallPicture("baseline_420.jpg"), 0, 10)).ok());
  EXPECT_FALSE(DecodeImage(JpegWithSize(SmallPicture("baseline_420.jpg"), 10, 0)).ok());
}

TEST(ImageDecoderTest, RefusesAFileCutAtAnyByte) {
  for (const std::string name :
       {"baseline_420.jpg", "progressive.jpg", "cmyk.jpg", "palette8_alpha.png", "rgb8_interlaced.png",
        "lossy.webp", "lossless.webp", "lossy_alpha.webp", "animated.webp"}) {
    const std::string file = SmallPicture(name);
    ASSERT_TRUE(DecodeImage(file).ok());
    for (size_t size = 0; size < file.size(); ++size) {
      // A copy of exactly that size, so that a sanitizer sees a read past its end.
      const std::vector<char> cut(file.begin(), file.begin() + static_cast<std::ptrdiff_t>(size));
      const auto image = DecodeImage(absl::string_view(cut.data(), cut.size()));
      EXPECT_EQ(image.status().code(), absl::StatusCode::kInvalidArgument) << name << " cut at " << size;
    }
  }
}

TEST(ImageDecoderTest, SurvivesAFlippedByteAnywhere) {
  for (const Expected& e : AllExpected()) {
    std::string file = SmallPicture(e.file);
    for (size_t i = 0; i < file.size(); i += 3) {
      const char was = file[i];
      file[i] = static_cast<char>(was ^ (1 << (i % 8)));
      const auto image = DecodeImage(file);
      EXPECT_TRUE(image.ok() || absl::IsInvalidArgument(image.status())) << e.file << ": " << image.status();
      file[i] = was;
    }
  }
}

TEST(ImageDecoderTest, TakesAWrongCheckSumInAPngForAnError) {
  std::string file = SmallPicture("rgb8.png");
  const size_t crc = file.size() - 12 - 1;  // of the last IDAT
  file[crc] = static_cast<char>(file[crc] ^ 1);
  EXPECT_THAT(Message(DecodeImage(file)), HasSubstr("CRC"));
}

TEST(ImageDecoderTest, AppliesEveryOrientationOfAnExifBlock) {
  const std::string jpeg = SmallPicture("baseline_444.jpg");
  const auto stored = DecodeImage(jpeg);
  ASSERT_TRUE(stored.ok());
  const int64_t w = stored->width(), h = stored->height();
  for (int orientation = 1; orientation <= 8; ++orientation) {
    const auto image = DecodeImage(JpegWithApp1(jpeg, ExifBlock(orientation)));
    ASSERT_TRUE(image.ok());
    ASSERT_EQ(image->width(), orientation <= 4 ? w : h);
    ASSERT_EQ(image->height(), orientation <= 4 ? h : w);
    for (int64_t y = 0; y < image->height(); ++y) {
      for (int64_t x = 0; x < image->width(); ++x) {
        // From the specification of tag 0x0112: where the stored row 0 and column 0 are seen.
        int64_t from_y = y, from_x = x;
        if (orientation == 2) from_x = w - 1 - x;
        if (orientation == 3) from_y = h - 1 - y, from_x = w - 1 - x;
        if (orientation == 4) from_y = h - 1 - y;
        if (orientation == 5) from_y = x, from_x = y;
        if (orientation == 6) from_y = h - 1 - x, from_x = y;
        if (orientation == 7) from_y = h - 1 - x, from_x = w - 1 - y;
        if (orientation == 8) from_y = x, from_x = w - 1 - y;
        for (int c = 0; c < 3; ++c) {
          ASSERT_EQ(image->row(y)[x * 3 + c], stored->row(from_y)[from_x * 3 + c])
              << "orientation " << orientation << " at " << x << ", " << y;
        }
      }
    }
  }
}

TEST(ImageDecoderTest, ReadsAPictureWhoseExifBlockIsMalformed) {
  const std::string jpeg = SmallPicture("baseline_444.jpg");
  const std::string plain = DigestOf(*DecodeImage(jpeg));
  std::string huge = std::string("Exif\0\0MM\0*\0\0\0\x08\xff\xff", 16) + std::string(60000, '\x7f');
  std::string looping = std::string("Exif\0\0II*\0\x08\0\0\0\0\0\x08\0\0\0", 20);
  for (const std::string& block :
       {std::string("Exif\0\0", 6), std::string("Exif\0\0MM\0*\xff\xff\xff\xff", 14), huge, looping,
        ExifBlock(0), ExifBlock(9), ExifBlock(65535)}) {
    const auto image = DecodeImage(JpegWithApp1(jpeg, block));
    ASSERT_TRUE(image.ok()) << image.status();
    EXPECT_EQ(DigestOf(*image), plain);
  }
}

TEST(ImageDecoderTest, RefusesAJpegOfTooManyScans) {
  const std::string file = SmallPicture("progressive.jpg");
  DecodeOptions options;
  options.limits.jpeg_scans_max = 3;
  EXPECT_EQ(Message(DecodeImage(file, options)),
            "the JPEG of 1073 pixels has more than 3 scans, the limit at its size");
  options.limits = {};
  options.limits.jpeg_scan_pixels_max = 5 * 1073;
  EXPECT_EQ(Message(DecodeImage(file, options)),
            "the JPEG of 1073 pixels has more than 5 scans, the limit at its size");
  // The last scan, three hundred times.
  const size_t scan = file.rfind("\xff\xda");
  ASSERT_NE(scan, std::string::npos);
  std::string many = file.substr(0, file.size() - 2);
  for (int i = 0; i < 300; ++i) many += file.substr(scan, file.size() - 2 - scan);
  EXPECT_EQ(DecodeImage(many + "\xff\xd9").status().code(), absl::StatusCode::kInvalidArgument);
}

TEST(ImageDecoderTest, BoundsTheMemoryOfTheCodec) {
  DecodeOptions options;
  options.limits.codec_bytes_max = 1 << 20;  // the coefficients of all pixels are kept: 24 MB
  EXPECT_EQ(Message(DecodeImage(JpegWithSize(SmallPicture("progressive.jpg"), 2000, 2000), options)),
            "the JPEG cannot be decoded: Backing store not supported");
}

TEST(ImageDecoderTest, StopsWhenCancelled) {
  const std::atomic<bool> cancelled{true};
  for (const std::string name : {"baseline_420.jpg", "progressive.jpg", "rgb8.png", "lossy.webp"}) {
    EXPECT_EQ(DecodeImage(SmallPicture(name), {.cancelled = &cancelled}).status().code(),
              absl::StatusCode::kCancelled)
        << name;
  }
}

// Wraps the still picture in `webp` (RIFF header, one VP8L chunk) as the first frame of an
// animation, at (2 left2, 2 top2) of a canvas.
std::string Animation(const std::string& webp, int left2, int top2, int canvas_width, int canvas_height) {
  const auto little = [](uint32_t v, int n) {
    std::string out;
    for (int i = 0; i < n; ++i) out.push_back(static_cast<char>(v >> (8 * i)));
    return out;
  };
  const std::string bitstream = webp.substr(12);
  const std::string anmf = little(static_cast<uint32_t>(left2), 3) + little(static_cast<uint32_t>(top2), 3) +
                           little(37 - 1, 3) + little(29 - 1, 3) + little(100, 3) + std::string(1, '\0') +
                           bitstream;
  std::string body = "WEBPVP8X" + little(10, 4) + std::string("\x12\0\0\0", 4) +
                     little(static_cast<uint32_t>(canvas_width - 1), 3) +
                     little(static_cast<uint32_t>(canvas_height - 1), 3) + "ANIM" + little(6, 4) +
                     std::string(6, '\0') + "ANMF" + little(static_cast<uint32_t>(anmf.size()), 4) + anmf;
  return "RIFF" + little(static_cast<uint32_t>(body.size()), 4) + body;
}

TEST(ImageDecoderTest, ShowsTheFirstFrameOfAnAnimationWhereItLiesOnTheCanvas) {
  const std::string still = SmallPicture("lossless.webp");
  const auto frame = DecodeImage(still);
  ASSERT_TRUE(frame.ok());
  for (const AlphaMode alpha : {AlphaMode::kWhite, AlphaMode::kDrop}) {
    const auto image = DecodeImage(Animation(still, 2, 3, 60, 50), {.alpha = alpha});
    ASSERT_TRUE(image.ok()) << image.status();
    ASSERT_EQ(image->size(), (ImageSize{.height = 50, .width = 60}));
    for (int64_t y = 0; y < 50; ++y) {
      for (int64_t x = 0; x < 60; ++x) {
        const bool inside = x >= 4 && x < 41 && y >= 6 && y < 35;
        const int background = alpha == AlphaMode::kWhite ? 255 : 0;
        const int want = inside ? frame->row(y - 6)[(x - 4) * 3] : background;
        ASSERT_EQ(image->row(y)[x * 3], want) << x << ", " << y;
      }
    }
  }
  EXPECT_THAT(Message(DecodeImage(Animation(still, 12, 3, 60, 50))),
              HasSubstr("a frame of 37 x 29 at (24, 6) leaves the canvas of 60 x 50"));
}

}  // namespace
}  // namespace prism
