#include "common/base/base64.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace prism {
namespace {

using ::testing::HasSubstr;

TEST(Base64Test, DecodesWhatItEncodes) {
  std::string bytes;
  for (int size = 0; size < 300; ++size) {
    const absl::StatusOr<std::string> decoded = DecodeBase64(EncodeBase64(bytes));
    ASSERT_TRUE(decoded.ok()) << size << ": " << decoded.status();
    EXPECT_EQ(*decoded, bytes);
    bytes += static_cast<char>(size * 37 + 11);
  }
}

TEST(Base64Test, AgreesWithTheExamplesOfTheRfc) {
  EXPECT_EQ(EncodeBase64("foobar"), "Zm9vYmFy");
  EXPECT_EQ(EncodeBase64("fooba"), "Zm9vYmE=");
  EXPECT_EQ(EncodeBase64("foob"), "Zm9vYg==");
  EXPECT_EQ(*DecodeBase64("Zm9vYg=="), "foob");
}

struct BadBase64 {
  const char* text;
  const char* says;
};

class BadBase64Test : public testing::TestWithParam<BadBase64> {};

TEST_P(BadBase64Test, IsRefusedWithTheReason) {
  const absl::StatusOr<std::string> decoded = DecodeBase64(GetParam().text);
  EXPECT_TRUE(absl::IsInvalidArgument(decoded.status()));
  EXPECT_THAT(std::string(decoded.status().message()), HasSubstr(GetParam().says));
}

INSTANTIATE_TEST_SUITE_P(
    All, BadBase64Test,
    testing::Values(BadBase64{"Zm9v\nYmFy", "byte 4 is 0x0a"}, BadBase64{"Zm9 vYmF", "byte 3 is 0x20"},
                    BadBase64{"Zm9vYg", "not a multiple of 4"}, BadBase64{"Zm-_", "byte 2 is 0x2d"},
                    BadBase64{"Zm9vYh==", "unused bits"}, BadBase64{"Zm9vYmF=", "unused bits"},
                    BadBase64{"Zg==Zg==", "byte 2 is 0x3d"}, BadBase64{"====", "byte 0 is 0x3d"},
                    BadBase64{"Z===", "byte 1 is 0x3d"}, BadBase64{"Zm9\xff", "byte 3 is 0xff"}));

}  // namespace
}  // namespace prism
