// The unit of KV memory: a page holds the keys and values of 64 consecutive tokens of one
// sequence, in every layer.
#pragma once

#include <cstdint>

namespace prism {

inline constexpr int64_t kTokensPerPage = 64;

// Pages that hold `num_tokens` tokens. REQUIRES: num_tokens >= 0
constexpr int64_t PagesFor(int64_t num_tokens) { return (num_tokens + kTokensPerPage - 1) / kTokensPerPage; }

}  // namespace prism
