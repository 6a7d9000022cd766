#include "common/tensor/synthetic_fill.h"

#include <bit>

#include "common/base/hash.h"

namespace prism {
namespace {

// One loop for every instruction set: each caller below compiles it for its own. The values are
// the same for all, since every operation is exact or correctly rounded.
[[gnu::always_inline]] inline void FillLoop(const SyntheticTensor& tensor, uint64_t x, uint64_t step,
                                            int64_t count, uint16_t* __restrict__ out) {
  const double mean = tensor.mean;
  const double amplitude = tensor.amplitude;
  for (int64_t j = 0; j < count; ++j) {
    const auto u = static_cast<int32_t>(SplitMix64(x + static_cast<uint64_t>(j) * step) >> 40);
    const double value = mean + amplitude * (static_cast<double>(u) / 8388608.0 - 1.0);
    const auto bits = std::bit_cast<uint32_t>(static_cast<float>(value));
    out[j] = static_cast<uint16_t>((bits + 0x7FFFu + ((bits >> 16) & 1u)) >> 16);
  }
}

void FillBaseline(const SyntheticTensor& tensor, uint64_t x, uint64_t step, int64_t count, uint16_t* out) {
  FillLoop(tensor, x, step, count, out);
}

#if defined(__x86_64__)
[[gnu::target("avx2")]] void FillAvx2(const SyntheticTensor& tensor, uint64_t x, uint64_t step, int64_t count,
                                      uint16_t* out) {
  FillLoop(tensor, x, step, count, out);
}

[[gnu::target("avx512f,avx512dq,avx512bw,avx512vl")]] void FillAvx512(const SyntheticTensor& tensor,
                                                                      uint64_t x, uint64_t step,
                                                                      int64_t count, uint16_t* out) {
  FillLoop(tensor, x, step, count, out);
}
#endif

}  // namespace

void FillSynthetic(const SyntheticTensor& tensor, int64_t first, int64_t stride, int64_t count,
                   BFloat16* out) {
  static const internal::SyntheticFill fill = internal::SyntheticFills().back().second;
  static_assert(sizeof(BFloat16) == sizeof(uint16_t));
  fill(tensor, tensor.base + static_cast<uint64_t>(first) * kSyntheticStep,
       static_cast<uint64_t>(stride) * kSyntheticStep, count, reinterpret_cast<uint16_t*>(out));
}

std::vector<std::pair<const char*, internal::SyntheticFill>> internal::SyntheticFills() {
  std::vector<std::pair<const char*, SyntheticFill>> fills = {{"baseline", FillBaseline}};
#if defined(__x86_64__)
  __builtin_cpu_init();
  if (__builtin_cpu_supports("avx2")) fills.emplace_back("avx2", FillAvx2);
  if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq") &&
      __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl")) {
    fills.emplace_back("avx512", FillAvx512);
  }
#endif
  return fills;
}

}  // namespace prism
