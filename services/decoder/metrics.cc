#include "services/decoder/metrics.h"

#include <algorithm>
#include <vector>

#include "common/metrics/buckets.h"
#include "services/decoder/kv/page.h"

namespace prism {
namespace {

// The last bucket of rows but infinity.
constexpr double kConstrainedRowsMax = 500;

// `labels` and one more.
MetricLabels With(MetricLabels labels, const std::string& key, const std::string& value) {
  labels.emplace_back(key, value);
  return labels;
}

}  // namespace

GrammarMetrics::GrammarMetrics(MetricRegistry* registry) {
  const auto grammars = [registry](const char* result) {
    return registry->AddCounter("prism_grammar_total", "Grammars of requests, by how they were come by.",
                                {{"result", result}});
  };
  cached = grammars("cached");
  compiled = grammars("compiled");
  failed = grammars("failed");
  compile_seconds =
      registry->AddHistogram("prism_grammar_compile_seconds", "Compiling a grammar.", kStageBuckets);
  const auto masks = [registry](const char* result) {
    return registry->AddCounter("prism_token_mask_total", "Masks of tokens, by how they were come by.",
                                {{"result", result}});
  };
  masks_cached = masks("cached");
  masks_computed = masks("computed");
  mask_seconds =
      registry->AddHistogram("prism_token_mask_seconds", "Computing a mask of tokens.", kStageBuckets);
}

DecoderMetrics::DecoderMetrics(MetricRegistry* registry, const DecoderMetricsOptions& options) {
  const MetricLabels labels = {{"model_name", options.model_name}, {"engine", "0"}};
  const std::vector<double> token_buckets =
      OneTwoFiveBuckets(static_cast<double>(std::max<int64_t>(1, options.model_length_max)));
  const std::vector<double> choice_buckets = {1, 2, 3, 4};

  const auto reject = [registry](const char* reason) {
    return registry->AddCounter("prism_request_reject_total", "Requests refused before any work.",
                                {{"reason", reason}});
  };
  rejected_invalid = reject("invalid");
  rejected_queue_full = reject("queue_full");
  rejected_too_long = reject("too_long");
  rejected_draining = reject("draining");
  rejected_deadline = reject("deadline");
  request_prompt_tokens = registry->AddHistogram("vllm:request_prompt_tokens", "Prompt tokens of a request.",
                                                 token_buckets, labels);
  request_params_n =
      registry->AddHistogram("vllm:request_params_n", "Choices asked for.", choice_buckets, labels);
  request_params_max_tokens = registry->AddHistogram("vllm:request_params_max_tokens",
                                                     "Answer tokens allowed.", token_buckets, labels);
  waiting = registry->AddGauge("vllm:num_requests_waiting", "Requests accepted and in no step yet.", labels);
  running = registry->AddGauge("vllm:num_requests_running", "Requests in the running batch.", labels);

  in_use = registry->AddGauge("prism_decode_in_use",
                              "Share of the decoder that is taken, of its time or of its pages, 0 to 1.");
  queued_work_s = registry->AddGauge("prism_decode_queued_work_seconds",
                                     "Estimated time for which what waits would take the whole decoder.");
  desired_replicas = registry->AddGauge("prism_desired_replicas",
                                        "Replicas that this one's work would want; the role wants the sum.");

  grammar = GrammarMetrics(registry);

  mm_cache_queries =
      registry->AddCounter("vllm:mm_cache_queries_total", "Embeddings looked for in memory.", labels);
  mm_cache_hits = registry->AddCounter("vllm:mm_cache_hits_total", "Embeddings found in memory.", labels);
  embedding_bytes =
      registry->AddCounter("prism_embedding_bytes_total", "Bytes of embeddings moved.", {{"dir", "in"}});
  const auto embedding_reject = [registry](const char* reason) {
    return registry->AddCounter("prism_embedding_reject_total", "Embeddings that could not be used.",
                                {{"reason", reason}});
  };
  embedding_lost = embedding_reject("lost");
  embedding_corrupt = embedding_reject("corrupt");
  embedding_memory_bytes =
      registry->AddGauge("prism_embedding_memory_bytes", "Bytes of embeddings in memory, cached or in use.");

  kv_usage = registry->AddGauge("vllm:kv_cache_usage_perc",
                                "Part of the KV pages in use or promised, 0 to 1.", labels);
  kv_usage_old =
      registry->AddGauge("vllm:gpu_cache_usage_perc", "The same as vllm:kv_cache_usage_perc.", labels);
  const auto pages = [registry](const char* state) {
    return registry->AddGauge("prism_kv_pages", "KV pages of 64 tokens.", {{"state", state}});
  };
  kv_free = pages("free");
  kv_used = pages("used");
  kv_reserved = pages("reserved");
  kv_cached = pages("cached");
  prefix_queries = registry->AddCounter("vllm:prefix_cache_queries_total",
                                        "Prompt tokens looked for in the prefix cache.", labels);
  prefix_hits = registry->AddCounter("vllm:prefix_cache_hits_total",
                                     "Prompt tokens found in the prefix cache.", labels);
  preemptions = registry->AddCounter("vllm:num_preemptions_total",
                                     "Sequences that lost their pages and were computed anew.", labels);
  registry
      ->AddGauge("vllm:cache_config_info", "Sizes of the KV memory.",
                 With(With(labels, "block_size", std::to_string(kTokensPerPage)), "num_gpu_blocks",
                      std::to_string(options.kv_pages)))
      .Set(1);

  step_tokens = registry->AddHistogram("vllm:iteration_tokens_total", "Tokens of an engine step.",
                                       token_buckets, labels);
  last_step_time = registry->AddGauge("prism_engine_last_step_timestamp_seconds",
                                      "When the last engine step ended, in seconds since 1970.");
  step_seconds =
      registry->AddHistogram("prism_engine_step_seconds", "Forward pass of a step.", kStageBuckets);
  sampling_seconds =
      registry->AddHistogram("prism_engine_sampling_seconds", "Sampling of a step.", kStageBuckets);
  std::vector<double> row_buckets = OneTwoFiveBuckets(kConstrainedRowsMax);
  row_buckets.insert(row_buckets.begin(), 0);
  constrained_rows = registry->AddHistogram(
      "prism_engine_constrained_rows", "Rows of a step sampled for an answer that has a form.", row_buckets);
  step_failures = registry->AddCounter("prism_engine_step_failures_total", "Steps that failed as a whole.");
  prompt_tokens =
      registry->AddCounter("vllm:prompt_tokens_total", "Prompt tokens of requests started.", labels);
  generation_tokens =
      registry->AddCounter("vllm:generation_tokens_total", "Answer tokens generated.", labels);

  first_token_seconds = registry->AddHistogram(
      "vllm:time_to_first_token_seconds", "From acceptance to the first token.", kFirstTokenBuckets, labels);
  inter_token_seconds = registry->AddHistogram("vllm:inter_token_latency_seconds",
                                               "Between two tokens of a choice.", kInterTokenBuckets, labels);
  inter_token_seconds_old =
      registry->AddHistogram("vllm:time_per_output_token_seconds",
                             "The same as vllm:inter_token_latency_seconds.", kInterTokenBuckets, labels);

  const auto finished = [registry, &labels](const char* reason) {
    return registry->AddCounter("vllm:request_success_total", "Choices and requests that ended.",
                                With(labels, "finished_reason", reason));
  };
  finished_stop = finished("stop");
  finished_length = finished("length");
  finished_abort = finished("abort");
  finished_error = finished("error");
  const auto aborted = [registry](const char* by) {
    return registry->AddCounter("prism_stream_abort_total", "Streams that ended before their end.",
                                {{"by", by}});
  };
  aborted_client = aborted("client");
  aborted_deadline = aborted("deadline");
  aborted_server = aborted("server");
  request_generation_tokens = registry->AddHistogram("vllm:request_generation_tokens",
                                                     "Answer tokens of a choice.", token_buckets, labels);
  const auto request = [registry, &labels](const char* name, const char* help) {
    return registry->AddHistogram(name, help, kRequestBuckets, labels);
  };
  e2e_seconds = request("vllm:e2e_request_latency_seconds", "From acceptance to the end.");
  queue_seconds = request("vllm:request_queue_time_seconds", "From acceptance to the first step.");
  inference_seconds = request("vllm:request_inference_time_seconds", "From the first step to the end.");
  prefill_seconds = request("vllm:request_prefill_time_seconds", "From the first step to the first token.");
  decode_seconds = request("vllm:request_decode_time_seconds", "From the first token to the end.");
  const auto stage = [registry](const char* name) {
    return registry->AddHistogram("prism_stage_seconds", "One stage of a request.", kStageBuckets,
                                  {{"stage", name}});
  };
  stage_queue = stage("queue");
  stage_transfer = stage("transfer");
  stage_prefill = stage("prefill");
  stage_first_token = stage("first_token");
}

}  // namespace prism
