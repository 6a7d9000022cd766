#include "services/router/router_service.h"

#include <atomic>
#include <chrono>
#include <memory>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/base/check.h"
#include "common/base/ids.h"
#include "common/base/log.h"
#include "common/base/status.h"
#include "common/metrics/build_info.h"
#include "common/rpc/deadline.h"
#include "common/rpc/unary_call.h"
#include "common/rpc/write_reactor.h"
#include "common/wire/request_limits.h"
#include "common/wire/status_codec.h"
#include "common/wire/tool_call_codec.h"
#include "services/router/prompt_job.h"

namespace prism {
namespace {

// Events that a stream takes from its chat's log ahead of its peer's reading; the rest waits there.
constexpr size_t kEventsAheadMax = 64;
constexpr int64_t kRetryMs = 1000;

// Why a call's peer is gone, as far as it can be told.
absl::Status GoneStatus(SteadyTime deadline) {
  if (Clock::Real().Now() + std::chrono::milliseconds(1) >= deadline) {
    return absl::DeadlineExceededError("the caller's deadline has passed");
  }
  return absl::CancelledError("the caller is gone");
}

// Ties an RPC to its reader of a chat's events, whichever is there first.
class ReaderLink {
 public:
  explicit ReaderLink(const grpc::CallbackServerContext& context) : deadline_(DeadlineOf(context)) {}

  void Attach(std::shared_ptr<ChatReader> reader) ABSL_LOCKS_EXCLUDED(mutex_) {
    {
      MutexLock lock(&mutex_);
      if (!gone_) {
        reader_ = std::move(reader);
        return;
      }
    }
    reader->Stop(GoneStatus(deadline_));
  }
  void Pump() ABSL_LOCKS_EXCLUDED(mutex_) {
    std::shared_ptr<ChatReader> reader;
    {
      MutexLock lock(&mutex_);
      reader = reader_;
    }
    if (reader != nullptr) reader->Pump();
  }
  void PeerGone() ABSL_LOCKS_EXCLUDED(mutex_) {
    std::shared_ptr<ChatReader> reader;
    {
      MutexLock lock(&mutex_);
      gone_ = true;
      reader = std::move(reader_);
    }
    if (reader != nullptr) reader->Stop(GoneStatus(deadline_));
  }

 private:
  const SteadyTime deadline_;
  Mutex mutex_;
  bool gone_ ABSL_GUARDED_BY(mutex_) = false;
  std::shared_ptr<ChatReader> reader_ ABSL_GUARDED_BY(mutex_);
};

class ChatReactor final : public WriteReactor<v1::ChatEvent>, public ChatSink {
 public:
  explicit ChatReactor(grpc::CallbackServerContext* context)
      : WriteReactor(context, kEventsAheadMax + 1), link_(*context) {}

  void Attach(std::shared_ptr<ChatReader> reader) { link_.Attach(std::move(reader)); }
  bool Ready() override {
    if (pending() < kEventsAheadMax) return true;
    full_ = true;
    // It may have been written just now.
    return pending() < kEventsAheadMax;
  }
  absl::Status Emit(v1::ChatEvent event) override { return WriteReactor::Emit(std::move(event)); }
  void Done(absl::Status status) override {
    if (absl::IsResourceExhausted(status) && pending() >= kEventsAheadMax) {
      WriteReactor::GiveUp(status);
    } else {
      WriteReactor::Done(status);
    }
  }

 private:
  void OnPeerGone() override { link_.PeerGone(); }
  void OnWritten() override {
    if (!full_ || pending() > kEventsAheadMax / 2) return;
    full_ = false;
    link_.Pump();
  }
  std::atomic<bool> full_{false};  // the reader waits for room
  ReaderLink link_;
};

// Collects the events of a chat into one response.
class ChatUnaryReactor final : public grpc::ServerUnaryReactor, public ChatSink {
 public:
  ChatUnaryReactor(const grpc::CallbackServerContext& context, v1::ChatResponse* response)
      : response_(response), link_(context) {}

  void Attach(std::shared_ptr<ChatReader> reader) { link_.Attach(std::move(reader)); }

