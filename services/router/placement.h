// Which replica does the work: pure functions over what is known of the replicas.
//
// Pictures go by content, so that one that comes again finds its embedding in the store of the same
// encoder: rendezvous hashing, with the load bounded so that a popular picture cannot drown one, and
// with encoders left out that would be done much later than the others.
// Streams go where the rest of their prompt, past the pages that are believed to be there already,
// and the work that waits in front of it are the least: of the decoder with the longest known prefix
// and two others drawn by lot.
//
// Thread safety: functions only.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "absl/strings/string_view.h"
#include "absl/types/span.h"

namespace prism {

// A replica that may be given work.
struct Candidate {
  std::string address;
  int64_t in_flight = 0;      // calls of ours that have not ended (decoders: choices)
  int64_t others = 0;         // calls it works on that are not ours
  int64_t capacity = 0;       // calls it takes at once; 0: no known bound
  double drain_s = 0;         // encoders: seconds until what it was given is done
  double item_s = 0;          // encoders: seconds of one picture, measured; 0: unknown
  double pending_tokens = 0;  // decoders: prompt tokens of ours it has yet to compute
  int64_t known_tokens = 0;   // decoders: tokens of this prompt believed to be in its prefix cache

  int64_t load() const { return in_flight + others; }
  // Has no room for more.
  bool full() const;
};

// An encoder is not given more than this ahead: what waits in the router can still go elsewhere and
// is handed out by share. A few pictures it always gets, so that it has the next when one is done.
inline constexpr double kAheadS = 1;
inline constexpr int64_t kAheadPicturesMin = 4;

// An encoder takes at most this much more than its even share of what is in flight.
inline constexpr double kLoadBound = 1.25;
// An encoder is late if it is done later than the first by more than so many pictures' time: going
// elsewhere costs an encode that the store might have saved.
inline constexpr double kLatePictures = 2;

// Indices of `encoders` from first choice to last for the file with this sha256: by rendezvous
// score, but those that are late, then those above their bounded share, then full ones at the end.
std::vector<size_t> RankEncoders(absl::string_view sha256, absl::Span<const Candidate> encoders);

// A sequence under way counts as this many prompt tokens in front of a new one.
inline constexpr double kSequenceTokens = 128;

// Index of the decoder for a prompt of so many tokens: of the one that knows most of it and two drawn
// by `draw` (uniform bits), the one with the least
//
//   pending_tokens + kSequenceTokens * load + prompt_tokens - known_tokens
//
// Full ones are not taken: nullopt if all are, unless `also_full`. REQUIRES: at least one
std::optional<size_t> PickDecoder(absl::Span<const Candidate> decoders, int64_t prompt_tokens, uint64_t draw,
                                  bool also_full);

}  // namespace prism
