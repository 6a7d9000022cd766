// CharDfa: a regular expression as a deterministic automaton over characters.
//
// The expressions are those of ECMA-262 that a linear-time automaton decides: characters, escapes
// (\d \w \s and their negations, \t \n \v \f \r \0, \xHH, \uHHHH, \u{H...}), '.', [classes], groups that
// capture or do not, '|', and the quantifiers * + ? {m} {m,} {m,n}, lazy or not (the language is the same).
// '^' and '$' stand at the ends of a whole alternative only. Refused by name: look-around, references,
// \b, \p{...}, anchors inside.
//
// Thread safety: immutable.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace prism {

inline constexpr char32_t kCharMax = 0x10FFFF;
// Larger expressions are refused; each number is in the message.
inline constexpr size_t kPatternBytesMax = 1024;
inline constexpr int kPatternDepthMax = 32;           // of groups
inline constexpr size_t kPatternPositionsMax = 4096;  // with {m,n} written out
inline constexpr size_t kPatternStatesMax = 2048;     // of the automaton
inline constexpr int64_t kPatternStepsMax = 300'000;  // of making all of a grammar's

enum class PatternMatch {
  kSearch,  // somewhere in the text, as JSON Schema's `pattern`
  kWhole,   // the whole text
};

class CharDfa {
 public:
  static constexpr int32_t kDead = -1;

  // `pattern` is UTF-8. InvalidArgument: malformed, or refused, with the place; ResourceExhausted: a limit.
  // Takes its steps from `steps_left`, which begins with kPatternStepsMax.
  static absl::StatusOr<CharDfa> FromPattern(absl::string_view pattern, PatternMatch match,
                                             int64_t* steps_left);
  static absl::StatusOr<CharDfa> FromPattern(absl::string_view pattern, PatternMatch match) {
    int64_t steps_left = kPatternStepsMax;
    return FromPattern(pattern, match, &steps_left);
  }

  // Characters that the expression does not tell apart.
  struct Range {
    char32_t first;
    char32_t last;
    int32_t index;
  };
  Range RangeOf(char32_t c) const;
  // The state behind a character of `range`, or kDead. State 0 is the first.
  int32_t Next(int32_t state, const Range& range) const {
    return next_[static_cast<size_t>(state) * starts_.size() + static_cast<size_t>(range.index)];
  }
  bool accepts(int32_t state) const { return accepts_[static_cast<size_t>(state)] != 0; }
  size_t num_states() const { return accepts_.size(); }

  // REQUIRES: `text` is UTF-8
  bool Matches(absl::string_view text) const;

 private:
  std::vector<char32_t> starts_;  // of the ranges; the first is 0
  std::vector<int32_t> next_;     // [states, ranges]
  std::vector<uint8_t> accepts_;
};

// The patterns of one grammar, each compiled once, with a bound of the work for all.
class PatternSet {
 public:
  // For searching; valid as long as this. The errors of FromPattern().
  absl::StatusOr<const CharDfa*> Find(const std::string& pattern);

 private:
  std::map<std::string, CharDfa> patterns_;
  int64_t steps_left_ = kPatternStepsMax;
};

}  // namespace prism
