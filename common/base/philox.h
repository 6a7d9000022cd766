// Philox4x32-10: a counter-based random generator (Salmon, Moraes, Dror, Shaw: "Parallel random
// numbers: as easy as 1, 2, 3", SC 2011). The same counter and key give the same four words, on
// any machine and in any order, so a stream can be resumed at any token.
//
// Thread safety: functions only.
#pragma once

#include <array>
#include <cstdint>

namespace prism {

using PhiloxCounter = std::array<uint32_t, 4>;
using PhiloxKey = std::array<uint32_t, 2>;

constexpr PhiloxCounter Philox4x32(PhiloxCounter counter, PhiloxKey key) {
  constexpr int kRounds = 10;
  constexpr uint64_t kMultiplier0 = 0xD2511F53u;
  constexpr uint64_t kMultiplier1 = 0xCD9E8D57u;
  constexpr uint32_t kWeyl0 = 0x9E3779B9u;  // golden ratio
  constexpr uint32_t kWeyl1 = 0xBB67AE85u;  // sqrt(3) - 1
  for (int round = 0; round < kRounds; ++round) {
    const uint64_t product0 = kMultiplier0 * counter[0];
    const uint64_t product1 = kMultiplier1 * counter[2];
    counter = {static_cast<uint32_t>(product1 >> 32) ^ counter[1] ^ key[0], static_cast<uint32_t>(product1),
               static_cast<uint32_t>(product0 >> 32) ^ counter[3] ^ key[1], static_cast<uint32_t>(product0)};
    key[0] += kWeyl0;
    key[1] += kWeyl1;
  }
  return counter;
}

// What one draw depends on, and nothing else: not the batch, the rank or the row.
struct DrawKey {
  uint64_t seed = 0;
  uint32_t choice = 0;
  uint32_t token_index = 0;  // of the answer, from 0
  uint32_t token_id = 0;
};

// A number in (0, 1): 53 bits of the first two words, and a half so that neither end occurs.
constexpr double UniformDraw(const DrawKey& draw) {
  const PhiloxCounter words =
      Philox4x32({draw.token_id, draw.token_index, draw.choice, 0},
                 {static_cast<uint32_t>(draw.seed), static_cast<uint32_t>(draw.seed >> 32)});
  const uint64_t bits = (uint64_t{words[0]} << 21) | (words[1] >> 11);
  const double u = (static_cast<double>(bits) + 0.5) * 0x1p-53;
  return u < 1 ? u : 1 - 0x1p-53;  // all 53 bits set round up
}

}  // namespace prism
