#include "services/router/bad_words.h"

#include <gtest/gtest.h>

#include <functional>
#include <string>
#include <vector>

#include "common/wire/request_limits.h"
#include "common/wire/status_codec.h"
#include "tests/common/text/text_test_files.h"

namespace prism {
namespace {

class BadWordsTest : public testing::Test {
 protected:
  static std::vector<uint32_t> Ids(const std::string& text) {
    const auto ids = MicroTokenizer().Encode(text, SpecialTokens::kMatchAdded);
    EXPECT_TRUE(ids.ok());
    return std::vector<uint32_t>(ids->begin(), ids->end());
  }
  // The sequences that these words become.
  static std::vector<std::vector<uint32_t>> Resolve(const std::vector<std::string>& words) {
    v1::ChatRequest request;
    request.mutable_bad_words()->Add(words.begin(), words.end());
    EXPECT_EQ(ResolveBadWords(MicroTokenizer(), &request), absl::OkStatus());
    EXPECT_TRUE(request.bad_words().empty());
    std::vector<std::vector<uint32_t>> sequences;
    for (const auto& word : request.sampling().bad_words()) {
      sequences.emplace_back(word.token_ids().begin(), word.token_ids().end());
    }
    return sequences;
  }
  static std::string ErrorOf(const std::function<void(v1::ChatRequest*)>& make) {
    v1::ChatRequest request;
    make(&request);
    const absl::Status status = ResolveBadWords(MicroTokenizer(), &request);
    const std::vector<InvalidField> fields = InvalidFieldsOf(status);
    return fields.size() == 1 ? fields[0].path + ": " + fields[0].description : status.ToString();
  }
};

using Sequences = std::vector<std::vector<uint32_t>>;

TEST_F(BadWordsTest, AWordIsBannedAloneAndBehindASpace) {
  ASSERT_NE(Ids("sky"), Ids(" sky"));
  EXPECT_EQ(Resolve({"sky"}), (Sequences{Ids("sky"), Ids(" sky")}));
  EXPECT_EQ(Resolve({"  sky"}), Resolve({"sky"})) << "white space in front does not count";
}

TEST_F(BadWordsTest, WhatIsTheSameBehindASpaceIsBannedOnce) {
  EXPECT_EQ(Resolve({"<|im_end|>"}), Sequences{Ids("<|im_end|>")}) << "an added token, as it is written";
  EXPECT_EQ(Ids("<|im_end|>").size(), 1u);
}

TEST_F(BadWordsTest, WhiteSpaceAloneIsAWord) { EXPECT_EQ(Resolve({"\n"}), Sequences{Ids("\n")}); }

TEST_F(BadWordsTest, TheyJoinThoseGivenAsIds) {
  v1::ChatRequest request;
  request.mutable_sampling()->add_bad_words()->add_token_ids(7);
  request.add_bad_words("\n");
  ASSERT_TRUE(ResolveBadWords(MicroTokenizer(), &request).ok());
  ASSERT_EQ(request.sampling().bad_words_size(), 2);
  EXPECT_EQ(request.sampling().bad_words(0).token_ids(0), 7u);
}

TEST_F(BadWordsTest, WhatIsTooMuchIsRefusedByFieldAndBound) {
  EXPECT_EQ(ErrorOf([](auto* r) { r->add_bad_words(""); }), "bad_words.0: is empty");
  EXPECT_EQ(ErrorOf([](auto* r) {
              r->add_bad_words("a");
              r->add_bad_words(std::string(kBadWordBytesMax + 1, 'a'));
            }),
            "bad_words.1: has 257 bytes, at most 256");
  EXPECT_EQ(ErrorOf([](auto* r) {
              for (int i = 0; i <= kBadWordsMax; ++i) r->add_bad_words("a");
            }),
            "bad_words: has 65 words, at most 64");
  EXPECT_EQ(ErrorOf([](auto* r) {
              for (int i = 0; i < kBadSequencesMax; ++i) r->mutable_sampling()->add_bad_words();
              r->add_bad_words("a");
            }),
            "bad_words: together are more than 128 sequences of tokens");
  const std::string digits = "123456789012345678901234567890123";
  ASSERT_EQ(Ids(digits).size(), kBadSequenceIdsMax + 1) << "a digit is a token";
  EXPECT_EQ(ErrorOf([&](auto* r) { r->add_bad_words(digits); }), "bad_words.0: has 33 tokens, at most 32");
}

}  // namespace
}  // namespace prism
