// BytePairEncoder makes token ids of one piece of text by byte-pair merges: beginning with one token a
// byte, the adjacent pair of the lowest rank (the leftmost of equals) is joined until no pair has a rank.
//
// A piece of n bytes costs O(n log n) whatever its bytes are.
//
// Thread safety: Encode() may be called from any number of threads, each with its own Scratch. What is
// remembered between calls is one relaxed atomic byte a token and only ever saves work.
#pragma once

#include <array>
#include <atomic>
#include <cstdint>
#include <memory>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"
#include "common/text/token_table.h"

namespace prism {

class BytePairEncoder {
 public:
  // Ids of the two tokens and of the joined one. A merge's rank is its place in the list.
  struct Merge {
    int32_t left;
    int32_t right;
    int32_t joined;
  };

  // Memory that calls reuse. One thread at a time.
  class Scratch {
   private:
    friend class BytePairEncoder;
    struct Symbol {
      int32_t id;
      int32_t previous;  // kNone at the left end
      int32_t next;      // kNone at the right end
      uint32_t rank;     // of the pair with `next`
      int32_t joined;    // id of that pair
    };
    std::vector<Symbol> symbols;
    std::vector<uint64_t> heap;
    std::vector<int32_t> ids;
  };

  // `tokens` must outlive the encoder. With `whole_pieces_first` a piece that is a token is that token,
  // whether or not merges lead to it (tokenizer.json's "ignore_merges").
  // InvalidArgument: a byte has no token, a pair is listed twice.
  static absl::StatusOr<std::unique_ptr<BytePairEncoder>> Create(const TokenTable* tokens,
                                                                 absl::Span<const Merge> merges,
                                                                 bool whole_pieces_first);

  // Appends the ids of `piece`.
  // REQUIRES: piece.size() < 2^31.
  void Encode(absl::string_view piece, Scratch* scratch, std::vector<int32_t>* ids) const;

 private:
  struct Joined {
    uint32_t rank;
    int32_t id;
  };
  struct Slot {
    uint64_t pair;
    Joined joined;
  };
  enum class Whole : uint8_t { kUnknown = 0, kToken, kSeveral };

  explicit BytePairEncoder(const TokenTable* tokens) : tokens_(tokens) {}
  Joined Join(int32_t left, int32_t right) const;
  void MergeShort(absl::string_view piece, std::vector<int32_t>* ids) const;
  void MergeLong(absl::string_view piece, Scratch* scratch, std::vector<int32_t>* ids) const;
  void MergeAny(absl::string_view piece, Scratch* scratch, std::vector<int32_t>* ids) const;

  const TokenTable* const tokens_;
  bool whole_pieces_first_ = false;
  std::array<int32_t, 256> byte_ids_{};
  std::vector<Joined> byte_pairs_;  // [first byte * 256 + second byte]
  std::vector<Slot> slots_;         // a power of two; open addressing
  int slot_shift_ = 64;
  // What Encode() found out about the piece that is exactly token i: whether merges make that token of it.
  mutable std::unique_ptr<std::atomic<Whole>[]> whole_;
};

}  // namespace prism
