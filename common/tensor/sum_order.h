// The order of every long sum, in one place (docs/numerics.md): which terms form a leaf, and how
// leaves are added. Kernels, layers and the tensor-parallel arithmetic all take their borders from
// here, so a sum has the same order alone or in a batch, on 1, 2 or 4 ranks.
//
// Arithmetic only: nothing here allocates, fails or depends on a backend.
#pragma once

#include <cstdint>

namespace prism {

// The half-open range [begin, end).
struct IndexRange {
  int64_t begin = 0;
  int64_t end = 0;
  constexpr int64_t size() const { return end - begin; }
  constexpr bool empty() const { return end <= begin; }
  constexpr bool Contains(int64_t index) const { return begin <= index && index < end; }
  friend constexpr bool operator==(const IndexRange&, const IndexRange&) = default;
};

namespace sum_order_internal {
constexpr int64_t CeilDiv(int64_t value, int64_t by) { return (value + by - 1) / by; }
constexpr int64_t Least(int64_t a, int64_t b) { return a < b ? a : b; }
// [first * width, last * width) clipped to `size`.
constexpr IndexRange Clipped(int64_t first, int64_t last, int64_t width, int64_t size) {
  return {Least(size, first * width), Least(size, last * width)};
}
}  // namespace sum_order_internal

// ---- Linears of the language model: y = sum over k of x[k] W[k] ------------------------------
//
// K is thought of as zero-padded to a multiple of kLeafPadding, then cut into kNumLeaves equal leaves.
// A leaf is one ascending chain of units of kSumUnit consecutive k, started from zero in float32.
//
//   k:  |---- leaf 0 ----|---- leaf 1 ----|---- leaf 2 ----|---- leaf 3 ----|
//       |  rank 0 of 2                    |  rank 1 of 2                    |

inline constexpr int kNumLeaves = 4;
inline constexpr int64_t kSumUnit = 16;
inline constexpr int64_t kLeafPadding = 64;

// The width of a leaf before it is clipped to K: a multiple of kSumUnit.
constexpr int64_t LeafWidth(int64_t k_size) {
  return sum_order_internal::CeilDiv(k_size, kLeafPadding) * (kLeafPadding / kNumLeaves);
}

// The k of one leaf, clipped to K: K = 2048 gives [512 leaf, 512 (leaf + 1)), K = 96 gives
// [0, 32), [32, 64), [64, 96) and the empty [96, 96). REQUIRES: 0 <= leaf < kNumLeaves
constexpr IndexRange LeafRange(int64_t k_size, int leaf) {
  return sum_order_internal::Clipped(leaf, leaf + 1, LeafWidth(k_size), k_size);
}

// The leaves a rank holds: all of them, two each, or one each.
// REQUIRES: num_ranks is 1, 2 or 4; 0 <= rank < num_ranks
constexpr IndexRange RankLeaves(int rank, int num_ranks) {
  const int each = kNumLeaves / num_ranks;
  return {rank * each, (rank + 1) * each};
}

// The k of all leaves a rank holds. REQUIRES: as RankLeaves()
constexpr IndexRange RankRange(int64_t k_size, int rank, int num_ranks) {
  const IndexRange leaves = RankLeaves(rank, num_ranks);
  return sum_order_internal::Clipped(leaves.begin, leaves.end, LeafWidth(k_size), k_size);
}

// The one way the four partial sums become one.
template <typename T>
constexpr T AddLeaves(T leaf0, T leaf1, T leaf2, T leaf3) {
  return (leaf0 + leaf1) + (leaf2 + leaf3);
}

// ---- Mixture of experts ----------------------------------------------------------------------
//
// A token's experts are added ascending by id inside each quarter of the ids, each quarter from
// zero; the quarters are added with AddLeaves(). A rank holds whole quarters.

inline constexpr int kExpertQuarters = 4;

// The ids of one quarter of `num_experts`; late quarters may be short or empty.
// REQUIRES: 0 <= quarter < kExpertQuarters
constexpr IndexRange ExpertQuarter(int64_t num_experts, int quarter) {
  return sum_order_internal::Clipped(quarter, quarter + 1,
                                     sum_order_internal::CeilDiv(num_experts, kExpertQuarters), num_experts);
}

// The quarter an expert belongs to. REQUIRES: 0 <= expert < num_experts
constexpr int QuarterOfExpert(int64_t num_experts, int64_t expert) {
  return static_cast<int>(expert / sum_order_internal::CeilDiv(num_experts, kExpertQuarters));
}

// The ids of the experts a rank holds. REQUIRES: as RankLeaves()
constexpr IndexRange RankExperts(int64_t num_experts, int rank, int num_ranks) {
  const int each = kExpertQuarters / num_ranks;
  return sum_order_internal::Clipped(rank * each, (rank + 1) * each,
                                     sum_order_internal::CeilDiv(num_experts, kExpertQuarters), num_experts);
}

// ---- Attention of the language model ---------------------------------------------------------
//
// Tiles and leaves start at absolute token positions: a tile never depends on where a chunk or a
// batch begins. The running maximum and output go through the tiles of a leaf in order; leaves
// merge left to right; the rescale is unconditional. A row sum keeps kAttentionRowSums running
// sums by token modulo kAttentionRowSums, then adds them pairwise 1-2-4 (see AddRowSums()).

inline constexpr int64_t kAttentionTile = 64;
inline constexpr int64_t kAttentionLeaf = 256;
inline constexpr int kAttentionRowSums = 8;
static_assert(kAttentionLeaf % kAttentionTile == 0);

// Neighbours at distance 1 first, then 2, then 4.
template <typename T>
constexpr T AddRowSums(const T (&s)[kAttentionRowSums]) {
  return ((s[0] + s[1]) + (s[2] + s[3])) + ((s[4] + s[5]) + (s[6] + s[7]));
}

// ---- Vocabulary ------------------------------------------------------------------------------
//
// A log-sum-exp is taken over kVocabularyRanges ranges, each a multiple of kSumUnit long but for
// the clipped end, then merged pairwise 1-2-4. A rank holds whole ranges.

inline constexpr int kVocabularyRanges = 8;

constexpr int64_t VocabularyRangeWidth(int64_t vocabulary_size) {
  return sum_order_internal::CeilDiv(vocabulary_size, kVocabularyRanges * kSumUnit) * kSumUnit;
}

// One range: 151936 ids give 8 of 18992. REQUIRES: 0 <= range < kVocabularyRanges
constexpr IndexRange VocabularyRange(int64_t vocabulary_size, int range) {
  return sum_order_internal::Clipped(range, range + 1, VocabularyRangeWidth(vocabulary_size),
                                     vocabulary_size);
}

// The ids whose logits a rank computes. REQUIRES: as RankLeaves()
constexpr IndexRange RankVocabulary(int64_t vocabulary_size, int rank, int num_ranks) {
  const int each = kVocabularyRanges / num_ranks;
  return sum_order_internal::Clipped(rank * each, (rank + 1) * each, VocabularyRangeWidth(vocabulary_size),
                                     vocabulary_size);
}

}  // namespace prism
