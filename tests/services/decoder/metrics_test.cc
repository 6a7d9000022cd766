#include "services/decoder/metrics.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/common/metrics/metric_shape.h"

namespace prism {
namespace {

using testing::HasSubstr;

TEST(DecoderMetricsTest, ShowsTheNamesThatDashboardsQuery) {
  MetricRegistry registry;
  DecoderMetrics metrics(&registry, {.model_name = "m", .model_length_max = 1000, .kv_pages = 12});
  metrics.running.Set(3);
  metrics.first_token_seconds.Observe(0.2);
  const std::string text = registry.Text();
  for (const char* name : {"vllm:num_requests_running{",
                           "vllm:num_requests_waiting{",
                           "vllm:kv_cache_usage_perc{",
                           "vllm:gpu_cache_usage_perc{",
                           "vllm:prompt_tokens_total{",
                           "vllm:generation_tokens_total{",
                           "vllm:num_preemptions_total{",
                           "vllm:request_success_total{",
                           "vllm:iteration_tokens_total_count{",
                           "vllm:request_prompt_tokens_bucket{",
                           "vllm:request_generation_tokens_bucket{",
                           "vllm:request_params_n_bucket{",
                           "vllm:request_params_max_tokens_bucket{",
                           "vllm:time_to_first_token_seconds_bucket{",
                           "vllm:inter_token_latency_seconds_bucket{",
                           "vllm:time_per_output_token_seconds_bucket{",
                           "vllm:e2e_request_latency_seconds_bucket{",
                           "vllm:request_queue_time_seconds_bucket{",
                           "vllm:request_inference_time_seconds_bucket{",
                           "vllm:request_prefill_time_seconds_bucket{",
                           "vllm:request_decode_time_seconds_bucket{",
                           "vllm:cache_config_info{",
                           "vllm:mm_cache_queries_total{",
                           "vllm:mm_cache_hits_total{",
                           "vllm:prefix_cache_queries_total{",
                           "vllm:prefix_cache_hits_total{",
                           "prism_kv_pages{state=\"free\"}",
                           "prism_kv_pages{state=\"cached\"}",
                           "prism_stage_seconds_bucket{",
                           "prism_embedding_reject_total{reason=\"corrupt\"}",
                           "prism_request_reject_total{reason=\"queue_full\"}",
                           "prism_stream_abort_total{by=\"client\"}",
                           "prism_engine_last_step_timestamp_seconds"}) {
    EXPECT_THAT(text, HasSubstr(name));
  }
  EXPECT_THAT(text, HasSubstr("num_gpu_blocks=\"12\""));
  EXPECT_THAT(text, HasSubstr("block_size=\"64\""));
}

TEST(DecoderMetricsTest, ShowsTheNamesThatAreWrittenDown) {
  MetricRegistry registry;
  DecoderMetrics metrics(&registry, {.model_name = "m", .model_length_max = 1000, .kv_pages = 12});
  ExpectShapeOf(registry.Text(), PRISM_SOURCE_DIR "/tests/services/decoder/metrics.golden");
}

TEST(DecoderMetricsTest, DropsValuesWithoutARegistry) {
  DecoderMetrics metrics;
  metrics.running.Set(3);
  metrics.prompt_tokens.Increment();
  EXPECT_EQ(metrics.prompt_tokens.value(), 0);
}

}  // namespace
}  // namespace prism
