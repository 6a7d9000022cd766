#include "services/router/placement.h"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <tuple>

#include "common/base/check.h"
#include "common/base/hash.h"

namespace prism {

bool Candidate::full() const {
  if (capacity > 0 && load() >= capacity) return true;
  return drain_s > kAheadS && load() >= kAheadPicturesMin;
}

std::vector<size_t> RankEncoders(absl::string_view sha256, absl::Span<const Candidate> encoders) {
  const uint64_t content = Fnv1a64(sha256);
  int64_t total = 0;
  double first_done_s = 0;
  double item_s = 0;
  for (const Candidate& encoder : encoders) {
    total += encoder.in_flight;
    first_done_s = &encoder == &encoders[0] ? encoder.drain_s : std::min(first_done_s, encoder.drain_s);
    item_s = std::max(item_s, encoder.item_s);
  }
  // The share if the new picture is counted too; at least one each.
  const double share =
      static_cast<double>(total + 1) / static_cast<double>(std::max<size_t>(encoders.size(), 1));
  const int64_t in_flight_max = static_cast<int64_t>(std::ceil(kLoadBound * share));
  struct Rank {
    int penalty = 0;
    uint64_t score = 0;
  };
  std::vector<Rank> ranks;
  for (const Candidate& encoder : encoders) {
    Rank& rank = ranks.emplace_back();
    const bool late = item_s > 0 && encoder.drain_s > first_done_s + kLatePictures * item_s;
    const bool over_share = encoder.in_flight + 1 > in_flight_max;
    rank.penalty = encoder.full() ? 3 : over_share ? 2 : late ? 1 : 0;
    rank.score = SplitMix64(content ^ Fnv1a64(encoder.address));
  }
  std::vector<size_t> order(encoders.size());
  std::iota(order.begin(), order.end(), size_t{0});
  std::sort(order.begin(), order.end(), [&](size_t a, size_t b) {
    if (ranks[a].penalty != ranks[b].penalty) return ranks[a].penalty < ranks[b].penalty;
    return ranks[a].score != ranks[b].score ? ranks[a].score > ranks[b].score : a < b;
  });
  return order;
}

std::optional<size_t> PickDecoder(absl::Span<const Candidate> decoders, int64_t prompt_tokens, uint64_t draw,
                                  bool also_full) {
  PRISM_CHECK(!decoders.empty());
  std::vector<size_t> open;
  for (size_t i = 0; i < decoders.size(); ++i) {
    if (also_full || !decoders[i].full()) open.push_back(i);
  }
  if (open.empty()) return std::nullopt;
  // Two different ones by lot, and the one that knows most.
  const size_t count = open.size();
  const size_t first = static_cast<size_t>((draw & 0xFFFFFFFF) % count);
  const size_t step = count > 1 ? 1 + static_cast<size_t>((draw >> 32) % (count - 1)) : 0;
  const size_t second = (first + step) % count;
  size_t knows = first;
  for (size_t i = 0; i < count; ++i) {
    if (decoders[open[i]].known_tokens > decoders[open[knows]].known_tokens) knows = i;
  }
  const auto work = [&](size_t i) {
    const Candidate& decoder = decoders[open[i]];
    const int64_t rest = prompt_tokens - std::min(decoder.known_tokens, prompt_tokens);
    return decoder.pending_tokens + kSequenceTokens * static_cast<double>(decoder.load()) +
           static_cast<double>(rest);
  };
  size_t best = first;
  for (const size_t other : {second, knows}) {
    if (work(other) < work(best)) best = other;
  }
  return open[best];
}

}  // namespace prism
