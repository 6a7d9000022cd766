// BytePairEncoder makes token ids of one piece of text by byte-pair merges: beginning with one token a
// byte, the adjacent pair of the lowest rank (the leftmost of equals) is joined until no pair has a rank.
//
// A piece of n bytes costs O(n log n) whatever its bytes are, and a long one O(n) where merging a window of
// it at a time gives the same ids (see MergeInWindows()).
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

// More merges are refused (Qwen3-VL has 151387).
inline constexpr size_t kMergesMax = (1 << 22) - 2;

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
    };
    std::vector<Symbol> symbols;
    std::vector<uint64_t> heap;
    std::vector<int32_t> window;
    std::vector<int32_t> seam;
    std::vector<int32_t> pair;
  };

  // `tokens` must outlive the encoder. With `whole_pieces_first` a piece that is a token is that token,
  // whether or not merges lead to it (tokenizer.json's "ignore_merges").
  // InvalidArgument: a byte has no token, more than kMergesMax merges, a pair is listed twice.
  static absl::StatusOr<std::unique_ptr<BytePairEncoder>> Create(const TokenTable* tokens,
                                                                 absl::Span<const Merge> merges,
                                                                 bool whole_pieces_first);

  // Appends the ids of `piece`.
  // REQUIRES: piece.size() < 2^31.
  void Encode(absl::string_view piece, Scratch* scratch, std::vector<int32_t>* ids) const;

 private:
  enum class Whole : uint8_t { kUnknown = 0, kToken, kSeveral };

  explicit BytePairEncoder(const TokenTable* tokens) : tokens_(tokens) {}
  uint32_t RankOf(int32_t left, int32_t right) const;
  void MergeShort(absl::string_view piece, std::vector<int32_t>* ids) const;
  void MergeByHeap(absl::string_view piece, Scratch* scratch, std::vector<int32_t>* ids) const;
  void MergeWhole(absl::string_view piece, Scratch* scratch, std::vector<int32_t>* ids) const;
  bool MergeInWindows(absl::string_view piece, Scratch* scratch, std::vector<int32_t>* ids) const;
  bool Splice(absl::string_view piece, size_t cut, size_t first, Scratch* scratch,
              std::vector<int32_t>* ids) const;
  bool StayApart(absl::string_view piece, size_t cut, int32_t left, int32_t right, Scratch* scratch) const;
  void MergePiece(absl::string_view piece, Scratch* scratch, std::vector<int32_t>* ids) const;

  const TokenTable* const tokens_;
  bool whole_pieces_first_ = false;
  // Each token is made by at most one merge, whose rank is above those that made its two parts.
  bool ranks_grow_ = false;
  std::array<int32_t, 256> byte_ids_{};
  std::vector<int32_t> joined_;       // [rank]
  std::vector<uint32_t> byte_ranks_;  // [first byte * 256 + second byte]
  // left << 43 | right << 22 | rank: one word a merge, so that as many as can be are in the caches.
  std::vector<uint64_t> slots_;  // a power of two; open addressing
  int slot_shift_ = 63;
  // What Encode() found out about the piece that is exactly token i: whether merges make that token of it.
  mutable std::unique_ptr<std::atomic<Whole>[]> whole_;
};

}  // namespace prism
