#include "services/router/chat_session.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/base/check.h"
#include "common/base/hash.h"
#include "common/base/log.h"
#include "common/base/status.h"
#include "common/rpc/deadline.h"
#include "common/text/stop_matcher.h"
#include "common/wire/status_codec.h"
#include "services/router/chat_validation.h"

namespace prism {
namespace {

constexpr int64_t kRetryMs = 1000;

// Whether the decoder itself failed, rather than the request.
bool IsCrash(const absl::Status& status) {
  return absl::IsUnavailable(status) || absl::IsCancelled(status) || absl::IsAborted(status);
}

bool IsEmbeddingTrouble(const absl::Status& status) {
  const std::string reason = ReasonOf(status);
  return reason == kReasonEmbeddingLost || reason == kReasonEmbeddingCorrupt;
}

}  // namespace

ChatSession::ChatSession(const RouterParts* parts, v1::ChatRequest request, SteadyTime deadline,
                         ChatSink* sink, Hooks hooks)
    : parts_(parts),
      generation_id_(request.generation_id()),
      arrival_(parts->clock->Now()),
      deadline_(deadline),
      sink_(sink),
      hooks_(std::move(hooks)),
      job_(std::make_shared<PromptJob>(parts, std::move(request), deadline, cancellation_)) {}

void ChatSession::Start() {
  job_->Start([self = shared_from_this()](absl::StatusOr<PreparedPrompt> prompt) {
    self->Prepared(std::move(prompt));
  });
}

void ChatSession::Tick(SteadyTime now) {
  if (now >= deadline_) {
    Cancel(absl::DeadlineExceededError(
        absl::StrCat("the request is not done after ", SecondsBetween(arrival_, now), " s")));
    return;
  }
  std::shared_ptr<Stream> stream;
  {
    MutexLock lock(&mutex_);
    if (!generating_ || silent_ || now - last_event_ < parts_->options->silence_timeout) return;
    silent_ = true;
    stream = stream_.lock();
  }
  if (stream != nullptr) stream->Cancel();
}

// Preparing.

void ChatSession::Prepared(absl::StatusOr<PreparedPrompt> prompt) {
  absl::Status status = cancellation_->status();
  if (status.ok()) status = prompt.status();
  if (status.ok()) status = Adopt(*std::move(prompt));
  if (!status.ok()) {
    if (absl::IsInvalidArgument(status) || absl::IsNotFound(status))
      parts_->metrics->reject_invalid.Increment();
    return Fail(status);
  }
  absl::StatusOr<ReplicaUse> decoder = parts_->decoders->PickDecoder(tried_, !tried_.empty());
  if (!decoder.ok()) return Fail(decoder.status());
  Generate(*std::move(decoder));
}

absl::Status ChatSession::Adopt(PreparedPrompt prompt) {
  const bool first = choices_.empty();
  prompt_ = std::move(prompt);
  if (!first) return absl::OkStatus();
  const v1::ChatRequest& request = job_->request();
  PRISM_ASSIGN_OR_RETURN(sampling_,
                         CompleteSampling(request.sampling(), parts_->model->generation,
                                          {.prompt_tokens = static_cast<int64_t>(prompt_.token_ids.size()),
                                           .length_max = parts_->LengthMax(),
                                           .drawn_seed = parts_->draw_seed()}));
  const std::vector<std::string> stops(request.stop().begin(), request.stop().end());
  for (uint32_t i = 0; i < std::max(request.num_choices(), 1u); ++i) {
    PRISM_ASSIGN_OR_RETURN(StopMatcher matcher, StopMatcher::Create(stops, request.include_stop_text()));
    choices_.emplace_back(
        ChoiceText(parts_->tokenizer, std::move(matcher), parts_->format->starts_in_reasoning()));
  }
  return absl::OkStatus();
}

// Generating.

void ChatSession::Generate(ReplicaUse decoder) {
  decoder_ = std::move(decoder);
  event_error_ = absl::OkStatus();
  {
    MutexLock lock(&mutex_);
    generating_ = true;
    silent_ = false;
    last_event_ = parts_->clock->Now();
  }
  v1::Decoder::StubInterface* const stub = decoder_.decoder();
  const std::shared_ptr<ChatSession> self = shared_from_this();
  const std::shared_ptr<Stream> stream = Stream::Start(
      AttemptRequest(), HopDeadline(deadline_, Clock::Real().Now()),
      [stub](auto* context, auto* request, auto* reactor) {
        stub->async()->Generate(context, request, reactor);
      },
      [self](const v1::GenerateEvent& event) { return self->OnEvent(event); },
      [self](const absl::Status& status) { self->OnAttemptDone(status); });
  cancellation_->Add(stream);
  bool silent = false;
  {
    MutexLock lock(&mutex_);
    stream_ = stream;
    silent = silent_;
  }
  if (silent) stream->Cancel();
}

v1::GenerateRequest ChatSession::AttemptRequest() const {
  v1::GenerateRequest request;
  request.set_generation_id(generation_id_);
  request.set_attempt(attempt_);
  request.mutable_token_ids()->Add(prompt_.token_ids.begin(), prompt_.token_ids.end());
  for (const v1::ImageSpan& span : prompt_.spans) *request.add_spans() = span;
  for (const v1::EmbeddingHandle& handle : prompt_.handles) *request.add_handles() = handle;
  *request.mutable_sampling() = sampling_;
  request.set_num_choices(static_cast<uint32_t>(choices_.size()));
  if (AnyToken()) {
    for (const Choice& choice : choices_) {
      request.add_emitted()->mutable_token_ids()->Add(choice.token_ids.begin(), choice.token_ids.end());
    }
  }
  request.set_cache_salt(job_->request().cache_salt());
  return request;
}

StreamNext ChatSession::OnEvent(const v1::GenerateEvent& event) {
  {
    MutexLock lock(&mutex_);
    last_event_ = parts_->clock->Now();
  }
  if (!cancellation_->status().ok()) return StreamNext::kCancel;
  event_error_ = HandleEvent(event);
  return event_error_.ok() && !DecoderWorksOnForNothing() ? StreamNext::kRead : StreamNext::kCancel;
}

absl::Status ChatSession::HandleEvent(const v1::GenerateEvent& event) {
  switch (event.event_case()) {
    case v1::GenerateEvent::kStarted:
      return OnStarted(event.started());
    case v1::GenerateEvent::kToken:
      return OnToken(event.token());
    case v1::GenerateEvent::kChoiceFinished:
      return OnChoiceFinished(event.choice_finished());
    case v1::GenerateEvent::kFinished:
      decoder_times_ = event.finished();
      finished_ = true;
      return absl::OkStatus();
    case v1::GenerateEvent::kHeartbeat:
    case v1::GenerateEvent::EVENT_NOT_SET:
      return absl::OkStatus();
  }
  return absl::OkStatus();
}

absl::Status ChatSession::OnStarted(const v1::GenerateEvent::Started& started) {
  // Never answer blind: each picture has the decoder's receipt, for this content and this size.
  for (const v1::EmbeddingHandle& handle : prompt_.handles) {
    const bool received = std::any_of(
        started.receipts().begin(), started.receipts().end(), [&](const v1::ImageReceipt& receipt) {
          return receipt.content_key() == handle.content_key() && receipt.num_tokens() == handle.num_tokens();
        });
    if (!received) {
      return absl::InternalError(absl::StrCat("decoder ", decoder_.address(),
                                              " has no receipt for the picture ", Hex(handle.content_key())));
    }
  }
  receipts_.assign(started.receipts().begin(), started.receipts().end());
  if (started_) return absl::OkStatus();
  started_ = true;
  cached_tokens_ = started.cached_tokens();
  v1::ChatEvent event;
  v1::ChatEvent::Started* out = event.mutable_started();
  out->set_generation_id(generation_id_);
  out->set_model(parts_->options->served_model_name);
  out->set_prompt_tokens(static_cast<uint32_t>(prompt_.token_ids.size()));
  if (job_->request().return_token_ids()) {
    out->mutable_prompt_token_ids()->Add(prompt_.token_ids.begin(), prompt_.token_ids.end());
  }
  out->set_seed(sampling_.seed());
  out->set_image_tokens(static_cast<uint32_t>(prompt_.image_tokens));
  return Emit(std::move(event));
}

absl::Status ChatSession::OnToken(const v1::GenerateEvent::Token& token) {
  if (!started_) return absl::InternalError("the decoder sent a token before Started");
  if (token.choice() >= choices_.size()) {
    return absl::InternalError(
        absl::StrCat("the decoder sent a token of choice ", token.choice(), " of ", choices_.size()));
  }
  Choice& choice = choices_[token.choice()];
  // What another attempt sends again, and what comes behind a stop string, is dropped.
  if (choice.ended || token.index() < choice.token_ids.size()) return absl::OkStatus();
  if (token.index() > choice.token_ids.size()) {
    return absl::InternalError(absl::StrCat("the decoder sent token ", token.index(), " of choice ",
                                            token.choice(), ", want ", choice.token_ids.size()));
  }
  if (!first_token_.has_value()) {
    first_token_ = parts_->clock->Now();
    parts_->metrics->first_token_s.Observe(SecondsBetween(arrival_, *first_token_));
    hooks_.on_first_token();
  }
  crashes_ = 0;
  tried_.clear();
  choice.token_ids.push_back(token.token_id());
  // A stop id that was asked for ends the choice without being shown.
  const auto& stop_ids = sampling_.stop_token_ids();
  const bool is_stop = choice.token_ids.size() >= sampling_.min_tokens() &&
                       std::find(stop_ids.begin(), stop_ids.end(), token.token_id()) != stop_ids.end();
  ChoiceText::Output output;
  if (!is_stop || job_->request().include_stop_text()) {
    output = choice.text.Push(static_cast<int32_t>(token.token_id()));
  }
  const bool stopped = output.stopped;
  PRISM_RETURN_IF_ERROR(EmitDelta(token.choice(), std::move(output), &token));
  return stopped ? EndChoice(token.choice(), "stop") : absl::OkStatus();
}

absl::Status ChatSession::OnChoiceFinished(const v1::GenerateEvent::ChoiceFinished& finished) {
  if (finished.choice() >= choices_.size()) {
    return absl::InternalError(
        absl::StrCat("the decoder finished choice ", finished.choice(), " of ", choices_.size()));
  }
  Choice& choice = choices_[finished.choice()];
  choice.ended_by_decoder = true;
  if (choice.ended) return absl::OkStatus();
  ChoiceText::Output output = choice.text.Finish();
  const bool stopped = output.stopped || finished.reason() == v1::GenerateEvent::FINISH_REASON_STOP;
  PRISM_RETURN_IF_ERROR(EmitDelta(finished.choice(), std::move(output), nullptr));
  return EndChoice(finished.choice(), stopped ? "stop" : "length");
}

absl::Status ChatSession::EmitDelta(uint32_t index, ChoiceText::Output output,
                                    const v1::GenerateEvent::Token* token) {
  const bool with_ids = token != nullptr && job_->request().return_token_ids();
  const bool with_logprobs = token != nullptr && token->has_logprob() && sampling_.has_top_logprobs();
  v1::ChatEvent event;
  v1::ChatEvent::Delta* delta = event.mutable_delta();
  delta->set_choice(index);
  if (with_ids) delta->add_token_ids(token->token_id());
  if (with_logprobs) {
    const auto fill = [this](v1::TokenText* text, uint32_t id, double logprob) {
      const absl::string_view bytes = parts_->tokenizer->TokenBytes(static_cast<int32_t>(id));
      text->set_token_id(id);
      text->set_text(bytes.data(), bytes.size());
      text->set_logprob(logprob);
    };
    v1::TokenText* text = delta->add_logprobs();
    fill(text, token->token_id(), token->logprob());
    for (const v1::TokenLogprob& top : token->top()) fill(text->add_top(), top.token_id(), top.logprob());
  }
  bool pending = with_ids || with_logprobs;
  if (!output.reasoning.empty()) {
    delta->set_reasoning(true);
    delta->set_text(std::move(output.reasoning));
    PRISM_RETURN_IF_ERROR(Emit(std::move(event)));
    event.Clear();
    delta = event.mutable_delta();
    delta->set_choice(index);
    pending = false;
  }
  if (output.answer.empty() && !pending) return absl::OkStatus();
  delta->set_reasoning(output.answer.empty() && choices_[index].text.in_reasoning());
  delta->set_text(std::move(output.answer));
  return Emit(std::move(event));
}

absl::Status ChatSession::EndChoice(uint32_t index, const std::string& reason) {
  Choice& choice = choices_[index];
  choice.ended = true;
  v1::ChatEvent event;
  v1::ChatEvent::ChoiceFinished* finished = event.mutable_choice_finished();
  finished->set_choice(index);
  finished->set_finish_reason(reason);
  finished->set_stop_text(choice.text.stop_text());
  finished->set_completion_tokens(static_cast<uint32_t>(choice.token_ids.size()));
  return Emit(std::move(event));
}

absl::Status ChatSession::Emit(v1::ChatEvent event) {
  event.set_number(next_event_++);
  return sink_->Emit(std::move(event));
}

void ChatSession::OnAttemptDone(const absl::Status& status) {
  bool silent = false;
  {
    MutexLock lock(&mutex_);
    generating_ = false;
    silent = silent_;
    stream_.reset();
  }
  if (event_error_.ok() && AllEnded()) return Complete();
  if (const absl::Status cancelled = cancellation_->status(); !cancelled.ok()) return Fail(cancelled);
  if (!event_error_.ok()) return Fail(event_error_);
  absl::Status why = status;
  if (silent) {
    why = absl::UnavailableError(
        absl::StrCat("sent nothing for ", parts_->options->silence_timeout.count(), " ms"));
  } else if (status.ok()) {
    why = absl::UnavailableError("ended its stream before the answer");
  }
  const absl::Status annotated = Annotate(why, absl::StrCat("decoder ", decoder_.address()));
  if (IsEmbeddingTrouble(why)) {
    if (reencodes_ < kReencodesMax) return Reencode(why);
    return Fail(RetryAfter(absl::UnavailableError(annotated.message()), kRetryMs));
  }
  if (IsCrash(why)) {
    decoder_.ReportGone(why);
    return TryAnother(annotated, true);
  }
  if (absl::IsResourceExhausted(why)) return TryAnother(annotated, false);
  Fail(absl::IsInvalidArgument(why) ? why : annotated);
}

void ChatSession::Reencode(const absl::Status& why) {
  LogInfo("pictures are encoded again", {{"generation", Hex(generation_id_)}, {"why", why.message()}});
  parts_->metrics->reencodes.Increment();
  decoder_.End();
  ++attempt_;
  // The first time the encoder may simply have forgotten; the second time it is not to be trusted.
  const bool elsewhere = reencodes_++ > 0;
  job_->EncodeAgain(elsewhere, [self = shared_from_this()](absl::StatusOr<PreparedPrompt> prompt) {
    self->Prepared(std::move(prompt));
  });
}

void ChatSession::TryAnother(const absl::Status& why, bool crashed) {
  tried_.push_back(decoder_.index());
  decoder_.End();
  if (crashed && ++crashes_ >= kCrashesMax) return Fail(RetryAfter(why, kRetryMs));
  absl::StatusOr<ReplicaUse> other = parts_->decoders->PickDecoder(tried_, true);
  if (!other.ok()) {
    // The client learns what happened to its decoder, not that no other is left.
    return Fail(RetryDelayMsOf(why).has_value() ? why : RetryAfter(why, kRetryMs));
  }
  LogInfo("another decoder goes on", {{"generation", Hex(generation_id_)}, {"why", why.message()}});
  (AnyToken() ? parts_->metrics->resumes : parts_->metrics->generate_retries).Increment();
  ++attempt_;
  Generate(*std::move(other));
}

bool ChatSession::AllEnded() const {
  return !choices_.empty() &&
         std::all_of(choices_.begin(), choices_.end(), [](const Choice& choice) { return choice.ended; });
}

bool ChatSession::DecoderWorksOnForNothing() const {
  return AllEnded() && std::any_of(choices_.begin(), choices_.end(),
                                   [](const Choice& choice) { return !choice.ended_by_decoder; });
}

bool ChatSession::AnyToken() const {
  return std::any_of(choices_.begin(), choices_.end(),
                     [](const Choice& choice) { return !choice.token_ids.empty(); });
}

// Ended.

void ChatSession::Complete() {
  const SteadyTime now = parts_->clock->Now();
  RouterMetrics& metrics = *parts_->metrics;
  v1::ChatEvent event;
  v1::ChatEvent::Finished* finished = event.mutable_finished();
  uint64_t completion_tokens = 0;
  for (const Choice& choice : choices_) completion_tokens += choice.token_ids.size();
  v1::ChatUsage* usage = finished->mutable_usage();
  usage->set_prompt_tokens(static_cast<uint32_t>(prompt_.token_ids.size()));
  usage->set_completion_tokens(static_cast<uint32_t>(completion_tokens));
  usage->set_cached_tokens(cached_tokens_);
  usage->set_image_tokens(static_cast<uint32_t>(prompt_.image_tokens));
  for (const v1::ImageReceipt& receipt : receipts_) *finished->add_receipts() = receipt;
  v1::StageTimes* times = finished->mutable_times();
  times->set_prompt_s(prompt_.prompt_s);
  times->set_encode_s(prompt_.encode_s);
  times->set_queue_s(decoder_times_.queue_s());
  times->set_pull_s(decoder_times_.pull_s());
  times->set_prefill_s(decoder_times_.prefill_s());
  if (first_token_.has_value()) {
    times->set_first_token_s(SecondsBetween(arrival_, *first_token_));
    times->set_decode_s(SecondsBetween(*first_token_, now));
  }
  times->set_total_s(SecondsBetween(arrival_, now));
  metrics.prompt_s.Observe(times->prompt_s());
  if (!prompt_.handles.empty()) metrics.encode_s.Observe(times->encode_s());
  if (finished_) {
    metrics.queue_s.Observe(times->queue_s());
    metrics.pull_s.Observe(times->pull_s());
    metrics.prefill_s.Observe(times->prefill_s());
  }
  metrics.decode_s.Observe(times->decode_s());
  metrics.total_s.Observe(times->total_s());
  metrics.prompt_tokens.Increment(static_cast<double>(prompt_.token_ids.size()));
  metrics.completion_tokens.Increment(static_cast<double>(completion_tokens));
  metrics.cached_tokens.Increment(cached_tokens_);
  End(Emit(std::move(event)));
}

void ChatSession::Fail(const absl::Status& status) {
  PRISM_CHECK(!status.ok());
  RouterMetrics& metrics = *parts_->metrics;
  if (absl::IsDeadlineExceeded(status)) {
    metrics.abort_deadline.Increment();
  } else if (absl::IsResourceExhausted(event_error_)) {
    metrics.abort_slow_reader.Increment();
  } else if (!cancellation_->status().ok() || absl::IsCancelled(event_error_)) {
    metrics.abort_client.Increment();
  } else if (ReasonOf(status) == kReasonNoReplica && attempt_ == 0) {
    metrics.reject_no_replica.Increment();
  } else if (absl::IsUnavailable(status)) {
    metrics.abort_decoder.Increment();
  } else if (started_) {
    metrics.abort_server.Increment();
  }
  End(status);
}

void ChatSession::End(const absl::Status& status) {
  PRISM_CHECK(!std::exchange(ended_, true));
  decoder_.End();
  job_->ReleasePictures();
  hooks_.on_end(this);
  sink_->Done(status);
}

}  // namespace prism
