// Rotary position embedding (Su et al. 2021) with explicit tables, for both towers.
#pragma once

#include "absl/status/status.h"
#include "kernels/device/backend.h"

namespace prism {

// angle[t, i] = positions[axis[i], t] * frequency[i];  cos, sin of it, all in f32.
// M-RoPE is a choice of `axis`: time, height or width of each frequency (qwen3-vl.md 4.3, 3.4).
struct RopeTableArgs {
  TensorView positions;  // [A, T] i32
  TensorView axis;       // [D] i32, each in [0, A)
  TensorView frequency;  // [D] f32
  TensorView cos;        // [T, D] f32
  TensorView sin;        // [T, D] f32
};
absl::Status RopeTable(Stream& stream, const RopeTableArgs& args);

// Rotates heads in place, NeoX pairing: element m < D of a head pairs with m + D,
//   y[m] = x[m] cos[m] - x[m + D] sin[m];  y[m + D] = x[m + D] cos[m] + x[m] sin[m]
// A head is 2 D columns; head h starts at column + 2 D h. Float32 arithmetic, one rounding to A.
struct RopeApplyArgs {
  TensorView x;       // [T, C] A
  TensorView cos;     // [T, D] f32
  TensorView sin;     // [T, D] f32
  int64_t column;     // first column of head 0
  int64_t num_heads;  // column + num_heads 2 D <= C
};
absl::Status RopeApply(Stream& stream, const RopeApplyArgs& args);

}  // namespace prism
