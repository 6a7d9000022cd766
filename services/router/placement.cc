#include "services/router/placement.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "common/base/hash.h"

namespace prism {

std::vector<size_t> RankEncoders(absl::string_view sha256, absl::Span<const Candidate> encoders) {
  const uint64_t content = Fnv1a64(sha256);
  int64_t total = 0;
  for (const Candidate& encoder : encoders) total += encoder.in_flight;
  // The share if the new picture is counted too; at least one each.
  const double share =
      static_cast<double>(total + 1) / static_cast<double>(std::max<size_t>(encoders.size(), 1));
  const int64_t in_flight_max = static_cast<int64_t>(std::ceil(kLoadBound * share));
  std::vector<uint64_t> scores;
  for (const Candidate& encoder : encoders) scores.push_back(SplitMix64(content ^ Fnv1a64(encoder.address)));
  std::vector<size_t> order(encoders.size());
  std::iota(order.begin(), order.end(), size_t{0});
  std::sort(order.begin(), order.end(), [&](size_t a, size_t b) {
    const bool a_full = encoders[a].in_flight + 1 > in_flight_max;
    const bool b_full = encoders[b].in_flight + 1 > in_flight_max;
    if (a_full != b_full) return b_full;
    return scores[a] != scores[b] ? scores[a] > scores[b] : a < b;
  });
  return order;
}

std::vector<size_t> RankDecoders(absl::Span<const Candidate> decoders, uint64_t turn) {
  const size_t count = decoders.size();
  std::vector<size_t> order(count);
  for (size_t i = 0; i < count; ++i) order[i] = i;
  const auto load = [&](size_t i) { return std::max(decoders[i].in_flight, decoders[i].reported); };
  // Where `i` stands when it is the turn of `turn % count` to be first.
  const auto place = [&](size_t i) { return (i + count - turn % count) % count; };
  std::sort(order.begin(), order.end(), [&](size_t a, size_t b) {
    if (load(a) != load(b)) return load(a) < load(b);
    if (decoders[a].pages_used != decoders[b].pages_used)
      return decoders[a].pages_used < decoders[b].pages_used;
    return place(a) < place(b);
  });
  return order;
}

}  // namespace prism
