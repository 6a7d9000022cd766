#include "common/text/stream_detokenizer.h"

#include <random>

#include "common/base/utf8.h"
#include "gtest/gtest.h"
#include "tests/common/text/text_test_files.h"

namespace prism {
namespace {

int32_t ByteId(const Tokenizer& tokenizer, uint8_t byte) {
  for (int32_t id = 0; id < tokenizer.vocab_size(); ++id) {
    const absl::string_view bytes = tokenizer.TokenBytes(id);
    if (bytes.size() == 1 && static_cast<uint8_t>(bytes[0]) == byte) return id;
  }
  ADD_FAILURE() << "no token for byte " << int{byte};
  return 0;
}

TEST(StreamDetokenizerTest, HoldsACharacterBackUntilItIsWhole) {
  const Tokenizer& tokenizer = MicroTokenizer();
  StreamDetokenizer stream(&tokenizer, true);
  EXPECT_EQ(stream.Push(ByteId(tokenizer, 'a')), "a");
  EXPECT_EQ(stream.Push(ByteId(tokenizer, 0xf0)), "");
  EXPECT_EQ(stream.Push(ByteId(tokenizer, 0x9f)), "");
  EXPECT_EQ(stream.Push(ByteId(tokenizer, 0x98)), "");
  EXPECT_EQ(stream.held_bytes(), 3u);
  EXPECT_EQ(stream.Push(ByteId(tokenizer, 0x80)), "\U0001f600");
  EXPECT_EQ(stream.Finish(), "");
}

TEST(StreamDetokenizerTest, AnUnfinishedCharacterAtTheEndIsOneReplacement) {
  const Tokenizer& tokenizer = MicroTokenizer();
  StreamDetokenizer stream(&tokenizer, true);
  EXPECT_EQ(stream.Push(ByteId(tokenizer, 0xe4)), "");
  EXPECT_EQ(stream.Push(ByteId(tokenizer, 0xb8)), "");
  EXPECT_EQ(stream.Finish(), "\ufffd");
  EXPECT_EQ(stream.Finish(), "");
}

TEST(StreamDetokenizerTest, AByteThatCannotGoOnMakesAReplacementAtOnce) {
  const Tokenizer& tokenizer = MicroTokenizer();
  StreamDetokenizer stream(&tokenizer, true);
  EXPECT_EQ(stream.Push(ByteId(tokenizer, 0xe4)), "");
  EXPECT_EQ(stream.Push(ByteId(tokenizer, 'z')), "\ufffdz");
  EXPECT_EQ(stream.Push(ByteId(tokenizer, 0xff)), "\ufffd");
}

TEST(StreamDetokenizerTest, SpecialTokensShowOnlyWhenAsked) {
  const Tokenizer& tokenizer = MicroTokenizer();
  const int32_t end = *tokenizer.AddedTokenId("<|im_end|>");
  const int32_t think = *tokenizer.AddedTokenId("<think>");
  StreamDetokenizer hiding(&tokenizer, true);
  EXPECT_EQ(hiding.Push(end), "");
  EXPECT_EQ(hiding.Push(think), "<think>");
  StreamDetokenizer showing(&tokenizer, false);
  EXPECT_EQ(showing.Push(end), "<|im_end|>");
}

TEST(StreamDetokenizerTest, TheStreamOfRandomIdsEqualsTheWholeDecoded) {
  const Tokenizer& tokenizer = MicroTokenizer();
  std::mt19937 random(17);
  for (int round = 0; round < 3000; ++round) {
    const bool skip_special = random() % 2 == 0;
    std::vector<int32_t> ids;
    StreamDetokenizer stream(&tokenizer, skip_special);
    std::string streamed;
    for (size_t i = random() % 30; i > 0; --i) {
      // Half of them bytes of longer characters, so that parts of characters meet; a few without a token.
      const int32_t id = random() % 2 == 0 ? static_cast<int32_t>(random() % 1030)
                                           : ByteId(tokenizer, static_cast<uint8_t>(0x80 + random() % 128));
      ids.push_back(id);
      const std::string text = stream.Push(id);
      ASSERT_EQ(Utf8ValidPrefix(text), text.size());
      ASSERT_LE(stream.held_bytes(), 3u);
      streamed += text;
    }
    streamed += stream.Finish();
    ASSERT_EQ(streamed, tokenizer.Decode(ids, skip_special));
  }
}

}  // namespace
}  // namespace prism
