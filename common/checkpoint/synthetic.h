// Synthetic weights: a tensor is a pure function of its published name, its shape and a seed, so
// that a checkpoint of any size exists wherever this code runs. Equal, bit for bit, to the
// generator the reference was made with (tests/oracle).
//
//   base = fnv1a64(name) + seed; the elements, row-major in the published layout, as
//   common/tensor/synthetic_fill.h has them
//
// Thread safety: free functions and plain values.
#pragma once

#include <cstdint>

#include "absl/strings/string_view.h"
#include "common/tensor/synthetic_fill.h"
#include "common/tensor/tensor.h"

namespace prism {

// `shape` is the published one. The fan-in is the elements of one row; of an expert tensor
// [E, in, out] it is `in`. `head_is_tied` is the configuration's tie_word_embeddings: it narrows
// the embedding. REQUIRES: shape.rank() >= 1 and no dimension is 0
SyntheticTensor DescribeSynthetic(absl::string_view published_name, const Shape& shape, bool head_is_tied,
                                  uint64_t seed);

}  // namespace prism
