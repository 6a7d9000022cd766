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
// Below it a decoder takes the greatest logit, whatever the seed.
constexpr double kGreedyTemperature = 1e-5;
// Leaders of the same answer that may fail by themselves before their follower fails, too.
constexpr int kLeadsFailedMax = 1;

// Whether the decoder itself is gone, rather than the request wrong.
bool IsCrash(const absl::Status& status) {
  return absl::IsUnavailable(status) || absl::IsCancelled(status) || absl::IsAborted(status);
}

bool IsEmbeddingTrouble(const absl::Status& status) {
  const std::string reason = ReasonOf(status);
  return reason == kReasonEmbeddingLost || reason == kReasonEmbeddingCorrupt;
}

AttemptState::Ending EndingOf(const absl::Status& why) {
  if (IsEmbeddingTrouble(why)) return AttemptState::Ending::kEmbeddingLost;
  if (ReasonOf(why) == kReasonDraining) return AttemptState::Ending::kLeft;
  if (IsCrash(why)) return AttemptState::Ending::kCrashed;
  if (absl::IsResourceExhausted(why)) return AttemptState::Ending::kRefused;
  return AttemptState::Ending::kFailed;
}

}  // namespace

ChatSession::ChatSession(const RouterParts* parts, v1::ChatRequest request, SteadyTime deadline,
                         TraceContext trace, std::shared_ptr<ChatLog> log, Hooks hooks)
    : parts_(parts),
      generation_id_(request.generation_id()),
      trace_(std::move(trace)),
      arrival_(parts->clock->Now()),
      deadline_(deadline),
      log_(std::move(log)),
      hooks_(std::move(hooks)),
      job_(std::make_shared<PromptJob>(parts, std::move(request), PromptPurpose::kChat, deadline,
                                       cancellation_, trace_.header())),
      attempts_({.silence = parts->options->silence_timeout, .stuck = parts->options->stuck_timeout}) {}

void ChatSession::Start() {
  job_->Start([self = shared_from_this()](absl::StatusOr<PreparedPrompt> prompt) {
    self->Prepared(std::move(prompt));
  });
}

void ChatSession::Tick(SteadyTime now) {
  if (now >= deadline_) {
    Cancel(absl::DeadlineExceededError(
        absl::StrCat("the request is not done after ", SecondsBetween(arrival_, now), " s")));
  }
  EndWait(now);
  std::shared_ptr<Stream> stream;
  {
    MutexLock lock(&mutex_);
    const AttemptState::Health health = attempts_.Check(now);
    if (!given_up_ && health != AttemptState::Health::kAlive) {
      given_up_ = true;
      given_up_why_ = absl::UnavailableError(
          health == AttemptState::Health::kSilent
              ? absl::StrCat("sent nothing for ", parts_->options->silence_timeout.count(), " ms")
              : absl::StrCat("made no step for ", parts_->options->stuck_timeout.count(), " ms"));
      stream = stream_.lock();
    }
  }
  if (stream != nullptr) stream->Cancel();
  MoveAway();
}

void ChatSession::MoveAway() {
  size_t leaving = 0;
  {
    MutexLock lock(&mutex_);
    if (!decoder_leaves_ || given_up_) return;
    leaving = decoder_index_;
  }
  // Where no other decoder is ready, the answer is finished in place.
  absl::StatusOr<ReplicaUse> next = parts_->decoders->PickDecoder({leaving}, true);
  if (!next.ok()) return;
  std::shared_ptr<Stream> stream;
  {
    MutexLock lock(&mutex_);
    if (!decoder_leaves_ || given_up_ || decoder_index_ != leaving) return;
    given_up_ = true;
    given_up_why_ = absl::OkStatus();
    next_decoder_ = *std::move(next);
    stream = stream_.lock();
  }
  if (stream != nullptr) stream->Cancel();
}

// Preparing.

void ChatSession::Prepared(absl::StatusOr<PreparedPrompt> prompt) {
  absl::Status status = cancellation_->status();
  if (status.ok()) status = prompt.status();
  std::optional<ReplicaUse> given;
  if (status.ok()) {
    given.swap(prompt->decoder);
    status = Adopt(*std::move(prompt));
  }
  if (!status.ok()) {
    if (absl::IsInvalidArgument(status) || absl::IsNotFound(status))
      parts_->metrics->reject_invalid.Increment();
    return Fail(status);
  }
  turn_ = std::move(given);
  bool first = false;
  {
    MutexLock lock(&mutex_);
    first = attempts_.num_begun() == 0;
  }
  if (first && parts_->results != nullptr) {
    cache_key_ = CacheKey();
    if (!cache_key_.empty()) return Look();
    parts_->metrics->result_cache_bypass.Increment();
  }
  Place();
}

