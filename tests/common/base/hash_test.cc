#include "common/base/hash.h"

#include <gtest/gtest.h>

#include <set>
#include <string>
#include <vector>

#include "common/base/crc32c.h"
#include "common/base/ids.h"

namespace prism {
namespace {

std::string Sha256Hex(const std::string& text) { return Hex(Sha256Of(text.data(), text.size())); }

// FIPS 180-4, the examples of NIST.
TEST(Sha256Test, AgreesWithTheVectorsOfTheStandard) {
  EXPECT_EQ(Sha256Hex(""), "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
  EXPECT_EQ(Sha256Hex("abc"), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
  EXPECT_EQ(Sha256Hex("abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq"),
            "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1");
  EXPECT_EQ(Sha256Hex(std::string(1000000, 'a')),
            "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0");
}

TEST(Sha256Test, DigestsAreEqualOrNotWhereverTheyDiffer) {
  const Sha256Digest digest = Sha256Of("abc", 3);
  EXPECT_TRUE(EqualInConstantTime(digest, Sha256Of("abc", 3)));
  for (size_t i = 0; i < digest.size(); ++i) {
    Sha256Digest other = digest;
    other[i] ^= 1;
    EXPECT_FALSE(EqualInConstantTime(digest, other)) << i;
  }
}

TEST(Sha256Test, PiecesHashLikeTheWhole) {
  const std::string text(1000, 'x');
  Sha256 hash;
  for (size_t begin = 0; begin < text.size();) {
    const size_t size = std::min<size_t>(begin % 97 + 1, text.size() - begin);
    hash.Update(absl::string_view(text).substr(begin, size));
    begin += size;
  }
  hash.Update("");
  EXPECT_EQ(Hex(hash.Finish()), Sha256Hex(text));
}

TEST(HexTest, IsLowerCaseAndShowsEveryByte) {
  EXPECT_EQ(Hex(absl::string_view("\x00\x0f\xf0\xff\x7a", 5)), "000ff0ff7a");
  EXPECT_EQ(Hex(absl::string_view()), "");
}

// RFC 3720, appendix B.4.
TEST(Crc32cTest, AgreesWithTheVectorsOfTheStandard) {
  const std::string zeros(32, '\0'), ones(32, '\xFF');
  std::string ascending, descending;
  for (char i = 0; i < 32; ++i) ascending += i;
  descending.assign(ascending.rbegin(), ascending.rend());
  EXPECT_EQ(Crc32c(zeros.data(), 32), 0x8A9136AAu);
  EXPECT_EQ(Crc32c(ones.data(), 32), 0x62A8AB43u);
  EXPECT_EQ(Crc32c(ascending.data(), 32), 0x46DD794Eu);
  EXPECT_EQ(Crc32c(descending.data(), 32), 0x113FDB5Cu);
  EXPECT_EQ(Crc32c("123456789", 9), 0xE3069283u);
  EXPECT_EQ(Crc32c("", 0), 0u);
}

// One bit at a time, as the polynomial is defined.
uint32_t Defined(const std::string& text) {
  uint32_t crc = 0xFFFFFFFFu;
  for (const char c : text) {
    crc ^= static_cast<uint8_t>(c);
    for (int bit = 0; bit < 8; ++bit) crc = (crc & 1) ? (crc >> 1) ^ 0x82F63B78u : crc >> 1;
  }
  return ~crc;
}

TEST(Crc32cTest, EveryLengthAndEveryCutAgreeWithTheDefinition) {
  std::string text;
  for (int i = 0; i < 200; ++i) text += static_cast<char>(i * 37 + 11);
  for (size_t size = 0; size <= text.size(); ++size) {
    const uint32_t whole = Crc32c(text.data(), size);
    ASSERT_EQ(whole, Defined(text.substr(0, size)));
    const size_t cut = size / 3;
    ASSERT_EQ(Crc32c(text.data() + cut, size - cut, Crc32c(text.data(), cut)), whole);
  }
}

// The vectors of the algorithm's authors.
TEST(Fnv1a64Test, AgreesWithPublishedVectors) {
  static_assert(Fnv1a64("") == 0xCBF29CE484222325u);
  EXPECT_EQ(Fnv1a64("a"), 0xAF63DC4C8601EC8Cu);
  EXPECT_EQ(Fnv1a64("foobar"), 0x85944171F73967E8u);
}

// The first numbers of the generator seeded with 1234567, as its reference code prints them.
TEST(SplitMix64Test, AgreesWithTheReferenceGenerator) {
  const uint64_t want[] = {6457827717110365317u, 3203168211198807973u, 9817491932198370423u,
                           4593380528125082431u, 16408922859458223821u};
  uint64_t state = 1234567;
  for (const uint64_t value : want) {
    state += 0x9E3779B97F4A7C15u;
    EXPECT_EQ(SplitMix64(state), value);
  }
}

TEST(IdsTest, AreThirtyTwoHexadecimalDigitsAndDiffer) {
  std::set<std::string> ids;
  std::set<uint64_t> bits;
  for (int i = 0; i < 1000; ++i) {
    const std::string id = NewId();
    EXPECT_EQ(id.size(), 32u);
    EXPECT_EQ(id.find_first_not_of("0123456789abcdef"), std::string::npos);
    ids.insert(id);
    EXPECT_EQ(NewIdBytes().size(), 16u);
    bits.insert(RandomBits64());
  }
  EXPECT_EQ(ids.size(), 1000u);
  EXPECT_EQ(bits.size(), 1000u);
}

}  // namespace
}  // namespace prism
