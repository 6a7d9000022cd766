#include "services/vision_encoder/metrics.h"

#include "common/metrics/buckets.h"

namespace prism {
namespace {

Histogram Stage(MetricRegistry* registry, const char* stage) {
  return registry->AddHistogram("prism_stage_seconds", "Seconds of one stage of a request.", kStageBuckets,
                                {{"stage", stage}});
}
Counter Rejected(MetricRegistry* registry, const char* reason) {
  return registry->AddCounter("prism_request_reject_total", "Requests refused.", {{"reason", reason}});
}
Counter Idle(MetricRegistry* registry, const char* stream) {
  return registry->AddCounter("prism_stream_idle_total", "Streams given up because nothing moved.",
                              {{"stream", stream}});
}
Counter Cache(MetricRegistry* registry, const char* result) {
  return registry->AddCounter(
      "prism_embedding_cache_total",
      "Pictures answered from the store (hit), by another call's work (joined), by work (miss).",
      {{"result", result}});
}

}  // namespace

EncoderMetrics::EncoderMetrics(MetricRegistry* registry)
    : media_bytes(registry->AddCounter("prism_media_bytes_total", "Bytes of media received by PutMedia.")),
      idle_uploads(Idle(registry, "upload")),
      media_store_bytes(
          registry->AddGauge("prism_media_store_bytes", "Bytes of stored media and of uploads under way.")),
      waiting(registry->AddGauge("prism_encode_waiting", "Pictures waiting for the device.")),
      running(registry->AddGauge("prism_encode_running", "Pictures in the tower.")),
      queued_work_s(registry->AddGauge("prism_encode_queued_work_seconds",
                                       "Estimated time until the device has done what it was given.")),
      desired_replicas(registry->AddGauge(
          "prism_desired_replicas", "Replicas that this one's work would want; the role wants the sum.")),
      rejected_queue_full(Rejected(registry, "queue_full")),
      rejected_store_full(Rejected(registry, "store_full")),
      rejected_picture(Rejected(registry, "picture")),
      cancelled(
          registry->AddCounter("prism_encode_cancelled_total", "Calls ended by their caller or deadline.")),
      image_pixels(registry->AddHistogram("prism_image_pixels", "Pixels of a decoded picture.",
                                          OneTwoFiveBuckets(50e6))),
      decode_seconds(Stage(registry, "decode_image")),
      preprocess_seconds(Stage(registry, "preprocess")),
      queue_seconds(Stage(registry, "queue")),
      encode_seconds(Stage(registry, "encode")),
      batch_images(registry->AddHistogram("prism_encode_batch_images",
                                          "Pictures of one pass through the tower.", OneTwoFiveBuckets(128))),
      batch_patches(registry->AddHistogram(
          "prism_encode_batch_patches", "Patches of one pass through the tower.", OneTwoFiveBuckets(131072))),
      cache_hits(Cache(registry, "hit")),
      cache_joined(Cache(registry, "joined")),
      cache_misses(Cache(registry, "miss")),
      store_bytes(registry->AddGauge("prism_embedding_store_bytes", "Bytes of embeddings held.")),
      store_reserved_bytes(registry->AddGauge("prism_embedding_store_reserved_bytes",
                                              "Bytes reserved for embeddings being computed.")),
      store_embeddings(registry->AddGauge("prism_embedding_store_embeddings", "Embeddings held.")),
      store_handles(registry->AddGauge("prism_embedding_store_handles", "Handles lent out.")),
      embedding_bytes_out(registry->AddCounter("prism_embedding_bytes_total", "Bytes of embeddings moved.",
                                               {{"dir", "out"}})),
      idle_fetches(Idle(registry, "fetch")),
      last_step_timestamp_seconds(
          registry->AddGauge("prism_engine_last_step_timestamp_seconds",
                             "When the device thread last made progress, in seconds since 1970.")) {}

}  // namespace prism
