// The elements of a synthetic tensor: a pure function of where its sequence starts and of the
// element's index, the same bits on every machine and device.
//
//   element i = bf16(float32(mean + amplitude (2u - 1)))
//   u = top 24 bits of mix(base + i 0x9E3779B97F4A7C15) / 2^24
//
// with mix the finaliser of splitmix64 and mean + amplitude (2u - 1) in float64, each operation
// rounded. Which base, mean and amplitude a named weight has says common/checkpoint/synthetic.h.
//
// Thread safety: free functions and plain values.
#pragma once

#include <cstdint>
#include <utility>
#include <vector>

#include "common/tensor/float_types.h"

namespace prism {

// The distribution of one synthetic tensor, and where its sequence starts.
struct SyntheticTensor {
  uint64_t base = 0;
  double mean = 0;
  double amplitude = 0;
};

// From one element's state to the next.
inline constexpr uint64_t kSyntheticStep = 0x9E3779B97F4A7C15u;

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
