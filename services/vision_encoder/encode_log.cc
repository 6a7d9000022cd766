#include "services/vision_encoder/encode_log.h"

#include <utility>

#include "common/base/hash.h"
#include "common/base/log.h"

namespace prism {

EncodeLog::EncodeLog(TraceContext trace, SteadyTime arrival) : trace_(std::move(trace)), arrival_(arrival) {}

void EncodeLog::SetEnd(const absl::StatusOr<EncodeOutcome>& outcome) {
  code_ = outcome.status().code();
  if (!outcome.ok()) return;
  content_key_ = outcome->key;
  cached_ = outcome->cached;
  size_ = outcome->size;
  grid_ = outcome->embedding->grid;
  if (cached_) return;
  decode_s_ = outcome->decode_s;
  preprocess_s_ = outcome->preprocess_s;
  queue_s_ = outcome->queue_s;
  encode_s_ = outcome->encode_s;
}

void EncodeLog::Write(SteadyTime now) const {
  LogInfo("encode", {{"content_key", Hex(content_key_)},
                     {"trace_id", trace_.trace_id},
                     {"span_id", trace_.span_id},
                     {"parent_span_id", trace_.parent_span_id},
                     {"status", absl::StatusCodeToString(code_)},
                     {"cached", cached_},
                     {"width", size_.width},
                     {"height", size_.height},
                     {"patches", grid_.num_patches()},
                     {"visual_tokens", grid_.num_tokens()},
                     {"image_decode_s", decode_s_},
                     {"preprocess_s", preprocess_s_},
                     {"queue_s", queue_s_},
                     {"encode_s", encode_s_},
                     {"total_s", SecondsBetween(arrival_, now)}});
}

}  // namespace prism
