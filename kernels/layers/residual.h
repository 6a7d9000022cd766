// The residual stream of a model built of blocks: each block's last product stays a term of its own until the
// next norm adds it as it reads the stream.
//
// Thread safety: plain values.
#pragma once

#include "absl/status/status.h"
#include "kernels/ops/add.h"

namespace prism {

struct Residual {
  TensorView x;     // [T, C] f32
  TensorView term;  // [T, C] f32, still to be added to x; absent: nothing
};

// x += term
inline absl::Status Settle(Stream& stream, Residual& residual) {
  if (!residual.term.present()) return absl::OkStatus();
  const TensorView term = residual.term;
  residual.term = TensorView();
  return Add(stream, {.x = residual.x, .y = term});
}

}  // namespace prism