  absl::Status Emit(v1::ChatEvent event) override {
    if (event.has_started()) *response_->mutable_started() = std::move(*event.mutable_started());
    if (event.has_finished()) *response_->mutable_finished() = std::move(*event.mutable_finished());
    if (event.has_delta()) {
      v1::ChatEvent::Delta* delta = event.mutable_delta();
      v1::ChatResponse::Choice* choice = ChoiceAt(delta->choice());
      (delta->reasoning() ? choice->mutable_reasoning() : choice->mutable_text())->append(delta->text());
      AppendToolCalls(*delta, choice);
      choice->mutable_token_ids()->MergeFrom(delta->token_ids());
      for (v1::TokenText& logprob : *delta->mutable_logprobs()) *choice->add_logprobs() = std::move(logprob);
    }
    if (event.has_choice_finished()) {
      v1::ChatEvent::ChoiceFinished* finished = event.mutable_choice_finished();
      v1::ChatResponse::Choice* choice = ChoiceAt(finished->choice());
      choice->set_finish_reason(std::move(*finished->mutable_finish_reason()));
      choice->set_stop_text(std::move(*finished->mutable_stop_text()));
    }
    return absl::OkStatus();
  }
  void Done(absl::Status status) override { Finish(ToGrpc(status)); }

 private:
  v1::ChatResponse::Choice* ChoiceAt(uint32_t index) {
    while (response_->choices_size() <= static_cast<int>(index)) response_->add_choices();
    return response_->mutable_choices(static_cast<int>(index));
  }
  void OnCancel() override { link_.PeerGone(); }
  void OnDone() override { delete this; }

  v1::ChatResponse* const response_;
  ReaderLink link_;
};

// Takes a file in chunks and keeps it.
class PutMediaReactor final : public grpc::ServerReadReactor<v1::PutMediaRequest> {
 public:
  PutMediaReactor(const RouterParts* parts, grpc::CallbackServerContext* context,
                  v1::PutMediaResponse* response, IdleWatch* watch)
      : parts_(parts),
        context_(context),
        response_(response),
        watch_(watch),
        watch_id_(watch->Add([context] { context->TryCancel(); })) {
    StartRead(&chunk_);
  }

  void OnReadDone(bool ok) override {
    if (!ok) return Complete();
    if (const absl::Status status = Take(); !status.ok()) return End(status);
    chunk_.Clear();
    watch_->Touch(watch_id_);
    StartRead(&chunk_);
  }
  void OnDone() override {
    // Until here gRPC keeps the context that the watch would cancel.
    if (!watch_->Remove(watch_id_)) {
      LogWarning("upload given up: its next chunk did not come", {{"limit_ms", watch_->limit().count()}});
    }
    delete this;
  }

 private:
  absl::Status Take() {
    const int64_t size = static_cast<int64_t>(chunk_.data().size());
    if (size == 0 || size > kMediaChunkBytesMax) {
      return FieldViolation("data",
                            absl::StrCat("chunk has ", size, " bytes, want 1 to ", kMediaChunkBytesMax));
    }
    const int64_t total = static_cast<int64_t>(bytes_.size()) + size;
    if (total > parts_->options->limit_media_bytes) {
      return absl::ResourceExhaustedError(absl::StrCat(
          "file has more than ", parts_->options->limit_media_bytes, " bytes, the most that is taken"));
    }
    PRISM_RETURN_IF_ERROR(parts_->media->Reserve(size));
    bytes_ += chunk_.data();
    return absl::OkStatus();
  }

  void Complete() {
    if (context_->IsCancelled()) return End(absl::CancelledError("the caller is gone"));
    if (bytes_.empty()) return End(FieldViolation("data", "file has 0 bytes"));
    const absl::Status submitted = parts_->pool->TrySubmit([this] { Keep(); });
    if (!submitted.ok()) {
      End(RetryAfter(ErrorWithReason(absl::StatusCode::kResourceExhausted,
                                     "too many files wait for their digest", kReasonQueueFull),
                     kRetryMs));
    }
  }

  void Keep() {
    const int64_t size = static_cast<int64_t>(bytes_.size());
    // The reservation becomes the file's own bytes.
    Unreserve();
    absl::Status status;
    {
      // Let go of before the end, after which the store may go too.
      const absl::StatusOr<std::shared_ptr<const MediaFile>> file = parts_->media->Upload(std::move(bytes_));
      status = file.status();
      if (file.ok()) response_->set_media_id((*file)->sha256);
    }
    response_->set_size_bytes(static_cast<uint64_t>(size));
    Finish(ToGrpc(status));
  }

  void Unreserve() { parts_->media->Unreserve(static_cast<int64_t>(bytes_.size())); }
  void End(const absl::Status& status) {
    Unreserve();
    Finish(ToGrpc(status));
  }

