// Splits the rows of an elementwise or row-wise op over a stream's threads.
#pragma once

#include <algorithm>
#include <cstdint>

#include "kernels/cpu/cpu_stream.h"

namespace prism::cpu {

// Elements below which a second thread costs more than it saves.
inline constexpr int64_t kElementsPerPart = 16384;

// Calls body(begin, end) for ranges that together are [0, num_rows), each once. `row_elements` is
// the work of one row in elements. A row's result must not depend on its range.
template <typename Body>
void ParallelRows(Stream& stream, int64_t num_rows, int64_t row_elements, const Body& body) {
  const int64_t rows_per_part = std::max<int64_t>(1, kElementsPerPart / std::max<int64_t>(1, row_elements));
  const int64_t num_parts = (num_rows + rows_per_part - 1) / rows_per_part;
  PoolOf(stream).Run(num_parts, [&](int64_t part, int) {
    body(part * rows_per_part, std::min(num_rows, (part + 1) * rows_per_part));
  });
}

}  // namespace prism::cpu
