#include "services/decoder/generate_log.h"

#include <algorithm>
#include <utility>

#include "common/base/hash.h"
#include "common/base/log.h"

namespace prism {
namespace {

constexpr size_t kIdBytes = 16;

}  // namespace

GenerateLog::GenerateLog(const v1::GenerateRequest& request, TraceContext trace, SteadyTime arrival)
    : trace_(std::move(trace)),
      arrival_(arrival),
      generation_id_(request.generation_id().size() == kIdBytes ? request.generation_id() : ""),
      attempt_(request.attempt()),
      prompt_tokens_(request.token_ids_size()),
      num_choices_(std::max<int64_t>(1, request.num_choices())),
      num_pictures_(request.handles_size()) {
  for (const v1::ImageSpan& span : request.spans()) num_visual_tokens_ += span.num_tokens();
}

void GenerateLog::Write(SteadyTime now) const {
  LogInfo("generate", {{"generation", Hex(generation_id_)},
                       {"attempt", attempt_},
                       {"trace_id", trace_.trace_id},
                       {"span_id", trace_.span_id},
                       {"parent_span_id", trace_.parent_span_id},
                       {"status", absl::StatusCodeToString(code_)},
                       {"prompt_tokens", prompt_tokens_},
                       {"cached_tokens", report_.cached_tokens},
                       {"completion_tokens", report_.completion_tokens},
                       {"choices", num_choices_},
                       {"stopped", report_.num_stopped},
                       {"pictures", num_pictures_},
                       {"visual_tokens", num_visual_tokens_},
                       {"preemptions", report_.preemptions},
                       {"queue_s", report_.queue_s},
                       {"pull_s", report_.pull_s},
                       {"prefill_s", report_.prefill_s},
                       {"first_token_s", report_.first_token_s},
                       {"decode_s", report_.decode_s},
                       {"total_s", SecondsBetween(arrival_, now)}});
}

}  // namespace prism
