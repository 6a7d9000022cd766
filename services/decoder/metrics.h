// The decoder's metrics, in the order of a request. The vllm: names are those that dashboards and
// autoscalers already query.
//
// Thread safety: the handles may be used from any thread; default-constructed ones drop values.
#pragma once

#include <string>

#include "common/metrics/metrics.h"

namespace prism {

struct DecoderMetricsOptions {
  std::string model_name;
  int64_t model_length_max = 1;  // bounds the buckets of token counts
  int64_t kv_pages = 0;
};

// Of answers in a given form.
struct GrammarMetrics {
  GrammarMetrics() = default;
  explicit GrammarMetrics(MetricRegistry* registry);

  Counter cached;  // prism_grammar_total{result=...}: grammars of requests, kept from before
  Counter compiled;
  Counter failed;             // cannot be enforced, or the caller left
  Histogram compile_seconds;  // of those that were not kept
  Counter masks_cached;       // prism_token_mask_total{result=...}: masks asked for, kept from before
  Counter masks_computed;
  Histogram mask_seconds;  // computing one
};

struct DecoderMetrics {
  DecoderMetrics() = default;
  DecoderMetrics(MetricRegistry* registry, const DecoderMetricsOptions& options);

  // Admission.
  Counter rejected_invalid;  // prism_request_reject_total{reason=...}
  Counter rejected_queue_full;
  Counter rejected_too_long;  // more pages than there are
  Counter rejected_draining;
  Counter rejected_deadline;
  Histogram request_prompt_tokens;
  Histogram request_params_n;
  Histogram request_params_max_tokens;
  Gauge waiting;           // vllm:num_requests_waiting
  Gauge running;           // vllm:num_requests_running
  Gauge in_use;            // share of the decoder that is taken, 0 .. 1: of its time or of its pages
  Gauge queued_work_s;     // for which what waits would take all of it, estimated
  Gauge desired_replicas;  // decoders that this one's work would want; the role wants the sum

  GrammarMetrics grammar;

  // Embeddings.
  Counter mm_cache_queries;  // embeddings asked for
  Counter mm_cache_hits;     // found in this decoder's memory
  Counter embedding_bytes;   // prism_embedding_bytes_total{dir="in"}
  Counter embedding_lost;    // prism_embedding_reject_total{reason=...}
  Counter embedding_corrupt;
  Gauge embedding_memory_bytes;

  // KV pages.
  Gauge kv_usage;      // vllm:kv_cache_usage_perc, 0 .. 1
  Gauge kv_usage_old;  // vllm:gpu_cache_usage_perc, the same
  Gauge kv_free;       // prism_kv_pages{state=...}
  Gauge kv_used;
  Gauge kv_reserved;
  Gauge kv_cached;
  Counter prefix_queries;  // vllm:prefix_cache_queries_total: prompt tokens looked up
  Counter prefix_hits;     // of them, found computed
  Counter preemptions;

  // Steps.
  Histogram step_tokens;  // vllm:iteration_tokens_total; its count is the step counter
  Gauge last_step_time;   // seconds since 1970
  Histogram step_seconds;
  Histogram sampling_seconds;
  Histogram constrained_rows;  // of a step, rows sampled for an answer that has a form
  Counter step_failures;
  Counter prompt_tokens;
  Counter generation_tokens;

  // Tokens of a stream.
  Histogram first_token_seconds;
  Histogram inter_token_seconds;
  Histogram inter_token_seconds_old;  // vllm:time_per_output_token_seconds, the same

  // The end of a request.
  Counter finished_stop;  // vllm:request_success_total{finished_reason=...}
  Counter finished_length;
  Counter finished_abort;
  Counter finished_error;
  Counter aborted_client;  // prism_stream_abort_total{by=...}
  Counter aborted_deadline;
  Counter aborted_server;
  Histogram request_generation_tokens;
  Histogram e2e_seconds;
  Histogram queue_seconds;
  Histogram inference_seconds;
  Histogram prefill_seconds;
  Histogram decode_seconds;
  Histogram stage_queue;  // prism_stage_seconds{stage=...}
  Histogram stage_transfer;
  Histogram stage_prefill;
  Histogram stage_first_token;
};

}  // namespace prism
