// EncodeLog writes the one log line of an Encode call, when the call is over:
//
//   "message":"encode" with the trace that the router's line "chat" is of, how it ended, the picture's sizes,
//   and the seconds of its stages
//
// Sizes and seconds are 0 where the call ended without an embedding, seconds also where it was held.
//
// Thread safety: thread-compatible.
#pragma once

#include <cstdint>
#include <string>

#include "absl/status/statusor.h"
#include "common/base/clock.h"
#include "common/rpc/trace_context.h"
#include "services/vision_encoder/encoder.h"

namespace prism {

class EncodeLog {
 public:
  EncodeLog(TraceContext trace, SteadyTime arrival);

  void SetEnd(const absl::StatusOr<EncodeOutcome>& outcome);
  void Write(SteadyTime now) const;

 private:
  const TraceContext trace_;
  const SteadyTime arrival_;
  absl::StatusCode code_ = absl::StatusCode::kUnknown;
  std::string content_key_;
  bool cached_ = false;
  ImageSize size_;
  PatchGridSize grid_;
  double decode_s_ = 0, preprocess_s_ = 0, queue_s_ = 0, encode_s_ = 0;
};

}  // namespace prism
