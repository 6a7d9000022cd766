#include "common/text/bpe.h"

#include <algorithm>
#include <map>
#include <random>
#include <string>

#include "gtest/gtest.h"

namespace prism {
namespace {

using Ids = std::vector<int32_t>;

// All 256 bytes, and tokens made by the merges that Add() lists.
class Vocabulary {
 public:
  Vocabulary() {
    for (int byte = 0; byte < 256; ++byte) Token(std::string(1, static_cast<char>(byte)));
  }
  // The next merge in rank; false when the pair is there already.
  bool Add(const std::string& left, const std::string& right) {
    if (!pairs_.emplace(std::pair(left, right), merges_.size()).second) return false;
    merges_.push_back({Token(left), Token(right), Token(left + right)});
    return true;
  }
  void Make(bool whole_pieces_first = false) {
    auto table = TokenTable::Create(entries_);
    ASSERT_TRUE(table.ok()) << table.status();
    table_ = *std::move(table);
    auto encoder = BytePairEncoder::Create(&table_, merges_, whole_pieces_first);
    ASSERT_TRUE(encoder.ok()) << encoder.status();
    encoder_ = *std::move(encoder);
  }
  Ids Encode(const std::string& piece) const {
    BytePairEncoder::Scratch scratch;
    Ids ids;
    encoder_->Encode(piece, &scratch, &ids);
    return ids;
  }
  // The definition: again and again the lowest rank, the leftmost of equals.
  Ids Define(const std::string& piece) const {
    Ids ids;
    for (const char c : piece) ids.push_back(static_cast<uint8_t>(c));
    std::map<std::pair<int32_t, int32_t>, size_t> ranks;
    for (size_t rank = 0; rank < merges_.size(); ++rank)
      ranks[{merges_[rank].left, merges_[rank].right}] = rank;
    while (true) {
      size_t best = ids.size();
      size_t best_rank = merges_.size();
      for (size_t i = 0; i + 1 < ids.size(); ++i) {
        const auto it = ranks.find({ids[i], ids[i + 1]});
        if (it != ranks.end() && it->second < best_rank) {
          best = i;
          best_rank = it->second;
        }
      }
      if (best == ids.size()) return ids;
      ids[best] = merges_[best_rank].joined;
      ids.erase(ids.begin() + static_cast<std::ptrdiff_t>(best) + 1);
    }
  }
  // The same where every merge's parts are made by earlier merges: one rank after the other, from the left.
  Ids DefineByRank(const std::string& piece) const {
    Ids ids;
    for (const char c : piece) ids.push_back(static_cast<uint8_t>(c));
    for (const BytePairEncoder::Merge& merge : merges_) {
      size_t out = 0;
      for (size_t i = 0; i < ids.size(); ++i) {
        const bool joins = i + 1 < ids.size() && ids[i] == merge.left && ids[i + 1] == merge.right;
        ids[out++] = joins ? merge.joined : ids[i];
        i += joins;
      }
      ids.resize(out);
    }
    return ids;
  }
  const std::vector<TokenTable::Entry>& entries() const { return entries_; }

