// AttemptState says which attempt of a generation may speak, whether it is alive, and what follows
// when it ends. At most one attempt is live; what an older one says is dropped.
//
//   Begin() -> live -> End() -> Begin() ...
//
// An attempt is one try of one decoder. It has crashed when its decoder died, hung or broke its
// promises. Crashes of attempts that had started count, and crashes_max of them in a row without a
// token in between end the generation: a request that kills decoders must not walk through the
// cluster. An attempt that had not started cannot have done it, and is bounded by the decoders there
// are, since none is tried twice without a token in between.
//
// Thread safety: thread-compatible. Time is passed in; nothing here waits or calls.
#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <vector>

#include "common/base/clock.h"

namespace prism {

struct AttemptLimits {
  std::chrono::milliseconds silence{5000};  // without any event, heartbeats included
  std::chrono::milliseconds stuck{60000};   // of heartbeats that say work is due and no step is done
  int crashes_max = 2;                      // in a row, without a token
  int reencodes_max = 2;                    // of the pictures, in all
};

class AttemptState {
 public:
  enum class Health {
    kAlive,
    kSilent,  // nothing came for limits.silence
    kStuck,   // its heartbeats say that it makes no progress
  };
  // How an attempt ended short of the answer.
  enum class Ending {
    kCrashed,        // its decoder died, hung or broke its promises
    kLeft,           // its decoder is leaving
    kRefused,        // its decoder is full
    kEmbeddingLost,  // its decoder cannot have a picture
    kFailed,         // nothing that another decoder could do better
  };
  enum class Next {
    kAnother,            // another decoder goes on
    kReencode,           // the pictures are encoded again, then a decoder goes on
    kReencodeElsewhere,  // as above, on other encoders
    kFail,               // the generation ends with the attempt's error
  };

  explicit AttemptState(const AttemptLimits& limits) : limits_(limits) {}

  // Begins the next attempt, on this decoder; its number, from 0. REQUIRES: none is live.
  uint32_t Begin(size_t decoder, SteadyTime now);
  // Whether what this attempt says counts.
  bool IsLive(uint32_t attempt) const { return live_ && attempt + 1 == begun_; }
  // The newest attempt begun. REQUIRES: there was one.
  uint32_t newest() const { return begun_ - 1; }
  uint32_t num_begun() const { return begun_; }

  // What the live attempt said. REQUIRES: one is live.
  void OnStarted(SteadyTime now);
  void OnToken(SteadyTime now);
  // `waiting`: no step is due for this generation.
  void OnHeartbeat(uint64_t engine_steps, bool waiting, SteadyTime now);
  void OnOther(SteadyTime now);

  // Of the live attempt; kAlive if there is none.
  Health Check(SteadyTime now) const;

  // The live attempt has ended: what follows. REQUIRES: one is live.
  Next End(Ending ending);
  // The live attempt has given its answer. REQUIRES: one is live.
  void Complete();

  // Decoders that must not be tried again before a token has come.
  const std::vector<size_t>& tried() const { return tried_; }

 private:
  const AttemptLimits limits_;
  uint32_t begun_ = 0;
  bool live_ = false;
  bool started_ = false;  // the live attempt said Started
  size_t decoder_ = 0;    // of the live attempt
  SteadyTime heard_;      // anything of the live attempt
  SteadyTime moved_;      // a sign that its engine makes progress
  std::optional<uint64_t> engine_steps_;
  int crashes_ = 0;  // since the last token
  int reencodes_ = 0;
  std::vector<size_t> tried_;  // since the last token
};

}  // namespace prism
