// The bad words of a chat, which are texts, as the sequences of ids that the decoder is told of.
//
// A word makes the ids that it has alone and those that it has behind a space, which is how it comes in the
// middle of a text; white space in front of it is left out first, unless it is all there is. Where the ids
// behind a space end with those alone, the latter are enough. Added tokens are matched, so that "<think>" is
// that token. A text that the model spells in other tokens still comes: ids are what is banned.
//
// Thread safety: functions only.
#pragma once

#include "absl/status/status.h"
#include "common/text/tokenizer.h"
#include "prism/v1/router.pb.h"

namespace prism {

// Moves request.bad_words into request.sampling.bad_words.
// InvalidArgument naming "bad_words" or "bad_words.N": too many, empty, too long in bytes or in ids.
absl::Status ResolveBadWords(const Tokenizer& tokenizer, v1::ChatRequest* request);

}  // namespace prism
