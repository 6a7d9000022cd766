// W3C trace context: the header that ties the log lines of one request together, whichever programs
// and tools wrote them (https://www.w3.org/TR/trace-context/, version 00).
//
//   traceparent: 00-<trace id, 32 hex>-<span id, 16 hex>-<flags, 2 hex>
//
// Thread safety: functions and a plain value.
#pragma once

#include <grpcpp/client_context.h>
#include <grpcpp/server_context.h>

#include <optional>
#include <string>

#include "absl/strings/string_view.h"

namespace prism {

struct TraceContext {
  std::string trace_id;        // of the whole request
  std::string span_id;         // of this program's part of it
  std::string parent_span_id;  // of the caller's part; empty: it began here
  std::string flags = "00";

  // The value that a callee gets.
  std::string header() const;
};

// The caller's, with a span of our own; one that begins here where `header` is empty or malformed.
TraceContext ContinueTrace(absl::string_view header);

// The traceparent among a call's metadata; empty without.
std::string TraceparentOf(const grpc::ServerContextBase& context);
// Sends it along. REQUIRES: the context's call has not started.
void SetTraceparent(grpc::ClientContext* context, const std::string& header);

}  // namespace prism
