// PreTokenizer cuts text into the pieces that byte-pair merges never cross, with the regular expression
// of tokenizer.json run by PCRE2's compiler to machine code.
//
// The expression is written for Oniguruma, as Hugging Face tokenizers use it, so it is translated:
//   \s, \S        Unicode White_Space (PCRE2's own \s also takes U+180E)
//   \p{..} \P{..} general categories, as they are
//   (?i:..)       Unicode simple case folding, as it is (U+017F matches s)
//   \r \n \t and escaped punctuation, as they are
// Any other escape (\w, \b, \d, ...) is refused rather than guessed.
//
// Thread safety: immutable after Create(); Split() may be called from any number of threads.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace prism {

// A longer expression is refused.
inline constexpr size_t kSplitPatternBytesMax = 4096;

// `pattern` in PCRE2's spelling. InvalidArgument names the escape that has no translation.
absl::StatusOr<std::string> TranslateSplitPattern(absl::string_view pattern);

class PreTokenizer {
 public:
  // InvalidArgument when `pattern` (Oniguruma's spelling) is too long, cannot be translated or compiled.
  static absl::StatusOr<std::unique_ptr<PreTokenizer>> Create(absl::string_view pattern);
  ~PreTokenizer();
  PreTokenizer(const PreTokenizer&) = delete;
  PreTokenizer& operator=(const PreTokenizer&) = delete;

  // Appends where each piece of `text` ends; the first begins at 0, each other where the one before ends.
  // Every match is a piece, and so is what lies between two matches. ResourceExhausted when the
  // expression needs more steps than a bound that is linear in the text, or too much memory.
  // REQUIRES: `text` is valid UTF-8, shorter than 4 GiB.
  absl::Status Split(absl::string_view text, std::vector<uint32_t>* ends) const;

 private:
  struct Compiled;
  explicit PreTokenizer(std::unique_ptr<Compiled> compiled);
  std::unique_ptr<Compiled> compiled_;
};

}  // namespace prism
