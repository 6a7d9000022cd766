#include "common/text/unicode_normalizer.h"

#include <utf8proc.h>

#include <cstdlib>
#include <random>

#include "common/base/utf8.h"
#include "gtest/gtest.h"

namespace prism {
namespace {

// utf8proc's own form C of the whole text.
std::string WholeNfc(const std::string& text) {
  utf8proc_uint8_t* out = nullptr;
  const utf8proc_ssize_t size = utf8proc_map(
      reinterpret_cast<const utf8proc_uint8_t*>(text.data()), static_cast<utf8proc_ssize_t>(text.size()),
      &out, static_cast<utf8proc_option_t>(UTF8PROC_STABLE | UTF8PROC_COMPOSE));
  EXPECT_GE(size, 0);
  std::string result(reinterpret_cast<const char*>(out), static_cast<size_t>(size));
  std::free(out);
  return result;
}

TEST(UnicodeNormalizerTest, ComposesWhatTheStandardComposes) {
  EXPECT_EQ(NormalizeNfc("e\u0301"), "\u00e9");
  EXPECT_EQ(NormalizeNfc("a\u0323\u0302"), "\u1ead");
  EXPECT_EQ(NormalizeNfc("a\u0302\u0323"), "\u1ead");
  EXPECT_EQ(NormalizeNfc("\u1100\u1161\u11a8"), "\uac01");
  EXPECT_EQ(NormalizeNfc("\uac00\u11a8"), "\uac01");
  EXPECT_EQ(NormalizeNfc("\u212b\u2126"), "\u00c5\u03a9");
  EXPECT_EQ(NormalizeNfc("\u0958"), "\u0915\u093c");  // excluded from composition
  EXPECT_EQ(NormalizeNfc("\ufb01"), "\ufb01");        // only compatible
  EXPECT_EQ(NormalizeNfc("\U0002f800"), "\u4e3d");
  EXPECT_EQ(NormalizeNfc(""), "");
  EXPECT_EQ(NormalizeNfc("\u0301"), "\u0301");
}

TEST(UnicodeNormalizerTest, OrdinaryTextIsKnownAtAGlance) {
  EXPECT_TRUE(IsQuicklyNfc(""));
  EXPECT_TRUE(IsQuicklyNfc("plain ascii\n"));
  EXPECT_TRUE(IsQuicklyNfc("中文，日本語の한국어 naïve Привет 👍🏽"));
  EXPECT_FALSE(IsQuicklyNfc("e\u0301"));
  EXPECT_FALSE(IsQuicklyNfc("\u212b"));
}

TEST(UnicodeNormalizerTest, EveryCharacterAloneAndBesideOthersIsNormalizedAsTheWholeIs) {
  for (char32_t c = 0; c <= 0x10ffff; ++c) {
    if (c >= 0xd800 && c <= 0xdfff) continue;
    if (c == 0x30100) c = 0xe0000;  // nothing is assigned in between but more ideographs
    if (c == 0xe0200) c = 0x10ff00;
    for (const std::string& before : {std::string(), std::string("a"), std::string("\u1100")}) {
      std::string text = before;
      AppendCodePoint(c, &text);
      text += "\u0323\u0301";
      const std::string expected = WholeNfc(text);
      ASSERT_EQ(NormalizeNfc(text), expected) << "U+" << std::hex << static_cast<uint32_t>(c);
    }
    std::string alone;
    AppendCodePoint(c, &alone);
    if (IsQuicklyNfc(alone)) {
      ASSERT_EQ(WholeNfc(alone), alone) << std::hex << static_cast<uint32_t>(c);
    }
  }
}

TEST(UnicodeNormalizerTest, RandomMixturesAreNormalizedAsTheWholeIs) {
  std::mt19937 random(3);
  const std::vector<char32_t> pool = {'a',   'e',   ' ',    '\n',   0x301,  0x302,   0x323,   0x327,
                                      0x345, 0x3b1, 0x1100, 0x1161, 0x11a8, 0xac00,  0x212b,  0x915,
                                      0x93c, 0x958, 0x4e2d, 0x3099, 0x304b, 0x1d15e, 0x1f600, 0x30001,
                                      0x9c7, 0x9be, 0xdd9,  0xdcf,  0xdca};
  for (int round = 0; round < 20000; ++round) {
    std::string text;
    const size_t length = random() % 12;
    for (size_t i = 0; i < length; ++i) AppendCodePoint(pool[random() % pool.size()], &text);
    const std::string normal = NormalizeNfc(text);
    ASSERT_EQ(normal, WholeNfc(text)) << text;
    if (IsQuicklyNfc(text)) {
      ASSERT_EQ(normal, text);
    }
  }
}

}  // namespace
}  // namespace prism
