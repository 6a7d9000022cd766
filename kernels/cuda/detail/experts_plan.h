// Which (token, expert) pairs an experts' product has, and how they fall into tiles: made on the device by
// one kernel, read by those after it.
#pragma once

#include <cstdint>

#include "kernels/cuda/linear_kernels.h"

namespace prism::cuda {

// Up to a tile's worth of one expert's pairs, which lie side by side.
struct alignas(16) ExpertTask {
  int expert;  // counted from the first held
  int first;   // pair
  int count;   // pairs, >= 1
  int padding;
};

// Device memory, cut out of the op's scratch. Pairs are ascending by expert; their order inside an expert is
// any.
struct ExpertsPlan {
  int* task_count;
  ExpertTask* tasks;
  int* pair_token;  // [pairs]
  int* pair_of;     // [tokens, chosen]: the pair, or -1 if its expert is not held
};

// At most this many tasks whatever was chosen.
inline int64_t TasksMax(const ExpertsParams& params, int tile) {
  const int64_t pairs = params.tokens * params.chosen;
  return pairs / tile + (pairs < params.held ? pairs : params.held);
}

}  // namespace prism::cuda