void ChatSession::Place() {
  if (turn_.has_value()) {
    std::optional<ReplicaUse> turn;
    turn.swap(turn_);
    return Generate(*std::move(turn));
  }
  std::vector<size_t> tried;
  {
    MutexLock lock(&mutex_);
    tried = attempts_.tried();
  }
  absl::StatusOr<ReplicaUse> decoder = parts_->decoders->PickDecoder(tried, !tried.empty());
  if (!decoder.ok()) return started_ ? WaitForDecoder(decoder.status()) : Fail(decoder.status());
  Generate(*std::move(decoder));
}

void ChatSession::WaitForDecoder(const absl::Status& why) {
  MutexLock lock(&mutex_);
  waits_ = true;
  waits_why_ = RetryDelayMsOf(why).has_value() ? why : RetryAfter(why, kRetryMs);
  if (!without_decoder_.has_value()) without_decoder_ = parts_->clock->Now();
}

absl::Status ChatSession::Adopt(PreparedPrompt prompt) {
  const bool first = !journal_.has_value();
  prompt_ = std::move(prompt);
  if (!first) return absl::OkStatus();
  const v1::ChatRequest& request = job_->request();
  PRISM_ASSIGN_OR_RETURN(sampling_,
                         CompleteSampling(request.sampling(), parts_->model->generation,
                                          {.prompt_tokens = static_cast<int64_t>(prompt_.token_ids.size()),
                                           .length_max = parts_->LengthMax(),
                                           .drawn_seed = parts_->draw_seed()}));
  if (job_->answer_form().has_value()) *sampling_.mutable_grammar() = *job_->answer_form();
  const std::vector<std::string> stops(request.stop().begin(), request.stop().end());
  const uint32_t num_choices = std::max(request.num_choices(), 1u);
  for (uint32_t i = 0; i < num_choices; ++i) {
    PRISM_ASSIGN_OR_RETURN(StopMatcher matcher, StopMatcher::Create(stops, request.include_stop_text()));
    texts_.emplace_back(parts_->tokenizer, std::move(matcher), parts_->format->starts_in_reasoning());
    if (sampling_.grammar().has_tool_calls()) texts_.back().TakeToolCalls();
  }
  journal_.emplace(num_choices);
  return absl::OkStatus();
}

// Looking.

class ChatSession::Follower final : public EventSink<v1::GenerateEvent> {
 public:
  explicit Follower(std::shared_ptr<ChatSession> session) : session_(std::move(session)) {}

  absl::Status Emit(v1::GenerateEvent event) override {
    PRISM_RETURN_IF_ERROR(session_->cancellation_->status());
    session_->event_error_ = session_->HandleEvent(event);
    if (!session_->event_error_.ok()) return session_->event_error_;
    return session_->AllEnded() ? absl::CancelledError("all has been heard") : absl::OkStatus();
  }
  void Done(absl::Status status) override {
    // The session may end, and let go of us, in there.
    const std::shared_ptr<ChatSession> session = std::move(session_);
    session->OnFollowed(status);
  }

 private:
  std::shared_ptr<ChatSession> session_;
};

ChatSession::~ChatSession() = default;

std::string ChatSession::CacheKey() const {
  const v1::ChatRequest& request = job_->request();
  if (request.no_result_cache()) return "";
  // A seed that we drew is another one next time.
  const bool greedy = sampling_.temperature() < kGreedyTemperature;
  if (!greedy && !request.sampling().has_seed()) return "";
  const v1::DescribeResponse decoder = parts_->decoders->AnyDescription();
  if (decoder.weights_digest().empty()) return "";
  ResultIdentity identity{.cache_salt = request.cache_salt(),
                          .weights_digest = decoder.weights_digest(),
                          .numerics_id = decoder.numerics_id(),
                          .template_id = parts_->template_id,
                          .prompt = AttemptRequest(0),
                          .stop = {request.stop().begin(), request.stop().end()}};
  if (greedy) identity.prompt.mutable_sampling()->clear_seed();
  return ResultKey(identity);
}

