#include "services/gateway/chat_session.h"

#include <algorithm>
#include <optional>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "common/base/hash.h"
#include "common/base/ids.h"
#include "common/base/log.h"
#include "common/wire/request_limits.h"
#include "common/wire/status_codec.h"
#include "common/wire/tool_call_codec.h"
#include "services/gateway/api_error.h"
#include "services/gateway/openai_response.h"

namespace prism {
namespace {

using std::chrono::milliseconds;

class ChatSession final : public std::enable_shared_from_this<ChatSession> {
 public:
  ChatSession(ChatCompletion completion, std::shared_ptr<HttpExchange> exchange, RouterClient* router,
              GatewayMetrics* metrics, ChatSessionOptions options)
      : completion_(std::move(completion)),
        exchange_(std::move(exchange)),
        router_(router),
        metrics_(metrics),
        options_(std::move(options)),
        start_(Clock::Real().Now()),
        deadline_(start_ + options_.request_timeout),
        num_choices_(std::max(1u, completion_.request.num_choices())) {
    head_.id = absl::StrCat("chatcmpl-", NewId());
    head_.created_unix_s =
        std::chrono::duration_cast<std::chrono::seconds>(std::chrono::system_clock::now().time_since_epoch())
            .count();
    head_.logprobs = completion_.logprobs;
    head_.token_ids = completion_.return_token_ids;
    head_.prompt_logprobs = completion_.prompt_logprobs;
    head_.model = completion_.request.model();
    for (uint32_t i = 0; i < num_choices_; ++i) whole_.add_choices();
    metrics_->chats_running.Add(1);
  }
  ChatSession(const ChatResumption& resumption, std::shared_ptr<HttpExchange> exchange, RouterClient* router,
              GatewayMetrics* metrics, ChatSessionOptions options)
      : ChatSession(ChatCompletion{.stream = true, .include_usage = resumption.include_usage},
                    std::move(exchange), router, metrics, std::move(options)) {
    resumption_ = resumption;
    num_choices_ = kChoicesMax;  // until Started says
  }
  ~ChatSession() { metrics_->chats_running.Add(-1); }

  void Start() {
    exchange_->WhenGone([self = shared_from_this()](HttpGone why) { self->ClientGone(why); });
    if (resumption_.has_value()) {
      exchange_->After(options_.head_delay, [self = shared_from_this()] { self->BeginStream(); });
      return CallRouter();
    }
    const v1::ChatRequest& request = completion_.request;
    uint64_t picture_bytes = 0;
    for (const v1::ChatMessage& message : request.messages()) {
      for (const v1::ContentPart& part : message.content())
        picture_bytes += part.image().inline_data().size() + part.clip().frames().inline_data().size();
    }
    metrics_->pictures.Increment(completion_.num_pictures);
    metrics_->picture_bytes.Increment(static_cast<double>(picture_bytes));
    const size_t request_bytes = request.ByteSizeLong();
    if (request_bytes - picture_bytes > kTextRequestBytesMax) {
      return Fail(
          ErrorWithReason(absl::StatusCode::kInvalidArgument,
                          absl::StrCat("messages: text and tools have ", request_bytes - picture_bytes,
                                       " bytes, at most ", kTextRequestBytesMax),
                          kReasonTooLarge, {{"param", "messages"}}));
    }
    if (completion_.stream) {
      exchange_->After(options_.head_delay, [self = shared_from_this()] { self->BeginStream(); });
    }
    if (request_bytes > kInlineRequestBytesMax) {
      UploadNext(0, 0);
    } else {
      CallRouter();
    }
  }

 private:
  // The file of a picture or a clip; null for text.
  static v1::Media* MediaOf(v1::ContentPart* part) {
    if (part->has_clip()) return part->mutable_clip()->mutable_frames();
    return part->has_image() ? part->mutable_image() : nullptr;
  }

