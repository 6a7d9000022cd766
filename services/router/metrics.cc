#include "services/router/metrics.h"

#include <string>

#include "common/metrics/buckets.h"

namespace prism {
namespace {

Counter Reject(MetricRegistry* registry, const std::string& reason) {
  return registry->AddCounter("prism_request_reject_total", "Requests refused before any work, by reason.",
                              {{"reason", reason}});
}

Counter Limited(MetricRegistry* registry, const std::string& scope) {
  return registry->AddCounter("prism_ratelimit_reject_total",
                              "Chats refused for their tenant's limits, by limit.", {{"scope", scope}});
}

Gauge Waiting(MetricRegistry* registry, const std::string& role) {
  return registry->AddGauge("prism_router_waiting", "Work that waits for a replica, by the replica's role.",
                            {{"role", role}});
}

Counter ResultCache(MetricRegistry* registry, const std::string& result) {
  return registry->AddCounter("prism_result_cache_total", "Chats by what the result cache had for them.",
                              {{"result", result}});
}

Counter Grammar(MetricRegistry* registry, const std::string& result) {
  return registry->AddCounter("prism_grammar_total", "Grammars of requests, by how they were come by.",
                              {{"result", result}});
}

Counter Abort(MetricRegistry* registry, const std::string& by) {
  return registry->AddCounter("prism_stream_abort_total", "Streams that ended early, by who ended them.",
                              {{"by", by}});
}

Histogram Stage(MetricRegistry* registry, const std::string& stage, absl::Span<const double> buckets) {
  return registry->AddHistogram("prism_stage_seconds", "Seconds of each stage of a request.", buckets,
                                {{"stage", stage}});
}

Gauge Ready(MetricRegistry* registry, const std::string& role) {
  return registry->AddGauge("prism_router_replicas_ready", "Replicas that get work, by role.",
                            {{"role", role}});
}

}  // namespace

RouterMetrics::RouterMetrics(MetricRegistry* registry)
    : requests(registry->AddCounter("prism_router_requests_total", "Chats that arrived.")),
      waiting(registry->AddGauge("prism_router_requests_waiting", "Chats without a first token.")),
      running(registry->AddGauge("prism_router_requests_running", "Chats that stream tokens.")),
      queued(registry->AddGauge("prism_router_queued", "Admitted chats without a decoder.")),
      queued_work_s(registry->AddGauge("prism_router_queued_work_seconds",
                                       "Estimated time until all admitted chats have a decoder.")),
      media_bytes(
          registry->AddGauge("prism_router_media_bytes", "Bytes of the pictures kept or being uploaded.")),
      media_files(registry->AddGauge("prism_router_media_files", "Pictures kept.")),
      journal_bytes(
          registry->AddGauge("prism_router_journal_bytes", "Bytes of the events kept for clients' Resume.")),
      journal_generations(registry->AddGauge("prism_router_journal_generations",
                                             "Chats whose events are kept, running ones included.")),
      result_cache_hit(ResultCache(registry, "hit")),
      result_cache_miss(ResultCache(registry, "miss")),
      result_cache_error(ResultCache(registry, "error")),
      result_cache_bypass(ResultCache(registry, "bypass")),
      redis_breaker(registry->AddGauge("prism_redis_breaker_state",
                                       "Whether Redis is asked: 0 yes, 1 no, 2 one call tries.")),
      reject_invalid(Reject(registry, "invalid")),
      reject_queue_full(Reject(registry, "queue_full")),
      reject_wait(Reject(registry, "wait")),
      reject_deadline(Reject(registry, "deadline")),
      reject_media_full(Reject(registry, "media_full")),
      reject_no_replica(Reject(registry, "no_replica")),
      reject_journal_full(Reject(registry, "journal_full")),
      ratelimit_concurrency(Limited(registry, "concurrency")),
      ratelimit_tokens(Limited(registry, "tokens")),
      grammar_cached(Grammar(registry, "cached")),
      grammar_compiled(Grammar(registry, "compiled")),
      grammar_failed(Grammar(registry, "failed")),
      grammar_compile_s(
          registry->AddHistogram("prism_grammar_compile_seconds", "Compiling a grammar.", kStageBuckets)),
      encode_waiting(Waiting(registry, "vision-encoder")),
      generate_waiting(Waiting(registry, "decoder")),
      prompt_s(Stage(registry, "prompt", kRequestBuckets)),
      fetch_s(Stage(registry, "fetch", kRequestBuckets)),
      encode_s(Stage(registry, "encode", kRequestBuckets)),
      image_decode_s(Stage(registry, "image_decode", kRequestBuckets)),
      preprocess_s(Stage(registry, "preprocess", kRequestBuckets)),
      encoder_queue_s(Stage(registry, "encoder_queue", kRequestBuckets)),
      tower_s(Stage(registry, "tower", kRequestBuckets)),
      encode_queue_s(Stage(registry, "encode_queue", kRequestBuckets)),
      dispatch_s(Stage(registry, "dispatch", kRequestBuckets)),
      queue_s(Stage(registry, "queue", kRequestBuckets)),
      pull_s(Stage(registry, "pull", kRequestBuckets)),
      prefill_s(Stage(registry, "prefill", kRequestBuckets)),
      first_token_s(Stage(registry, "first_token", kFirstTokenBuckets)),
      decode_s(Stage(registry, "decode", kRequestBuckets)),
      total_s(Stage(registry, "total", kRequestBuckets)),
      pictures(registry->AddCounter("prism_router_pictures_total", "Pictures encoded for chats.")),
      pictures_cached(registry->AddCounter("prism_router_pictures_cached_total",
                                           "Pictures whose embedding an encoder still had.")),
      encode_retries(
          registry->AddCounter("prism_router_encode_retries_total", "Pictures sent to another encoder.")),
      hedges(registry->AddCounter("prism_router_encode_hedges_total",
                                  "Pictures sent to a second encoder because the first was slow.")),
      hedges_won(registry->AddCounter("prism_router_encode_hedges_won_total",
                                      "Pictures that the second encoder answered first.")),
      reencodes(
          registry->AddCounter("prism_router_reencodes_total",
                               "Chats whose pictures were encoded again for a decoder that lost them.")),
      generate_retries(registry->AddCounter("prism_router_generate_retries_total",
                                            "Chats sent to another decoder before their first token.")),
      resumes(registry->AddCounter("prism_router_resumes_total",
                                   "Streams that went on from another decoder after their first token.")),
      reconnects(registry->AddCounter("prism_router_reconnects_total",
                                      "Clients that came back to their chat through Resume.")),
      attached(registry->AddCounter("prism_router_idempotent_attaches_total",
                                    "Requests that found their idempotency key's chat.")),
      prompt_tokens(registry->AddCounter("prism_router_prompt_tokens_total", "Tokens of prompts.")),
      completion_tokens(registry->AddCounter("prism_router_completion_tokens_total", "Tokens of answers.")),
      cached_tokens(registry->AddCounter("prism_router_cached_tokens_total",
                                         "Tokens of prompts that a decoder's prefix cache held.")),
      abort_client(Abort(registry, "client")),
      abort_server(Abort(registry, "server")),
      abort_decoder(Abort(registry, "decoder")),
      abort_deadline(Abort(registry, "deadline")),
      abort_slow_reader(Abort(registry, "slow_reader")),
      encoders_ready(Ready(registry, "vision-encoder")),
      decoders_ready(Ready(registry, "decoder")) {}

}  // namespace prism
