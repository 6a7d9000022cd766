// The form of the answers that a chat request asks for: its grammar, its tools and its choice of them, as
// the one grammar that the decoder holds the answer to.
//
// Thread safety: functions only.
#pragma once

#include <optional>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "common/text/chat_format.h"
#include "common/text/grammar/grammar_cache.h"
#include "common/text/tokenizer.h"
#include "prism/v1/router.pb.h"
#include "services/router/metrics.h"

namespace prism {

// Whether the answer may call tools: there are tools, tool_choice is not none, and the model has the
// markers that calls are written with.
bool MayCallTools(const v1::ChatRequest& request, const Tokenizer& tokenizer);

// For the cache that AnswerFormOf() is given. `metrics` must outlive it.
GrammarCache::Observer GrammarObserverOf(RouterMetrics* metrics);

// What goes into the decoder's SamplingParameters; nullopt: any text. Compiles it, so that what cannot be
// enforced is refused before any work. An answer that is to go on past its end (ignore_eos) has no form:
// tools that the model need not call then stand in the prompt alone. InvalidArgument with BadRequest:
// "grammar", "tool_choice" or "tools.N.function..." and what is wrong, for a schema with its JSON pointer.
absl::StatusOr<std::optional<v1::Grammar>> AnswerFormOf(const v1::ChatRequest& request,
                                                        const ChatFormat& format, const Tokenizer& tokenizer,
                                                        GrammarCache* cache);

}  // namespace prism