  // Uploads the first picture or clip at or after the given place, then goes on behind it.
  void UploadNext(int message_index, int part_index) {
    v1::ChatRequest& request = completion_.request;
    for (; message_index < request.messages_size(); ++message_index, part_index = 0) {
      v1::ChatMessage& message = *request.mutable_messages(message_index);
      for (; part_index < message.content_size(); ++part_index) {
        v1::Media* const media = MediaOf(message.mutable_content(part_index));
        if (media == nullptr) continue;
        std::string file = std::move(*media->mutable_inline_data());
        upload_ = router_->PutMedia(std::move(file), deadline_,
                                    [self = shared_from_this(), message_index,
                                     part_index](const absl::StatusOr<std::string>& media_id) {
                                      self->exchange_->Post([self, message_index, part_index, media_id] {
                                        self->Uploaded(message_index, part_index, media_id);
                                      });
                                    });
        return;
      }
    }
    CallRouter();
  }

  void Uploaded(int message_index, int part_index, const absl::StatusOr<std::string>& media_id) {
    upload_ = nullptr;
    if (exchange_->over()) return;
    if (!media_id.ok()) return Fail(media_id.status());
    MediaOf(completion_.request.mutable_messages(message_index)->mutable_content(part_index))
        ->set_media_id(*media_id);
    UploadNext(message_index, part_index + 1);
  }

  void CallRouter() {
    const auto message = [self = shared_from_this()](v1::ChatEvent& event) {
      auto moved = std::make_shared<v1::ChatEvent>(std::move(event));
      self->exchange_->Post([self, moved] { self->OnEvent(*moved); });
      return StreamNext::kPause;
    };
    const auto done = [self = shared_from_this()](const absl::Status& status) {
      self->exchange_->Post([self, status] { self->OnDone(status); });
    };
    if (resumption_.has_value()) {
      // From the first event on: Started says what the others leave out.
      v1::ResumeRequest request;
      request.set_generation_id(resumption_->generation_id);
      call_ = router_->Resume(std::move(request), deadline_, message, done);
    } else {
      call_ = router_->Chat(std::move(completion_.request), options_.traceparent, deadline_, message, done);
    }
  }

  void ClientGone(HttpGone why) {
    switch (why) {
      case HttpGone::kClient:
        metrics_->aborted_by_client.Increment();
        break;
      case HttpGone::kSlowReader:
        metrics_->aborted_by_slow_reader.Increment();
        break;
      case HttpGone::kServer:
        metrics_->aborted_by_server.Increment();
        break;
    }
    CancelCalls();
    Answered(kHttpClientGone);
  }

  void CancelCalls() {
    if (upload_ != nullptr) upload_->Cancel();
    if (call_ != nullptr) call_->Cancel();
  }

  void OnEvent(v1::ChatEvent& event) {
    if (exchange_->over()) return;  // cancelled already
    number_ = event.number();
    switch (event.event_case()) {
      case v1::ChatEvent::kStarted:
        OnStarted(event.started());
        break;
      case v1::ChatEvent::kDelta:
        OnDelta(event.delta());
        break;
      case v1::ChatEvent::kChoiceFinished:
        OnChoiceFinished(event.choice_finished());
        break;
      case v1::ChatEvent::kFinished:
        finished_ = true;
        *whole_.mutable_finished() = event.finished();
        break;
      case v1::ChatEvent::EVENT_NOT_SET:
        break;  // a newer router's
    }
    if (exchange_->over()) return;  // a write may have found the client gone
    if (exchange_->writable()) {
      call_->Resume();
    } else {
      exchange_->WhenWritable([self = shared_from_this()] { self->call_->Resume(); });
    }
  }

  void OnStarted(const v1::ChatEvent::Started& started) {
    *whole_.mutable_started() = started;
    if (!started.model().empty()) head_.model = started.model();
    if (!started.generation_id().empty()) {
      head_.id = absl::StrCat("chatcmpl-", Hex(started.generation_id()));
    }
    if (resumption_.has_value() && started.num_choices() > 0) num_choices_ = started.num_choices();
    started_ = true;
    if (stream_begun_) WriteRoles();
  }

