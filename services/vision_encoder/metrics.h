// The vision encoder's metrics, in the order of a request.
#pragma once

#include "common/metrics/metrics.h"

namespace prism {

// A default-constructed one takes values and drops them.
struct EncoderMetrics {
  EncoderMetrics() = default;
  explicit EncoderMetrics(MetricRegistry* registry);

  Counter media_bytes;                // bytes received by PutMedia
  Counter idle_uploads;               // PutMedia given up: the next piece did not come
  Gauge media_store_bytes;            // bytes of stored media and of uploads under way
  Gauge waiting;                      // pictures waiting for the device
  Gauge running;                      // pictures in the tower
  Gauge queued_work_s;                // until the device has done what it was given, estimated
  Gauge desired_replicas;             // encoders that this one's work would want; the role wants the sum
  Counter rejected_queue_full;        // Encode refused: --max-queue pictures are under way
  Counter rejected_store_full;        // Encode refused: embeddings under lease fill the store
  Counter rejected_picture;           // Encode refused: the picture
  Counter cancelled;                  // Encode ended by its caller or its deadline
  Histogram image_pixels;             // pixels of a decoded picture
  Histogram decode_seconds;           // file to RGB and content key
  Histogram preprocess_seconds;       // resize and patches
  Histogram queue_seconds;            // waiting for the device
  Histogram encode_seconds;           // tower, of the whole batch
  Histogram batch_images;             // pictures of one pass through the tower
  Histogram batch_patches;            // patches of one pass through the tower
  Counter cache_hits;                 // Encode answered from the store
  Counter cache_joined;               // Encode that waited for another one's computation
  Counter cache_misses;               // Encode that computed
  Gauge store_bytes;                  // bytes of embeddings held
  Gauge store_reserved_bytes;         // bytes reserved for embeddings being computed
  Gauge store_embeddings;             // embeddings held
  Gauge store_handles;                // handles lent out
  Counter embedding_bytes_out;        // bytes sent by FetchEmbedding
  Counter idle_fetches;               // FetchEmbedding given up: nobody took its frames
  Gauge last_step_timestamp_seconds;  // when the device thread last made progress, in seconds since 1970
};

}  // namespace prism