void ChatSession::Look() {
  parts_->results->Begin(
      cache_key_, [self = shared_from_this()](ResultCache::Turn turn) { self->OnTurn(std::move(turn)); });
}

void ChatSession::OnTurn(ResultCache::Turn turn) {
  lead_ = std::move(turn.lead);
  if (const absl::Status cancelled = cancellation_->status(); !cancelled.ok()) return Fail(cancelled);
  source_ = "the result cache";
  if (lead_ == nullptr || turn.result.has_value()) turn_.reset();  // others want a decoder
  if (lead_ == nullptr) return Follow(turn.follow);
  // What an earlier leader had said before it failed.
  for (const v1::GenerateEvent& event : record_) {
    if (lead_ != nullptr && !lead_->Append(event).ok()) lead_.reset();
  }
  if (turn.result.has_value()) return Replay(*turn.result);
  Place();
}

void ChatSession::Follow(const std::shared_ptr<GenerateLog>& log) {
  follower_ = std::make_unique<Follower>(shared_from_this());
  const absl::StatusOr<std::shared_ptr<EventReader<v1::GenerateEvent>>> reader =
      log->Attach(follower_.get(), 0);
  PRISM_CHECK(reader.ok());
  // The leader may have been heard already, to its end and on to the next one's: nothing here may touch
  // what the steps that follow use. The log keeps the reader until its end.
  cancellation_->Add(*reader);
  (*reader)->Pump();
}

void ChatSession::OnFollowed(const absl::Status& status) {
  if (event_error_.ok() && AllEnded()) return Complete();
  if (const absl::Status cancelled = cancellation_->status(); !cancelled.ok()) return Fail(cancelled);
  if (!event_error_.ok()) return Fail(event_error_);
  // A leader's end is not ours. But one that failed by itself is not followed by a second one: a
  // request that kills decoders must not walk through the cluster.
  const bool left = absl::IsCancelled(status) || absl::IsDeadlineExceeded(status) || absl::IsAborted(status);
  if (!left && ++leads_failed_ > kLeadsFailedMax) return Fail(status);
  cache_key_.empty() ? Place() : Look();
}

void ChatSession::Replay(const v1::CachedResult& result) {
  for (const v1::GenerateEvent& event : result.events()) {
    event_error_ = HandleEvent(event);
    if (!event_error_.ok() || AllEnded()) break;
  }
  if (!event_error_.ok()) return Fail(event_error_);
  if (const absl::Status cancelled = cancellation_->status(); !cancelled.ok()) return Fail(cancelled);
  if (AllEnded()) return Complete();
  Place();  // it was not whole: a decoder goes on
}

void ChatSession::Record(v1::GenerateEvent event) {
  if (cache_key_.empty()) return;
  if (static_cast<int64_t>(record_.size()) >= ResultCache::kTokensMax) {
    // Too long for the cache: whoever follows goes on alone.
    lead_.reset();
    record_ = {};
    cache_key_.clear();
    return;
  }
  if (lead_ != nullptr && !lead_->Append(event).ok()) lead_.reset();
  record_.push_back(std::move(event));
}

// Generating.

void ChatSession::Generate(ReplicaUse decoder) {
  decoder_ = std::move(decoder);
  source_ = absl::StrCat("decoder ", decoder_.address());
  event_error_ = absl::OkStatus();
  uint32_t attempt = 0;
  {
    MutexLock lock(&mutex_);
    attempt = attempts_.Begin(decoder_.index(), parts_->clock->Now());
    decoder_index_ = decoder_.index();
    decoder_leaves_ = false;
    given_up_ = false;
  }
  const std::shared_ptr<ChatSession> self = shared_from_this();
  const std::shared_ptr<Stream> stream = decoder_.feed()->Generate(
      AttemptRequest(attempt), HopDeadline(deadline_, Clock::Real().Now()), trace_.header(),
      [self, attempt](const v1::GenerateEvent& event) { return self->OnEvent(attempt, event); },
      [self, attempt](const absl::Status& status) { self->OnAttemptDone(attempt, status); });
  cancellation_->Add(stream);
  bool given_up = false;
  {
    MutexLock lock(&mutex_);
    // The attempt may have ended, and another one begun, before this one's stream was known here.
    if (!attempts_.IsLive(attempt)) return;
    stream_ = stream;
    given_up = given_up_;
  }
  if (given_up) stream->Cancel();
}

