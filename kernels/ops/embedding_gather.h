// y[t, :] = table[ids[t], :], widened to f32
#pragma once

#include "absl/status/status.h"
#include "kernels/device/backend.h"

namespace prism {

struct EmbeddingGatherArgs {
  TensorView table;  // [V, C] f32 | bf16
  TensorView ids;    // [T] i32, each in [0, V); InvalidArgument otherwise where the backend can see it
  TensorView y;      // [T, C] f32
};
absl::Status EmbeddingGather(Stream& stream, const EmbeddingGatherArgs& args);

}  // namespace prism
