#include "services/gateway/api_error.h"

#include <algorithm>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "common/base/log.h"
#include "common/wire/status_codec.h"
#include "services/gateway/chat_request.h"

namespace prism {
namespace {

// When the router named no delay of its own.
constexpr int64_t kRetryDefaultMs = 1000;

absl::string_view TypeOf(int http_status) {
  switch (http_status) {
    case 400:
    case 405:
    case 408:
    case 411:
    case 413:
    case 414:
    case 417:
    case 431:
      return "BadRequestError";
    case 401:
      return "AuthenticationError";
    case 403:
      return "PermissionDeniedError";
    case 404:
      return "NotFoundError";
    case 409:
      return "ConflictError";
    case 422:
      return "UnprocessableEntityError";
    case 429:
      return "RateLimitError";
    case 501:
      return "NotImplementedError";
    case 503:
      return "ServiceUnavailableError";
    case 504:
      return "TimeoutError";
    default:
      return "InternalServerError";
  }
}

void AddRetryAfter(int64_t delay_ms, ApiError* error) {
  delay_ms = std::clamp<int64_t>(delay_ms, 1, 3'600'000);
  error->headers.push_back({"Retry-After", absl::StrCat((delay_ms + 999) / 1000)});
  error->headers.push_back({"retry-after-ms", absl::StrCat(delay_ms)});
}

bool IsAddressByte(char c) { return absl::ascii_isalnum(c) || c == '.' || c == '-' || c == '_'; }

bool AllDigits(absl::string_view text) {
  return !text.empty() &&
         std::all_of(text.begin(), text.end(), [](char c) { return absl::ascii_isdigit(c); });
}

bool IsDottedQuad(absl::string_view text) {
  int dots = 0;
  bool digit = false;
  for (const char c : text) {
    if (c == '.') {
      if (!digit) return false;
      ++dots;
      digit = false;
    } else if (absl::ascii_isdigit(c)) {
      digit = true;
    } else {
      return false;
    }
  }
  return dots == 3 && digit;
}

// Would a stranger learn from `word` where something of ours is?
bool IsTelling(absl::string_view word) {
  if (absl::StartsWithIgnoreCase(word, "0x") && word.size() >= 8) return true;
  for (const char* scheme : {"ipv4:", "ipv6:", "unix:", "dns:", "file:"}) {
    if (absl::StartsWithIgnoreCase(word, scheme)) return true;
  }
  if (!word.empty() && word[0] == '[' && absl::StrContains(word, "]:")) return true;
  if (!word.empty() && word[0] == '/' && absl::StrContains(word.substr(1), "/")) return true;
  const size_t colon = word.rfind(':');
  const absl::string_view host = word.substr(0, colon);
  const absl::string_view port =
      colon == absl::string_view::npos ? absl::string_view() : word.substr(colon + 1);
  if (IsDottedQuad(host)) return true;
  return host.size() >= 2 && port.size() >= 2 && port.size() <= 5 && AllDigits(port) && !AllDigits(host) &&
         std::all_of(host.begin(), host.end(), IsAddressByte);
}

}  // namespace

ApiError MakeApiError(int http_status, absl::string_view message, absl::string_view param) {
  ApiError error;
  error.http_status = http_status;
  error.type = std::string(TypeOf(http_status));
  error.message = std::string(message);
  error.param = std::string(param);
  if (http_status == 401) {
    error.code = "invalid_api_key";
    error.headers.push_back({"WWW-Authenticate", "Bearer"});
  }
  return error;
}

std::string Sanitize(absl::string_view text) {
  std::string clean;
  size_t at = 0;
  const auto separates = [](char c) {
    return absl::ascii_isspace(c) || c == ',' || c == ';' || c == '(' || c == ')' || c == '"' || c == '\'' ||
           c == '=' || c == '<' || c == '>';
  };
  while (at < text.size()) {
    size_t end = at;
    while (end < text.size() && !separates(text[end])) ++end;
    absl::string_view word = text.substr(at, end - at);
    absl::string_view tail;
    while (!word.empty() && (word.back() == ':' || word.back() == '.')) {
      tail = text.substr(at + word.size() - 1, tail.size() + 1);
      word.remove_suffix(1);
    }
    if (IsTelling(word)) {
      clean += "...";
    } else {
      clean.append(word.data(), word.size());
    }
    clean.append(tail.data(), tail.size());
    if (end < text.size()) clean += text[end];
    at = end + 1;
  }
  return clean;
}

ApiError ApiErrorFrom(const absl::Status& status) {
  const std::string message = Sanitize(status.message());
  const std::string reason = ReasonOf(status);
  switch (status.code()) {
    case absl::StatusCode::kInvalidArgument:
    case absl::StatusCode::kOutOfRange: {
      const std::vector<InvalidField> fields = InvalidFieldsOf(status);
      if (reason == kReasonTooLarge) return MakeApiError(413, message, MetadataOf(status, "param"));
      return MakeApiError(400, message, fields.empty() ? "" : fields.front().path);
    }
    case absl::StatusCode::kNotFound:
      return MakeApiError(404, message);
    case absl::StatusCode::kAlreadyExists:
      return MakeApiError(409, message);
    case absl::StatusCode::kPermissionDenied:
      return MakeApiError(403, message);
    case absl::StatusCode::kUnauthenticated:
      return MakeApiError(401, message);
    case absl::StatusCode::kUnimplemented:
      return MakeApiError(501, message);
    case absl::StatusCode::kResourceExhausted: {
      ApiError error = MakeApiError(429, message);
      if (const auto delay_ms = RetryDelayMsOf(status); delay_ms.has_value()) {
        AddRetryAfter(*delay_ms, &error);
      } else {
        error.headers.push_back({"x-should-retry", "false"});
      }
      return error;
    }
    case absl::StatusCode::kUnavailable:
    case absl::StatusCode::kCancelled:
    case absl::StatusCode::kAborted:
    case absl::StatusCode::kFailedPrecondition: {
      const bool ours = absl::IsUnavailable(status) && !reason.empty();
      ApiError error = MakeApiError(503, ours ? message : "the service cannot answer just now, try again");
      AddRetryAfter(RetryDelayMsOf(status).value_or(kRetryDefaultMs), &error);
      return error;
    }
    case absl::StatusCode::kDeadlineExceeded:
      return MakeApiError(504, "the request did not finish in time");
    default:
      return MakeApiError(500, "internal error");
  }
}

std::string ErrorBody(const ApiError& error) {
  return absl::StrCat(
      "{\"error\":{\"message\":", JsonQuote(error.message), ",\"type\":", JsonQuote(error.type),
      ",\"param\":", error.param.empty() ? std::string("null") : JsonQuote(error.param),
      ",\"code\":", error.code.empty() ? absl::StrCat(error.http_status) : JsonQuote(error.code), "}}");
}

}  // namespace prism
