#include "services/decoder/sampling/sampler.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "absl/base/casts.h"
#include "absl/strings/str_cat.h"
#include "common/base/check.h"
#include "common/base/status.h"

namespace prism {
namespace {

using Candidate = SamplingScratch::Candidate;

constexpr float kMasked = -std::numeric_limits<float>::infinity();
// How many candidates top_p sorts at first; four times as many each time they do not suffice.
constexpr size_t kTopPFirstSort = 64;

bool Greater(const Candidate& a, const Candidate& b) {
  return a.logit != b.logit ? a.logit > b.logit : a.id < b.id;
}

int32_t ArgMax(absl::Span<const float> logits) {
  return static_cast<int32_t>(std::max_element(logits.begin(), logits.end()) - logits.begin());
}

float Narrow(double logit) {
  constexpr double kMax = std::numeric_limits<float>::max();
  return static_cast<float>(std::clamp(logit, -kMax, kMax));
}

// Cuts `candidates` to the fewest, greatest first, whose mass reaches `top_p` of the whole.
void KeepMass(double top_p, std::vector<Candidate>& candidates) {
  uint64_t total = 0;
  for (const Candidate& candidate : candidates) total += candidate.mass;
  const uint64_t wanted = MassWanted(top_p, total);
  uint64_t before = 0;
  size_t kept = 0, sorted = 0;
  while (kept < candidates.size() && (kept == 0 || before < wanted)) {
    if (kept == sorted) {
      sorted = std::min(candidates.size(), std::max(kTopPFirstSort, 4 * sorted));
      std::partial_sort(candidates.begin() + kept, candidates.begin() + sorted, candidates.end(), Greater);
    }
    before += candidates[kept].mass;
    ++kept;
  }
  candidates.resize(kept);
}

}  // namespace

int64_t FindNonFinite(absl::Span<const float> logits) {
  // An exponent of all ones is an infinity or NaN; this part is quick.
  constexpr uint32_t kExponent = 0x7F800000u;
  bool found = false;
  for (const float logit : logits) {
    found |= (absl::bit_cast<uint32_t>(logit) & kExponent) == kExponent;
  }
  if (!found) return -1;
  for (size_t i = 0; i < logits.size(); ++i) {
    if (!std::isfinite(logits[i])) return static_cast<int64_t>(i);
  }
  return -1;
}

Sampler::Sampler(SamplingParameters parameters, uint32_t choice, absl::Span<const int32_t> prompt)
    : parameters_(std::move(parameters)),
      choice_(choice),
      bans_(parameters_.bad_words, parameters_.allowed_token_ids),
      counts_tokens_(parameters_.repetition_penalty != 1 || parameters_.presence_penalty != 0 ||
                     parameters_.frequency_penalty != 0) {
  if (parameters_.repetition_penalty != 1) prompt_ids_.insert(prompt.begin(), prompt.end());
}

std::optional<RowSampling> Sampler::ForDevice() const {
  if (ChangesLogits()) return std::nullopt;
  return RowSampling{.temperature = parameters_.temperature,
                     .top_p = parameters_.top_p,
                     .min_p = parameters_.min_p,
                     .top_k = parameters_.top_k,
                     .seed = parameters_.seed,
                     .choice = choice_,
                     .token_index = static_cast<uint32_t>(num_accepted_)};
}

void Sampler::SetConstraint(std::unique_ptr<TokenConstraint> constraint) {
  PRISM_CHECK(num_accepted_ == 0);
  constraint_ = std::move(constraint);
}

void Sampler::Accept(int32_t token_id) {
  ++num_accepted_;
  bans_.Accept(token_id);
  if (constraint_ != nullptr) constraint_->Accept(token_id);
  if (counts_tokens_) ++answer_count_[token_id];
}

bool Sampler::ChangesLogits() const {
  return num_accepted_ < parameters_.min_tokens || !parameters_.logit_bias.empty() || counts_tokens_ ||
         bans_.any() || (constraint_ != nullptr && !constraint_->Free());
}

void Sampler::ChangeLogits(absl::Span<float> logits) const {
  bans_.Apply(logits);
  if (num_accepted_ < parameters_.min_tokens) {
    for (const int32_t id : parameters_.end_token_ids) logits[id] = kMasked;
  }
  for (const auto& [id, bias] : parameters_.logit_bias) {
    if (logits[id] != kMasked) logits[id] = Narrow(logits[id] + bias);
  }
  const double penalty = parameters_.repetition_penalty;
  const auto penalise_repetition = [&logits, penalty](int32_t id) {
    if (logits[id] == kMasked) return;
    const double logit = logits[id];
    logits[id] = Narrow(logit > 0 ? logit / penalty : logit * penalty);
  };
  for (const int32_t id : prompt_ids_) penalise_repetition(id);
  for (const auto& [id, count] : answer_count_) {
    if (logits[id] == kMasked) continue;
    if (penalty != 1 && !prompt_ids_.contains(id)) penalise_repetition(id);
    logits[id] = Narrow(logits[id] - parameters_.frequency_penalty * static_cast<double>(count) -
                        parameters_.presence_penalty);
  }
}

DrawKey Sampler::KeyOf(int32_t id) const {
  return {.seed = parameters_.seed,
          .choice = choice_,
          .token_index = static_cast<uint32_t>(num_accepted_),
          .token_id = static_cast<uint32_t>(id)};
}

double Sampler::Score(float logit, int32_t id) const {
  return GumbelScore(logit, parameters_.temperature, KeyOf(id));
}

int32_t Sampler::DrawFromAll(absl::Span<const float> logits, int32_t greatest) const {
  double best = Score(logits[greatest], greatest);
  int32_t best_id = greatest;
  for (size_t i = 0; i < logits.size(); ++i) {
    // No draw lifts this one above the best so far.
    const double scaled = logits[i] / parameters_.temperature;
    if (scaled + kGumbelMax < best) continue;
    const auto id = static_cast<int32_t>(i);
    // Nor does its own, for almost all: its logarithms need not be taken.
    if (scaled + GumbelBound(UniformDraw(KeyOf(id))) < best) continue;
    const double score = Score(logits[i], id);
    if (score > best || (score == best && id < best_id)) {
      best = score;
      best_id = id;
    }
  }
  return best_id;
}

void Sampler::Keep(absl::Span<const float> logits, float maximum, SamplingScratch& scratch) const {
  const double floor = parameters_.min_p > 0
                           ? PortableLog(std::max(parameters_.min_p, std::numeric_limits<double>::min()))
                           : -std::numeric_limits<double>::infinity();
  std::vector<Candidate>& candidates = scratch.candidates;
  candidates.clear();
  for (size_t i = 0; i < logits.size(); ++i) {
    if (logits[i] == kMasked) continue;
    const double relative = RelativeLogit(logits[i], maximum, parameters_.temperature);
    if (relative < floor) continue;
    candidates.push_back({logits[i], static_cast<int32_t>(i), 0});
  }
  const auto top_k = static_cast<size_t>(parameters_.top_k);
  if (top_k > 0 && top_k < candidates.size()) {
    std::nth_element(candidates.begin(), candidates.begin() + (top_k - 1), candidates.end(), Greater);
    candidates.resize(top_k);
  }
  if (parameters_.top_p < 1) {
    for (Candidate& candidate : candidates) {
      candidate.mass = MassOf(RelativeLogit(candidate.logit, maximum, parameters_.temperature));
    }
    KeepMass(parameters_.top_p, candidates);
  }
}

absl::StatusOr<int32_t> Sampler::Sample(absl::Span<const float> logits, SamplingScratch& scratch) const {
  if (const int64_t id = FindNonFinite(logits); id >= 0) {
    return absl::InternalError(
        absl::StrCat("the logit of id ", id, " of answer token ", num_accepted_, " is ", logits[id]));
  }
  if (ChangesLogits()) {
    scratch.logits.assign(logits.begin(), logits.end());
    if (constraint_ != nullptr && !constraint_->Free()) {
      PRISM_RETURN_IF_ERROR(constraint_->Apply(absl::MakeSpan(scratch.logits)));
    }
    ChangeLogits(absl::MakeSpan(scratch.logits));
    logits = scratch.logits;
  }
  const int32_t greatest = ArgMax(logits);
  const float maximum = logits[greatest];
  if (maximum == kMasked) {
    return absl::InternalError(
        absl::StrCat("answer token ", num_accepted_,
                     ": the grammar, min_tokens, bad words and allowed ids together mask "
                     "the whole vocabulary"));
  }
  if (parameters_.temperature < kGreedyBelowTemperature) return greatest;
  if (parameters_.top_k == 0 && parameters_.top_p >= 1 && parameters_.min_p == 0) {
    return DrawFromAll(logits, greatest);
  }
  Keep(logits, maximum, scratch);
  int32_t best_id = -1;
  double best = -std::numeric_limits<double>::infinity();
  for (const Candidate& candidate : scratch.candidates) {
    const double score = Score(candidate.logit, candidate.id);
    if (score > best || (score == best && candidate.id < best_id)) {
      best = score;
      best_id = candidate.id;
    }
  }
  return best_id;
}

}  // namespace prism
