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
constexpr uint32_t kNoRank = UINT32_MAX;
constexpr uint64_t kNoPair = UINT64_MAX;
// Up to this many bytes a scan for the lowest rank beats a heap.
constexpr size_t kShortBytesMax = 32;

uint64_t PairOf(int32_t left, int32_t right) {
  return uint64_t{static_cast<uint32_t>(left)} << 32 | static_cast<uint32_t>(right);
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

  const size_t num_slots = std::bit_ceil(merges.size() * 2 + 2);
  encoder->slots_.assign(num_slots, Slot{kNoPair, {kNoRank, kNoToken}});
  encoder->slot_shift_ = 64 - std::countr_zero(num_slots);
  for (size_t rank = 0; rank < merges.size(); ++rank) {
    const Merge& merge = merges[rank];
    const uint64_t pair = PairOf(merge.left, merge.right);
    size_t slot = SlotOf(pair, encoder->slot_shift_);
    while (encoder->slots_[slot].pair != kNoPair) {
      if (encoder->slots_[slot].pair == pair) {
        return absl::InvalidArgumentError(absl::StrCat("merges.", rank, " repeats merges.",
                                                       encoder->slots_[slot].joined.rank));
      }
      slot = (slot + 1) & (num_slots - 1);
    }
    encoder->slots_[slot] = {pair, {static_cast<uint32_t>(rank), merge.joined}};
  }

  encoder->byte_pairs_.resize(256 * 256);
  for (int first = 0; first < 256; ++first) {
    for (int second = 0; second < 256; ++second) {
      encoder->byte_pairs_[first * 256 + second] =
          encoder->Join(encoder->byte_ids_[first], encoder->byte_ids_[second]);
    }
  }
  encoder->whole_ = std::make_unique<std::atomic<Whole>[]>(static_cast<size_t>(tokens->size()));
  return encoder;
}

BytePairEncoder::Joined BytePairEncoder::Join(int32_t left, int32_t right) const {
  const uint64_t pair = PairOf(left, right);
  const size_t mask = slots_.size() - 1;
  for (size_t slot = SlotOf(pair, slot_shift_);; slot = (slot + 1) & mask) {
    if (slots_[slot].pair == pair) return slots_[slot].joined;
    if (slots_[slot].pair == kNoPair) return {kNoRank, kNoToken};
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
    MergeAny(piece, scratch, ids);
    return;
  }
  const Whole known = whole_pieces_first_ ? Whole::kToken : whole_[whole].load(std::memory_order_relaxed);
  if (known == Whole::kToken) {
    ids->push_back(whole);
    return;
  }
  const size_t before = ids->size();
  MergeAny(piece, scratch, ids);
  if (known == Whole::kUnknown) {
    const bool agrees = ids->size() == before + 1 && ids->back() == whole;
    whole_[whole].store(agrees ? Whole::kToken : Whole::kSeveral, std::memory_order_relaxed);
  }
}

void BytePairEncoder::MergeAny(absl::string_view piece, Scratch* scratch, std::vector<int32_t>* ids) const {
  if (piece.size() <= kShortBytesMax) {
    MergeShort(piece, ids);
  } else {
    MergeLong(piece, scratch, ids);
  }
}

void BytePairEncoder::MergeShort(absl::string_view piece, std::vector<int32_t>* ids) const {
  int32_t symbols[kShortBytesMax];
  uint32_t ranks[kShortBytesMax];  // ranks[i] and joined[i] are of the pair (i, i + 1)
  int32_t joined[kShortBytesMax];
  size_t count = piece.size();
  for (size_t i = 0; i < count; ++i) symbols[i] = byte_ids_[static_cast<uint8_t>(piece[i])];
  for (size_t i = 0; i + 1 < count; ++i) {
    const Joined pair = byte_pairs_[static_cast<uint8_t>(piece[i]) * 256 + static_cast<uint8_t>(piece[i + 1])];
    ranks[i] = pair.rank;
    joined[i] = pair.id;
  }
  while (count > 1) {
    size_t lowest = 0;
    for (size_t i = 1; i + 1 < count; ++i) {
      if (ranks[i] < ranks[lowest]) lowest = i;
    }
    if (ranks[lowest] == kNoRank) break;
    symbols[lowest] = joined[lowest];
    --count;
    for (size_t i = lowest + 1; i < count; ++i) symbols[i] = symbols[i + 1];
    for (size_t i = lowest + 1; i + 1 < count; ++i) {
      ranks[i] = ranks[i + 1];
      joined[i] = joined[i + 1];
    }
    if (lowest > 0) {
      const Joined pair = Join(symbols[lowest - 1], symbols[lowest]);
      ranks[lowest - 1] = pair.rank;
      joined[lowest - 1] = pair.id;
    }
    if (lowest + 1 < count) {
      const Joined pair = Join(symbols[lowest], symbols[lowest + 1]);
      ranks[lowest] = pair.rank;
      joined[lowest] = pair.id;
    }
  }
  ids->insert(ids->end(), symbols, symbols + count);
}

void BytePairEncoder::MergeLong(absl::string_view piece, Scratch* scratch,
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
  symbols.resize(piece.size());
  heap.clear();
  for (int32_t i = 0; i < count; ++i) {
    Joined pair = {kNoRank, kNoToken};
    if (i + 1 < count) {
      pair = byte_pairs_[static_cast<uint8_t>(piece[i]) * 256 + static_cast<uint8_t>(piece[i + 1])];
    }
    symbols[i] = {byte_ids_[static_cast<uint8_t>(piece[i])], i - 1, i + 1 < count ? i + 1 : kNone, pair.rank,
                  pair.id};
    if (pair.rank != kNoRank) heap.push_back(entry(pair.rank, i));
  }
  std::make_heap(heap.begin(), heap.end(), later);

  const auto renew = [&](int32_t left) {
    Scratch::Symbol& symbol = symbols[left];
    const Joined pair =
        symbol.next == kNone ? Joined{kNoRank, kNoToken} : Join(symbol.id, symbols[symbol.next].id);
    symbol.rank = pair.rank;
    symbol.joined = pair.id;
    if (pair.rank != kNoRank) {
      heap.push_back(entry(pair.rank, left));
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
    symbol.id = symbol.joined;
    symbol.next = gone.next;
    if (gone.next != kNone) symbols[gone.next].previous = left;
    gone.id = kNoToken;
    renew(left);
    if (symbol.previous != kNone) renew(symbol.previous);
  }
  for (int32_t i = 0; i != kNone; i = symbols[i].next) ids->push_back(symbols[i].id);
}

}  // namespace prism