v1::GenerateRequest ChatSession::AttemptRequest(uint32_t attempt) const {
  v1::GenerateRequest request;
  request.set_generation_id(generation_id_);
  request.set_attempt(attempt);
  request.mutable_token_ids()->Add(prompt_.token_ids.begin(), prompt_.token_ids.end());
  for (const v1::ImageSpan& span : prompt_.spans) *request.add_spans() = span;
  for (const v1::EmbeddingHandle& handle : prompt_.handles) *request.add_handles() = handle;
  *request.mutable_sampling() = sampling_;
  request.set_num_choices(journal_->num_choices());
  request.set_resumed(started_);
  if (journal_->any_token()) {
    for (uint32_t i = 0; i < journal_->num_choices(); ++i) {
      const std::vector<uint32_t>& ids = journal_->token_ids(i);
      request.add_emitted()->mutable_token_ids()->Add(ids.begin(), ids.end());
    }
  }
  request.set_cache_salt(job_->request().cache_salt());
  return request;
}

bool ChatSession::Note(uint32_t attempt, const v1::GenerateEvent& event) {
  const SteadyTime now = parts_->clock->Now();
  MutexLock lock(&mutex_);
  if (!attempts_.IsLive(attempt) || given_up_) return false;
  if (event.has_started()) {
    attempts_.OnStarted(now);
  } else if (event.has_token()) {
    attempts_.OnToken(now);
    without_decoder_.reset();
  } else if (event.has_heartbeat()) {
    attempts_.OnHeartbeat(event.heartbeat().engine_steps(), event.heartbeat().waiting(), now);
  } else {
    attempts_.OnOther(now);
  }
  decoder_leaves_ = decoder_leaves_ || event.has_draining();
  return true;
}

bool ChatSession::OnEvent(uint32_t attempt, const v1::GenerateEvent& event) {
  if (!cancellation_->status().ok()) return false;
  if (!Note(attempt, event)) return false;
  event_error_ = HandleEvent(event);
  if (!event_error_.ok() || (journal_->decoder_works_for_nothing())) return false;
  if (event.has_draining()) MoveAway();
  return true;
}

absl::Status ChatSession::HandleEvent(const v1::GenerateEvent& event) {
  switch (event.event_case()) {
    case v1::GenerateEvent::kStarted:
      return OnStarted(event.started());
    case v1::GenerateEvent::kPromptLogprobs:
      return OnPromptLogprobs(event.prompt_logprobs());
    case v1::GenerateEvent::kToken:
      return OnToken(event.token());
    case v1::GenerateEvent::kChoiceFinished:
      return OnChoiceFinished(event.choice_finished());
    case v1::GenerateEvent::kFinished:
      decoder_times_ = event.finished();
      finished_ = true;
      return absl::OkStatus();
    case v1::GenerateEvent::kHeartbeat:
    case v1::GenerateEvent::kDraining:
    case v1::GenerateEvent::kFed:
    case v1::GenerateEvent::EVENT_NOT_SET:
      return absl::OkStatus();
  }
  return absl::OkStatus();
}

absl::Status ChatSession::CheckReceipts(const v1::GenerateEvent::Started& started) const {
  // Never answer blind: each picture has the decoder's receipt, for this content and this size.
  for (const v1::EmbeddingHandle& handle : prompt_.handles) {
    const bool received = std::any_of(
        started.receipts().begin(), started.receipts().end(), [&](const v1::ImageReceipt& receipt) {
          return receipt.content_key() == handle.content_key() && receipt.num_tokens() == handle.num_tokens();
        });
    if (!received) {
      return absl::InternalError(
          absl::StrCat(source_, " has no receipt for the picture ", Hex(handle.content_key())));
    }
  }
  // And what another attempt goes on with is what the first one saw.
  for (const v1::ImageReceipt& before : receipts_) {
    for (const v1::ImageReceipt& now : started.receipts()) {
      if (now.content_key() != before.content_key() || now.digest() == before.digest()) continue;
      return absl::InternalError(absl::StrCat(source_, " received the picture ", Hex(now.content_key()),
                                              " as ", Hex(now.digest()), ", an earlier attempt as ",
                                              Hex(before.digest())));
    }
  }
  return absl::OkStatus();
}