 private:
  int32_t Token(const std::string& bytes) {
    const auto [it, is_new] = ids_.emplace(bytes, static_cast<int32_t>(entries_.size()));
    if (is_new) entries_.push_back({it->second, bytes, true});
    return it->second;
  }
  std::vector<TokenTable::Entry> entries_;
  std::vector<BytePairEncoder::Merge> merges_;
  std::map<std::string, int32_t> ids_;
  std::map<std::pair<std::string, std::string>, size_t> pairs_;
  TokenTable table_;
  std::unique_ptr<BytePairEncoder> encoder_;
};

// Tokens over a and b, each made of two earlier ones.
void AddRandomMerges(std::mt19937* random, size_t count, size_t bytes_max, Vocabulary* vocabulary) {
  std::vector<std::string> tokens = {"a", "b"};
  std::map<std::string, bool> known = {{"a", true}, {"b", true}};
  for (size_t tries = 0; tries < 100 * count && tokens.size() < count + 2; ++tries) {
    const std::string& left = tokens[(*random)() % tokens.size()];
    const std::string& right = tokens[(*random)() % tokens.size()];
    const std::string joined = left + right;
    if (joined.size() > bytes_max || known[joined]) continue;
    known[joined] = true;
    vocabulary->Add(left, right);
    tokens.push_back(joined);
  }
}

std::string RandomPiece(std::mt19937* random, size_t size) {
  std::string unit;
  for (size_t i = 1 + (*random)() % 12; i > 0; --i) unit += static_cast<char>('a' + (*random)() % 2);
  std::string piece;
  const bool periodic = (*random)() % 2 == 0;
  while (piece.size() < size) {
    if (periodic) {
      piece += unit;
    } else {
      piece += static_cast<char>('a' + (*random)() % 2);
    }
  }
  piece.resize(size);
  return piece;
}

TEST(BytePairEncoderTest, PiecesOfEveryLengthFollowTheDefinition) {
  std::mt19937 random(1);
  for (int round = 0; round < 60; ++round) {
    Vocabulary vocabulary;
    AddRandomMerges(&random, 1 + random() % 60, 24, &vocabulary);
    vocabulary.Make();
    for (int i = 0; i < 20; ++i) {
      const std::string piece = RandomPiece(&random, 1 + random() % 90);
      ASSERT_EQ(vocabulary.Encode(piece), vocabulary.Define(piece)) << piece;
      ASSERT_EQ(vocabulary.Encode(piece), vocabulary.DefineByRank(piece)) << piece;
    }
  }
}

TEST(BytePairEncoderTest, LongPiecesMergedInWindowsFollowTheDefinition) {
  std::mt19937 random(2);
  for (int round = 0; round < 40; ++round) {
    Vocabulary vocabulary;
    AddRandomMerges(&random, 1 + random() % 200, 300, &vocabulary);
    vocabulary.Make();
    for (int i = 0; i < 5; ++i) {
      const std::string piece = RandomPiece(&random, 4090 + random() % 9000);
      ASSERT_EQ(vocabulary.Encode(piece), vocabulary.DefineByRank(piece)) << round;
    }
  }
}

TEST(BytePairEncoderTest, ASeamThatNeverClosesFallsBackToTheWhole) {
  // Pairs (ab)(ab) merge from the left, so the parity of the whole left decides; and behind an odd number of
  // them the last byte merges otherwise.
  Vocabulary vocabulary;
  vocabulary.Add("b", "c");  // takes the last b of a run in front of c
  vocabulary.Add("b", "b");
  vocabulary.Add("bb", "bb");
  vocabulary.Make();
  for (const size_t size : {4097u, 6143u, 8191u, 10000u}) {
    const std::string piece = std::string(size, 'b') + "c" + std::string(size, 'b');
    EXPECT_EQ(vocabulary.Encode(piece), vocabulary.DefineByRank(piece));
  }
}

TEST(BytePairEncoderTest, RanksThatDoNotGrowFollowTheDefinitionToo) {
  Vocabulary vocabulary;
  vocabulary.Add("ab", "c");  // before the merge that makes its left part
  vocabulary.Add("b", "c");
  vocabulary.Add("a", "b");
  vocabulary.Add("a", "bc");  // a second way to make abc
  vocabulary.Make();
  std::mt19937 random(3);
  for (int round = 0; round < 300; ++round) {
    std::string piece;
    for (size_t i = 1 + random() % 80; i > 0; --i) piece += static_cast<char>('a' + random() % 3);
    ASSERT_EQ(vocabulary.Encode(piece), vocabulary.Define(piece)) << piece;
  }
  std::string piece;
  for (size_t i = 0; i < 5000; ++i) piece += static_cast<char>('a' + random() % 3);
  EXPECT_EQ(vocabulary.Encode(piece), vocabulary.Define(piece));
}

TEST(BytePairEncoderTest, AWholePieceThatMergesDoNotMakeIsNotAToken) {
  Vocabulary vocabulary;
  vocabulary.Add("b", "c");
  vocabulary.Add("a", "b");
  vocabulary.Add("ab", "c");  // never, for bc comes first
  vocabulary.Make();
  for (int i = 0; i < 3; ++i) EXPECT_EQ(vocabulary.Encode("abc"), vocabulary.Define("abc"));
  EXPECT_EQ(vocabulary.Encode("abc").size(), 2u);
  vocabulary.Make(true);
  EXPECT_EQ(vocabulary.Encode("abc").size(), 1u);
}

TEST(BytePairEncoderTest, AByteWithoutATokenIsRefused) {
  Vocabulary vocabulary;
  std::vector<TokenTable::Entry> entries = vocabulary.entries();
  entries.erase(entries.begin() + 65);
  auto table = TokenTable::Create(entries);
  ASSERT_TRUE(table.ok());
  EXPECT_EQ(BytePairEncoder::Create(&*table, {}, false).status().message(),
            "vocab has no token for the byte 0x41");
}

TEST(TokenTableTest, FindsWhatIsFindableAndKnowsTheBytesOfAll) {
  const auto table = TokenTable::Create({{3, "abc", true}, {7, "<x>", false}, {0, "a", true}});
  ASSERT_TRUE(table.ok());
  EXPECT_EQ(table->size(), 8);
  EXPECT_EQ(table->Find("abc"), 3);
  EXPECT_EQ(table->Find("<x>"), kNoToken);
  EXPECT_EQ(table->Find("abcd"), kNoToken);
  EXPECT_EQ(table->Find(""), kNoToken);
  EXPECT_EQ(table->bytes(7), "<x>");
  EXPECT_EQ(table->bytes(5), "");
  EXPECT_EQ(table->bytes(8), "");
}

TEST(TokenTableTest, AnEmptyTableFindsNothing) {
  const auto table = TokenTable::Create({});
  ASSERT_TRUE(table.ok());
  EXPECT_EQ(table->size(), 0);
  EXPECT_EQ(table->Find("a"), kNoToken);
}

TEST(TokenTableTest, TwoTokensOfTheSameBytesAreRefused) {
  EXPECT_EQ(TokenTable::Create({{3, "abc", true}, {7, "abc", true}}).status().message(),
            "tokens 3 and 7 have the same bytes");
}

}  // namespace
}  // namespace prism
