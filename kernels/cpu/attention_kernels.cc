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

// What a block's queries carry from tile to tile, cut from its scratch.
struct State {
  float* q;          // [rows, D]
  float* scores;     // [kRowsMax, 64], then the weights
  float* o;          // [rows, padded D]   of the leaf
  float* l;          // [rows, 8]
  float* m;          // [rows]
  float* o_before;   // [rows, padded D]   of the leaves before
  float* l_before;   // [rows]
  float* m_before;   // [rows]
  float* v;          // [64, padded D]     a tile of values, padded
};

constexpr float kLowest = -std::numeric_limits<float>::infinity();

// scores[r, key] = scale * (q[r, 0] K[0, key] + ... ascending), for kVectors vectors of keys.
template <int kRows, int kVectors>
HWY_INLINE void ScoreTile(const float* HWY_RESTRICT q, const float* HWY_RESTRICT k, int64_t head_size, float scale,
                          float* HWY_RESTRICT scores) {
  const FloatTag d;
  FloatVector sum[kRows][kVectors];
#pragma GCC unroll 6
  for (int r = 0; r < kRows; ++r) {
#pragma GCC unroll 4
    for (int i = 0; i < kVectors; ++i) sum[r][i] = hn::Zero(d);
  }
  for (int64_t c = 0; c < head_size; ++c) {
    FloatVector key[kVectors];
#pragma GCC unroll 4
    for (int i = 0; i < kVectors; ++i) key[i] = hn::LoadU(d, k + c * kAttentionTile + i * kLanes);
#pragma GCC unroll 6
    for (int r = 0; r < kRows; ++r) {
      const FloatVector value = hn::Set(d, q[r * head_size + c]);
#pragma GCC unroll 4
      for (int i = 0; i < kVectors; ++i) sum[r][i] = hn::MulAdd(value, key[i], sum[r][i]);
    }
  }
#pragma GCC unroll 6
  for (int r = 0; r < kRows; ++r) {
#pragma GCC unroll 4
    for (int i = 0; i < kVectors; ++i) {
      hn::StoreU(hn::Mul(sum[r][i], hn::Set(d, scale)), d, scores + r * kAttentionTile + i * kLanes);
    }
  }
}

// o[r, column] = factor[r] o[r, column] + p[r, first] V[first, column] + ... ascending to `last`,
// for kVectors vectors of columns.
template <int kRows, int kVectors>
HWY_INLINE void ValueTile(const float* HWY_RESTRICT p, const float* HWY_RESTRICT v, int64_t first, int64_t last,
                          int64_t columns, const float* HWY_RESTRICT factor, float* HWY_RESTRICT o) {
  const FloatTag d;
  FloatVector sum[kRows][kVectors];
#pragma GCC unroll 6
  for (int r = 0; r < kRows; ++r) {
#pragma GCC unroll 4
    for (int i = 0; i < kVectors; ++i) {
      sum[r][i] = hn::Mul(hn::LoadU(d, o + r * columns + i * kLanes), hn::Set(d, factor[r]));
    }
  }
  for (int64_t j = first; j < last; ++j) {
    FloatVector value[kVectors];
#pragma GCC unroll 4
    for (int i = 0; i < kVectors; ++i) value[i] = hn::LoadU(d, v + j * columns + i * kLanes);
#pragma GCC unroll 6
    for (int r = 0; r < kRows; ++r) {
      const FloatVector weight = hn::Set(d, p[r * kAttentionTile + j]);
#pragma GCC unroll 4
      for (int i = 0; i < kVectors; ++i) sum[r][i] = hn::MulAdd(weight, value[i], sum[r][i]);
    }
  }
#pragma GCC unroll 6
  for (int r = 0; r < kRows; ++r) {
#pragma GCC unroll 4
    for (int i = 0; i < kVectors; ++i) hn::StoreU(sum[r][i], d, o + r * columns + i * kLanes);
  }
}

// ValueTile() over all columns.
template <int kRows>
HWY_INLINE void AddValues(const float* p, const float* v, int64_t first, int64_t last, int64_t columns,
                          const float* factor, float* o) {
  int64_t c = 0;
  for (; c + kVectorsMax * kLanes <= columns; c += kVectorsMax * kLanes) {
    ValueTile<kRows, kVectorsMax>(p, v + c, first, last, columns, factor, o + c);
  }
  for (; c + 2 * kLanes <= columns; c += 2 * kLanes) {
    ValueTile<kRows, 2>(p, v + c, first, last, columns, factor, o + c);
  }
  for (; c < columns; c += kLanes) ValueTile<kRows, 1>(p, v + c, first, last, columns, factor, o + c);
}

// The largest of m and the first `count` scores.
HWY_INLINE float Largest(const float* scores, int64_t count, float m) {
  const FloatTag d;
  FloatVector most = hn::Set(d, m);
  int64_t j = 0;
  for (; j + kLanes <= count; j += kLanes) most = hn::Max(most, hn::LoadU(d, scores + j));
  if (j < count) {
    const auto seen = hn::FirstN(d, static_cast<size_t>(count - j));
    most = hn::Max(most, hn::IfThenElse(seen, hn::LoadU(d, scores + j), most));
  }
  return hn::GetLane(hn::MaxOfLanes(d, most));
}