  const RouterParts* const parts_;
  grpc::CallbackServerContext* const context_;
  v1::PutMediaResponse* const response_;
  IdleWatch* const watch_;
  const int64_t watch_id_;
  v1::PutMediaRequest chunk_;
  std::string bytes_;
};

}  // namespace

RouterService::RouterService(const RouterParts* parts)
    : parts_(parts),
      incarnation_(NewIdBytes()),
      created_unix_s_(static_cast<uint64_t>(std::chrono::duration_cast<std::chrono::seconds>(
                                                std::chrono::system_clock::now().time_since_epoch())
                                                .count())),
      sessions_(parts, incarnation_),
      idle_watch_("upload-idle", parts->options->upload_idle) {}

SteadyTime RouterService::ChatDeadline(const grpc::CallbackServerContext& context) const {
  return EarlierOf(DeadlineOf(context), Clock::Real().Now(), parts_->options->request_timeout);
}

absl::StatusOr<SessionRegistry::Chat> RouterService::Admit(const grpc::CallbackServerContext& context,
                                                           const v1::ChatRequest& request) {
  parts_->metrics->requests.Increment();
  if (const absl::Status ready = parts_->decoders->ready(); !ready.ok()) {
    parts_->metrics->reject_no_replica.Increment();
    return ready;
  }
  return sessions_.Add(request, ChatDeadline(context), ContinueTrace(TraceparentOf(context)));
}

template <typename Reactor>
void RouterService::ServeChat(const grpc::CallbackServerContext& context, const v1::ChatRequest& request,
                              Reactor* reactor) {
  absl::StatusOr<SessionRegistry::Chat> chat = Admit(context, request);
  if (!chat.ok()) return reactor->Done(chat.status());
  absl::StatusOr<std::shared_ptr<ChatReader>> reader = chat->log->Attach(reactor, 0);
  PRISM_CHECK(reader.ok());
  reactor->Attach(*reader);
  if (chat->session != nullptr) {
    chat->session->Start();
  } else {
    (*reader)->Pump();
  }
}

grpc::ServerWriteReactor<v1::ChatEvent>* RouterService::Chat(grpc::CallbackServerContext* context,
                                                             const v1::ChatRequest* request) {
  auto* const reactor = new ChatReactor(context);
  ServeChat(*context, *request, reactor);
  return reactor;
}

grpc::ServerUnaryReactor* RouterService::ChatUnary(grpc::CallbackServerContext* context,
                                                   const v1::ChatRequest* request,
                                                   v1::ChatResponse* response) {
  auto* const reactor = new ChatUnaryReactor(*context, response);
  ServeChat(*context, *request, reactor);
  return reactor;
}

grpc::ServerWriteReactor<v1::ChatEvent>* RouterService::Resume(grpc::CallbackServerContext* context,
                                                               const v1::ResumeRequest* request) {
  auto* const reactor = new ChatReactor(context);
  const absl::StatusOr<std::shared_ptr<ChatLog>> log = sessions_.Find(request->generation_id());
  if (!log.ok()) {
    reactor->Done(log.status());
    return reactor;
  }
  const absl::StatusOr<std::shared_ptr<ChatReader>> reader = (*log)->Attach(reactor, request->from());
  if (!reader.ok()) {
    reactor->Done(reader.status());
    return reactor;
  }
  parts_->metrics->reconnects.Increment();
  reactor->Attach(*reader);
  (*reader)->Pump();
  return reactor;
}

grpc::ServerReadReactor<v1::PutMediaRequest>* RouterService::PutMedia(grpc::CallbackServerContext* context,
                                                                      v1::PutMediaResponse* response) {
  return new PutMediaReactor(parts_, context, response, &idle_watch_);
}

grpc::ServerUnaryReactor* RouterService::Cancel(grpc::CallbackServerContext* context,
                                                const v1::CancelRequest* request, v1::CancelResponse*) {
  if (request->generation_ids_size() > kCancelIdsMax) {
    return FinishNow(context,
                     FieldViolation("generation_ids", absl::StrCat("has ", request->generation_ids_size(),
                                                                   " ids, at most ", kCancelIdsMax)));
  }
  for (const std::string& id : request->generation_ids()) sessions_.Cancel(id);
  return FinishNow(context, absl::OkStatus());
}

grpc::ServerUnaryReactor* RouterService::CountTokens(grpc::CallbackServerContext* context,
                                                     const v1::ChatRequest* request,
                                                     v1::CountTokensResponse* response) {
  if (counting_.fetch_add(1) >= parts_->options->max_waiting) {
    counting_.fetch_sub(1);
    return FinishNow(context,
                     RetryAfter(ErrorWithReason(absl::StatusCode::kResourceExhausted,
                                                "too many prompts are being counted", kReasonQueueFull),
                                kRetryMs));
  }
  auto* const call = new UnaryCall();
  const auto cancellation = std::make_shared<Cancellation>();
  const SteadyTime deadline = ChatDeadline(*context);
  call->WhenCancelled([cancellation, deadline] { cancellation->Cancel(GoneStatus(deadline)); });
  const auto job =
      std::make_shared<PromptJob>(parts_, *request, PromptPurpose::kCount, deadline, cancellation);
  job->Start([this, job, call, response](absl::StatusOr<PreparedPrompt> prompt) {
    if (prompt.ok()) {
      response->set_prompt_tokens(static_cast<uint32_t>(prompt->token_ids.size()));
      response->set_image_tokens(static_cast<uint32_t>(prompt->image_tokens));
    }
    job->End({});
    counting_.fetch_sub(1);
    call->Done(prompt.status());
  });
  return call;
}

grpc::ServerUnaryReactor* RouterService::ListModels(grpc::CallbackServerContext* context,
                                                    const v1::ListModelsRequest*,
                                                    v1::ListModelsResponse* response) {
  v1::ListModelsResponse::Model* model = response->add_models();
  model->set_id(parts_->options->served_model_name);
  model->set_model_length_max(static_cast<uint64_t>(parts_->LengthMax()));
  model->set_created_unix_s(created_unix_s_);
  model->set_thinking(parts_->format->starts_in_reasoning());
  model->set_limit_images(static_cast<uint64_t>(parts_->options->limit_images));
  return FinishNow(context, absl::OkStatus());
}

grpc::ServerUnaryReactor* RouterService::Tokenize(grpc::CallbackServerContext* context,
                                                  const v1::TokenizeRequest* request,
                                                  v1::TokenizeResponse* response) {
  return RunOnPool(context, parts_->pool, [this, request, response]() -> absl::Status {
    if (request->has_ids()) {
      std::vector<int32_t> ids;
      for (const uint32_t id : request->ids().ids()) {
        if (id >= static_cast<uint64_t>(parts_->model->text.vocab_size)) {
          return FieldViolation(
              "ids", absl::StrCat("names id ", id, ", the vocabulary has ", parts_->model->text.vocab_size));
        }
        ids.push_back(static_cast<int32_t>(id));
      }
      response->mutable_ids()->Add(ids.begin(), ids.end());
      response->set_text(parts_->tokenizer->Decode(ids, !request->allow_special()));
      return absl::OkStatus();
    }
    const SpecialTokens mode =
        request->allow_special() ? SpecialTokens::kMatchAdded : SpecialTokens::kPlainText;
    PRISM_ASSIGN_OR_RETURN(const std::vector<int32_t> ids, parts_->tokenizer->Encode(request->text(), mode));
    response->mutable_ids()->Add(ids.begin(), ids.end());
    response->set_text(request->text());
    return absl::OkStatus();
  });
}

grpc::ServerUnaryReactor* RouterService::Describe(grpc::CallbackServerContext* context,
                                                  const v1::DescribeRequest*,
                                                  v1::DescribeResponse* response) {
  const v1::DescribeResponse decoder = parts_->decoders->AnyDescription();
  response->set_role("router");
  response->set_model(parts_->options->served_model_name);
  response->set_weights_digest(decoder.weights_digest());
  response->set_numerics_id(decoder.numerics_id());
  response->set_tensor_parallel_size(1);
  response->set_build(BuildName());
  response->set_api_version(1);
  response->set_incarnation(incarnation_);
  response->set_model_length_max(static_cast<uint64_t>(parts_->LengthMax()));
  response->set_limit_images(static_cast<uint64_t>(parts_->options->limit_images));
  return FinishNow(context, absl::OkStatus());
}

grpc::ServerUnaryReactor* RouterService::GetLoad(grpc::CallbackServerContext* context,
                                                 const v1::GetLoadRequest*, v1::GetLoadResponse* response) {
  response->set_running(static_cast<uint32_t>(sessions_.running()));
  response->set_waiting(static_cast<uint32_t>(sessions_.waiting()));
  response->set_queued_work_s(parts_->gate->queued_work_s());
  return FinishNow(context, absl::OkStatus());
}

grpc::ServerUnaryReactor* RouterService::ListReplicas(grpc::CallbackServerContext* context,
                                                      const v1::ListReplicasRequest*,
                                                      v1::ListReplicasResponse* response) {
  parts_->encoders->AppendTo(response);
  parts_->decoders->AppendTo(response);
  return FinishNow(context, absl::OkStatus());
}

absl::Status RouterService::Ready() const {
  PRISM_RETURN_IF_ERROR(parts_->encoders->ready());
  return parts_->decoders->ready();
}

}  // namespace prism
