#include "kernels/cpu/attention_kernels.h"

#include <algorithm>
#include <limits>

// AVX-512, AVX2 and SSE4.1; what lies between them adds nothing here but time to compile.
#define HWY_DISABLED_TARGETS (HWY_SSSE3 | HWY_AVX3_DL | HWY_SVE | HWY_SVE2 | HWY_SVE_256 | HWY_SVE2_128)
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/cpu/attention_kernels.cc"
#include "hwy/foreach_target.h"
#include "hwy/highway.h"
#include "kernels/cpu/vector_math-inl.h"

HWY_BEFORE_NAMESPACE();
namespace prism::cpu {
namespace HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

using FloatTag = hn::CappedTag<float, 16>;
using FloatVector = hn::Vec<FloatTag>;
// The running sums go by key modulo 8, so they are at most 8 lanes wide.
using SumTag = hn::CappedTag<float, kAttentionRowSums>;

constexpr int64_t kLanes = static_cast<int64_t>(hn::MaxLanes(FloatTag()));
constexpr int64_t kSumLanes = static_cast<int64_t>(hn::MaxLanes(SumTag()));

// A register tile is kRows queries by kVectors vectors of keys (scores) or of columns (values).
constexpr int kRowsMax = 6;
#if HWY_TARGET == HWY_AVX3
constexpr int kVectorsMax = 4;  // 24 sums, 4 operands and a query's value in 32 registers
#else
constexpr int kVectorsMax = 2;  // 12 sums, 2 operands and a query's value in 16 registers
#endif

// With so few queries memory decides: columns go together as far as registers last, and the next
// tile is asked for ahead.
constexpr int kFewRows = 4;
template <int kRows>
constexpr int kValueVectors = kRows <= 2 ? 2 * kVectorsMax : kVectorsMax;

// What a block's queries carry from tile to tile, cut from its scratch.
struct State {
  float* q;         // [rows, D]
  float* scores;    // [kRowsMax, 64], then the weights
  float* o;         // [rows, padded D]   of the leaf
  float* l;         // [rows, 8]
  float* m;         // [rows]
  float* o_before;  // [rows, padded D]   of the leaves before
  float* l_before;  // [rows]
  float* m_before;  // [rows]
  float* v;         // [64, padded D]     a tile of values, padded
};

// Sixty-four keys and their values, and where the next tile's lie (or these again).
struct Tile {
  const float* k;  // [D, 64]
  const float* v;  // [64, columns]
  const float* next_k;
  const float* next_v;
  int64_t columns;  // padded D
};

constexpr float kLowest = -std::numeric_limits<float>::infinity();

// Asks for kVectors vectors to come into the cache.
template <int kVectors>
HWY_INLINE void Ask(const float* next) {
  constexpr int64_t kLine = 16;  // floats
#pragma GCC unroll 8
  for (int64_t i = 0; i < kVectors * kLanes; i += std::max(kLine, kLanes)) __builtin_prefetch(next + i, 0, 1);
}

// scores[r, key] = scale * (q[r, 0] K[0, key] + ... ascending), for kVectors vectors of keys.
template <int kRows, int kVectors>
HWY_INLINE void ScoreTile(const float* HWY_RESTRICT q, const float* HWY_RESTRICT k, const float* next_k,
                          int64_t head_size, float scale, float* HWY_RESTRICT scores) {
  const FloatTag d;
  FloatVector sum[kRows][kVectors];
#pragma GCC unroll 6
  for (int r = 0; r < kRows; ++r) {
#pragma GCC unroll 8
    for (int i = 0; i < kVectors; ++i) sum[r][i] = hn::Zero(d);
  }
  for (int64_t c = 0; c < head_size; ++c) {
    if constexpr (kRows <= kFewRows) Ask<kVectors>(next_k + c * kAttentionTile);
    FloatVector key[kVectors];
#pragma GCC unroll 8
    for (int i = 0; i < kVectors; ++i) key[i] = hn::LoadU(d, k + c * kAttentionTile + i * kLanes);
#pragma GCC unroll 6
    for (int r = 0; r < kRows; ++r) {
      const FloatVector value = hn::Set(d, q[r * head_size + c]);
#pragma GCC unroll 8
      for (int i = 0; i < kVectors; ++i) sum[r][i] = hn::MulAdd(value, key[i], sum[r][i]);
    }
  }
#pragma GCC unroll 6
  for (int r = 0; r < kRows; ++r) {
#pragma GCC unroll 8
    for (int i = 0; i < kVectors; ++i) {
      hn::StoreU(hn::Mul(sum[r][i], hn::Set(d, scale)), d, scores + r * kAttentionTile + i * kLanes);
    }
  }
}

// o[r, column] = factor[r] o[r, column] + p[r, first] V[first, column] + ... ascending to `last`,
// for kVectors vectors of columns.
template <int kRows, int kVectors>
HWY_INLINE void ValueTile(const float* HWY_RESTRICT p, const float* HWY_RESTRICT v, const float* next_v,
                          int64_t first, int64_t last, int64_t columns, const float* HWY_RESTRICT factor,
                          float* HWY_RESTRICT o) {
  const FloatTag d;
  FloatVector sum[kRows][kVectors];
#pragma GCC unroll 6
  for (int r = 0; r < kRows; ++r) {
#pragma GCC unroll 8
    for (int i = 0; i < kVectors; ++i) {
      sum[r][i] = hn::Mul(hn::LoadU(d, o + r * columns + i * kLanes), hn::Set(d, factor[r]));
    }
  }
  for (int64_t j = first; j < last; ++j) {
    if constexpr (kRows <= kFewRows) Ask<kVectors>(next_v + j * columns);
    FloatVector value[kVectors];
#pragma GCC unroll 8
    for (int i = 0; i < kVectors; ++i) value[i] = hn::LoadU(d, v + j * columns + i * kLanes);
#pragma GCC unroll 6
    for (int r = 0; r < kRows; ++r) {
      const FloatVector weight = hn::Set(d, p[r * kAttentionTile + j]);
#pragma GCC unroll 8
      for (int i = 0; i < kVectors; ++i) sum[r][i] = hn::MulAdd(weight, value[i], sum[r][i]);
    }
  }
#pragma GCC unroll 6
  for (int r = 0; r < kRows; ++r) {
#pragma GCC unroll 8
    for (int i = 0; i < kVectors; ++i) hn::StoreU(sum[r][i], d, o + r * columns + i * kLanes);
  }
}

// ValueTile() over columns [c, columns), kVectors vectors at a time, then fewer.
template <int kRows, int kVectors>
HWY_INLINE void AddValues(const float* p, const float* v, const float* next_v, int64_t first, int64_t last,
                          int64_t c, int64_t columns, const float* factor, float* o) {
  for (; c + kVectors * kLanes <= columns; c += kVectors * kLanes) {
    ValueTile<kRows, kVectors>(p, v + c, next_v + c, first, last, columns, factor, o + c);
  }
  if constexpr (kVectors > 1) {
    AddValues<kRows, kVectors / 2>(p, v, next_v, first, last, c, columns, factor, o);
  }
}

// e^(from - to), and 1 where both are the same infinity.
HWY_INLINE FloatVector Rescale(float from, float to) {
  const FloatTag d;
  const FloatVector a = hn::Set(d, from);
  const FloatVector b = hn::Set(d, to);
  return ExpOfAtMostZero(d, hn::IfThenZeroElse(hn::Eq(a, b), hn::Sub(a, b)));
}

// The largest of m and the first `count` scores.
HWY_INLINE float Largest(const float* scores, int64_t count, float m) {
  const FloatTag d;
  FloatVector most = hn::Set(d, m);
  if (count == kAttentionTile) {
#pragma GCC unroll 16
    for (int64_t j = 0; j < kAttentionTile; j += kLanes) most = hn::Max(most, hn::LoadU(d, scores + j));
    return hn::GetLane(hn::MaxOfLanes(d, most));
  }
  for (int64_t j = 0; j < count; j += kLanes) {
    const auto seen = hn::FirstN(d, static_cast<size_t>(count - j));
    most = hn::Max(most, hn::IfThenElse(seen, hn::LoadU(d, scores + j), most));
  }
  return hn::GetLane(hn::MaxOfLanes(d, most));
}

// scores[j] = exp(scores[j] - m), 0 from `count` on; l[j mod 8] = factor l[j mod 8] + them.
HWY_INLINE void Weigh(float* scores, int64_t count, float m, FloatVector factor, float* l) {
  const FloatTag d;
  const FloatVector subtrahend = hn::Set(d, m);
#pragma GCC unroll 16
  for (int64_t j = 0; j < kAttentionTile; j += kLanes) {
    hn::StoreU(ExpOfAtMostZero(d, hn::Sub(hn::LoadU(d, scores + j), subtrahend)), d, scores + j);
  }
  std::fill(scores + count, scores + kAttentionTile, 0.0f);
  const SumTag ds;
#pragma GCC unroll 8
  for (int64_t lane = 0; lane < kAttentionRowSums; lane += kSumLanes) {
    auto sum = hn::Mul(hn::LoadU(ds, l + lane), hn::Set(ds, hn::GetLane(factor)));
#pragma GCC unroll 8
    for (int64_t j = lane; j < kAttentionTile; j += kAttentionRowSums)
      sum = hn::Add(sum, hn::LoadU(ds, scores + j));
    hn::StoreU(sum, ds, l + lane);
  }
}

// One tile for kRows queries from `row` on. `counts[r]` of its keys belong to query r, ascending; none is 0.
template <int kRows>
HWY_NOINLINE void RowsTile(const AttentionBlock& block, const State& s, const Tile& tile, int64_t row,
                           const int64_t* counts) {
  const int64_t columns = tile.columns;
  float* scores = s.scores;
  const float* q = s.q + row * block.head_size;
  const int64_t most = counts[kRows - 1];
  int64_t first = 0;
  for (; first + (kVectorsMax - 1) * kLanes < most; first += kVectorsMax * kLanes) {
    ScoreTile<kRows, kVectorsMax>(q, tile.k + first, tile.next_k + first, block.head_size, block.scale,
                                  scores + first);
  }
  for (; first < most; first += kLanes) {
    ScoreTile<kRows, 1>(q, tile.k + first, tile.next_k + first, block.head_size, block.scale, scores + first);
  }
  float factor[kRows];
  int64_t common = kAttentionTile;
#pragma GCC unroll 6
  for (int r = 0; r < kRows; ++r) {
    const float m = Largest(scores + r * kAttentionTile, counts[r], s.m[row + r]);
    const FloatVector rescale = Rescale(s.m[row + r], m);
    Weigh(scores + r * kAttentionTile, counts[r], m, rescale, s.l + (row + r) * kAttentionRowSums);
    s.m[row + r] = m;
    factor[r] = hn::GetLane(rescale);
    common = std::min(common, counts[r]);
  }
  AddValues<kRows, kValueVectors<kRows>>(scores, tile.v, tile.next_v, 0, common, 0, columns, factor,
                                         s.o + row * columns);
  const float one = 1.0f;
  for (int r = 0; r < kRows; ++r) {
    if (counts[r] == common) continue;
    AddValues<1, kValueVectors<1>>(scores + r * kAttentionTile, tile.v, tile.next_v, common, counts[r], 0,
                                   columns, &one, s.o + (row + r) * columns);
  }
}

using RowsTileFunction = void (*)(const AttentionBlock&, const State&, const Tile&, int64_t, const int64_t*);
constexpr RowsTileFunction kRowsTile[kRowsMax] = {RowsTile<1>, RowsTile<2>, RowsTile<3>,
                                                  RowsTile<4>, RowsTile<5>, RowsTile<6>};

// Merges the leaf of one query into those before it.
HWY_INLINE void EndLeaf(const State& s, int64_t row, int64_t columns) {
  const FloatTag d;
  const float* l = s.l + row * kAttentionRowSums;
  const float l_now = ((l[0] + l[1]) + (l[2] + l[3])) + ((l[4] + l[5]) + (l[6] + l[7]));
  const float m = std::max(s.m_before[row], s.m[row]);
  const FloatVector before = Rescale(s.m_before[row], m);
  const FloatVector now = Rescale(s.m[row], m);
  s.l_before[row] =
      hn::GetLane(hn::MulAdd(hn::Set(d, s.l_before[row]), before, hn::Mul(hn::Set(d, l_now), now)));
  for (int64_t c = row * columns; c < (row + 1) * columns; c += kLanes) {
    hn::StoreU(hn::MulAdd(hn::LoadU(d, s.o_before + c), before, hn::Mul(hn::LoadU(d, s.o + c), now)), d,
               s.o_before + c);
  }
  s.m_before[row] = m;
}

// The values of a tile's first `count` keys, their rows padded with zeros.
void PadValues(const float* v, int64_t count, int64_t head_size, int64_t columns, float* to) {
  for (int64_t j = 0; j < count; ++j) {
    std::copy_n(v + j * head_size, head_size, to + j * columns);
    std::fill(to + j * columns + head_size, to + (j + 1) * columns, 0.0f);
  }
}

State Cut(const AttentionBlock& block, int64_t columns) {
  const int64_t rows = kQueryBlock;
  State s;
  float* next = block.scratch;
  const auto take = [&next](int64_t count) {
    float* taken = next;
    next += (count + 15) / 16 * 16;
    return taken;
  };
  s.q = take(rows * block.head_size);
  s.scores = take(kRowsMax * kAttentionTile);
  s.o = take(rows * columns);
  s.l = take(rows * kAttentionRowSums);
  s.m = take(rows);
  s.o_before = take(rows * columns);
  s.l_before = take(rows);
  s.m_before = take(rows);
  s.v = take(kAttentionTile * columns);
  return s;
}

// Where tile `index` begins.
HWY_INLINE int64_t Offset(const KeyValueTiles& kv, int64_t index) {
  return (kv.tiles == nullptr ? index : kv.tiles[index]) * kv.stride;
}

void AttendBlock(const AttentionBlock& block) {
  const FloatTag d;
  const int64_t rows = static_cast<int64_t>(block.queries.size());
  const int64_t columns = PaddedHeadSize(block.head_size);
  const State s = Cut(block, columns);
  for (int64_t r = 0; r < rows; ++r) {
    std::copy_n(block.queries[static_cast<size_t>(r)].q, block.head_size, s.q + r * block.head_size);
  }
  std::fill_n(s.o_before, rows * columns, 0.0f);
  std::fill_n(s.l_before, rows, 0.0f);
  std::fill_n(s.m_before, rows, kLowest);

  const auto num_keys = [&block](int64_t r) { return block.queries[static_cast<size_t>(r)].num_keys; };
  int64_t in_leaf = 0;  // queries from here on have keys in the leaf
  int64_t in_tile = 0;  // and in the tile
  for (int64_t begin = 0; begin < num_keys(rows - 1); begin += kAttentionTile) {
    while (num_keys(in_tile) <= begin) ++in_tile;
    if (begin % kAttentionLeaf == 0) {
      in_leaf = in_tile;
      std::fill(s.o + in_leaf * columns, s.o + rows * columns, 0.0f);
      std::fill(s.l + in_leaf * kAttentionRowSums, s.l + rows * kAttentionRowSums, 0.0f);
      std::fill(s.m + in_leaf, s.m + rows, kLowest);
    }
    const int64_t index = begin / kAttentionTile;
    const int64_t offset = Offset(block.kv, index);
    const bool is_last = begin + kAttentionTile >= num_keys(rows - 1);
    const int64_t next = is_last ? offset : Offset(block.kv, index + 1);
    Tile tile = {.k = block.kv.k + offset,
                 .v = block.kv.v + offset,
                 .next_k = block.kv.k + next,
                 .next_v = block.kv.v + next,
                 .columns = columns};
    if (block.kv.v_columns != columns) {
      const int64_t count = std::min(kAttentionTile, num_keys(rows - 1) - begin);
      PadValues(tile.v, count, block.head_size, columns, s.v);
      tile.v = tile.next_v = s.v;
    }
    // Blocks of rows as even as they come.
    const int64_t active = rows - in_tile;
    const int64_t num_blocks = (active + kRowsMax - 1) / kRowsMax;
    int64_t row = in_tile;
    for (int64_t b = 0; b < num_blocks; ++b) {
      const int64_t count = active / num_blocks + (b < active % num_blocks ? 1 : 0);
      int64_t counts[kRowsMax];
      for (int64_t r = 0; r < count; ++r) counts[r] = std::min(kAttentionTile, num_keys(row + r) - begin);
      kRowsTile[count - 1](block, s, tile, row, counts);
      row += count;
    }
    if ((begin + kAttentionTile) % kAttentionLeaf == 0 || is_last) {
      for (int64_t r = in_leaf; r < rows; ++r) EndLeaf(s, r, columns);
    }
  }
  for (int64_t r = 0; r < rows; ++r) {
    float* total = s.o_before + r * columns;
    for (int64_t c = 0; c < columns; c += kLanes) {
      hn::StoreU(hn::Div(hn::LoadU(d, total + c), hn::Set(d, s.l_before[r])), d, total + c);
    }
    std::copy_n(total, block.head_size, block.queries[static_cast<size_t>(r)].out);
  }
}

// Four keys' elements [c, c + 4) turned to four rows of a tile.
HWY_INLINE void TurnFour(const float* const* keys, int64_t c, float* tile) {
  const hn::CappedTag<float, 4> d;
#if HWY_TARGET == HWY_SCALAR
  for (int64_t i = 0; i < 4; ++i) {
    for (int64_t j = 0; j < 4; ++j) tile[i * kAttentionTile + j] = keys[j][c + i];
  }
  (void)d;
#else
  const auto a = hn::LoadU(d, keys[0] + c);
  const auto b = hn::LoadU(d, keys[1] + c);
  const auto e = hn::LoadU(d, keys[2] + c);
  const auto f = hn::LoadU(d, keys[3] + c);
  const auto ae_low = hn::InterleaveLower(d, a, e);
  const auto ae_high = hn::InterleaveUpper(d, a, e);
  const auto bf_low = hn::InterleaveLower(d, b, f);
  const auto bf_high = hn::InterleaveUpper(d, b, f);
  hn::StoreU(hn::InterleaveLower(d, ae_low, bf_low), d, tile);
  hn::StoreU(hn::InterleaveUpper(d, ae_low, bf_low), d, tile + kAttentionTile);
  hn::StoreU(hn::InterleaveLower(d, ae_high, bf_high), d, tile + 2 * kAttentionTile);
  hn::StoreU(hn::InterleaveUpper(d, ae_high, bf_high), d, tile + 3 * kAttentionTile);
#endif
}

void PackKeysAndValues(const PackedRows& rows) {
  const int64_t size = rows.head_size;
  int64_t j = 0;
  for (; j + 4 <= rows.count; j += 4) {
    const float* keys[4];
    for (int64_t i = 0; i < 4; ++i) keys[i] = rows.k + (j + i) * rows.stride;
    int64_t c = 0;
    for (; c + 4 <= size; c += 4) TurnFour(keys, c, rows.k_tile + c * kAttentionTile + j);
    for (; c < size; ++c) {
      for (int64_t i = 0; i < 4; ++i) rows.k_tile[c * kAttentionTile + j + i] = keys[i][c];
    }
  }
  for (; j < kKeysTurned; ++j) {
    for (int64_t c = 0; c < size; ++c) {
      rows.k_tile[c * kAttentionTile + j] = j < rows.count ? rows.k[j * rows.stride + c] : 0.0f;
    }
  }
  const FloatTag d;
  const int64_t columns = PaddedHeadSize(size);
  for (int64_t row = 0; row < rows.count; ++row) {
    const float* from = rows.v + row * rows.stride;
    float* to = rows.v_tile + row * columns;
    int64_t c = 0;
    for (; c + kLanes <= size; c += kLanes) hn::StoreU(hn::LoadU(d, from + c), d, to + c);
    for (; c < columns; ++c) to[c] = c < size ? from[c] : 0.0f;
  }
}

}  // namespace HWY_NAMESPACE
}  // namespace prism::cpu
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace prism::cpu {

int64_t AttentionScratchSize(int64_t head_size) {
  const int64_t columns = PaddedHeadSize(head_size);
  // As Cut() takes it: queries, two outputs, a tile of values, eight sums, and small change.
  return kQueryBlock * (3 * columns + kAttentionRowSums) + kAttentionTile * (columns + 6) +
         4 * (kQueryBlock + 16);
}

HWY_EXPORT(AttendBlock);
HWY_EXPORT(PackKeysAndValues);
void AttendBlock(const AttentionBlock& block) { HWY_DYNAMIC_DISPATCH(AttendBlock)(block); }
void PackKeysAndValues(const PackedRows& rows) { HWY_DYNAMIC_DISPATCH(PackKeysAndValues)(rows); }

}  // namespace prism::cpu
#endif  // HWY_ONCE
