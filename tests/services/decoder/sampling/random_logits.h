// What tests of sampling share.
#pragma once

#include <cstddef>
#include <cstdint>
#include <random>
#include <vector>

namespace prism {

// Normal around 0, the same ones for a seed.
inline std::vector<float> RandomLogits(size_t size, uint32_t seed, float deviation = 4) {
  std::mt19937 random(seed);
  std::normal_distribution<float> normal(0, deviation);
  std::vector<float> logits(size);
  for (float& logit : logits) logit = normal(random);
  return logits;
}

}  // namespace prism