absl::Status ChatSession::OnStarted(const v1::GenerateEvent::Started& started) {
  PRISM_RETURN_IF_ERROR(CheckReceipts(started));
  receipts_.assign(started.receipts().begin(), started.receipts().end());
  if (started_) return absl::OkStatus();
  started_ = true;
  v1::GenerateEvent record;
  *record.mutable_started() = started;
  Record(std::move(record));
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
  for (const v1::ImageReceipt& receipt : receipts_) *out->add_receipts() = receipt;
  out->set_resumable(log_->kept());
  out->set_num_choices(journal_->num_choices());
  return Emit(std::move(event));
}

absl::Status ChatSession::OnPromptLogprobs(const v1::GenerateEvent::PromptLogprobs& told) {
  // Those of another attempt are the same.
  if (!sampling_.has_prompt_logprobs() || !prompt_logprobs_.empty()) return absl::OkStatus();
  if (told.tokens_size() + 1 != static_cast<int>(prompt_.token_ids.size())) {
    return absl::InternalError(absl::StrCat(source_, " told log-probabilities of ", told.tokens_size(),
                                            " prompt tokens, want ", prompt_.token_ids.size() - 1));
  }
  if (!cache_key_.empty()) {
    v1::GenerateEvent record;
    *record.mutable_prompt_logprobs() = told;
    Record(std::move(record));
  }
  for (const v1::PromptTokenLogprob& token : told.tokens()) {
    v1::TokenText& text = prompt_logprobs_.emplace_back(TextOf(token.token_id(), token.logprob()));
    for (const v1::TokenLogprob& top : token.top()) *text.add_top() = TextOf(top.token_id(), top.logprob());
  }
  return absl::OkStatus();
}

absl::Status ChatSession::OnToken(const v1::GenerateEvent::Token& token) {
  if (!started_) return absl::InternalError("the decoder sent a token before Started");
  PRISM_ASSIGN_OR_RETURN(const GenerationJournal::Take take,
                         journal_->OnToken(token.choice(), token.index(), token.token_id()));
  // What another attempt sends again, and what comes behind a stop string, is dropped.
  if (take == GenerationJournal::Take::kRepeat) return absl::OkStatus();
  if (!cache_key_.empty()) {
    v1::GenerateEvent record;
    *record.mutable_token() = token;
    Record(std::move(record));
  }
  if (!first_token_.has_value()) {
    first_token_ = parts_->clock->Now();
    parts_->metrics->first_token_s.Observe(SecondsBetween(arrival_, *first_token_));
    hooks_.on_first_token();
  }
  decoder_.Prefilled();
  // A stop id that was asked for ends the choice without being shown.
  const auto& stop_ids = sampling_.stop_token_ids();
  const bool is_stop = journal_->token_ids(token.choice()).size() >= sampling_.min_tokens() &&
                       std::find(stop_ids.begin(), stop_ids.end(), token.token_id()) != stop_ids.end();
  ChoiceText::Output output;
  if (!is_stop || job_->request().include_stop_text()) {
    const bool may_stop = journal_->token_ids(token.choice()).size() > sampling_.min_tokens();
    output = texts_[token.choice()].Push(static_cast<int32_t>(token.token_id()), may_stop);
  }
  const bool stopped = output.stopped;
  PRISM_RETURN_IF_ERROR(EmitDelta(token.choice(), std::move(output), &token));
  return stopped ? EndChoice(token.choice(), "stop") : absl::OkStatus();
}

absl::Status ChatSession::OnChoiceFinished(const v1::GenerateEvent::ChoiceFinished& finished) {
  PRISM_ASSIGN_OR_RETURN(const GenerationJournal::Take take, journal_->OnChoiceFinished(finished.choice()));
  if (take == GenerationJournal::Take::kRepeat) return absl::OkStatus();
  v1::GenerateEvent record;
  *record.mutable_choice_finished() = finished;
  Record(std::move(record));
  ChoiceText::Output output = texts_[finished.choice()].Finish();
  const bool stopped = output.stopped || finished.reason() == v1::GenerateEvent::FINISH_REASON_STOP;
  PRISM_RETURN_IF_ERROR(EmitDelta(finished.choice(), std::move(output), nullptr));
  return EndChoice(finished.choice(), stopped ? "stop" : "length");
}

