// StreamDetokenizer turns token ids into text as they come. What it returns never ends inside a
// character, and all it returned together equals Tokenizer::Decode() of all ids.
//
// Thread safety: one thread at a time. The tokenizer must outlive it.
#pragma once

#include <cstdint>
#include <string>

#include "common/base/utf8.h"
#include "common/text/tokenizer.h"

namespace prism {

class StreamDetokenizer {
 public:
  // With `skip_special`, special added tokens (<|im_end|> and the like) give no text.
  StreamDetokenizer(const Tokenizer* tokenizer, bool skip_special)
      : tokenizer_(tokenizer), skip_special_(skip_special) {}

  // The text that `id` makes certain; at most 3 bytes of an unfinished character are held back. Bytes that
  // cannot become a character are one U+FFFD a maximal part, as in Decode(). An id without a token is no
  // text.
  std::string Push(int32_t id);

  // The ids have ended: U+FFFD if a character was unfinished, else nothing.
  std::string Finish();

  // Bytes held back.
  size_t held_bytes() const { return repairer_.held_bytes(); }

 private:
  const Tokenizer* const tokenizer_;
  const bool skip_special_;
  Utf8Repairer repairer_;
};

}  // namespace prism
