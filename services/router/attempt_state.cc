#include "services/router/attempt_state.h"

#include "common/base/check.h"

namespace prism {

uint32_t AttemptState::Begin(size_t decoder, SteadyTime now) {
  PRISM_CHECK(!live_);
  live_ = true;
  started_ = false;
  decoder_ = decoder;
  heard_ = moved_ = now;
  engine_steps_.reset();
  return begun_++;
}

void AttemptState::OnStarted(SteadyTime now) {
  PRISM_CHECK(live_);
  started_ = true;
  heard_ = moved_ = now;
}

void AttemptState::OnToken(SteadyTime now) {
  PRISM_CHECK(live_);
  crashes_ = 0;
  tried_.clear();
  heard_ = moved_ = now;
}

void AttemptState::OnHeartbeat(uint64_t engine_steps, bool waiting, SteadyTime now) {
  PRISM_CHECK(live_);
  heard_ = now;
  if (waiting || engine_steps_ != engine_steps) moved_ = now;
  engine_steps_ = engine_steps;
}

void AttemptState::OnOther(SteadyTime now) {
  PRISM_CHECK(live_);
  heard_ = moved_ = now;
}

AttemptState::Health AttemptState::Check(SteadyTime now) const {
  if (!live_) return Health::kAlive;
  if (now - heard_ >= limits_.silence) return Health::kSilent;
  return now - moved_ >= limits_.stuck ? Health::kStuck : Health::kAlive;
}

AttemptState::Next AttemptState::End(Ending ending) {
  PRISM_CHECK(live_);
  live_ = false;
  switch (ending) {
    case Ending::kCrashed:
      tried_.push_back(decoder_);
      if (started_ && ++crashes_ >= limits_.crashes_max) return Next::kFail;
      return Next::kAnother;
    case Ending::kLeft:
    case Ending::kRefused:
      tried_.push_back(decoder_);
      return Next::kAnother;
    case Ending::kEmbeddingLost:
      if (reencodes_ >= limits_.reencodes_max) return Next::kFail;
      // The first time the encoder may simply have forgotten; the second time it is not to be trusted.
      return reencodes_++ == 0 ? Next::kReencode : Next::kReencodeElsewhere;
    case Ending::kFailed:
      return Next::kFail;
  }
  return Next::kFail;
}

void AttemptState::Complete() {
  PRISM_CHECK(live_);
  live_ = false;
}

}  // namespace prism
