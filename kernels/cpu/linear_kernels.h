// The inner loops of the linear layer, one copy for each instruction set; the CPU's best is chosen
// once, when first called.
//
// Every output is the same chain of fused multiply-adds on each of them: vectors run over output
// features and rows, never over k. (Without FMA, before AVX2, a product is rounded before it is
// added: other bits, but as independent of threads, batch and ranks.)
#pragma once

#include <cstdint>

#include "kernels/cpu/linear_layout.h"

namespace prism::cpu {

// Rows are cut into blocks that the registers hold, as even as they come: 65 rows by at most 12
// are 11, 11, 11, 11, 11, 10.
struct RowBlocks {
  int64_t rows;
  int64_t count;

  RowBlocks(int64_t num_rows, int64_t rows_max)
      : rows(num_rows), count((num_rows + rows_max - 1) / rows_max) {}
  // First row of block b, and of the end for b = count.
  int64_t Begin(int64_t b) const { return b * (rows / count) + (b < rows % count ? b : rows % count); }
};

// The most rows of a block on this CPU, at most kBlockRowsLimit.
inline constexpr int64_t kBlockRowsLimit = 12;
int64_t BlockRowsMax();

// One block of rows, turned so that the rows' values of one k are neighbours: to[k * rows + r].
// `from[r]` is a row of in_features floats. One row stays as it is.
void PackRows(const float* const* from, int64_t rows, int64_t in_features, float* to);

// Columns of a panel that are multiplied before the next panel's: with all rows' x of them they stay
// in the second-level cache, one block's x in the first.
inline constexpr int64_t kBlockColumns = 256;

// y[:, first panel .. last panel] of some rows.
struct PanelsTask {
  const void* panels;  // [num_panels, K, 32] of `dtype`
  DType dtype;
  int64_t num_panels;
  int64_t in_features;  // K
  const SumRuns* runs;
  const float* x;  // PackRows() of each of `blocks`, one after the other
  RowBlocks blocks;
  const float* bias;  // [out_features], or null
  float* y;           // row r at y + r * y_stride
  int64_t y_stride;
  int64_t out_features;  // of these panels: more than (num_panels - 1) * 32, at most num_panels * 32
  float* scratch;        // PanelsScratchSize() floats, aligned to 64 bytes
};
int64_t PanelsScratchSize(int64_t num_panels, int64_t rows);
void MultiplyPanels(const PanelsTask& task);

// sum[c] = fma(weight, x[c], sum[c]) for c in [0, size), where there is such an instruction.
void AddScaled(float weight, const float* x, int64_t size, float* sum);

// Does this CPU's best of these instruction sets round a product and its addition once (fused), or
// twice? The first kind all give the same bits, the second kind others.
bool FusesMultiplyAdd();

}  // namespace prism::cpu
