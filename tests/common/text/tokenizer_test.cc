#include "common/text/tokenizer.h"

#include <algorithm>
#include <ctime>
#include <iostream>
#include <map>
#include <nlohmann/json.hpp>
#include <random>
#include <thread>

#include "common/base/utf8.h"
#include "common/text/byte_level.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/common/text/text_test_files.h"

namespace prism {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using Ids = std::vector<int32_t>;

Ids Encode(const Tokenizer& tokenizer, const std::string& text,
           SpecialTokens mode = SpecialTokens::kPlainText) {
  auto ids = tokenizer.Encode(text, mode);
  EXPECT_TRUE(ids.ok()) << ids.status();
  return ids.ok() ? *ids : Ids();
}

// ---- Against Hugging Face's answers -----------------------------------------------------------------

const Tokenizer* QwenTokenizer() {
  static const Tokenizer* const tokenizer = []() -> const Tokenizer* {
    const std::string path = SharedPath("data/qwen-tokenizer/tokenizer.json");
    if (!FileExists(path)) return nullptr;
    auto loaded = Tokenizer::Load(path);
    EXPECT_TRUE(loaded.ok()) << loaded.status();
    return loaded.ok() ? loaded->release() : nullptr;
  }();
  return tokenizer;
}

TEST(QwenTokenizerTest, AgreesWithHuggingFaceOnAwkwardStrings) {
  const Tokenizer* const tokenizer = QwenTokenizer();
  const std::string cases_path = SharedPath("oracle/tokenizer_cases.json");
  if (tokenizer == nullptr || !FileExists(cases_path)) {
    GTEST_SKIP() << "the Qwen vocabulary (7 MB) or its cases are not beside this checkout";
  }
  const auto cases = nlohmann::json::parse(ReadTestFile(cases_path));
  ASSERT_EQ(cases.size(), 245u);
  const std::vector<std::string> markers = {
      "<|im_start|>", "<|im_end|>",   "<|image_pad|>", "<think>",          "</think>",
      "<tool_call>",  "</tool_call>", "<|endoftext|>", "<|vision_start|>", "<|vision_end|>"};
  int without_markers = 0;
  for (const auto& one : cases) {
    const auto text = one["text"].get<std::string>();
    const auto ids = one["ids"].get<Ids>();
    EXPECT_EQ(Encode(*tokenizer, text, SpecialTokens::kMatchAdded), ids) << text;
    EXPECT_EQ(tokenizer->Decode(ids, false), one["decoded"].get<std::string>()) << text;
    const bool marked = std::any_of(markers.begin(), markers.end(),
                                    [&](const std::string& m) { return text.find(m) != std::string::npos; });
    if (marked) {
      const Ids plain = Encode(*tokenizer, text);
      EXPECT_NE(plain, ids);
      EXPECT_TRUE(
          std::none_of(plain.begin(), plain.end(), [&](int32_t id) { return tokenizer->IsAdded(id); }));
      EXPECT_EQ(tokenizer->Decode(plain, true), text);
    } else {
      ++without_markers;
      EXPECT_EQ(Encode(*tokenizer, text), ids) << text;
    }
  }
  EXPECT_EQ(without_markers, 240);
}

TEST(QwenTokenizerTest, KnowsTheMarkersAndTheIdsOfCommonTemplateText) {
  const Tokenizer* const tokenizer = QwenTokenizer();
  if (tokenizer == nullptr) GTEST_SKIP() << "the Qwen vocabulary (7 MB) is not beside this checkout";
  EXPECT_EQ(tokenizer->vocab_size(), 151669);
  EXPECT_EQ(tokenizer->AddedTokenId("<|im_end|>"), 151645);
  EXPECT_EQ(tokenizer->AddedTokenId("<|image_pad|>"), 151655);
  EXPECT_TRUE(tokenizer->IsSpecial(151645));
  EXPECT_TRUE(tokenizer->IsAdded(151667));
  EXPECT_FALSE(tokenizer->IsSpecial(151667)) << "<think> is shown to the user";
  EXPECT_THAT(Encode(*tokenizer, "Hello world"), ElementsAre(9707, 1879));
  EXPECT_THAT(Encode(*tokenizer, " Hello world"), ElementsAre(21927, 1879));
  EXPECT_THAT(Encode(*tokenizer, "<|im_end|>\n<|im_start|>assistant\n", SpecialTokens::kMatchAdded),
              ElementsAre(151645, 198, 151644, 77091, 198));
  EXPECT_EQ(tokenizer->Decode({9707, 151645, 1879, 151667}, true), "Hello world<think>");
  EXPECT_EQ(tokenizer->Decode({9707, 151645, 1879}, false), "Hello<|im_end|> world");
}

TEST(QwenTokenizerTest, EveryTokenThatIsTextEncodesToItselfOrToSeveral) {
  const Tokenizer* const tokenizer = QwenTokenizer();
  if (tokenizer == nullptr) GTEST_SKIP() << "the Qwen vocabulary (7 MB) is not beside this checkout";
  for (int32_t id = 0; id < tokenizer->vocab_size(); ++id) {
    const absl::string_view bytes = tokenizer->TokenBytes(id);
    if (Utf8ValidPrefix(bytes) != bytes.size()) continue;
    const auto first = tokenizer->Encode(bytes, SpecialTokens::kPlainText);
    const auto again = tokenizer->Encode(bytes, SpecialTokens::kPlainText);
    ASSERT_TRUE(first.ok() && again.ok()) << id;
    EXPECT_EQ(*first, *again) << "what was remembered changed the answer for " << id;
  }
}

TEST(MicroTokenizerTest, AgreesWithHuggingFaceOnTheOraclePrompts) {
  for (const std::string name : {"text_short", "text_long", "text_system_turns", "text_tools"}) {
    const auto oracle = nlohmann::json::parse(ReadTestFile(OraclePath("cases/moe-micro/" + name + ".json")));
    const auto ids = oracle["prompt_token_ids"].get<Ids>();
    EXPECT_EQ(Encode(MicroTokenizer(), oracle["prompt"].get<std::string>(), SpecialTokens::kMatchAdded), ids)
        << name;
    EXPECT_EQ(MicroTokenizer().Decode(ids, false), oracle["prompt"].get<std::string>()) << name;
    const auto greedy = oracle["greedy"];
    EXPECT_EQ(MicroTokenizer().Decode(greedy["token_ids"].get<Ids>(), true),
              greedy["text"].get<std::string>())
        << name;
  }
}

// ---- Against the definition of byte-pair encoding ----------------------------------------------------

// The merges as the file lists them, applied in the plainest way: every round looks for the lowest rank.
class PlainMerger {
 public:
  explicit PlainMerger(const std::string& path) {
    const auto file = nlohmann::json::parse(ReadTestFile(path));
    for (const auto& [written, id] : file["model"]["vocab"].items()) {
      ids_[*BytesOfByteLevel(written)] = id.get<int32_t>();
    }
    int rank = 0;
    for (const auto& merge : file["model"]["merges"]) {
      ranks_[{*BytesOfByteLevel(merge[0].get<std::string>()),
              *BytesOfByteLevel(merge[1].get<std::string>())}] = rank++;
    }
  }
  Ids Merge(const std::string& piece) const {
    std::vector<std::string> symbols;
    for (const char c : piece) symbols.emplace_back(1, c);
    while (true) {
      size_t best = symbols.size();
      int best_rank = 1 << 30;
      for (size_t i = 0; i + 1 < symbols.size(); ++i) {
        const auto it = ranks_.find({symbols[i], symbols[i + 1]});
        if (it != ranks_.end() && it->second < best_rank) {
          best = i;
          best_rank = it->second;
        }
      }
      if (best == symbols.size()) break;
      symbols[best] += symbols[best + 1];
      symbols.erase(symbols.begin() + static_cast<std::ptrdiff_t>(best) + 1);
    }
    Ids ids;
    for (const std::string& symbol : symbols) ids.push_back(ids_.at(symbol));
    return ids;
  }

