#include "common/text/tokenizer_file.h"

#include <functional>
#include <nlohmann/json.hpp>

#include "common/text/tokenizer.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/common/text/text_test_files.h"

namespace prism {
namespace {

using testing::HasSubstr;
using Json = nlohmann::ordered_json;

Json MicroFile() { return Json::parse(ReadTestFile(OraclePath("models/moe-micro/tokenizer.json"))); }

// The status of loading the micro file after `change`.
absl::Status After(const std::function<void(Json&)>& change) {
  Json file = MicroFile();
  change(file);
  return Tokenizer::FromJson(file.dump(), "t.json").status();
}

TEST(TokenizerFileTest, BothSpellingsOfMergesGiveTheSameTokenizer) {
  Json file = MicroFile();
  ASSERT_TRUE(file["model"]["merges"][0].is_array());
  for (Json& merge : file["model"]["merges"]) {
    merge = merge[0].get<std::string>() + " " + merge[1].get<std::string>();
  }
  const auto other = Tokenizer::FromJson(file.dump(), "t.json");
  ASSERT_TRUE(other.ok()) << other.status();
  const std::string text = "The owner of the house 在中国 reads 1024 lines.";
  EXPECT_EQ(*(*other)->Encode(text, SpecialTokens::kPlainText),
            *MicroTokenizer().Encode(text, SpecialTokens::kPlainText));
}

TEST(TokenizerFileTest, IgnoreMergesTakesAPieceThatIsATokenWhole) {
  Json file = MicroFile();
  file["model"]["vocab"]["zqzq"] = 1030;  // no merge makes it
  const auto by_merges = Tokenizer::FromJson(file.dump(), "t.json");
  file["model"]["ignore_merges"] = true;
  const auto whole = Tokenizer::FromJson(file.dump(), "t.json");
  ASSERT_TRUE(by_merges.ok() && whole.ok());
  for (int i = 0; i < 2; ++i) {
    EXPECT_EQ((*by_merges)->Encode("zqzq", SpecialTokens::kPlainText)->size(), 4u);
    EXPECT_EQ(*(*whole)->Encode("zqzq", SpecialTokens::kPlainText), std::vector<int32_t>{1030});
  }
}

TEST(TokenizerFileTest, AMissingFileIsNotFound) {
  const auto loaded = Tokenizer::Load("/nonexistent/tokenizer.json");
  EXPECT_EQ(loaded.status().code(), absl::StatusCode::kNotFound);
  EXPECT_THAT(std::string(loaded.status().message()), HasSubstr("/nonexistent/tokenizer.json"));
}

TEST(TokenizerFileTest, AFolderIsNoTokenizer) {
  EXPECT_EQ(Tokenizer::Load(PRISM_SOURCE_DIR).status().code(), absl::StatusCode::kInvalidArgument);
}

TEST(TokenizerFileTest, WhatIsNotJsonIsRefused) {
  EXPECT_THAT(std::string(Tokenizer::FromJson("{\"model\": ", "t.json").status().message()),
              HasSubstr("t.json: not JSON"));
  EXPECT_THAT(std::string(Tokenizer::FromJson("", "t.json").status().message()),
              HasSubstr("t.json: not JSON"));
  EXPECT_EQ(Tokenizer::FromJson("[]", "t.json").status().message(), "t.json: not a JSON object");
}

struct Bad {
  const char* description;
  std::function<void(Json&)> change;
  absl::StatusCode code;
  const char* message;
};

class BadTokenizerFileTest : public testing::TestWithParam<Bad> {};

TEST_P(BadTokenizerFileTest, IsRefusedByTheNameOfTheField) {
  const absl::Status status = After(GetParam().change);
  EXPECT_EQ(status.code(), GetParam().code) << status;
  EXPECT_THAT(std::string(status.message()), HasSubstr(GetParam().message));
  EXPECT_THAT(std::string(status.message()), testing::StartsWith("t.json: "));
}

constexpr auto kMalformed = absl::StatusCode::kInvalidArgument;
constexpr auto kUnsupported = absl::StatusCode::kUnimplemented;

INSTANTIATE_TEST_SUITE_P(
    Each, BadTokenizerFileTest,
    testing::Values(
        Bad{"NoModel", [](Json& f) { f.erase("model"); }, kMalformed, "model: is missing or no object"},
        Bad{"NoVocab", [](Json& f) { f["model"].erase("vocab"); }, kMalformed,
            "model.vocab: is missing or no object"},
        Bad{"NoMerges", [](Json& f) { f["model"].erase("merges"); }, kMalformed,
            "model.merges: is missing or no array"},
        Bad{"IdIsText", [](Json& f) { f["model"]["vocab"]["!"] = "x"; }, kMalformed,
            "\"!\" has no integer id"},
        Bad{"IdIsNegative", [](Json& f) { f["model"]["vocab"]["!"] = -1; }, kMalformed,
            "id -1 is not in 0..2097151"},
        Bad{"IdIsHuge", [](Json& f) { f["model"]["vocab"]["!"] = 2097152; }, kMalformed,
            "id 2097152 is not in 0..2097151"},
        Bad{"IdTwice", [](Json& f) { f["model"]["vocab"]["!"] = 1; }, kMalformed,
            "token id 1 is given twice"},
        Bad{"ByteWithoutToken",
            [](Json& f) {
              f["model"]["vocab"].erase("~");
              f["model"]["merges"] = Json::array();
            },
            kMalformed, "no token for the byte 0x7e"},
        Bad{"TokenTooLong", [](Json& f) { f["model"]["vocab"][std::string(5000, 'a')] = 1030; }, kMalformed,
            "has 5000 bytes, not 1..4096"},
        Bad{"MergeOfOne", [](Json& f) { f["model"]["merges"][3] = "ab"; }, kMalformed,
            "model.merges.3: \"ab\" is not two tokens"},
        Bad{"MergeOfThree", [](Json& f) { f["model"]["merges"][3] = "a b c"; }, kMalformed,
            "model.merges.3: \"a b c\" is not two tokens"},
        Bad{"MergeIsNumber", [](Json& f) { f["model"]["merges"][3] = 7; }, kMalformed,
            "model.merges.3: is neither"},
        Bad{"MergeOfUnknown", [](Json& f) { f["model"]["merges"].push_back({"qz", "zq"}); }, kMalformed,
            "is not in model.vocab"},
        Bad{"MergeTwice", [](Json& f) { f["model"]["merges"].push_back(f["model"]["merges"][2]); },
            kMalformed, "repeats merges.2"},
        Bad{"AddedTokenTakesAnId", [](Json& f) { f["added_tokens"][0]["id"] = 5; }, kMalformed,
            "which model.vocab gives to another token"},
        Bad{"AddedTokenTwice", [](Json& f) { f["added_tokens"][1]["id"] = 1004; }, kMalformed,
            "is given twice"},
        Bad{"AddedTokenOfNothing", [](Json& f) { f["added_tokens"][1]["content"] = ""; }, kMalformed,
            "has 0 bytes"},
        Bad{"AddedTokenStrips", [](Json& f) { f["added_tokens"][1]["lstrip"] = true; }, kUnsupported,
            "added_tokens.1.lstrip: is true for \"<|im_start|>\""},
        Bad{"TooManyAddedTokens",
            [](Json& f) {
              for (int i = 0; i < 4100; ++i)
                f["added_tokens"].push_back({{"id", 2000 + i}, {"content", "x"}});
            },
            kMalformed, "added_tokens: has 4120, at most 4096"},
        Bad{"OtherNormalizer", [](Json& f) { f["normalizer"]["type"] = "NFKC"; }, kUnsupported,
            "normalizer.type: is \"NFKC\", only NFC is computed"},
        Bad{"OtherModel", [](Json& f) { f["model"]["type"] = "Unigram"; }, kUnsupported,
            "model.type: is \"Unigram\""},
        Bad{"Dropout", [](Json& f) { f["model"]["dropout"] = 0.1; }, kUnsupported, "model.dropout"},
        Bad{"Prefix", [](Json& f) { f["model"]["continuing_subword_prefix"] = "##"; }, kUnsupported,
            "model.continuing_subword_prefix: is \"##\""},
        Bad{"ByteFallback", [](Json& f) { f["model"]["byte_fallback"] = true; }, kUnsupported,
            "model.byte_fallback"},
        Bad{"OtherPreTokenizer", [](Json& f) { f["pre_tokenizer"] = {{"type", "Whitespace"}}; }, kUnsupported,
            "pre_tokenizer.type: is \"Whitespace\""},
        Bad{"SplitRemoves", [](Json& f) { f["pre_tokenizer"]["pretokenizers"][0]["behavior"] = "Removed"; },
            kUnsupported, "pre_tokenizer.pretokenizers.0: behavior \"Removed\""},
        Bad{"PrefixSpace", [](Json& f) { f["pre_tokenizer"]["pretokenizers"][1]["add_prefix_space"] = true; },
            kUnsupported, "pre_tokenizer.pretokenizers.1"},
        Bad{"BadExpression",
            [](Json& f) { f["pre_tokenizer"]["pretokenizers"][0]["pattern"]["Regex"] = "(a"; }, kMalformed,
            "pre-tokenizer pattern: missing closing parenthesis"},
        Bad{"OtherDecoder", [](Json& f) { f["decoder"]["type"] = "WordPiece"; }, kUnsupported,
            "decoder.type"}),
    [](const testing::TestParamInfo<Bad>& one) { return one.param.description; });

}  // namespace
}  // namespace prism
