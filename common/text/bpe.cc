#include "common/text/bpe.h"

#include <algorithm>
#include <bit>
#include <cstring>
#include <functional>

#include "absl/strings/str_cat.h"
#include "common/base/check.h"

namespace prism {
namespace {

constexpr int32_t kNone = -1;
constexpr int kRankBits = 22;
constexpr int kIdBits = 21;
constexpr uint32_t kNoRank = (uint32_t{1} << kRankBits) - 1;
constexpr uint64_t kNoMerge = UINT64_MAX;
static_assert(kTokenIdMax < (1 << kIdBits) && 2 * kIdBits + kRankBits == 64 && kMergesMax == kNoRank - 1);
// Up to this many bytes a scan for the lowest rank beats a heap.
constexpr size_t kShortBytesMax = 32;
// What is longer is merged in windows of this many bytes, so that the work stays in the nearest cache.
constexpr size_t kWindowBytes = 2048;
// A seam that needs more tokens on its left is given up, and the piece is merged as a whole.
constexpr size_t kSeamTokensMax = 512;

uint64_t PairOf(int32_t left, int32_t right) {
  return uint64_t{static_cast<uint32_t>(left)} << kIdBits | static_cast<uint32_t>(right);
}

size_t SlotOf(uint64_t pair, int shift) { return (pair * 0x9e3779b97f4a7c15u) >> shift; }

}  // namespace

absl::StatusOr<std::unique_ptr<BytePairEncoder>> BytePairEncoder::Create(const TokenTable* tokens,
                                                                         absl::Span<const Merge> merges,
                                                                         bool whole_pieces_first) {
  std::unique_ptr<BytePairEncoder> encoder(new BytePairEncoder(tokens));
  encoder->whole_pieces_first_ = whole_pieces_first;
  for (int byte = 0; byte < 256; ++byte) {
    const char as_char = static_cast<char>(byte);
    encoder->byte_ids_[byte] = tokens->Find(absl::string_view(&as_char, 1));
    if (encoder->byte_ids_[byte] == kNoToken) {
      return absl::InvalidArgumentError(
          absl::StrCat("vocab has no token for the byte 0x", absl::Hex(byte, absl::kZeroPad2)));
    }
  }

  if (merges.size() > kMergesMax) {
    return absl::InvalidArgumentError(absl::StrCat(merges.size(), " merges, at most ", kMergesMax));
  }
  const size_t num_slots = std::bit_ceil(merges.size() + merges.size() / 2 + 2);
  encoder->slots_.assign(num_slots, kNoMerge);
  encoder->slot_shift_ = 64 - std::countr_zero(num_slots);
  encoder->joined_.reserve(merges.size());
  for (size_t rank = 0; rank < merges.size(); ++rank) {
    const uint64_t pair = PairOf(merges[rank].left, merges[rank].right);
    size_t slot = SlotOf(pair, encoder->slot_shift_);
    while (encoder->slots_[slot] != kNoMerge) {
      if (encoder->slots_[slot] >> kRankBits == pair) {
        return absl::InvalidArgumentError(
            absl::StrCat("merges.", rank, " repeats merges.", encoder->slots_[slot] & kNoRank));
      }
      slot = (slot + 1) & (num_slots - 1);
    }
    encoder->slots_[slot] = pair << kRankBits | rank;
    encoder->joined_.push_back(merges[rank].joined);
  }

  constexpr uint32_t kByByte = 0;  // a byte is there before all merges
  std::vector<uint32_t> made_at(static_cast<size_t>(tokens->size()), kByByte);
  encoder->ranks_grow_ = true;
  for (uint32_t rank = 0; rank < merges.size(); ++rank) {
    const Merge& merge = merges[rank];
    if (made_at[merge.joined] != kByByte || made_at[merge.left] > rank || made_at[merge.right] > rank) {
      encoder->ranks_grow_ = false;
    }
    made_at[merge.joined] = rank + 1;
  }

  encoder->byte_ranks_.resize(256 * 256);
  for (int first = 0; first < 256; ++first) {
    for (int second = 0; second < 256; ++second) {
      encoder->byte_ranks_[first * 256 + second] =
          encoder->RankOf(encoder->byte_ids_[first], encoder->byte_ids_[second]);
    }
  }
  encoder->whole_ = std::make_unique<std::atomic<Whole>[]>(static_cast<size_t>(tokens->size()));
  return encoder;
}

inline uint32_t BytePairEncoder::RankOf(int32_t left, int32_t right) const {
  const uint64_t pair = PairOf(left, right);
  const size_t mask = slots_.size() - 1;
  for (size_t slot = SlotOf(pair, slot_shift_);; slot = (slot + 1) & mask) {
    const uint64_t found = slots_[slot];
    if (found >> kRankBits == pair || found == kNoMerge) return found & kNoRank;
  }
}

void BytePairEncoder::Encode(absl::string_view piece, Scratch* scratch, std::vector<int32_t>* ids) const {
  PRISM_CHECK(piece.size() < (size_t{1} << 31));
  if (piece.empty()) return;
  if (piece.size() == 1) {
    ids->push_back(byte_ids_[static_cast<uint8_t>(piece[0])]);
    return;
  }
  // Most pieces are one token, and then one look-up is all. Whether the merges agree is found out once.
  const int32_t whole = tokens_->Find(piece);
  if (whole == kNoToken) {
    MergePiece(piece, scratch, ids);
    return;
  }
  const Whole known = whole_pieces_first_ ? Whole::kToken : whole_[whole].load(std::memory_order_relaxed);
  if (known == Whole::kToken) {
    ids->push_back(whole);
    return;
  }
  const size_t before = ids->size();
  MergePiece(piece, scratch, ids);
  if (known == Whole::kUnknown) {
    const bool agrees = ids->size() == before + 1 && ids->back() == whole;
    whole_[whole].store(agrees ? Whole::kToken : Whole::kSeveral, std::memory_order_relaxed);
  }
}

void BytePairEncoder::MergePiece(absl::string_view piece, Scratch* scratch, std::vector<int32_t>* ids) const {
  if (ranks_grow_ && piece.size() > 2 * kWindowBytes && MergeInWindows(piece, scratch, ids)) return;
  MergeWhole(piece, scratch, ids);
}

void BytePairEncoder::MergeWhole(absl::string_view piece, Scratch* scratch, std::vector<int32_t>* ids) const {
  if (piece.size() <= kShortBytesMax) {
    MergeShort(piece, ids);
  } else {
    MergeByHeap(piece, scratch, ids);
  }
}

// Where ranks grow, what happens at the border of two tokens depends on these two alone: merges are done in
// the order of their ranks, and a merge across the border would have to come between merges inside the one
// or the other. So tokens are the ids of their text exactly when each of them is, and each two neighbours
// are, the ids of their own text. A long piece is therefore merged window by window, and at each seam as
// many tokens are merged anew as it takes until the new ones stay apart from the old ones on both sides.
//
//   |  ids so far      . . . .|. . . .      window   |
//                      [ seam: anew  ]
//                     ^              ^  these neighbours must stay apart
//
// Returns false, with `ids` as before, when a seam does not close soon.
bool BytePairEncoder::MergeInWindows(absl::string_view piece, Scratch* scratch,
                                     std::vector<int32_t>* ids) const {
  const size_t first = ids->size();
  MergeByHeap(piece.substr(0, kWindowBytes), scratch, ids);
  for (size_t cut = kWindowBytes; cut < piece.size(); cut += kWindowBytes) {
    scratch->window.clear();
    MergeWhole(piece.substr(cut, kWindowBytes), scratch, &scratch->window);
    if (!Splice(piece, cut, first, scratch, ids)) {
      ids->resize(first);
      return false;
    }
  }
  return true;
}

// Joins scratch->window, the ids of what follows `cut`, to ids[first..], the ids of piece[0, cut).
bool BytePairEncoder::Splice(absl::string_view piece, size_t cut, size_t first, Scratch* scratch,
                             std::vector<int32_t>* ids) const {
  const std::vector<int32_t>& window = scratch->window;
  std::vector<int32_t>& seam = scratch->seam;
  size_t num_left = 1;
  size_t num_right = 1;
  while (true) {
    num_left = std::min(num_left, ids->size() - first);
    num_right = std::min(num_right, window.size());
    if (num_left > kSeamTokensMax) return false;
    size_t begin = cut;
    size_t end = cut;
    for (size_t i = 0; i < num_left; ++i) begin -= tokens_->bytes((*ids)[ids->size() - 1 - i]).size();
    for (size_t i = 0; i < num_right; ++i) end += tokens_->bytes(window[i]).size();
    seam.clear();
    MergeWhole(piece.substr(begin, end - begin), scratch, &seam);
    const bool left_closes =
        num_left == ids->size() - first ||
        StayApart(piece, begin, (*ids)[ids->size() - 1 - num_left], seam.front(), scratch);
    const bool right_closes =
        num_right == window.size() || StayApart(piece, end, seam.back(), window[num_right], scratch);
    if (left_closes && right_closes) break;
    if (!left_closes) num_left *= 2;
    if (!right_closes) num_right *= 2;
  }
  ids->resize(ids->size() - num_left);
  ids->insert(ids->end(), seam.begin(), seam.end());
  ids->insert(ids->end(), window.begin() + static_cast<std::ptrdiff_t>(num_right), window.end());
  return true;
}

// Whether the token before `cut` and the one behind it are the ids of their joined text.
bool BytePairEncoder::StayApart(absl::string_view piece, size_t cut, int32_t left, int32_t right,
                                Scratch* scratch) const {
  const size_t left_bytes = tokens_->bytes(left).size();
  scratch->pair.clear();
  MergeWhole(piece.substr(cut - left_bytes, left_bytes + tokens_->bytes(right).size()), scratch,
             &scratch->pair);
  return scratch->pair.size() == 2 && scratch->pair[0] == left && scratch->pair[1] == right;
}

void BytePairEncoder::MergeShort(absl::string_view piece, std::vector<int32_t>* ids) const {
  int32_t symbols[kShortBytesMax];
  uint32_t ranks[kShortBytesMax];  // ranks[i] is of the pair (i, i + 1)
  size_t count = piece.size();
  const auto byte = [&](size_t i) { return static_cast<uint8_t>(piece[i]); };
  for (size_t i = 0; i < count; ++i) symbols[i] = byte_ids_[byte(i)];
  for (size_t i = 0; i + 1 < count; ++i) ranks[i] = byte_ranks_[byte(i) * 256 + byte(i + 1)];
  while (count > 1) {
    size_t lowest = 0;
    for (size_t i = 1; i + 1 < count; ++i) {
      if (ranks[i] < ranks[lowest]) lowest = i;
    }
    if (ranks[lowest] == kNoRank) break;
    symbols[lowest] = joined_[ranks[lowest]];
    --count;
    for (size_t i = lowest + 1; i < count; ++i) symbols[i] = symbols[i + 1];
    for (size_t i = lowest + 1; i + 1 < count; ++i) ranks[i] = ranks[i + 1];
    if (lowest > 0) ranks[lowest - 1] = RankOf(symbols[lowest - 1], symbols[lowest]);
    if (lowest + 1 < count) ranks[lowest] = RankOf(symbols[lowest], symbols[lowest + 1]);
  }
  ids->insert(ids->end(), symbols, symbols + count);
}

void BytePairEncoder::MergeByHeap(absl::string_view piece, Scratch* scratch,
                                  std::vector<int32_t>* ids) const {
  // A heap entry is (rank, place of the pair's left symbol). It is stale when that symbol is gone or
  // its pair has another rank by now.
  auto& symbols = scratch->symbols;
  auto& heap = scratch->heap;
  const auto entry = [](uint32_t rank, int32_t place) {
    return uint64_t{rank} << 32 | static_cast<uint32_t>(place);
  };
  const auto later = std::greater<uint64_t>();

  const auto count = static_cast<int32_t>(piece.size());
  const auto byte = [&](int32_t i) { return static_cast<uint8_t>(piece[i]); };
  symbols.resize(piece.size());
  heap.clear();
  for (int32_t i = 0; i + 1 < count; ++i) {
    const uint32_t rank = byte_ranks_[byte(i) * 256 + byte(i + 1)];
    symbols[i] = {byte_ids_[byte(i)], i - 1, i + 1, rank};
    if (rank != kNoRank) heap.push_back(entry(rank, i));
  }
  symbols[count - 1] = {byte_ids_[byte(count - 1)], count - 2, kNone, kNoRank};
  std::make_heap(heap.begin(), heap.end(), later);

  const auto renew = [&](int32_t left) {
    Scratch::Symbol& symbol = symbols[left];
    symbol.rank = symbol.next == kNone ? kNoRank : RankOf(symbol.id, symbols[symbol.next].id);
    if (symbol.rank != kNoRank) {
      heap.push_back(entry(symbol.rank, left));
      std::push_heap(heap.begin(), heap.end(), later);
    }
  };
  while (!heap.empty()) {
    const uint64_t top = heap.front();
    std::pop_heap(heap.begin(), heap.end(), later);
    heap.pop_back();
    const auto left = static_cast<int32_t>(top & UINT32_MAX);
    Scratch::Symbol& symbol = symbols[left];
    if (symbol.id == kNoToken || symbol.rank != top >> 32) continue;
    Scratch::Symbol& gone = symbols[symbol.next];
    symbol.id = joined_[symbol.rank];
    symbol.next = gone.next;
    if (gone.next != kNone) symbols[gone.next].previous = left;
    gone.id = kNoToken;
    renew(left);
    if (symbol.previous != kNone) renew(symbol.previous);
  }
  for (int32_t i = 0; i != kNone; i = symbols[i].next) ids->push_back(symbols[i].id);
}

}  // namespace prism
