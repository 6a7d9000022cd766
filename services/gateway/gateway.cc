#include "services/gateway/gateway.h"

#include <algorithm>
#include <atomic>
#include <utility>
#include <vector>

#include "absl/strings/ascii.h"
#include "absl/strings/escaping.h"
#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "absl/strings/strip.h"
#include "common/base/ids.h"
#include "common/base/log.h"
#include "common/base/mutex.h"
#include "common/rpc/trace_context.h"
#include "common/wire/request_limits.h"
#include "common/wire/status_codec.h"
#include "services/gateway/api_error.h"
#include "services/gateway/api_keys.h"
#include "services/gateway/chat_session.h"
#include "services/gateway/live_count.h"
#include "services/gateway/openai_response.h"

namespace prism {
namespace {

using std::chrono::milliseconds;

constexpr milliseconds kHealthTimeout{2'000};
constexpr milliseconds kModelsTimeout{5'000};
// While we drain, clients should find another gateway soon.
constexpr int64_t kDrainRetryMs = 1'000;
constexpr size_t kRequestIdBytesMax = 64;

HttpAnswer JsonAnswer(int status, std::string body) {
  return {status, {{"Content-Type", "application/json"}}, std::move(body)};
}

HttpAnswer ErrorAnswer(const ApiError& error) {
  HttpAnswer answer = JsonAnswer(error.http_status, ErrorBody(error));
  answer.headers.insert(answer.headers.end(), error.headers.begin(), error.headers.end());
  return answer;
}

// ---- Routes --------------------------------------------------------------------------------------------

enum class Route { kNone, kHealth, kReady, kModels, kModel, kChat, kEvents, kGeneration };

constexpr char kModelPrefix[] = "/v1/models/";
constexpr char kGenerationPrefix[] = "/v1/generations/";
constexpr char kEventsSuffix[] = "/events";

Route RouteOf(absl::string_view path) {
  if (path == "/healthz") return Route::kHealth;
  if (path == "/readyz") return Route::kReady;
  if (path == "/v1/models") return Route::kModels;
  if (path == "/v1/chat/completions") return Route::kChat;
  if (absl::StartsWith(path, kModelPrefix) && path.size() > sizeof(kModelPrefix) - 1) return Route::kModel;
  if (absl::StartsWith(path, kGenerationPrefix)) {
    return absl::EndsWith(path, kEventsSuffix) ? Route::kEvents : Route::kGeneration;
  }
  return Route::kNone;
}

const char* MethodOf(Route route) {
  if (route == Route::kChat) return "POST";
  return route == Route::kGeneration ? "DELETE" : "GET";
}

// The bytes that "chatcmpl-HEX" or "HEX" of 32 digits names; empty for anything else.
std::string GenerationIdOf(absl::string_view text) {
  absl::ConsumePrefix(&text, "chatcmpl-");
  if (text.size() != 32 || !std::all_of(text.begin(), text.end(), absl::ascii_isxdigit)) return "";
  return absl::HexStringToBytes(text);
}

// The value of a query's field; empty without.
absl::string_view QueryField(absl::string_view target, absl::string_view name) {
  const size_t mark = target.find('?');
  if (mark == absl::string_view::npos) return "";
  for (const absl::string_view field : absl::StrSplit(target.substr(mark + 1), '&')) {
    if (absl::StartsWith(field, name) && field.substr(name.size(), 1) == "=") {
      return field.substr(name.size() + 1);
    }
  }
  return "";
}

absl::Status NoSuchGeneration() {
  return absl::NotFoundError("there is no such generation: its id has not 32 hexadecimal digits");
}

// What a client that comes back asks for. InvalidArgument names the field.
absl::StatusOr<ChatResumption> ParseResumption(const HttpRequest& request) {
  ChatResumption resumption;
  absl::string_view id = request.Path();
  absl::ConsumePrefix(&id, kGenerationPrefix);
  absl::ConsumeSuffix(&id, kEventsSuffix);
  resumption.generation_id = GenerationIdOf(id);
  if (resumption.generation_id.empty()) return NoSuchGeneration();
  const absl::string_view from = QueryField(request.target, "from");
  const absl::string_view last = request.Header("last-event-id");
  uint64_t number = 0;
  if (!last.empty()) {
    if (!absl::SimpleAtoi(last, &number) || number == UINT64_MAX) {
      return FieldViolation("Last-Event-ID", "is no number of an event");
    }
    resumption.from = number + 1;
  } else if (!from.empty()) {
    if (!absl::SimpleAtoi(from, &number)) return FieldViolation("from", "is no number of an event");
    resumption.from = number;
  }
  resumption.include_usage = QueryField(request.target, "include_usage") == "true";
  return resumption;
}

// Probes are answered without a key; all else is denied by default.
bool IsOpen(Route route) { return route == Route::kHealth || route == Route::kReady; }

// The key of "Authorization: Bearer KEY"; empty without.
absl::string_view BearerOf(const HttpRequest& request) {
  constexpr absl::string_view kScheme = "Bearer ";
  const absl::string_view value = request.Header("authorization");
  if (!absl::StartsWithIgnoreCase(value, kScheme)) return "";
  return absl::StripAsciiWhitespace(value.substr(kScheme.size()));
}

// Names for metrics and the log: a fixed set.
std::string NameOf(Route route) {
  switch (route) {
    case Route::kNone:
      return "none";
    case Route::kHealth:
      return "healthz";
    case Route::kReady:
      return "readyz";
    case Route::kModels:
      return "models";
    case Route::kModel:
      return "model";
    case Route::kChat:
      return "chat_completions";
    case Route::kEvents:
      return "generation_events";
    case Route::kGeneration:
      return "generation";
  }
  return "none";
}

std::string MethodLabel(absl::string_view method) {
  return method == "GET" || method == "POST" ? std::string(method) : "other";
}

// "%2F" and the like; what is no escape stays.
std::string PercentDecode(absl::string_view text) {
  std::string decoded;
  for (size_t i = 0; i < text.size(); ++i) {
    if (text[i] == '%' && i + 2 < text.size() && absl::ascii_isxdigit(text[i + 1]) &&
        absl::ascii_isxdigit(text[i + 2])) {
      decoded += static_cast<char>(std::stoi(std::string(text.substr(i + 1, 2)), nullptr, 16));
      i += 2;
    } else {
      decoded += text[i];
    }
  }
  return decoded;
}

// The client's x-request-id where it is fit for a log, else a new one.
std::string RequestIdOf(const HttpRequest& request) {
  const absl::string_view given = request.Header("x-request-id");
  bool fit = !given.empty() && given.size() <= kRequestIdBytesMax;
  for (const char c : given) fit = fit && (absl::ascii_isalnum(c) || c == '-' || c == '_' || c == '.');
  return fit ? std::string(given) : NewId();
}

// ---- Readiness -------------------------------------------------------------------------------------------

// Asks the router's health at most once per time to live, however many ask us.
//
// Thread safety: all methods from any thread; callbacks run on any thread.
class Readiness : public std::enable_shared_from_this<Readiness> {
 public:
  Readiness(RouterClient* router, milliseconds ttl) : router_(router), ttl_(ttl) {}

  void Ask(std::function<void(absl::Status)> done) ABSL_LOCKS_EXCLUDED(mutex_) {
    std::optional<absl::Status> known;
    bool first = false;
    {
      MutexLock lock(&mutex_);
      if (Clock::Real().Now() < fresh_until_) {
        known = last_;
      } else {
        first = waiting_.empty();
        waiting_.push_back(std::move(done));
      }
    }
    // NOLINTNEXTLINE(bugprone-use-after-move): it is moved only where nothing is known
    if (known.has_value()) return done(*known);
    if (!first) return;
    router_->CheckHealth(Clock::Real().Now() + kHealthTimeout,
                         [self = shared_from_this()](const absl::Status& status) { self->Heard(status); });
  }
  absl::Status last() const ABSL_LOCKS_EXCLUDED(mutex_) {
    MutexLock lock(&mutex_);
    return last_;
  }

 private:
  void Heard(const absl::Status& status) ABSL_LOCKS_EXCLUDED(mutex_) {
    std::vector<std::function<void(absl::Status)>> waiting;
    {
      MutexLock lock(&mutex_);
      last_ = status;
      fresh_until_ = Clock::Real().Now() + ttl_;
      waiting.swap(waiting_);
    }
    for (const auto& done : waiting) done(status);
  }

  RouterClient* const router_;
  const milliseconds ttl_;
  mutable Mutex mutex_;
  absl::Status last_ ABSL_GUARDED_BY(mutex_) = absl::UnavailableError("the router was not asked yet");
  SteadyTime fresh_until_ ABSL_GUARDED_BY(mutex_) = {};
  // One a connection at most.
  std::vector<std::function<void(absl::Status)>> waiting_ ABSL_GUARDED_BY(mutex_);
};

// ---- The gateway ---------------------------------------------------------------------------------------

class HttpGateway final : public Gateway {
 public:
  HttpGateway(const GatewayOptions& options, std::shared_ptr<grpc::Channel> channel, MetricRegistry* registry)
      : options_(options),
        metrics_(registry),
        router_(std::move(channel)),
        readiness_(std::make_shared<Readiness>(&router_, options.ready_ttl)) {}
  ~HttpGateway() override {
    if (server_ != nullptr) server_->Stop();
  }

  absl::Status OpenApiKeys() {
    if (options_.api_key_file.empty()) return absl::OkStatus();
    absl::StatusOr<std::unique_ptr<ApiKeyFile>> file = ApiKeyFile::Open(
        options_.api_key_file, options_.api_key_interval, [this](const absl::StatusOr<size_t>& num_keys) {
          if (num_keys.ok()) {
            metrics_.api_key_files_read.Increment();
            metrics_.api_keys.Set(static_cast<double>(*num_keys));
            LogInfo("API keys were read", {{"keys", *num_keys}});
          } else {
            metrics_.api_key_files_refused.Increment();
            LogError("API keys cannot be read; those of before stay",
                     {{"error", num_keys.status().message()}});
          }
        });
    if (!file.ok()) return file.status();
    api_keys_ = *std::move(file);
    return absl::OkStatus();
  }

  absl::Status Listen() {
    HttpServerOptions http;
    http.host = options_.host;
    http.port = options_.port;
    http.num_threads = options_.num_threads;
    http.body_bytes_max = options_.body_bytes_max;
    http.connections_max = options_.connections_max;
    http.header_timeout = options_.header_timeout;
    http.write_timeout = options_.write_timeout;
    http.handler = [this](HttpRequest request, std::shared_ptr<HttpExchange> exchange) {
      Handle(std::move(request), std::move(exchange));
    };
    http.check_head = [this](const HttpRequest& request) { return CheckHead(request); };
    http.error_answer = [this](int status, absl::string_view message) {
      ApiError error = MakeApiError(status, message);
      if (status == 503) error.headers.push_back({"Retry-After", "1"});
      metrics_.Answered("none", "other", status, 0);
      return ErrorAnswer(error);
    };
    absl::StatusOr<std::unique_ptr<HttpServer>> server = HttpServer::Start(std::move(http));
    if (!server.ok()) return server.status();
    server_ = *std::move(server);
    return absl::OkStatus();
  }

  int port() const override { return server_->port(); }

  absl::Status Ready() const override {
    if (draining_) return Draining();
    readiness_->Ask([](const absl::Status&) {});  // for the next time
    return readiness_->last();
  }

  void Drain(milliseconds grace) override {
    draining_ = true;
    server_->CloseAfterAnswers();
    if (!chats_.WaitZero(Clock::Real().Now() + grace)) {
      LogWarning("chats are cut off by the drain", {{"chats", chats_.value()}});
    }
    server_->Stop();
  }

 private:
  static absl::Status Draining() {
    return RetryAfter(
        ErrorWithReason(absl::StatusCode::kUnavailable, "this gateway is shutting down", kReasonDraining),
        kDrainRetryMs);
  }

  std::optional<HttpAnswer> CheckHead(const HttpRequest& request) {
    std::optional<ApiError> error;
    const Route route = RouteOf(request.Path());
    if (request.target.empty() || request.target[0] != '/') {
      error = MakeApiError(400, "want a request target that starts with /");
    } else if (const absl::Status key = Authenticate(request, route).status(); !key.ok()) {
      error = ApiErrorFrom(key);
    } else if (route == Route::kNone) {
      error = MakeApiError(404, "there is nothing at this path");
    } else if (request.method != MethodOf(route)) {
      error = MakeApiError(405, absl::StrCat("want method ", MethodOf(route)));
      error->headers.push_back({"Allow", MethodOf(route)});
    } else if ((route == Route::kChat || route == Route::kEvents) && draining_) {
      error = ApiErrorFrom(Draining());
    }
    if (!error.has_value()) return std::nullopt;
    metrics_.Answered(NameOf(route), MethodLabel(request.method), error->http_status, 0);
    return ErrorAnswer(*error);
  }

  // The tenant whose key came with the request; empty where no key is asked for. Unauthenticated: none came,
  // or one that is nobody's.
  absl::StatusOr<std::string> Authenticate(const HttpRequest& request, Route route) const {
    if (api_keys_ == nullptr || IsOpen(route)) return std::string();
    const absl::string_view key = BearerOf(request);
    if (key.empty()) {
      return absl::UnauthenticatedError(
          "there is no API key: want a header \"Authorization: Bearer KEY\" with one");
    }
    std::optional<std::string> tenant = api_keys_->TenantOf(key);
    if (!tenant.has_value()) return absl::UnauthenticatedError("the API key is not one of this server's");
    return *std::move(tenant);
  }

  // Counts and logs one answer, when it is told how it ended.
  std::function<void(int)> Recorder(Route route, const std::string& request_id, const TraceContext& trace) {
    const SteadyTime start = Clock::Real().Now();
    return [this, route, request_id, trace, start](int http_status) {
      const double seconds = SecondsBetween(start, Clock::Real().Now());
      metrics_.Answered(NameOf(route), MethodOf(route), http_status, seconds);
      if (route == Route::kHealth || route == Route::kReady) return;  // probes would fill the log
      LogInfo("request", {{"request", request_id},
                          {"trace_id", trace.trace_id},
                          {"span_id", trace.span_id},
                          {"parent_span_id", trace.parent_span_id},
                          {"handler", NameOf(route)},
                          {"status", http_status},
                          {"seconds", seconds}});
    };
  }

  void Handle(HttpRequest request, std::shared_ptr<HttpExchange> exchange) {
    const Route route = RouteOf(request.Path());
    const std::string request_id = RequestIdOf(request);
    const TraceContext trace = ContinueTrace(request.Header("traceparent"));
    std::function<void(int)> answered = Recorder(route, request_id, trace);
    // Once more: the key may be gone since the head came.
    const absl::StatusOr<std::string> tenant = Authenticate(request, route);
    if (!tenant.ok()) return Refuse(tenant.status(), *exchange, request_id, answered);
    switch (route) {
      case Route::kHealth:
        exchange->SendUnary(JsonAnswer(200, "{\"status\":\"ok\"}"));
        answered(200);
        break;
      case Route::kReady:
        HandleReady(exchange, answered);
        break;
      case Route::kModels:
      case Route::kModel:
        HandleModels(request, exchange, request_id, answered);
        break;
      case Route::kChat:
        HandleChat(request, *tenant, std::move(exchange), request_id, trace, std::move(answered));
        break;
      case Route::kEvents:
        HandleEvents(request, std::move(exchange), request_id, std::move(answered));
        break;
      case Route::kGeneration:
        HandleCancel(request, exchange, request_id, answered);
        break;
      case Route::kNone:
        exchange->SendUnary(ErrorAnswer(MakeApiError(404, "there is nothing at this path")));
        break;
    }
  }

  void HandleReady(const std::shared_ptr<HttpExchange>& exchange, const std::function<void(int)>& answered) {
    const auto answer = [exchange, answered](const absl::Status& status) {
      if (status.ok()) {
        exchange->SendUnary(JsonAnswer(200, "{\"status\":\"ready\"}"));
        answered(200);
      } else {
        exchange->SendUnary(ErrorAnswer(ApiErrorFrom(status)));
        answered(503);
      }
    };
    if (draining_) return answer(Draining());
    readiness_->Ask([exchange, answer](const absl::Status& status) {
      // Whatever the router's health call ended with, for a probe it is "not ready".
      const absl::Status shown =
          status.ok() ? status
                      : RetryAfter(ErrorWithReason(absl::StatusCode::kUnavailable, "the router is not ready",
                                                   kReasonNoReplica),
                                   kDrainRetryMs);
      exchange->Post([answer, shown] { answer(shown); });
    });
  }

  void HandleModels(const HttpRequest& request, const std::shared_ptr<HttpExchange>& exchange,
                    const std::string& request_id, const std::function<void(int)>& answered) {
    const absl::string_view path = request.Path();
    const std::string id =
        path.size() > sizeof(kModelPrefix) - 1 ? PercentDecode(path.substr(sizeof(kModelPrefix) - 1)) : "";
    router_.ListModels(
        Clock::Real().Now() + kModelsTimeout,
        [exchange, id, request_id, answered](const absl::StatusOr<v1::ListModelsResponse>& models) {
          exchange->Post([exchange, id, request_id, answered, models] {
            HttpAnswer answer = ModelsAnswer(models, id);
            answer.headers.push_back({"x-request-id", request_id});
            const int http_status = answer.status;
            exchange->SendUnary(std::move(answer));
            answered(http_status);
          });
        });
  }

  static HttpAnswer ModelsAnswer(const absl::StatusOr<v1::ListModelsResponse>& models,
                                 const std::string& id) {
    if (!models.ok()) return ErrorAnswer(ApiErrorFrom(models.status()));
    if (id.empty()) return JsonAnswer(200, ModelListBody(*models));
    for (const v1::ListModelsResponse::Model& model : models->models()) {
      if (model.id() == id) return JsonAnswer(200, ModelBody(model));
    }
    return ErrorAnswer(MakeApiError(
        404, absl::StrCat("the model ", JsonQuote(id.substr(0, kNameBytesMax)), " is not served here"),
        "model"));
  }

  void HandleChat(HttpRequest& request, const std::string& tenant, std::shared_ptr<HttpExchange> exchange,
                  const std::string& request_id, const TraceContext& trace,
                  std::function<void(int)> answered) {
    absl::StatusOr<ChatCompletion> completion =
        ParseChatCompletion(request.body, {.media_bytes_max = options_.media_bytes_max});
    request.body = std::string();
    if (!completion.ok()) return Refuse(completion.status(), *exchange, request_id, answered);
    const absl::string_view key = request.Header("idempotency-key");
    if (!std::all_of(key.begin(), key.end(), absl::ascii_isgraph) || key.size() > kIdempotencyKeyBytesMax) {
      return Refuse(FieldViolation("Idempotency-Key",
                                   absl::StrCat("has ", key.size(), " bytes, want at most ",
                                                kIdempotencyKeyBytesMax, ", all of them visible ASCII")),
                    *exchange, request_id, answered);
    }
    completion->request.set_idempotency_key(std::string(key));
    completion->request.set_tenant(tenant);  // wins over `user`
    metrics_.unknown_fields.Increment(completion->num_unknown_fields);
    ChatSessionOptions session = SessionOptions(request_id, std::move(answered));
    session.traceparent = trace.header();
    ServeChat(*std::move(completion), std::move(exchange), &router_, &metrics_, std::move(session));
  }

  void HandleEvents(const HttpRequest& request, std::shared_ptr<HttpExchange> exchange,
                    const std::string& request_id, std::function<void(int)> answered) {
    const absl::StatusOr<ChatResumption> resumption = ParseResumption(request);
    if (!resumption.ok()) return Refuse(resumption.status(), *exchange, request_id, answered);
    ServeResumption(*resumption, std::move(exchange), &router_, &metrics_,
                    SessionOptions(request_id, std::move(answered)));
  }

  void HandleCancel(const HttpRequest& request, const std::shared_ptr<HttpExchange>& exchange,
                    const std::string& request_id, const std::function<void(int)>& answered) {
    const std::string id = GenerationIdOf(request.Path().substr(sizeof(kGenerationPrefix) - 1));
    if (id.empty()) return Refuse(NoSuchGeneration(), *exchange, request_id, answered);
    router_.Cancel(id, Clock::Real().Now() + kModelsTimeout,
                   [exchange, answered](const absl::Status& status) {
                     exchange->Post([exchange, answered, status] {
                       const ApiError error = ApiErrorFrom(status);
                       exchange->SendUnary(status.ok() ? JsonAnswer(200, "{\"status\":\"cancelled\"}")
                                                       : ErrorAnswer(error));
                       answered(status.ok() ? 200 : error.http_status);
                     });
                   });
  }

  static void Refuse(const absl::Status& status, HttpExchange& exchange, const std::string& request_id,
                     const std::function<void(int)>& answered) {
    const ApiError error = ApiErrorFrom(status);
    HttpAnswer answer = ErrorAnswer(error);
    answer.headers.push_back({"x-request-id", request_id});
    exchange.SendUnary(std::move(answer));
    answered(error.http_status);
  }

  ChatSessionOptions SessionOptions(const std::string& request_id, std::function<void(int)> answered) {
    ChatSessionOptions session;
    session.request_timeout = options_.request_timeout;
    session.head_delay = options_.head_delay;
    session.keep_alive = options_.keep_alive;
    session.request_id = request_id;
    chats_.Add();
    session.answered = [this, answered = std::move(answered)](int http_status) {
      answered(http_status);
      chats_.Remove();
    };
    return session;
  }

  const GatewayOptions options_;
  GatewayMetrics metrics_;
  std::unique_ptr<ApiKeyFile> api_keys_;  // null: no keys are asked for
  RouterClient router_;
  const std::shared_ptr<Readiness> readiness_;
  std::atomic<bool> draining_{false};
  LiveCount chats_;
  std::unique_ptr<HttpServer> server_;
};

}  // namespace

absl::StatusOr<std::unique_ptr<Gateway>> Gateway::Start(const GatewayOptions& options,
                                                        std::shared_ptr<grpc::Channel> router,
                                                        MetricRegistry* registry) {
  auto gateway = std::make_unique<HttpGateway>(options, std::move(router), registry);
  const absl::Status keys = gateway->OpenApiKeys();
  if (!keys.ok()) return keys;
  const absl::Status listening = gateway->Listen();
  if (!listening.ok()) return listening;
  return gateway;
}

}  // namespace prism
