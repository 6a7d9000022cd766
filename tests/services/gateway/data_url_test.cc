#include "services/gateway/data_url.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "absl/strings/str_cat.h"
#include "common/base/base64.h"

namespace prism {
namespace {

using ::testing::HasSubstr;

TEST(DataUrlTest, GivesThePictureBytesWhateverTheParameters) {
  EXPECT_EQ(*DecodeImageDataUrl("data:image/png;base64,Zm9v", 100), "foo");
  EXPECT_EQ(*DecodeImageDataUrl("DATA:image/PNG;charset=x;BASE64,Zm9v", 100), "foo");
}

struct BadUrl {
  std::string url;
  const char* says;
};

class BadUrlTest : public testing::TestWithParam<BadUrl> {};

TEST_P(BadUrlTest, IsRefusedWithTheReason) {
  const absl::StatusOr<std::string> decoded = DecodeImageDataUrl(GetParam().url, 100);
  EXPECT_TRUE(absl::IsInvalidArgument(decoded.status())) << decoded.status();
  EXPECT_THAT(std::string(decoded.status().message()), HasSubstr(GetParam().says));
}

INSTANTIATE_TEST_SUITE_P(
    All, BadUrlTest,
    testing::Values(BadUrl{"https://example.com/a.png", "scheme https; only data:"}, BadUrl{"", "no scheme"},
                    BadUrl{"file:///etc/passwd", "scheme file"}, BadUrl{"data:image/png;base64", "no comma"},
                    BadUrl{"data:" + std::string(5000, 'x') + ",AAAA", "no comma in its first 256"},
                    BadUrl{"data:video/jpeg;base64,Zm9v", "not of media type image/"},
                    BadUrl{"data:image/png,Zm9v", "not marked ;base64"},
                    BadUrl{"data:image/png;base64,", "empty (0 bytes)"},
                    BadUrl{"data:image/jpeg;base64,Zm9v,Zm9v,Zm9v", "byte 4 is 0x2c"}));

TEST(DataUrlTest, ChecksTheSizeBeforeDecoding) {
  const std::string fits = absl::StrCat("data:image/png;base64,", EncodeBase64(std::string(100, 'a')));
  EXPECT_TRUE(DecodeImageDataUrl(fits, 100).ok());
  const std::string one_more = absl::StrCat("data:image/png;base64,", EncodeBase64(std::string(101, 'a')));
  EXPECT_TRUE(absl::IsResourceExhausted(DecodeImageDataUrl(one_more, 100).status()));
  // Not base64 at all, and still it is the size that is complained of: nothing was decoded.
  const std::string large = absl::StrCat("data:image/png;base64,", std::string(1 << 20, '*'));
  EXPECT_TRUE(absl::IsResourceExhausted(DecodeImageDataUrl(large, 100).status()));
}

TEST(ClipUrlTest, GivesTheFramesAndWhereTheyEnd) {
  const auto clip = DecodeClipDataUrl("data:video/jpeg;base64,Zm9v,YmFyIQ==,eA==", 100);
  ASSERT_TRUE(clip.ok()) << clip.status();
  EXPECT_EQ(clip->bytes, "foobar!x");
  EXPECT_THAT(clip->frame_bytes, testing::ElementsAre(3u, 4u, 1u));
  for (const char* type : {"video/png", "video/webp", "VIDEO/JPG", "video/jpeg;charset=x"}) {
    EXPECT_TRUE(DecodeClipDataUrl(absl::StrCat("data:", type, ";base64,Zm9v,Zm9v"), 100).ok()) << type;
  }
}

class BadClipUrlTest : public testing::TestWithParam<BadUrl> {};

TEST_P(BadClipUrlTest, IsRefusedWithTheReason) {
  const absl::StatusOr<ClipFiles> decoded = DecodeClipDataUrl(GetParam().url, 100);
  EXPECT_TRUE(absl::IsInvalidArgument(decoded.status())) << decoded.status();
  EXPECT_THAT(std::string(decoded.status().message()), HasSubstr(GetParam().says));
}

std::string Frames(int count) {
  std::string url = "data:video/png;base64,eA==";
  for (int i = 1; i < count; ++i) url += ",eA==";
  return url;
}

INSTANTIATE_TEST_SUITE_P(
    All, BadClipUrlTest,
    testing::Values(BadUrl{"https://example.com/a.mp4",
                           "scheme https; only data:video/jpeg;base64,FRAME,FRAME"},
                    BadUrl{"data:video/mp4;base64,AAAA",
                           "is a video file; those are not decoded here: send its frames as data:video/jpeg"},
                    BadUrl{"data:video/;base64,AAAA,AAAA", "is a video file"},
                    BadUrl{"data:image/jpeg;base64,Zm9v,Zm9v", "not of media type video/"},
                    BadUrl{"data:video/jpeg,Zm9v,Zm9v", "not marked ;base64"},
                    BadUrl{"data:video/jpeg;base64,", "clip has 0 frames, want 2 to 256"},
                    BadUrl{Frames(1), "clip has 1 frames"}, BadUrl{Frames(257), "clip has 257 frames"},
                    BadUrl{"data:video/jpeg;base64,Zm9v,,Zm9v", "frame 1 of the clip is empty"},
                    BadUrl{"data:video/jpeg;base64,Zm9v,", "frame 1 of the clip is empty"},
                    BadUrl{"data:video/jpeg;base64,Zm9v,Z*9v", "byte 1 is 0x2a"}));

TEST(ClipUrlTest, CountsTheFramesTogether) {
  EXPECT_TRUE(DecodeClipDataUrl(Frames(100), 100).ok());
  EXPECT_TRUE(DecodeClipDataUrl(Frames(256), 256).ok());
  EXPECT_TRUE(absl::IsResourceExhausted(DecodeClipDataUrl(Frames(101), 100).status()));
}

TEST(SniffTest, KnowsTheThreeFormatsByTheirFirstBytes) {
  EXPECT_EQ(SniffImageType("\xff\xd8\xff\xe0 rest"), "image/jpeg");
  EXPECT_EQ(SniffImageType("\x89PNG\r\n\x1a\n rest"), "image/png");
  EXPECT_EQ(SniffImageType("RIFF1234WEBPVP8 "), "image/webp");
  EXPECT_EQ(SniffImageType("GIF89a"), "");
  EXPECT_EQ(SniffImageType(""), "");
}

}  // namespace
}  // namespace prism
