// Position ids of a prompt with pictures: the walk of Qwen3-VL's get_rope_index.
//
//   p = 0
//   text token:                      T = H = W = p; p += 1
//   run of a picture of h x w patches: T = p, H = p + r, W = p + c for r < h/2, c < w/2;
//                                    then p += max(h, w) / 2
//
// Tokens after the prompt are text and go on from the last p: index + delta on every axis, where
// delta = p - number of prompt tokens. A causal mask and KV slots use the index, never these.
#pragma once

#include <array>
#include <cstdint>
#include <vector>

#include "absl/types/span.h"

namespace prism {

// The place of one picture (or one temporal patch of a video) in the token ids.
struct VisualSpan {
  int64_t offset = 0;           // index of its first placeholder
  int64_t num_tokens = 0;       // placeholders: (grid_h / 2) * (grid_w / 2)
  int32_t grid_h = 0;           // patches; even
  int32_t grid_w = 0;           // patches; even
  int32_t embedding_index = 0;  // which of the request's embeddings
  int64_t first_row = 0;        // its row that fills the first placeholder
};

using Position = std::array<int32_t, 3>;  // T, H, W

struct PromptPositions {
  std::vector<Position> positions;  // one a prompt token
  int64_t delta = 0;                // add to the index of any later token
};

// REQUIRES: spans ascend, are disjoint, lie inside [0, num_tokens), and each one's num_tokens
// equals (grid_h / 2) * (grid_w / 2)
PromptPositions WalkPositions(int64_t num_tokens, absl::Span<const VisualSpan> spans);

}  // namespace prism