  void OnDelta(const v1::ChatEvent::Delta& delta) {
    if (delta.choice() >= num_choices_ || !Wanted()) return;
    if (resumption_.has_value()) {
      head_.logprobs = delta.logprobs_size() > 0;
      head_.token_ids = delta.token_ids_size() > 0;
    }
    const SteadyTime now = Clock::Real().Now();
    if (resumption_.has_value()) {
      // The events may be old.
    } else if (last_delta_ == SteadyTime()) {
      metrics_->first_token.Observe(SecondsBetween(start_, now));
    } else {
      metrics_->inter_token.Observe(SecondsBetween(last_delta_, now));
    }
    last_delta_ = now;
    if (completion_.stream) {
      if (!DeltaIsShown(head_, delta)) return;
      BeginStream();
      Write(SseEvent(DeltaChunk(head_, delta), Number()));
      return;
    }
    v1::ChatResponse::Choice& choice = *whole_.mutable_choices(static_cast<int>(delta.choice()));
    (delta.reasoning() ? choice.mutable_reasoning() : choice.mutable_text())->append(delta.text());
    AppendToolCalls(delta, &choice);
    choice.mutable_token_ids()->MergeFrom(delta.token_ids());
    choice.mutable_logprobs()->MergeFrom(delta.logprobs());
  }

  void OnChoiceFinished(const v1::ChatEvent::ChoiceFinished& finished) {
    if (finished.choice() >= num_choices_ || !Wanted()) return;
    if (completion_.stream) {
      BeginStream();
      Write(SseEvent(FinishChunk(head_, finished), Number()));
      return;
    }
    v1::ChatResponse::Choice& choice = *whole_.mutable_choices(static_cast<int>(finished.choice()));
    choice.set_finish_reason(finished.finish_reason());
    choice.set_stop_text(finished.stop_text());
  }

  void OnDone(const absl::Status& status) {
    call_ = nullptr;
    if (exchange_->over()) return;
    if (!status.ok()) return Fail(WithClientsField(status));
    if (!finished_) return Fail(absl::InternalError("the router's stream ended without Finished"));
    if (!stream_begun_ && resumption_.has_value() && resumption_->from > number_ + 1) {
      return Fail(absl::OutOfRangeError(
          absl::StrCat("event ", resumption_->from, " is asked for, the last one was ", number_)));
    }
    if (completion_.stream) {
      BeginStream();
      if (completion_.include_usage) Write(SseEvent(UsageChunk(head_, whole_.finished())));
      Write(kSseDone);
      exchange_->End();
    } else {
      exchange_->SendUnary({200, Headers("application/json"), CompletionBody(head_, whole_)});
    }
    Answered(200);
  }

  // What the router says of a field of its own is told of the client's field that it came of.
  absl::Status WithClientsField(const absl::Status& status) const {
    if (!absl::IsInvalidArgument(status) || !ReasonOf(status).empty()) return status;
    const std::vector<InvalidField> fields = InvalidFieldsOf(status);
    if (fields.empty()) return status;
    absl::string_view path = fields.front().path;
    if (path == "grammar") {
      path = completion_.form_field;
    } else if (!absl::ConsumePrefix(&path, "sampling.")) {
      return status;
    }
    return FieldViolation(path, fields.front().description);
  }

  void Fail(const absl::Status& status) {
    if (exchange_->over()) return;
    if (absl::IsDeadlineExceeded(status)) {
      metrics_->aborted_by_deadline.Increment();
    } else if (!absl::IsInvalidArgument(status) && !absl::IsNotFound(status)) {
      metrics_->aborted_by_router.Increment();
    }
    ApiError error = ApiErrorFrom(status);
    if (error.http_status >= 500) {
      LogWarning("chat failed", {{"request", options_.request_id}, {"status", status.ToString()}});
    }
    if (stream_begun_) {
      Write(SseEvent(ErrorBody(error)));
      Write(kSseDone);
      exchange_->End();
    } else {
      HttpAnswer answer{error.http_status, Headers("application/json"), ErrorBody(error)};
      answer.headers.insert(answer.headers.end(), error.headers.begin(), error.headers.end());
      exchange_->SendUnary(std::move(answer));
    }
    CancelCalls();
    Answered(error.http_status);
  }

