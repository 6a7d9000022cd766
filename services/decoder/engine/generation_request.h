// GenerationRequest: what a caller asked for, checked and with every default filled in.
//
// Thread safety: a plain value.
#pragma once

#include <chrono>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "common/base/clock.h"
#include "services/decoder/embeddings/embedding_ref.h"
#include "services/decoder/sampling/answer_grammar.h"
#include "services/decoder/sampling/sampler.h"
#include "services/decoder/sched/positions.h"

namespace prism {

struct GenerationRequest {
  std::string generation_id;  // 16 bytes, or empty for a score
  uint32_t attempt = 0;
  bool resumed = false;  // its client has seen a part of the answer: no full queue refuses it

  std::vector<int32_t> token_ids;  // the prompt, >= 1, each within the vocabulary
  std::vector<VisualSpan> spans;   // ascending, disjoint; index `embeddings`
  std::vector<EmbeddingRef> embeddings;

  // A score asks for the log-probability of each prompt id given those before it; nothing is
  // sampled, and what follows does not matter.
  bool score = false;

  SamplingParameters sampling;
  // The form of the answers; null: any. Shared with the thread that prepares it, which is done before the
  // engine has the request.
  std::shared_ptr<AnswerGrammar> grammar;
  std::vector<int32_t> end_token_ids;  // any of them ends a choice
  int64_t max_tokens = 1;              // answer tokens of a choice, emitted ones included; >= 1
  // 0 .. 20 alternatives for each prompt token but the first; nullopt: no log-probabilities of the prompt
  std::optional<int64_t> prompt_logprobs;
  std::optional<int64_t> top_logprobs;  // 0 .. 20; nullopt: no log-probabilities
  uint32_t num_choices = 1;             // 1 .. 4
  // Per choice, answer tokens known from an earlier attempt; each at most max_tokens long.
  std::vector<std::vector<int32_t>> emitted;
  int32_t priority = 0;    // larger goes first
  std::string cache_salt;  // only requests of the same salt share KV pages
  SteadyTime deadline = SteadyTime::max();
  std::chrono::milliseconds objective{0};  // of its class: to be started in; 0: the engine's own

  // The longest any choice can get, in tokens.
  int64_t length_max() const { return static_cast<int64_t>(token_ids.size()) + (score ? 0 : max_tokens); }
};

}  // namespace prism
