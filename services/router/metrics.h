// Every metric of the router, in the order of a request.
#pragma once

#include "common/metrics/metrics.h"

namespace prism {

struct RouterMetrics {
  explicit RouterMetrics(MetricRegistry* registry);

  Counter requests;   // chats that arrived
  Gauge waiting;      // chats without a first token
  Gauge running;      // chats streaming
  Gauge media_bytes;  // pictures kept, bytes
  Gauge media_files;  // pictures kept

  // prism_request_reject_total{reason}: refused before any work.
  Counter reject_invalid;
  Counter reject_queue_full;
  Counter reject_media_full;
  Counter reject_no_replica;

  // prism_stage_seconds{stage}
  Histogram prompt_s;
  Histogram encode_s;
  Histogram queue_s;
  Histogram pull_s;
  Histogram prefill_s;
  Histogram first_token_s;
  Histogram decode_s;
  Histogram total_s;

  Counter pictures;          // encoded for a chat, cached or computed
  Counter pictures_cached;   // of them found in an encoder's store
  Counter encode_retries;    // on another encoder, because one died or was full
  Counter reencodes;         // because a decoder had lost an embedding
  Counter generate_retries;  // on another decoder, before the first token
  Counter resumes;           // on another decoder, after the first token

  Counter prompt_tokens;
  Counter completion_tokens;
  Counter cached_tokens;  // of the prompts, found in a prefix cache

  // prism_stream_abort_total{by}
  Counter abort_client;
  Counter abort_server;
  Counter abort_decoder;
  Counter abort_deadline;
  Counter abort_slow_reader;

  Gauge encoders_ready;
  Gauge decoders_ready;
};

}  // namespace prism
