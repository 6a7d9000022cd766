#include "kernels/cpu/linear_kernels.h"

#include <algorithm>
#include <cstring>
#include <utility>

// AVX-512, AVX2 and SSE4.1; what lies between them adds nothing here but time to compile.
#define HWY_DISABLED_TARGETS (HWY_SSSE3 | HWY_AVX3_DL | HWY_SVE | HWY_SVE2 | HWY_SVE_256 | HWY_SVE2_128)
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/cpu/linear_kernels.cc"
#include "hwy/foreach_target.h"
#include "hwy/highway.h"

HWY_BEFORE_NAMESPACE();
namespace prism::cpu {
namespace HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

using FloatTag = hn::CappedTag<float, 16>;
using BitsTag = hn::RebindToUnsigned<FloatTag>;
using FloatVector = hn::Vec<FloatTag>;

constexpr int kLanes = static_cast<int>(hn::MaxLanes(FloatTag()));
// A panel's column is kPairs pairs of vectors: pair p holds features [p kLanes, (p + 1) kLanes) and
// the same plus 16.
constexpr int kHalf = static_cast<int>(kPanelWidth) / 2;
constexpr int kPairs = kHalf / kLanes;

// Accumulators of a block, two a row, leave room for a pair of weights and a value of x:
// 24 of 32 registers, or 12 of 16.
#if HWY_TARGET == HWY_AVX3 || HWY_TARGET == HWY_NEON
constexpr int kBlockRowsMax = 12;
#else
constexpr int kBlockRowsMax = 6;
#endif

// From this many blocks of rows on, bf16 columns are made floats once, ahead.
constexpr int64_t kBlocksToConvert = 3;

// How far ahead a walk through memory asks for columns: 3 KiB of bf16. The processor's own
// prefetch stops at every page. (hwy::Prefetch is dropped by GCC 12.)
constexpr int64_t kPrefetchColumns = 48;

struct Pair {
  FloatVector low, high;
};

HWY_INLINE Pair LoadPair(const float* column, int pair) {
  const FloatTag d;
  return {hn::LoadU(d, column + pair * kLanes), hn::LoadU(d, column + kHalf + pair * kLanes)};
}

HWY_INLINE Pair LoadPair(const BFloat16* column, int pair) {
  const FloatTag d;
  const BitsTag bits;
  const auto both = hn::LoadU(bits, reinterpret_cast<const uint32_t*>(column) + pair * kLanes);
  return {hn::BitCast(d, hn::ShiftLeft<16>(both)), hn::BitCast(d, hn::And(both, hn::Set(bits, 0xFFFF0000u)))};
}

// sums[r, :] += the products of `count` columns for one block of rows and one pair of vectors;
// with `first` the sums start from zero.
template <int kRows, typename Element>
HWY_NOINLINE void MultiplyTile(const float* HWY_RESTRICT x, const Element* HWY_RESTRICT columns,
                               int64_t count, int pair, bool first, float* HWY_RESTRICT sums) {
  const FloatTag d;
  FloatVector low[kRows], high[kRows];
  float* sum = sums + pair * kLanes;
  if (first) {
#pragma GCC unroll 12
    for (int r = 0; r < kRows; ++r) low[r] = high[r] = hn::Zero(d);
  } else {
#pragma GCC unroll 12
    for (int r = 0; r < kRows; ++r) {
      low[r] = hn::LoadU(d, sum + r * kPanelWidth);
      high[r] = hn::LoadU(d, sum + r * kPanelWidth + kHalf);
    }
  }
  for (int64_t k = 0; k < count; ++k) {
    const Pair weight = LoadPair(columns, pair);
    if constexpr (sizeof(Element) < sizeof(float))
      __builtin_prefetch(columns + kPrefetchColumns * kPanelWidth);
#pragma GCC unroll 12
    for (int r = 0; r < kRows; ++r) {
      const FloatVector value = hn::Set(d, x[r]);
      low[r] = hn::MulAdd(value, weight.low, low[r]);
      high[r] = hn::MulAdd(value, weight.high, high[r]);
    }
    x += kRows;
    columns += kPanelWidth;
  }
#pragma GCC unroll 12
  for (int r = 0; r < kRows; ++r) {
    hn::StoreU(low[r], d, sum + r * kPanelWidth);
    hn::StoreU(high[r], d, sum + r * kPanelWidth + kHalf);
  }
}

template <typename Element>
using TileFunction = void (*)(const float*, const Element*, int64_t, int, bool, float*);

template <typename Element, size_t... kIndex>
HWY_INLINE TileFunction<Element> TileOf(int64_t rows, std::index_sequence<kIndex...>) {
  static constexpr TileFunction<Element> kTiles[] = {MultiplyTile<kIndex + 1, Element>...};
  return kTiles[rows - 1];
}

// All rows of the task with `count` columns of one panel.
template <typename Element>
void MultiplyColumns(const PanelsTask& task, int64_t k, const Element* columns, int64_t count, bool first,
                     float* sums) {
  for (int64_t b = 0; b < task.blocks.count; ++b) {
    const int64_t begin = task.blocks.Begin(b);
    const int64_t rows = task.blocks.Begin(b + 1) - begin;
    const TileFunction<Element> tile = TileOf<Element>(rows, std::make_index_sequence<kBlockRowsMax>());
    for (int pair = 0; pair < kPairs; ++pair) {
      tile(task.x + begin * task.in_features + k * rows, columns, count, pair, first,
           sums + begin * kPanelWidth);
    }
  }
}

void ConvertColumns(const BFloat16* from, int64_t count, float* to) {
  const FloatTag d;
  for (int64_t k = 0; k < count; ++k) {
    for (int pair = 0; pair < kPairs; ++pair) {
      const Pair weight = LoadPair(from + k * kPanelWidth, pair);
      hn::StoreU(weight.low, d, to + k * kPanelWidth + pair * kLanes);
      hn::StoreU(weight.high, d, to + k * kPanelWidth + kHalf + pair * kLanes);
    }
  }
}

// Sums of kRuns runs of one row side by side: alone, a chain would wait for its own last addition.
// sums[i, :] goes on with `count` columns of run i.
template <int kRuns, typename Element>
HWY_NOINLINE void MultiplyRuns(const float* const* x, const Element* const* columns, int64_t count,
                               float* sums) {
  const FloatTag d;
  FloatVector low[kRuns][kPairs], high[kRuns][kPairs];
  const float* value[kRuns];
  const Element* column[kRuns];
#pragma GCC unroll 4
  for (int i = 0; i < kRuns; ++i) {
    value[i] = x[i];
    column[i] = columns[i];
#pragma GCC unroll 16
    for (int p = 0; p < kPairs; ++p) {
      low[i][p] = hn::LoadU(d, sums + i * kPanelWidth + p * kLanes);
      high[i][p] = hn::LoadU(d, sums + i * kPanelWidth + kHalf + p * kLanes);
    }
  }
  for (int64_t k = 0; k < count; ++k) {
#pragma GCC unroll 4
    for (int i = 0; i < kRuns; ++i) {
      const FloatVector v = hn::Set(d, value[i][k]);
      __builtin_prefetch(column[i] + (k + kPrefetchColumns) * kPanelWidth);
#pragma GCC unroll 16
      for (int p = 0; p < kPairs; ++p) {
        const Pair weight = LoadPair(column[i] + k * kPanelWidth, p);
        low[i][p] = hn::MulAdd(v, weight.low, low[i][p]);
        high[i][p] = hn::MulAdd(v, weight.high, high[i][p]);
      }
    }
  }
#pragma GCC unroll 4
  for (int i = 0; i < kRuns; ++i) {
#pragma GCC unroll 16
    for (int p = 0; p < kPairs; ++p) {
      hn::StoreU(low[i][p], d, sums + i * kPanelWidth + p * kLanes);
      hn::StoreU(high[i][p], d, sums + i * kPanelWidth + kHalf + p * kLanes);
    }
  }
}

// The runs kept in registers at once: as many as give eight accumulators.
constexpr int kRunsAtOnce = kPairs == 1 ? 4 : kPairs == 2 ? 2 : 1;

// One row with one panel; sums is [runs, 32].
template <typename Element>
void MultiplyRow(const PanelsTask& task, const Element* panel, float* sums) {
  const SumRuns& runs = *task.runs;
  std::memset(sums, 0, static_cast<size_t>(runs.count * kPanelWidth) * sizeof(float));
  for (int first = 0; first < runs.count; first += kRunsAtOnce) {
    const int together = std::min(kRunsAtOnce, runs.count - first);
    const float* x[kRunsAtOnce];
    const Element* columns[kRunsAtOnce];
    int64_t shared = runs.runs[first].size();
    for (int i = 0; i < together; ++i) {
      const IndexRange run = runs.runs[first + i];
      x[i] = task.x + run.begin;
      columns[i] = panel + run.begin * kPanelWidth;
      shared = std::min(shared, run.size());
    }
    // Only the layer's last leaves are shorter, so there is rarely a rest.
    if (together == kRunsAtOnce) {
      MultiplyRuns<kRunsAtOnce>(x, columns, shared, sums + first * kPanelWidth);
    } else {
      shared = 0;
    }
    for (int i = 0; i < together; ++i) {
      const int64_t rest = runs.runs[first + i].size() - shared;
      if (rest == 0) continue;
      const float* x_rest = x[i] + shared;
      const Element* columns_rest = columns[i] + shared * kPanelWidth;
      MultiplyRuns<1>(&x_rest, &columns_rest, rest, sums + (first + i) * kPanelWidth);
    }
  }
}

// y[r, :] = tree of sums[i, r, :] (+ bias): `width` features of one panel.
template <int kRuns>
void AddRuns(const float* sums, int64_t rows, const float* bias, int64_t width, float* y, int64_t y_stride) {
  const FloatTag d;
  const int64_t stride = rows * kPanelWidth;
  for (int64_t r = 0; r < rows; ++r) {
    float* to = y + r * y_stride;
    for (int64_t n = 0; n < width; n += kLanes) {
      const float* s = sums + r * kPanelWidth + n;
      FloatVector sum = hn::LoadU(d, s);
      if (kRuns >= 2) sum = hn::Add(sum, hn::LoadU(d, s + stride));
      if (kRuns == 4) sum = hn::Add(sum, hn::Add(hn::LoadU(d, s + 2 * stride), hn::LoadU(d, s + 3 * stride)));
      if (n + kLanes <= width) {
        if (bias != nullptr) sum = hn::Add(sum, hn::LoadU(d, bias + n));
        hn::StoreU(sum, d, to + n);
      } else {
        float last[kLanes];
        hn::StoreU(sum, d, last);
        for (int64_t i = 0; i < width - n; ++i) to[n + i] = bias != nullptr ? last[i] + bias[n + i] : last[i];
      }
    }
  }
}

template <typename Element>
void MultiplyTyped(const PanelsTask& task) {
  const SumRuns& runs = *task.runs;
  const Element* panels = static_cast<const Element*>(task.panels);
  const int64_t panel_size = task.in_features * kPanelWidth;
  const int64_t rows = task.blocks.rows;
  const int64_t run_size = rows * kPanelWidth;
  const bool convert = sizeof(Element) != sizeof(float) && task.blocks.count >= kBlocksToConvert;
  float* converted = task.scratch;
  float* sums = converted + kBlockColumns * kPanelWidth;  // [panels, runs, rows, 32]

  if (rows == 1) {
    for (int64_t p = 0; p < task.num_panels; ++p) {
      MultiplyRow(task, panels + p * panel_size, sums + p * runs.count * run_size);
    }
  } else {
    for (int i = 0; i < runs.count; ++i) {
      const IndexRange run = runs.runs[i];
      for (int64_t k = run.begin; k < run.end; k += kBlockColumns) {
        const int64_t count = std::min(kBlockColumns, run.end - k);
        for (int64_t p = 0; p < task.num_panels; ++p) {
          const Element* columns = panels + p * panel_size + k * kPanelWidth;
          float* sum = sums + (p * runs.count + i) * run_size;
          if constexpr (sizeof(Element) != sizeof(float)) {
            if (convert) {
              ConvertColumns(columns, count, converted);
              MultiplyColumns(task, k, converted, count, k == run.begin, sum);
              continue;
            }
          }
          MultiplyColumns(task, k, columns, count, k == run.begin, sum);
        }
      }
      if (run.empty()) {
        for (int64_t p = 0; p < task.num_panels; ++p) {
          std::memset(sums + (p * runs.count + i) * run_size, 0,
                      static_cast<size_t>(run_size) * sizeof(float));
        }
      }
    }
  }

  for (int64_t p = 0; p < task.num_panels; ++p) {
    const int64_t n = p * kPanelWidth;
    const int64_t width = std::min(kPanelWidth, task.out_features - n);
    const float* bias = task.bias != nullptr ? task.bias + n : nullptr;
    const float* from = sums + p * runs.count * run_size;
    const auto add = runs.count == 4 ? AddRuns<4> : runs.count == 2 ? AddRuns<2> : AddRuns<1>;
    add(from, rows, bias, width, task.y + n, task.y_stride);
  }
}

void Multiply(const PanelsTask& task) {
  if (task.dtype == DType::kF32) {
    MultiplyTyped<float>(task);
  } else {
    MultiplyTyped<BFloat16>(task);
  }
}

int64_t RowsMax() { return kBlockRowsMax; }

#if HWY_TARGET != HWY_SCALAR
// Columns [k, k + 4) of four rows: to[i * stride + r] = rows[r][k + i].
HWY_INLINE void TurnFour(const float* const* rows, int64_t k, float* to, int64_t stride) {
  const hn::FixedTag<float, 4> d;
  const auto a = hn::LoadU(d, rows[0] + k), b = hn::LoadU(d, rows[1] + k);
  const auto c = hn::LoadU(d, rows[2] + k), e = hn::LoadU(d, rows[3] + k);
  const auto ac_low = hn::InterleaveLower(d, a, c), ac_high = hn::InterleaveUpper(d, a, c);
  const auto be_low = hn::InterleaveLower(d, b, e), be_high = hn::InterleaveUpper(d, b, e);
  hn::StoreU(hn::InterleaveLower(d, ac_low, be_low), d, to);
  hn::StoreU(hn::InterleaveUpper(d, ac_low, be_low), d, to + stride);
  hn::StoreU(hn::InterleaveLower(d, ac_high, be_high), d, to + 2 * stride);
  hn::StoreU(hn::InterleaveUpper(d, ac_high, be_high), d, to + 3 * stride);
}
#endif

void Pack(const float* const* from, int64_t rows, int64_t in_features, float* to) {
  int64_t k = 0;
#if HWY_TARGET != HWY_SCALAR
  if (rows >= 4) {
    for (; k + 4 <= in_features; k += 4) {
      // The last four rows may overlap the four before.
      for (int64_t r = 0; r < rows; r += 4) {
        const int64_t first = std::min(r, rows - 4);
        TurnFour(from + first, k, to + k * rows + first, rows);
      }
    }
  }
#endif
  for (; k < in_features; ++k) {
    for (int64_t r = 0; r < rows; ++r) to[k * rows + r] = from[r][k];
  }
}

// The vectors of the rest are loaded whole from a copy, so that every element takes one path.
void Scale(float weight, const float* x, int64_t size, float* sum) {
  const FloatTag d;
  const FloatVector w = hn::Set(d, weight);
  int64_t c = 0;
  for (; c + kLanes <= size; c += kLanes) {
    hn::StoreU(hn::MulAdd(w, hn::LoadU(d, x + c), hn::LoadU(d, sum + c)), d, sum + c);
  }
  if (c == size) return;
  const size_t rest_bytes = static_cast<size_t>(size - c) * sizeof(float);
  float last_x[kLanes] = {}, last_sum[kLanes] = {};
  std::memcpy(last_x, x + c, rest_bytes);
  std::memcpy(last_sum, sum + c, rest_bytes);
  hn::StoreU(hn::MulAdd(w, hn::LoadU(d, last_x), hn::LoadU(d, last_sum)), d, last_sum);
  std::memcpy(sum + c, last_sum, rest_bytes);
}

}  // namespace HWY_NAMESPACE
}  // namespace prism::cpu
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace prism::cpu {

HWY_EXPORT(Multiply);
HWY_EXPORT(RowsMax);
HWY_EXPORT(Pack);
HWY_EXPORT(Scale);

int64_t BlockRowsMax() { return HWY_DYNAMIC_DISPATCH(RowsMax)(); }

void PackRows(const float* const* from, int64_t rows, int64_t in_features, float* to) {
  HWY_DYNAMIC_DISPATCH(Pack)(from, rows, in_features, to);
}

int64_t PanelsScratchSize(int64_t num_panels, int64_t rows) {
  return (kBlockColumns + num_panels * kNumLeaves * rows) * kPanelWidth;
}

void MultiplyPanels(const PanelsTask& task) { HWY_DYNAMIC_DISPATCH(Multiply)(task); }

void AddScaled(float weight, const float* x, int64_t size, float* sum) {
  HWY_DYNAMIC_DISPATCH(Scale)(weight, x, size, sum);
}

// (1 + 2^-12)^2 = 1 + 2^-11 + 2^-24, whose last bit a rounded product loses.
bool FusesMultiplyAdd() {
  constexpr float kFactor = 1.0f + 0x1p-12f;
  float rest = -(1.0f + 0x1p-11f);
  AddScaled(kFactor, &kFactor, 1, &rest);
  return rest != 0.0f;
}

}  // namespace prism::cpu
#endif
