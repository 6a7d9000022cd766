// TokenBans: which ids a request forbids for the next token: all but an allowed set, and whatever would
// complete one of its bad words. A bad word is a sequence of ids; its last id is forbidden while the
// answer, tokens emitted before a resume included, ends with those before it.
//
// Thread safety: thread-compatible.
#pragma once

#include <cstddef>
#include <cstdint>
#include <deque>
#include <vector>

#include "absl/types/span.h"

namespace prism {

class TokenBans {
 public:
  // `bad_words`: each of one id or more. `allowed`: empty allows all.
  TokenBans(std::vector<std::vector<int32_t>> bad_words, std::vector<int32_t> allowed);

  // Is some id forbidden now?
  bool any() const;
  // Sets the logits of forbidden ids to minus infinity. REQUIRES: logits has an entry for each id given
  void Apply(absl::Span<float> logits) const;
  // The next token of the answer is known.
  void Accept(int32_t token_id);

 private:
  // Does the answer end with all of `word` but its last id?
  bool IsAbout(absl::Span<const int32_t> word) const;

  const std::vector<std::vector<int32_t>> bad_words_;
  const std::vector<int32_t> allowed_;  // ascending
  size_t tail_max_ = 0;                 // ids of the answer that matter
  std::deque<int32_t> tail_;
};

}  // namespace prism
