// Errors as OpenAI's clients read them: {"error":{"message","type","param","code"}}, an HTTP status,
// and headers that say whether and when to come back.
//
// Thread safety: functions only.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "services/gateway/http_server.h"

namespace prism {

struct ApiError {
  int http_status = 500;
  std::string type;                 // "BadRequestError", ...
  std::string message;              // fit to be shown: no addresses, no paths
  std::string param;                // path of the field; empty: null in the body
  std::string code;                 // in the body; empty: the status
  std::vector<HttpHeader> headers;  // Retry-After, x-should-retry, ...
};

// An error with the type that belongs to the status: 400, 413 BadRequestError, 401
// AuthenticationError, 403 PermissionDeniedError, 404 NotFoundError, 422 UnprocessableEntityError,
// 429 RateLimitError, 501 NotImplementedError, 503 ServiceUnavailableError, 504 TimeoutError, 500
// InternalServerError, otherwise the reason phrase. 401 has the code that OpenAI gives it and says how to
// come with a key.
ApiError MakeApiError(int http_status, absl::string_view message, absl::string_view param = "");

// What a client is told of `status`:
//   InvalidArgument, OutOfRange   400 (413 with reason TOO_LARGE), param from BadRequest
//   NotFound 404, PermissionDenied 403, Unauthenticated 401, Unimplemented 501
//   ResourceExhausted             429: Retry-After from RetryInfo; without it x-should-retry: false
//   Unavailable, Cancelled, Aborted, FailedPrecondition
//                                 503 with Retry-After
//   DeadlineExceeded              504
//   anything else                 500
// A message is passed on only where one of ours wrote it for callers (the first four lines, and
// Unavailable with ErrorInfo), with addresses and paths taken out; else it is a fixed sentence.
ApiError ApiErrorFrom(const absl::Status& status);

// `text` with IP addresses, host:port pairs, file paths and hexadecimal addresses replaced by "...".
std::string Sanitize(absl::string_view text);

// The JSON body.
std::string ErrorBody(const ApiError& error);

}  // namespace prism