 private:
  std::map<std::string, int32_t> ids_;
  std::map<std::pair<std::string, std::string>, int> ranks_;
};

TEST(MicroTokenizerTest, MergesPiecesOfAnyLengthAsTheDefinitionSays) {
  const PlainMerger plain(OraclePath("models/moe-micro/tokenizer.json"));
  std::mt19937 random(11);
  // One piece each: letters only, so the split expression leaves them whole. Lengths cross the point
  // where the encoder goes over from scanning to a heap.
  const std::vector<std::string> alphabet = {"e", "r",  "t",  "h",  "i",  "n", "s",
                                             "a", "中", "的", "是", "我", "图"};
  for (int round = 0; round < 400; ++round) {
    std::string piece;
    const size_t length = 1 + random() % 60;
    for (size_t i = 0; i < length; ++i) piece += alphabet[random() % alphabet.size()];
    EXPECT_EQ(Encode(MicroTokenizer(), piece), plain.Merge(piece)) << piece;
  }
}

std::string RandomText(std::mt19937* random) {
  static const std::vector<std::string> kPool = {"a",
                                                 "the ",
                                                 " the",
                                                 "\n",
                                                 "\r\n",
                                                 "  ",
                                                 "\t",
                                                 "1",
                                                 "2026",
                                                 "'s",
                                                 "'LL",
                                                 "中",
                                                 "国图",
                                                 "。",
                                                 "é",
                                                 "e\u0301",
                                                 "\u0323",
                                                 "각",
                                                 "\u1100\u1161\u11a8",
                                                 "👍🏽",
                                                 "\u00a0",
                                                 "\u3000",
                                                 "<|im_end|>",
                                                 "<think>",
                                                 "<|",
                                                 "|>",
                                                 "_",
                                                 "(){}",
                                                 "::",
                                                 "ſ",
                                                 "\u180e",
                                                 "\u2028",
                                                 "z\u0301\u0323",
                                                 "\u0958"};
  std::string text;
  const size_t length = (*random)() % 40;
  for (size_t i = 0; i < length; ++i) text += kPool[(*random)() % kPool.size()];
  return text;
}

TEST(MicroTokenizerTest, DecodingAnEncodingGivesTheNormalizedText) {
  std::mt19937 random(5);
  for (int round = 0; round < 500; ++round) {
    const std::string text = RandomText(&random);
    const std::string once = MicroTokenizer().Decode(Encode(MicroTokenizer(), text), false);
    EXPECT_EQ(MicroTokenizer().Decode(Encode(MicroTokenizer(), once), false), once) << text;
    EXPECT_EQ(Encode(MicroTokenizer(), once), Encode(MicroTokenizer(), text)) << text;
  }
}

// ---- Plain text and markers --------------------------------------------------------------------------

TEST(MicroTokenizerTest, AMarkerTypedByAUserIsPlainText) {
  const std::string text = "hi<|im_end|>\n<|im_start|>system";
  const Ids plain = Encode(MicroTokenizer(), text);
  EXPECT_TRUE(
      std::none_of(plain.begin(), plain.end(), [](int32_t id) { return MicroTokenizer().IsAdded(id); }));
  EXPECT_EQ(MicroTokenizer().Decode(plain, true), text);
  const Ids matched = Encode(MicroTokenizer(), text, SpecialTokens::kMatchAdded);
  EXPECT_EQ(std::count(matched.begin(), matched.end(), *MicroTokenizer().AddedTokenId("<|im_end|>")), 1);
  EXPECT_EQ(std::count(matched.begin(), matched.end(), *MicroTokenizer().AddedTokenId("<|im_start|>")), 1);
}

TEST(MicroTokenizerTest, NormalizationDoesNotReachAcrossAMarker) {
  // The accent after the marker has nothing to join.
  const Ids ids = Encode(MicroTokenizer(), "e<|im_end|>\u0301", SpecialTokens::kMatchAdded);
  EXPECT_EQ(MicroTokenizer().Decode(ids, false), "e<|im_end|>\u0301");
  EXPECT_EQ(MicroTokenizer().Decode(Encode(MicroTokenizer(), "e\u0301"), false), "é");
}

TEST(MicroTokenizerTest, IdsWithoutATokenDecodeToNothing) {
  EXPECT_EQ(MicroTokenizer().vocab_size(), 1024);
  EXPECT_EQ(MicroTokenizer().Decode({-1, 1024, 2000000000}, false), "");
  EXPECT_EQ(MicroTokenizer().TokenBytes(-5), "");
  EXPECT_EQ(MicroTokenizer().AddedTokenId("<|nothing|>"), std::nullopt);
  EXPECT_EQ(MicroTokenizer().AddedTokenId(""), std::nullopt);
  EXPECT_FALSE(MicroTokenizer().IsSpecial(77));
}

TEST(MicroTokenizerTest, TextThatIsNotUtf8IsRefusedWithTheOffset) {
  const auto ids = MicroTokenizer().Encode("abc\xe4x", SpecialTokens::kPlainText);
  EXPECT_EQ(ids.status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(ids.status().message(), "text: byte 0xe4 at offset 3 is not UTF-8");
}

TEST(MicroTokenizerTest, TextLongerThanTheLimitIsRefused) {
  const std::string text(kEncodeBytesMax + 1, 'a');
  const auto ids = MicroTokenizer().Encode(text, SpecialTokens::kPlainText);
  EXPECT_EQ(ids.status().message(), "text: 16777217 bytes, at most 16777216");
}

TEST(MicroTokenizerTest, AnErrorLeavesTheIdsAsTheyWere) {
  Ids ids = {1, 2, 3};
  EXPECT_FALSE(MicroTokenizer().Append("\xff", SpecialTokens::kPlainText, &ids).ok());
  EXPECT_THAT(ids, ElementsAre(1, 2, 3));
}

// ---- Long runs ---------------------------------------------------------------------------------------

// Of a core, on this thread: what others do with the machine meanwhile does not count.
double ThreadSeconds() {
  timespec now{};
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
  return static_cast<double>(now.tv_sec) + 1e-9 * static_cast<double>(now.tv_nsec);
}

// Work per byte must not grow with the length: 32 times the text may take at most 32 * 8 times as long
// (a quadratic one takes 1024 times; 8 is for caches).
void ExpectNearlyLinear(const std::string& unit) {
  const auto seconds = [](const std::string& text) {
    double best = 1e9;
    for (int i = 0; i < 3; ++i) {
      const double start = ThreadSeconds();
      EXPECT_FALSE(Encode(MicroTokenizer(), text).empty());
      best = std::min(best, ThreadSeconds() - start);
    }
    return best;
  };
  std::string small;
  while (small.size() < 8192) small += unit;
  std::string large;
  while (large.size() < 8192 * 32) large += unit;
  EXPECT_LT(seconds(large), seconds(small) * 32 * 8 + 0.01) << unit;
}

TEST(MicroTokenizerTest, LongRunsWithoutASpaceCostNearlyLinearTime) {
  ExpectNearlyLinear("x");
  ExpectNearlyLinear("ab");
  ExpectNearlyLinear("的中国人");
}

TEST(MicroTokenizerTest, LongRunsOfWhiteSpaceCostNearlyLinearTime) {
  ExpectNearlyLinear(" ");
  ExpectNearlyLinear("\n");
  ExpectNearlyLinear(" \n\t");
}

TEST(MicroTokenizerTest, LongRunsOfCombiningMarksCostNearlyLinearTime) { ExpectNearlyLinear("\u0301\u0323"); }

TEST(MicroTokenizerTest, AMegabyteOfSpacesStaysWithinTheMatchLimits) {
  EXPECT_FALSE(Encode(MicroTokenizer(), std::string(1 << 20, ' ')).empty());
  EXPECT_FALSE(Encode(MicroTokenizer(), std::string(1 << 20, ' ') + "x").empty());
}

// ---- Threads -----------------------------------------------------------------------------------------

TEST(MicroTokenizerTest, ThreadsThatShareATokenizerGetTheSameIds) {
  // A tokenizer of its own, so that nothing is remembered yet.
  auto tokenizer = Tokenizer::Load(OraclePath("models/moe-micro/tokenizer.json"));
  ASSERT_TRUE(tokenizer.ok());
  std::mt19937 random(9);
  std::vector<std::string> texts;
  std::vector<Ids> expected;
  for (int i = 0; i < 50; ++i) {
    texts.push_back(RandomText(&random));
    expected.push_back(Encode(MicroTokenizer(), texts.back()));
  }
  std::vector<std::thread> threads;
  std::vector<int> wrong(4, 0);
  for (int t = 0; t < 4; ++t) {
    threads.emplace_back([&, t] {
      for (size_t i = 0; i < texts.size(); ++i) {
        const auto ids = (*tokenizer)->Encode(texts[i], SpecialTokens::kPlainText);
        if (!ids.ok() || *ids != expected[i]) ++wrong[t];
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_THAT(wrong, testing::Each(0));
}

}  // namespace
}  // namespace prism
