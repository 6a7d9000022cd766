// One POST /v1/chat/completions, or one GET of a resumable chat's events, from its parsed body to the end of
// its answer: uploads pictures that do not fit a message, calls the router, and turns its events into a body
// or a stream.
//
// Failure before the first token is an HTTP status: the head of a stream is held back until the first
// token, or for head_delay. After it, failure is an event with the error and then [DONE].
// Chunks of a resumable chat carry their event's number as their SSE id, the last one where an event has
// several, so that who comes back with the last id it saw misses nothing and hears nothing twice.
// The client's going cancels the call; its not reading holds the router back by flow control.
//
// Threads: on the exchange's strand.
// Ownership: a session keeps itself alive until both the exchange and the router's call are over.
#pragma once

#include <chrono>
#include <functional>
#include <memory>
#include <string>

#include "services/gateway/chat_request.h"
#include "services/gateway/http_server.h"
#include "services/gateway/metrics.h"
#include "services/gateway/router_client.h"

namespace prism {

// Pictures travel inside the request up to this many bytes of message; beyond, they are uploaded.
inline constexpr size_t kInlineRequestBytesMax = 8 << 20;
// What a request may have besides pictures: below the largest message, with room for gRPC's framing.
inline constexpr size_t kTextRequestBytesMax = (10 << 20) - (64 << 10);

struct ChatSessionOptions {
  std::chrono::milliseconds request_timeout{300'000};
  std::chrono::milliseconds head_delay{1'000};
  std::chrono::milliseconds keep_alive{10'000};
  std::string request_id;
  std::string traceparent;  // for the router; empty: none
  // Called once, when the answer is complete or given up, with its HTTP status.
  std::function<void(int http_status)> answered;
};

// `router` and `metrics` outlive the exchange.
void ServeChat(ChatCompletion completion, std::shared_ptr<HttpExchange> exchange, RouterClient* router,
               GatewayMetrics* metrics, ChatSessionOptions options);

// A client that comes back to its chat.
struct ChatResumption {
  std::string generation_id;  // 16 bytes
  uint64_t from = 0;          // number of the first event wanted
  bool include_usage = false;
};
void ServeResumption(const ChatResumption& resumption, std::shared_ptr<HttpExchange> exchange,
                     RouterClient* router, GatewayMetrics* metrics, ChatSessionOptions options);

}  // namespace prism
