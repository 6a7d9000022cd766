// Floors: the least time a device can need for a step, from the bytes it must move and the
// operations it must do at the device's measured ceilings.
//
//   distinct experts of B rows   D(B) = E (1 - (1 - k/E)^B)        uniform routing
//   decode step, context c       max(bytes / bandwidth, operations / peak)
//       bytes = weights read once (the D(B) experts alone) + head + B c KV bytes a token + 24 B L H
//   prompt of T tokens           max(T operations / peak, weights / bandwidth)
//                                + 4 heads D T^2 / 2 L / attention peak
//   tower, N patches             operations / peak; attention 4 N^2 C a block
//
// Weights and the KV memory are 2 bytes an element.
//
// Thread safety: free functions and plain values.
#pragma once

#include <cstdint>

#include "common/checkpoint/model_config.h"

namespace prism::bench {

// Of one device; zero where it is not known, and floors that need it are then 0.
struct Ceilings {
  double bytes_per_s = 0;
  double matrix_flops = 0;     // operations a second
  double attention_flops = 0;  // of attention, whose softmax shares the time
};

// What an H200 was measured to do.
inline constexpr Ceilings kH200 = {.bytes_per_s = 4.3e12, .matrix_flops = 790e12, .attention_flops = 590e12};

// Expected distinct experts in a layer for `rows` rows; 0 for a dense model.
double ExpectedExperts(const TextConfig& text, int64_t rows);

// Bytes of weights that a step over `rows` rows reads: attention, router, the expected experts, and
// the head if `with_head`.
double WeightBytes(const TextConfig& text, int64_t rows, bool with_head);

// Seconds.
double DecodeFloor(const TextConfig& text, const Ceilings& device, int64_t batch, int64_t context);
double PrefillFloor(const TextConfig& text, const Ceilings& device, int64_t tokens);
double TowerFloor(const VisionConfig& vision, const Ceilings& device, int64_t patches);

}  // namespace prism::bench
