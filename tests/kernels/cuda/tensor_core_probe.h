// Runs the two matrix instructions of Hopper on operands given, for the test of the unit of summation.
#pragma once

#include <cstdint>
#include <vector>

namespace prism::cuda {

inline constexpr int kProbeRows = 64;    // of A
inline constexpr int kProbeUnitMax = 4;  // units of 16 k, one after the other on the same sums

// A batch of products of one shape; bf16 values as their bits.
struct ProbeBatch {
  int problems = 0;
  int columns = 0;          // of B: a multiple of 8; for wgmma 8, 16, 32, 64, 128 or 256
  int units = 1;            // 1 to kProbeUnitMax
  std::vector<uint16_t> a;  // [problems, kProbeRows, 64]
  std::vector<uint16_t> b;  // [problems, columns, 64]
  std::vector<float> c;     // [problems, kProbeRows, columns], what the sums start from; empty: nothing
};

// [problems, kProbeRows, columns]; empty if there is no device, or none with this instruction.
std::vector<float> RunMmaSync(const ProbeBatch& batch);
std::vector<float> RunWgmma(const ProbeBatch& batch);

}  // namespace prism::cuda