v1::TokenText ChatSession::TextOf(uint32_t id, double logprob) const {
  v1::TokenText text;
  const absl::string_view bytes = parts_->tokenizer->TokenBytes(static_cast<int32_t>(id));
  text.set_token_id(id);
  text.set_text(bytes.data(), bytes.size());
  text.set_logprob(logprob);
  return text;
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
    v1::TokenText* text = delta->add_logprobs();
    *text = TextOf(token->token_id(), token->logprob());
    for (const v1::TokenLogprob& top : token->top()) *text->add_top() = TextOf(top.token_id(), top.logprob());
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
  for (ToolCallReader::Piece& piece : output.calls) {
    v1::ToolCallDelta* call = delta->add_tool_calls();
    call->set_index(piece.index);
    if (!piece.name.empty()) {
      call->set_id(absl::StrCat("call_", Hex(generation_id_), "_", index, "_", piece.index));
    }
    call->set_name(std::move(piece.name));
    call->set_arguments(std::move(piece.arguments));
  }
  if (output.answer.empty() && output.calls.empty() && !pending) return absl::OkStatus();
  delta->set_reasoning(output.answer.empty() && output.calls.empty() && texts_[index].in_reasoning());
  delta->set_text(std::move(output.answer));
  return Emit(std::move(event));
}

absl::Status ChatSession::EndChoice(uint32_t index, const std::string& reason) {
  journal_->EndChoice(index);
  v1::ChatEvent event;
  v1::ChatEvent::ChoiceFinished* finished = event.mutable_choice_finished();
  finished->set_choice(index);
  const bool called = reason == "stop" && texts_[index].num_calls() > 0;
  finished->set_finish_reason(called ? "tool_calls" : reason);
  finished->set_stop_text(texts_[index].stop_text());
  finished->set_completion_tokens(static_cast<uint32_t>(journal_->token_ids(index).size()));
  return Emit(std::move(event));
}

absl::Status ChatSession::Emit(v1::ChatEvent event) {
  event.set_number(next_event_++);
  return log_->Append(std::move(event));
}

absl::Status ChatSession::WhyEndedLocked(const absl::Status& status) const {
  if (given_up_ && next_decoder_.has_value()) {
    return ErrorWithReason(absl::StatusCode::kUnavailable, "is leaving", kReasonDraining);
  }
  if (given_up_) return given_up_why_;
  return status.ok() ? absl::UnavailableError("ended its stream before the answer") : status;
}

void ChatSession::OnAttemptDone(uint32_t attempt, const absl::Status& status) {
  const absl::Status cancelled = cancellation_->status();
  const bool complete = event_error_.ok() && AllEnded();
  const bool failed = !complete && (!cancelled.ok() || !event_error_.ok());
  AttemptState::Next next = AttemptState::Next::kFail;
  absl::Status why;
  {
    // With the end of the attempt, after which nobody moves it away any more.
    MutexLock lock(&mutex_);
    PRISM_CHECK(attempts_.IsLive(attempt));
    why = WhyEndedLocked(status);
    if (complete) {
      attempts_.Complete();
    } else {
      next = attempts_.End(failed ? AttemptState::Ending::kFailed : EndingOf(why));
    }
    stream_.reset();
    decoder_leaves_ = false;
  }
  if (complete) return Complete();
  if (!cancelled.ok()) return Fail(cancelled);
  if (!event_error_.ok()) return Fail(event_error_);
  if (IsCrash(why)) decoder_.ReportGone(why);
  const absl::Status annotated = Annotate(why, absl::StrCat("decoder ", decoder_.address()));
  switch (next) {
    case AttemptState::Next::kAnother:
      return TryAnother(annotated);
    case AttemptState::Next::kReencode:
    case AttemptState::Next::kReencodeElsewhere:
      return Reencode(next == AttemptState::Next::kReencodeElsewhere, why);
    case AttemptState::Next::kFail:
      break;
  }
  if (IsEmbeddingTrouble(why)) return Fail(RetryAfter(absl::UnavailableError(annotated.message()), kRetryMs));
  if (IsCrash(why)) {
    return Fail(RetryAfter(
        ErrorWithReason(
            absl::StatusCode::kUnavailable,
            absl::StrCat("two decoders in a row failed at this request without a token, the last: ",
                         annotated.message()),
            kReasonDecodersFailed),
        kRetryMs));
  }
  Fail(absl::IsInvalidArgument(why) ? why : annotated);
}

