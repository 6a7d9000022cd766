// How the CPU keeps a linear layer's weight: panels of 32 output features, one column of the layer
// after the other, so that whoever multiplies walks memory forwards.
//
//              k = 0               k = 1
//   f32 panel  [n 0 .. n 31]       [n 0 .. n 31]       ...     128 bytes a column
//   bf16 panel [n 0 n16 n1 n17 ..] [n 0 n16 n1 n17 ..] ...      64 bytes a column
//
// Two bf16 of one 32-bit lane are features j and 16 + j: a shift gives the floats of the first 16, a
// mask those of the last 16, in order. The last panel's missing features are zeros.
#pragma once

#include <cstdint>

#include "common/base/check.h"
#include "common/tensor/sum_order.h"
#include "kernels/ops/linear.h"

namespace prism::cpu {

inline constexpr int64_t kPanelWidth = 32;

constexpr int64_t NumPanels(int64_t out_features) { return (out_features + kPanelWidth - 1) / kPanelWidth; }

// Where feature `n` of a panel stands among the 32 elements of a column.
constexpr int64_t SlotOf(DType dtype, int64_t n) {
  return dtype == DType::kF32 ? n : n % (kPanelWidth / 2) * 2 + n / (kPanelWidth / 2);
}

// The runs of k that a weight sums on their own: one, two or four, in the order of the tree. A run
// is relative to the columns held; it may be empty, which adds a zero.
struct SumRuns {
  int count = 0;
  IndexRange runs[kNumLeaves];
};

// REQUIRES: the weight holds a run of whole leaves (what PackLinear has checked)
inline SumRuns RunsOf(SumOrder order, int64_t in_total, int64_t in_begin, int64_t in_features) {
  if (order == SumOrder::kChain) return {.count = 1, .runs = {{0, in_features}}};
  // The largest tree that fits: leaves past the end of K are empty, and adding their zeros here or
  // on the next rank gives the same sum.
  for (const int count : {4, 2, 1}) {
    for (int first = 0; first < kNumLeaves; first += count) {
      if (LeafRange(in_total, first).begin != in_begin) continue;
      if (LeafRange(in_total, first + count - 1).end != in_begin + in_features) continue;
      SumRuns runs{.count = count, .runs = {}};
      for (int i = 0; i < count; ++i) {
        const IndexRange leaf = LeafRange(in_total, first + i);
        runs.runs[i] = {leaf.begin - in_begin, leaf.end - in_begin};
      }
      return runs;
    }
  }
  PRISM_CHECK(false);
  return {};
}

}  // namespace prism::cpu