  // ---- The stream -------------------------------------------------------------------------------
  void BeginStream() {
    if (std::exchange(stream_begun_, true)) return;
    HttpAnswer head{200, Headers("text/event-stream; charset=utf-8"), ""};
    head.headers.push_back({"Cache-Control", "no-cache"});
    head.headers.push_back({"X-Accel-Buffering", "no"});
    exchange_->BeginStream(std::move(head));
    last_write_ = Clock::Real().Now();
    if (started_) WriteRoles();
    KeepAliveLater(options_.keep_alive);
  }

  void WriteRoles() {
    if (resumption_.has_value() && resumption_->from > 0) return;
    for (uint32_t i = 0; i < num_choices_; ++i) {
      const bool last = i + 1 == num_choices_;
      const bool numbered = last && whole_.started().resumable();
      Write(SseEvent(RoleChunk(head_, i, whole_.started()),
                     numbered ? std::make_optional(uint64_t{0}) : std::nullopt));
    }
  }

  // Whether the client has not seen the event at hand.
  bool Wanted() const { return !resumption_.has_value() || number_ >= resumption_->from; }
  // The SSE id of the event at hand.
  std::optional<uint64_t> Number() const {
    return whole_.started().resumable() ? std::make_optional(number_) : std::nullopt;
  }

  void Write(absl::string_view part) {
    last_write_ = Clock::Real().Now();
    exchange_->Write(part);
  }

  // A comment whenever nothing was written for so long, so that proxies keep the connection.
  void KeepAliveLater(milliseconds delay) {
    exchange_->After(delay, [self = shared_from_this()] {
      const auto due = self->last_write_ + self->options_.keep_alive;
      const auto left = std::chrono::ceil<milliseconds>(due - Clock::Real().Now());
      if (left > milliseconds(0)) return self->KeepAliveLater(left);
      if (self->exchange_->writable()) self->Write(kSseKeepAlive);
      self->KeepAliveLater(self->options_.keep_alive);
    });
  }

  std::vector<HttpHeader> Headers(const char* content_type) const {
    return {{"Content-Type", content_type}, {"x-request-id", options_.request_id}};
  }

  void Answered(int http_status) {
    const auto answered = std::exchange(options_.answered, nullptr);
    if (answered) answered(http_status);
  }

  // What logs of HTTP servers call a client that left before its answer.
  static constexpr int kHttpClientGone = 499;

  ChatCompletion completion_;
  const std::shared_ptr<HttpExchange> exchange_;
  RouterClient* const router_;
  GatewayMetrics* const metrics_;
  ChatSessionOptions options_;
  const SteadyTime start_;
  const SteadyTime deadline_;
  uint32_t num_choices_;
  AnswerHead head_;
  std::shared_ptr<Upload> upload_;
  std::shared_ptr<ChatCall> call_;
  std::optional<ChatResumption> resumption_;
  uint64_t number_ = 0;     // of the event at hand
  v1::ChatResponse whole_;  // of a stream, the parts that are needed later
  bool started_ = false;
  bool finished_ = false;
  bool stream_begun_ = false;
  SteadyTime last_delta_;
  SteadyTime last_write_;
};

}  // namespace

void ServeChat(ChatCompletion completion, std::shared_ptr<HttpExchange> exchange, RouterClient* router,
               GatewayMetrics* metrics, ChatSessionOptions options) {
  std::make_shared<ChatSession>(std::move(completion), std::move(exchange), router, metrics,
                                std::move(options))
      ->Start();
}

void ServeResumption(const ChatResumption& resumption, std::shared_ptr<HttpExchange> exchange,
                     RouterClient* router, GatewayMetrics* metrics, ChatSessionOptions options) {
  std::make_shared<ChatSession>(resumption, std::move(exchange), router, metrics, std::move(options))
      ->Start();
}

}  // namespace prism