// scores[j] = exp(scores[j] - m) for j < count and 0 after; l[j mod 8] = factor l[j mod 8] + them.
HWY_INLINE void Weigh(float* scores, int64_t count, float m, float factor, float* l) {
  const FloatTag d;
  const FloatVector subtrahend = hn::Set(d, m);
  for (int64_t j = 0; j < kAttentionTile; j += kLanes) {
    FloatVector p = Exp(d, hn::Sub(hn::LoadU(d, scores + j), subtrahend));
    if (count < j + kLanes) {
      p = hn::IfThenElseZero(hn::FirstN(d, static_cast<size_t>(std::max<int64_t>(0, count - j))), p);
    }
    hn::StoreU(p, d, scores + j);
  }
  const SumTag ds;
  for (int64_t lane = 0; lane < kAttentionRowSums; lane += kSumLanes) {
    auto sum = hn::Mul(hn::LoadU(ds, l + lane), hn::Set(ds, factor));
#pragma GCC unroll 8
    for (int64_t j = lane; j < kAttentionTile; j += kAttentionRowSums) sum = hn::Add(sum, hn::LoadU(ds, scores + j));
    hn::StoreU(sum, ds, l + lane);
  }
}

// One tile for kRows queries from `row` on. `counts[r]` of its keys belong to query r; none is 0.
template <int kRows>
HWY_NOINLINE void RowsTile(const AttentionBlock& block, const State& s, int64_t row, const float* k, const float* v,
                           int64_t columns, const int64_t* counts) {
  const FloatTag d;
  float* scores = s.scores;
  for (int64_t j = 0; j < kAttentionTile; j += kVectorsMax * kLanes) {
    ScoreTile<kRows, kVectorsMax>(s.q + row * block.head_size, k + j, block.head_size, block.scale, scores + j);
  }
  HWY_ALIGN float factor[16] = {};
  float m[kRows];
  for (int r = 0; r < kRows; ++r) {
    m[r] = Largest(scores + r * kAttentionTile, counts[r], s.m[row + r]);
    // A maximum that stays the same gives e^0 = 1, be it infinite.
    factor[r] = s.m[row + r] == m[r] ? 0.0f : s.m[row + r] - m[r];
    s.m[row + r] = m[r];
  }
  for (int64_t r = 0; r < kRows; r += kLanes) hn::Store(Exp(d, hn::Load(d, factor + r)), d, factor + r);
  int64_t common = kAttentionTile;
  for (int r = 0; r < kRows; ++r) {
    Weigh(scores + r * kAttentionTile, counts[r], m[r], factor[r], s.l + (row + r) * kAttentionRowSums);
    common = std::min(common, counts[r]);
  }
  AddValues<kRows>(scores, v, 0, common, columns, factor, s.o + row * columns);
  const float one = 1.0f;
  for (int r = 0; r < kRows; ++r) {
    if (counts[r] == common) continue;
    AddValues<1>(scores + r * kAttentionTile, v, common, counts[r], columns, &one, s.o + (row + r) * columns);
  }
}

using RowsTileFunction = void (*)(const AttentionBlock&, const State&, int64_t, const float*, const float*, int64_t,
                                  const int64_t*);
constexpr RowsTileFunction kRowsTile[kRowsMax] = {RowsTile<1>, RowsTile<2>, RowsTile<3>,
                                                  RowsTile<4>, RowsTile<5>, RowsTile<6>};

// Merges the leaf of one query into those before it.
HWY_INLINE void EndLeaf(const State& s, int64_t row, int64_t columns) {
  const FloatTag d;
  const float* l = s.l + row * kAttentionRowSums;
  const float l_now = ((l[0] + l[1]) + (l[2] + l[3])) + ((l[4] + l[5]) + (l[6] + l[7]));
  const float m = std::max(s.m_before[row], s.m[row]);
  HWY_ALIGN float exponent[16] = {};
  exponent[0] = s.m_before[row] == m ? 0.0f : s.m_before[row] - m;
  exponent[1] = s.m[row] == m ? 0.0f : s.m[row] - m;
  for (int64_t i = 0; i < 2; i += kLanes) hn::Store(Exp(d, hn::Load(d, exponent + i)), d, exponent + i);
  const FloatVector before = hn::Set(d, exponent[0]);
  const FloatVector now = hn::Set(d, exponent[1]);
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
    const int64_t tile = begin / kAttentionTile;
    const int64_t offset = (block.kv.tiles == nullptr ? tile : block.kv.tiles[tile]) * block.kv.stride;
    const float* v = block.kv.v + offset;
    if (block.kv.v_columns != columns) {
      PadValues(v, std::min(kAttentionTile, num_keys(rows - 1) - begin), block.head_size, columns, s.v);
      v = s.v;
    }
    // Blocks of rows as even as they come.
    const int64_t active = rows - in_tile;
    const int64_t num_blocks = (active + kRowsMax - 1) / kRowsMax;
    int64_t row = in_tile;
    for (int64_t b = 0; b < num_blocks; ++b) {
      const int64_t count = active / num_blocks + (b < active % num_blocks ? 1 : 0);
      int64_t counts[kRowsMax];
      for (int64_t r = 0; r < count; ++r) counts[r] = std::min(kAttentionTile, num_keys(row + r) - begin);
      kRowsTile[count - 1](block, s, row, block.kv.k + offset, v, columns, counts);
      row += count;
    }
    const int64_t end = begin + kAttentionTile;
    if (end % kAttentionLeaf == 0 || end >= num_keys(rows - 1)) {
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

}  // namespace HWY_NAMESPACE
}  // namespace prism::cpu
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace prism::cpu {

int64_t AttentionScratchSize(int64_t head_size) {
  const int64_t columns = PaddedHeadSize(head_size);
  // As Cut() takes it: queries, two outputs, a tile of values, eight sums, and small change.
  return kQueryBlock * (3 * columns + kAttentionRowSums) + kAttentionTile * (columns + 6) + 4 * (kQueryBlock + 16);
}

HWY_EXPORT(AttendBlock);
void AttendBlock(const AttentionBlock& block) { HWY_DYNAMIC_DISPATCH(AttendBlock)(block); }

}  // namespace prism::cpu
#endif  // HWY_ONCE
