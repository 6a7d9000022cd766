// Which replica does the work: pure functions over what is known of the replicas.
//
// Pictures go by content, so that one that comes again finds its embedding in the store of the same
// encoder: rendezvous hashing, with the load bounded so that a popular picture cannot drown one.
// Streams go to the decoder with the least to do.
//
// Thread safety: functions only.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "absl/strings/string_view.h"
#include "absl/types/span.h"

namespace prism {

// A replica that may be given work.
struct Candidate {
  std::string address;
  int64_t in_flight = 0;  // calls of ours that have not ended
  int64_t reported = 0;   // running + waiting, as it last said of itself
  double pages_used = 0;  // share of KV pages, 0 .. 1; decoders
};

// An encoder takes at most this much more than its even share of what is in flight.
inline constexpr double kLoadBound = 1.25;

// Indices of `encoders` from first choice to last for the file with this sha256: by rendezvous
// score, those above their bounded share after all others.
std::vector<size_t> RankEncoders(absl::string_view sha256, absl::Span<const Candidate> encoders);

// Indices of `decoders` from least to most loaded: by calls (ours in flight or, if more, those it
// reported), then pages. `turn` rotates among equals; count it up with each call.
std::vector<size_t> RankDecoders(absl::Span<const Candidate> decoders, uint64_t turn);

}  // namespace prism
