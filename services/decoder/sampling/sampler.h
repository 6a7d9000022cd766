// Sampler chooses the next token of one sequence from its logits.
//
// In order (as vLLM): ids that the grammar does not allow are masked, then ids that are not allowed, and
// those that would complete a bad word, then end ids until min_tokens, logit_bias is added, then
//   repetition penalty r over ids of prompt and answer:  l > 0 ? l / r : l * r
//   frequency and presence over ids of the answer:       l -= f * count;  l -= p
// and, if temperature < 1e-5, the greatest logit wins. Else
//   min_p   keeps ids of at least min_p times the greatest probability,
//   top_k   keeps the k greatest,
//   top_p   keeps the fewest, greatest first, whose mass reaches p of what is left,
// and the token is argmax over the kept of l / T + Gumbel, Gumbel = -log(-log(u)), where u comes
// from Philox(seed, choice, token index, token id). Ties everywhere go to the lower id.
//
// No running sum over the vocabulary decides anything: mass is summed in 64-bit fixed point, so
// the choice depends on the logits and the draw key alone, not on rows, ranks or threads.
//
// Thread safety: thread-compatible; rows may be sampled in parallel by their own samplers.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <unordered_map>
#include <unordered_set>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "kernels/ops/row_sampling.h"
#include "kernels/ops/sampling_math.h"
#include "services/decoder/sampling/token_bans.h"
#include "services/decoder/sampling/token_constraint.h"

namespace prism {

struct SamplingParameters {
  double temperature = 1;  // 0 .. 2
  double top_p = 1;        // (0, 1]
  int64_t top_k = 0;       // 0: all
  double min_p = 0;        // [0, 1]
  uint64_t seed = 0;
  double repetition_penalty = 1;                       // (0, 10]
  double presence_penalty = 0;                         // -2 .. 2
  double frequency_penalty = 0;                        // -2 .. 2
  std::vector<std::pair<int32_t, double>> logit_bias;  // id -> -100 .. 100; ids distinct
  int64_t min_tokens = 0;                              // answer tokens before an end id may come
  std::vector<int32_t> end_token_ids;                  // what min_tokens holds back
  std::vector<std::vector<int32_t>> bad_words;         // ids in a row that must not come; none is empty
  std::vector<int32_t> allowed_token_ids;              // all others are masked; empty: all may come
};

// Memory that sampling needs; kept from call to call, one a thread.
struct SamplingScratch {
  struct Candidate {
    float logit;
    int32_t id;
    uint64_t mass;
  };
  std::vector<float> logits;
  std::vector<Candidate> candidates;
};

// Index of the first logit that is NaN or infinite, or -1.
int64_t FindNonFinite(absl::Span<const float> logits);

class Sampler {
 public:
  // REQUIRES: parameters within the ranges of their comments, ids within the vocabulary
  Sampler(SamplingParameters parameters, uint32_t choice, absl::Span<const int32_t> prompt);

  // From now on tokens follow a grammar. REQUIRES: called before Accept()
  void SetConstraint(std::unique_ptr<TokenConstraint> constraint);

  // The token at index num_accepted() of the answer. Internal, naming the id, if a logit is not
  // finite; Internal if the grammar, min_tokens or both leave no token. REQUIRES: logits has an entry for
  // every id seen, and with a grammar one for each id of its vocabulary
  absl::StatusOr<int32_t> Sample(absl::Span<const float> logits, SamplingScratch& scratch) const;

  // What a device must know to sample this token itself, to the same id; nullopt where the logits
  // must be changed first (a grammar, penalties, biases, end ids masked).
  std::optional<RowSampling> ForDevice() const;

  // The next answer token is known: sampled, or emitted before a resume.
  void Accept(int32_t token_id);
  int64_t num_accepted() const { return num_accepted_; }

 private:
  bool ChangesLogits() const;
  void ChangeLogits(absl::Span<float> logits) const;
  void Keep(absl::Span<const float> logits, float maximum, SamplingScratch& scratch) const;
  DrawKey KeyOf(int32_t id) const;
  double Score(float logit, int32_t id) const;
  int32_t DrawFromAll(absl::Span<const float> logits, int32_t greatest) const;

  const SamplingParameters parameters_;
  const uint32_t choice_;
  TokenBans bans_;
  const bool counts_tokens_;                           // a penalty is on
  std::unordered_set<int32_t> prompt_ids_;             // filled if there is a repetition penalty
  std::unordered_map<int32_t, int64_t> answer_count_;  // filled if there is any penalty
  int64_t num_accepted_ = 0;
  std::unique_ptr<TokenConstraint> constraint_;  // null: no grammar
};

}  // namespace prism
