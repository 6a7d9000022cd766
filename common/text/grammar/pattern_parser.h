// A regular expression as a tree (char_dfa.h says which are understood).
//
// Thread safety: pure function.
#pragma once

#include <cstdint>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace prism {

// Ranges of characters, first and last; ascending and apart.
using CharSet = std::vector<std::pair<char32_t, char32_t>>;

struct PatternNode {
  enum class Kind { kSet, kSequence, kAlternatives, kRepeat };
  Kind kind = Kind::kSequence;
  CharSet set;                    // of kSet
  std::vector<int32_t> children;  // one of kRepeat
  int32_t min = 0, max = 0;       // of kRepeat; max -1: no end
};

struct Pattern {
  struct Alternative {
    int32_t node = 0;
    bool from_start = false;  // '^'
    bool to_end = false;      // '$'
  };
  std::vector<PatternNode> nodes;
  std::vector<Alternative> alternatives;
};

// Without recursion. InvalidArgument "... at byte N of the pattern".
absl::StatusOr<Pattern> ParsePattern(absl::string_view pattern);

}  // namespace prism