void ChatSession::Reencode(bool elsewhere, const absl::Status& why) {
  LogInfo("pictures are encoded again", {{"generation", Hex(generation_id_)}, {"why", why.message()}});
  parts_->metrics->reencodes.Increment();
  decoder_.End();
  job_->EncodeAgain(elsewhere, [self = shared_from_this()](absl::StatusOr<PreparedPrompt> prompt) {
    self->Prepared(std::move(prompt));
  });
}

void ChatSession::EndWait(SteadyTime now) {
  absl::Status why;
  bool given_up = false;
  {
    MutexLock lock(&mutex_);
    if (!waits_) return;
    why = waits_why_;
    given_up = now - *without_decoder_ >= parts_->options->resume_wait;
  }
  absl::Status end = cancellation_->status();
  std::optional<ReplicaUse> decoder;
  if (end.ok()) {
    absl::StatusOr<ReplicaUse> picked = parts_->decoders->PickDecoder({}, false);
    if (picked.ok()) {
      decoder = *std::move(picked);
    } else if (given_up) {
      end = why;
    } else {
      return;
    }
  }
  {
    MutexLock lock(&mutex_);
    if (!std::exchange(waits_, false)) return;  // another Tick() was faster
  }
  if (!end.ok()) return Fail(end);
  LogInfo("a decoder that has become ready goes on", {{"generation", Hex(generation_id_)}});
  parts_->metrics->resumes.Increment();
  Generate(*std::move(decoder));
}

void ChatSession::TryAnother(const absl::Status& why) {
  decoder_.End();
  std::optional<ReplicaUse> other;
  std::vector<size_t> tried;
  {
    MutexLock lock(&mutex_);
    other.swap(next_decoder_);
    tried = attempts_.tried();
  }
  if (!other.has_value()) {
    absl::StatusOr<ReplicaUse> picked = parts_->decoders->PickDecoder(tried, true);
    if (!picked.ok() && started_) return WaitForDecoder(why);
    if (!picked.ok()) {
      // The client learns what happened to its decoder, not that no other is left.
      return Fail(RetryDelayMsOf(why).has_value() ? why : RetryAfter(why, kRetryMs));
    }
    other = *std::move(picked);
  }
  LogInfo("another decoder goes on", {{"generation", Hex(generation_id_)}, {"why", why.message()}});
  (AnyToken() ? parts_->metrics->resumes : parts_->metrics->generate_retries).Increment();
  Generate(*std::move(other));
}

// Ended.

void ChatSession::Complete() {
  RouterMetrics& metrics = *parts_->metrics;
  v1::ChatEvent event;
  v1::ChatEvent::Finished* finished = event.mutable_finished();
  const uint64_t completion_tokens = journal_->num_tokens();
  v1::ChatUsage* usage = finished->mutable_usage();
  usage->set_prompt_tokens(static_cast<uint32_t>(prompt_.token_ids.size()));
  usage->set_completion_tokens(static_cast<uint32_t>(completion_tokens));
  usage->set_cached_tokens(cached_tokens_);
  usage->set_image_tokens(static_cast<uint32_t>(prompt_.image_tokens));
  for (const v1::ImageReceipt& receipt : receipts_) *finished->add_receipts() = receipt;
  {
    MutexLock lock(&mutex_);
    finished->set_attempts(attempts_.num_begun());
    finished->set_from_result_cache(attempts_.num_begun() == 0);
  }
  if (lead_ != nullptr) {
    std::optional<v1::CachedResult> result;
    if (!finished->from_result_cache()) {
      result.emplace();
      for (v1::GenerateEvent& said : record_) *result->add_events() = std::move(said);
    }
    lead_->Finish(std::move(result));
  }
  for (v1::TokenText& token : prompt_logprobs_) *finished->add_prompt_logprobs() = std::move(token);
  *finished->mutable_times() = Times();
  ObserveTimes(finished->times());
  metrics.prompt_tokens.Increment(static_cast<double>(prompt_.token_ids.size()));
  metrics.completion_tokens.Increment(static_cast<double>(completion_tokens));
  metrics.cached_tokens.Increment(cached_tokens_);
  End(Emit(std::move(event)));
}

