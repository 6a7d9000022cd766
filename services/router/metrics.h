// Every metric of the router, in the order of a request.
#pragma once

#include "common/metrics/metrics.h"

namespace prism {

struct RouterMetrics {
  explicit RouterMetrics(MetricRegistry* registry);

  Counter requests;           // chats that arrived
  Gauge waiting;              // chats without a first token
  Gauge running;              // chats streaming
  Gauge queued;               // admitted chats without a decoder
  Gauge queued_work_s;        // until all of them have one, estimated
  Gauge media_bytes;          // pictures kept or being uploaded, bytes
  Gauge media_files;          // pictures kept
  Gauge journal_bytes;        // events kept for Resume, bytes
  Gauge journal_generations;  // chats whose events are kept, running ones included

  // prism_result_cache_total{result}, of every chat: an answer that was there or under way; none; the
  // store failed; not asked, because the chat may answer differently every time or the store is left alone.
  Counter result_cache_hit;
  Counter result_cache_miss;
  Counter result_cache_error;
  Counter result_cache_bypass;
  Gauge redis_breaker;  // 0 closed, 1 open, 2 half open

  // prism_request_reject_total{reason}: refused before any work.
  Counter reject_invalid;
  Counter reject_queue_full;
  Counter reject_wait;      // the estimated wait is above --queue-wait-ms
  Counter reject_deadline;  // ... or reaches past the deadline
  Counter reject_media_full;
  Counter reject_no_replica;
  Counter reject_journal_full;
  // prism_ratelimit_reject_total{scope}: a tenant's own limits.
  Counter ratelimit_concurrency;
  Counter ratelimit_tokens;

  // prism_grammar_total{result}: forms of answers that chats asked for: kept from before, compiled, or not to
  // be enforced.
  Counter grammar_cached;
  Counter grammar_compiled;
  Counter grammar_failed;
  Histogram grammar_compile_s;

  Gauge encode_waiting;    // pictures that wait for an encoder
  Gauge generate_waiting;  // prompts that wait for a decoder

  // prism_stage_seconds{stage}
  Histogram prompt_s;
  Histogram fetch_s;
  Histogram encode_s;  // all pictures; of it, the longest of any picture, on its encoder:
  Histogram image_decode_s;
  Histogram preprocess_s;
  Histogram encoder_queue_s;
  Histogram tower_s;
  Histogram encode_queue_s;  // of a picture, waiting for an encoder
  Histogram dispatch_s;      // of a prompt, waiting for a decoder
  Histogram queue_s;
  Histogram pull_s;
  Histogram prefill_s;
  Histogram first_token_s;
  Histogram decode_s;
  Histogram total_s;

  Counter pictures;          // encoded for a chat, cached or computed
  Counter pictures_cached;   // of them found in an encoder's store
  Counter encode_retries;    // on another encoder, because one died or was full
  Counter hedges;            // pictures sent to a second encoder because the first was slow
  Counter hedges_won;        // of them answered by the second
  Counter reencodes;         // because a decoder had lost an embedding
  Counter generate_retries;  // on another decoder, before the first token
  Counter resumes;           // on another decoder, after the first token
  Counter reconnects;        // clients that came back through Resume
  Counter attached;          // requests that found their idempotency key's chat

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
