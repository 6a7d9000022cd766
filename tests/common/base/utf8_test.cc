#include "common/base/utf8.h"

#include <random>

#include "gtest/gtest.h"

namespace prism {
namespace {

std::string Repair(absl::string_view bytes) {
  Utf8Repairer repairer;
  std::string out;
  repairer.Push(bytes, &out);
  repairer.Finish(&out);
  return out;
}

TEST(Utf8Test, ValidPrefixEndsAtTheFirstBadByte) {
  EXPECT_EQ(Utf8ValidPrefix(""), 0u);
  EXPECT_EQ(Utf8ValidPrefix("abc"), 3u);
  EXPECT_EQ(Utf8ValidPrefix("0123456789\u4e2d\U0001f600z"), 18u);
  EXPECT_EQ(Utf8ValidPrefix("a\xc0\x80"), 1u);          // long form
  EXPECT_EQ(Utf8ValidPrefix("a\xed\xa0\x80"), 1u);      // surrogate
  EXPECT_EQ(Utf8ValidPrefix("a\xf4\x90\x80\x80"), 1u);  // beyond U+10FFFF
  EXPECT_EQ(Utf8ValidPrefix("a\xe4\xb8"), 1u);          // cut short
  EXPECT_EQ(Utf8ValidPrefix("01234567\x80"), 8u);
}

TEST(Utf8Test, ACharactersSizeIsThatOfAWholeOneOrZero) {
  EXPECT_EQ(Utf8CharacterSize(""), 0u);
  EXPECT_EQ(Utf8CharacterSize("ab"), 1u);
  EXPECT_EQ(Utf8CharacterSize("\u4e2dx"), 3u);
  EXPECT_EQ(Utf8CharacterSize("\U0001f600"), 4u);
  EXPECT_EQ(Utf8CharacterSize("\xe4\xb8"), 0u);  // cut short
  EXPECT_EQ(Utf8CharacterSize("\x80z"), 0u);
}

TEST(Utf8Test, EveryCodePointGoesThereAndBack) {
  for (char32_t c = 0; c <= 0x10ffff; ++c) {
    if (c >= 0xd800 && c <= 0xdfff) continue;
    std::string text;
    AppendCodePoint(c, &text);
    ASSERT_EQ(Utf8ValidPrefix(text), text.size());
    size_t offset = 0;
    ASSERT_EQ(NextCodePoint(text, &offset), c);
    ASSERT_EQ(offset, text.size());
  }
}

TEST(Utf8Test, TheStatusNamesTheByteAndItsOffset) {
  EXPECT_TRUE(CheckUtf8("fine", "stop.0").ok());
  EXPECT_EQ(CheckUtf8("ab\xff", "stop.0").message(), "stop.0: byte 0xff at offset 2 is not UTF-8");
}

TEST(Utf8RepairerTest, EachMaximalPartBecomesOneReplacement) {
  EXPECT_EQ(Repair("a\xf0\x9f\x98z"), "a\ufffdz");
  EXPECT_EQ(Repair("\xf0\x9f\x98"), "\ufffd");
  EXPECT_EQ(Repair("\x80\x80"), "\ufffd\ufffd");
  EXPECT_EQ(Repair("\xc0\xaf\xe0\x80\xbf"), "\ufffd\ufffd\ufffd\ufffd\ufffd");
  // The example of the Unicode Standard, table 3-11.
  EXPECT_EQ(Repair("\xe1\x80\xe2\xf0\x91\x92\xf1\xbf\x41"), "\ufffd\ufffd\ufffd\ufffdA");
  EXPECT_EQ(Repair("\xed\xa0\x80\xed\xbf\xbf\xed\xaf\x41"),
            "\ufffd\ufffd\ufffd\ufffd\ufffd\ufffd\ufffd\ufffd"
            "A");
}

TEST(Utf8RepairerTest, TheOutputDoesNotDependOnTheCuts) {
  std::mt19937 random(2);
  const std::string pool("ab\x80\xbf\xc2\xe0\xa0\xe4\xb8\xad\xed\xf0\x9f\x98\x80\xf4\x8f\xff\x90", 19);
  for (int round = 0; round < 20000; ++round) {
    std::string bytes;
    for (size_t i = random() % 16; i > 0; --i) bytes += pool[random() % pool.size()];
    Utf8Repairer repairer;
    std::string pieces;
    for (size_t i = 0; i < bytes.size();) {
      const size_t size = std::min<size_t>(1 + random() % 3, bytes.size() - i);
      std::string piece;
      repairer.Push(absl::string_view(bytes).substr(i, size), &piece);
      ASSERT_EQ(Utf8ValidPrefix(piece), piece.size());
      ASSERT_LE(repairer.held_bytes(), 3u);
      pieces += piece;
      i += size;
    }
    repairer.Finish(&pieces);
    ASSERT_EQ(pieces, Repair(bytes));
  }
}

}  // namespace
}  // namespace prism
