// Synthetic weights: a tensor is a pure function of its published name, its shape and a seed, so
// that a checkpoint of any size exists wherever this code runs. Equal, bit for bit, to the
// generator the reference was made with (tests/oracle).
//
//   element i (row-major, published layout) = bf16(float32(mean + amplitude (2u - 1)))
//   u = top 24 bits of mix(fnv1a64(name) + seed + i 0x9E3779B97F4A7C15) / 2^24
//
// with mix the finaliser of splitmix64 and mean + amplitude (2u - 1) in float64.
//
// Thread safety: free functions and plain values.
#pragma once

#include <cstdint>
#include <utility>
#include <vector>

#include "absl/strings/string_view.h"
#include "common/tensor/float_types.h"
#include "common/tensor/tensor.h"

namespace prism {

// The distribution of one synthetic tensor, and where its sequence starts.
struct SyntheticTensor {
  uint64_t base = 0;  // fnv1a64(name) + seed
  double mean = 0;
  double amplitude = 0;
};

// `shape` is the published one. The fan-in is the elements of one row; of an expert tensor
// [E, in, out] it is `in`. `head_is_tied` is the configuration's tie_word_embeddings: it narrows
// the embedding. REQUIRES: shape.rank() >= 1 and no dimension is 0
SyntheticTensor DescribeSynthetic(absl::string_view published_name, const Shape& shape, bool head_is_tied,
                                  uint64_t seed);

// out[j] = element (first + j * stride) of the tensor, for j in [0, count). A stride other than 1
// walks a column, which is how an input-major matrix is written output-major.
void FillSynthetic(const SyntheticTensor& tensor, int64_t first, int64_t stride, int64_t count,
                   BFloat16* out);

namespace internal {
// FillSynthetic() for one instruction set, taking the first state and its step.
using SyntheticFill = void (*)(const SyntheticTensor&, uint64_t state, uint64_t step, int64_t count,
                               uint16_t* out);
// The sets this machine can run, best last, by name; FillSynthetic() uses the last. For tests: all
// of them must give the same bits.
std::vector<std::pair<const char*, SyntheticFill>> SyntheticFills();
}  // namespace internal

}  // namespace prism