v1::StageTimes ChatSession::Times() const {
  const SteadyTime now = parts_->clock->Now();
  v1::StageTimes times;
  times.set_prompt_s(prompt_.prompt_s);
  times.set_fetch_s(prompt_.fetch_s);
  times.set_encode_s(prompt_.encode_s);
  times.set_image_decode_s(prompt_.encode_times.decode_s());
  times.set_preprocess_s(prompt_.encode_times.preprocess_s());
  times.set_encode_queue_s(prompt_.encode_times.queue_s());
  times.set_tower_s(prompt_.encode_times.encode_s());
  times.set_queue_s(decoder_times_.queue_s());
  times.set_pull_s(decoder_times_.pull_s());
  times.set_prefill_s(decoder_times_.prefill_s());
  if (first_token_.has_value()) {
    times.set_first_token_s(SecondsBetween(arrival_, *first_token_));
    times.set_decode_s(SecondsBetween(*first_token_, now));
  }
  times.set_total_s(SecondsBetween(arrival_, now));
  return times;
}

void ChatSession::ObserveTimes(const v1::StageTimes& times) {
  RouterMetrics& metrics = *parts_->metrics;
  metrics.prompt_s.Observe(times.prompt_s());
  if (!prompt_.handles.empty()) {
    metrics.fetch_s.Observe(times.fetch_s());
    metrics.encode_s.Observe(times.encode_s());
    metrics.image_decode_s.Observe(times.image_decode_s());
    metrics.preprocess_s.Observe(times.preprocess_s());
    metrics.encoder_queue_s.Observe(times.encode_queue_s());
    metrics.tower_s.Observe(times.tower_s());
  }
  if (finished_) {
    metrics.queue_s.Observe(times.queue_s());
    metrics.pull_s.Observe(times.pull_s());
    metrics.prefill_s.Observe(times.prefill_s());
  }
  metrics.decode_s.Observe(times.decode_s());
  metrics.total_s.Observe(times.total_s());
}

void ChatSession::LogEnd(const absl::Status& status) {
  const v1::StageTimes times = Times();
  uint32_t attempts = 0;
  {
    MutexLock lock(&mutex_);
    attempts = attempts_.num_begun();
  }
  LogInfo("chat", {{"generation", Hex(generation_id_)},
                   {"trace_id", trace_.trace_id},
                   {"span_id", trace_.span_id},
                   {"parent_span_id", trace_.parent_span_id},
                   {"status", absl::StatusCodeToString(status.code())},
                   {"attempts", attempts},
                   {"prompt_tokens", static_cast<int64_t>(prompt_.token_ids.size())},
                   {"completion_tokens", journal_.has_value() ? journal_->num_tokens() : uint64_t{0}},
                   {"pictures", static_cast<int64_t>(prompt_.handles.size())},
                   {"prompt_s", times.prompt_s()},
                   {"fetch_s", times.fetch_s()},
                   {"encode_s", times.encode_s()},
                   {"image_decode_s", times.image_decode_s()},
                   {"preprocess_s", times.preprocess_s()},
                   {"encode_queue_s", times.encode_queue_s()},
                   {"tower_s", times.tower_s()},
                   {"queue_s", times.queue_s()},
                   {"pull_s", times.pull_s()},
                   {"prefill_s", times.prefill_s()},
                   {"first_token_s", times.first_token_s()},
                   {"decode_s", times.decode_s()},
                   {"total_s", times.total_s()}});
}

void ChatSession::Fail(const absl::Status& status) {
  PRISM_CHECK(!status.ok());
  RouterMetrics& metrics = *parts_->metrics;
  if (lead_ != nullptr) lead_->Abandon(status);
  bool attempted = false;
  {
    MutexLock lock(&mutex_);
    attempted = attempts_.num_begun() > 0;
  }
  if (absl::IsDeadlineExceeded(status)) {
    metrics.abort_deadline.Increment();
  } else if (absl::IsResourceExhausted(cancellation_->status())) {
    metrics.abort_slow_reader.Increment();
  } else if (!cancellation_->status().ok()) {
    metrics.abort_client.Increment();
  } else if (ReasonOf(status) == kReasonNoReplica && !attempted) {
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
  turn_.reset();
  std::optional<ReplicaUse> unused;
  {
    MutexLock lock(&mutex_);
    unused.swap(next_decoder_);
  }
  job_->End({.prompt_tokens = static_cast<int64_t>(prompt_.token_ids.size()),
             .image_tokens = prompt_.image_tokens,
             .answer_tokens = journal_.has_value() ? static_cast<int64_t>(journal_->num_tokens()) : 0});
  lead_.reset();
  LogEnd(status);
  hooks_.on_end(this, status);
  log_->Close(status);
}

}  // namespace prism
