// Several products with different weights as one loop over the stream's threads: the linear layer
// is one of them, a layer's experts are many.
#pragma once

#include <cstdint>

#include "absl/types/span.h"
#include "kernels/cpu/cpu_stream.h"
#include "kernels/ops/linear.h"

namespace prism::cpu {

// y[r, :] = W x[row r] (+ bias), in the order that kernels/ops/linear.h states.
struct Product {
  const LinearWeight* weight;  // N, K
  const float* x;              // rows of K
  const int64_t* x_rows;       // row r is x[x_rows[r], :]; null: x[r, :]
  int64_t rows;
  const float* bias;  // [N], or null
  float* y;           // [rows, N]; overlaps no x
};
void Multiply(Stream& stream, absl::Span<const Product> products);

}  // namespace prism::cpu
