#include "services/decoder/decoder_service.h"

#include <utility>

#include "common/base/status.h"
#include "common/rpc/deadline.h"
#include "common/rpc/unary_call.h"
#include "common/rpc/write_reactor.h"
#include "common/wire/request_limits.h"
#include "common/wire/status_codec.h"
#include "services/decoder/generate_log.h"

namespace prism {
namespace {

// Messages that may wait for a slow reader besides a token each: Started, ChoiceFinished, Finished,
// and heartbeats, which come only while nothing else does. A minute of them unread ends the stream.
constexpr size_t kOtherEventsMax = 64;
// What a caller is told to wait when too many grammars are being prepared.
constexpr int64_t kRetryMs = 500;

// Streams a generation, itself or by a feed. The engine tells its sink, which tells this.
class GenerateReactor final : public WriteReactor<v1::GenerateEvent> {
 public:
  GenerateReactor(grpc::CallbackServerContext* context, size_t pending_max, Engine* engine, GenerateLog log)
      : WriteReactor(context, pending_max), engine_(engine), log_(std::move(log)) {}

  // What is told goes by this feed. REQUIRES: nothing was told yet
  void UseFeed(std::unique_ptr<FeedWriter> feed) {
    feed_ = std::move(feed);
    v1::GenerateEvent fed;
    fed.mutable_fed();
    Emit(std::move(fed)).IgnoreError();  // OnPeerGone() tells of a caller that is gone
  }
  absl::Status Tell(v1::GenerateEvent event) {
    return feed_ != nullptr ? feed_->Emit(std::move(event)) : Emit(std::move(event));
  }
  void Flush() {
    if (feed_ != nullptr) feed_->Flush();
  }
  // In place of Done(), which it calls.
  void End(const absl::Status& status, const GenerationReport& report = {}) {
    log_.SetEnd(status, report);
    if (feed_ != nullptr) feed_->End();
    Done(status);
  }

  // REQUIRES: called before the generation can end and before the RPC's handler returns
  void SetGeneration(std::shared_ptr<Generation> generation) { generation_ = std::move(generation); }

 private:
  void OnPeerGone() override {
    if (generation_ != nullptr) engine_->Cancel(*generation_);
  }
  // The line is written here, where neither the engine nor the caller waits for it.
  void OnDone() override {
    log_.Write(Clock::Real().Now());
    WriteReactor::OnDone();
  }

  Engine* const engine_;
  GenerateLog log_;
  std::unique_ptr<FeedWriter> feed_;  // null: the events are written here
  std::shared_ptr<Generation> generation_;
};

class GenerateSink final : public GenerationSink {
 public:
  GenerateSink(GenerateReactor* reactor, GenerationRegistry* registry, std::string generation_id,
               uint32_t attempt)
      : reactor_(reactor), registry_(registry), generation_id_(std::move(generation_id)), attempt_(attempt) {}

  absl::Status OnEvent(GenerationEvent event) override { return reactor_->Tell(ToProto(event)); }
  void Flush() override { reactor_->Flush(); }
  void OnEnd(const absl::Status& status, const GenerationReport& report) override {
    registry_->Remove(generation_id_, attempt_);
    reactor_->End(status, report);
  }

 private:
  GenerateReactor* const reactor_;  // lives until End()
  GenerationRegistry* const registry_;
  const std::string generation_id_;
  const uint32_t attempt_;
};

class ScoreSink final : public GenerationSink {
 public:
  ScoreSink(UnaryCall* call, v1::ScoreResponse* response) : call_(call), response_(response) {}

  absl::Status OnEvent(GenerationEvent event) override {
    if (const auto* scored = std::get_if<ScoredEvent>(&event)) {
      response_->mutable_logprobs()->Add(scored->logprobs.begin(), scored->logprobs.end());
    }
    return absl::OkStatus();
  }
  void OnEnd(const absl::Status& status, const GenerationReport&) override { call_->Done(status); }

 private:
  UnaryCall* const call_;  // lives until Done()
  v1::ScoreResponse* const response_;
};

}  // namespace

void DecoderService::Serve(Engine* engine, const ModelLimits& limits, const v1::DescribeResponse& description,
                           const DecoderMetrics& metrics, AnswerGrammars* grammars) {
  limits_ = limits;
  description_ = description;
  metrics_ = metrics;
  grammars_ = grammars;
  engine_.store(engine, std::memory_order_release);
}

absl::Status DecoderService::Ready() const {
  if (engine_.load(std::memory_order_acquire) != nullptr) return absl::OkStatus();
  return absl::UnavailableError("the decoder is loading its model");
}

absl::Status DecoderService::Start(const std::shared_ptr<Generation>& generation) {
  Engine* const engine = engine_.load();
  PRISM_ASSIGN_OR_RETURN(const std::shared_ptr<Generation> older, registry_.Add(generation));
  if (older != nullptr) engine->Cancel(*older);
  const absl::Status status = engine->Submit(generation);
  if (!status.ok()) {
    registry_.Remove(generation->request().generation_id, generation->request().attempt);
  }
  return status;
}

grpc::ServerWriteReactor<v1::GenerateEvent>* DecoderService::Generate(grpc::CallbackServerContext* context,
                                                                      const v1::GenerateRequest* request) {
  GenerateLog log(*request, ContinueTrace(TraceparentOf(*context)), Clock::Real().Now());
  const auto refuse = [context, &log](const absl::Status& status) {
    auto* const refused = new GenerateReactor(context, 1, nullptr, std::move(log));
    refused->End(status);
    return refused;
  };
  if (const absl::Status status = Ready(); !status.ok()) return refuse(status);
  absl::StatusOr<GenerationRequest> parsed = ParseGenerate(*request, limits_, DeadlineOf(*context));
  if (!parsed.ok()) {
    metrics_.rejected_invalid.Increment();
    return refuse(parsed.status());
  }
  std::unique_ptr<FeedWriter> writer;
  if (!request->feed_id().empty()) {
    absl::StatusOr<std::shared_ptr<EventFeed>> feed = feeds_.Find(request->feed_id());
    if (!feed.ok()) {
      metrics_.rejected_invalid.Increment();
      return refuse(feed.status());
    }
    writer = std::make_unique<FeedWriter>(*std::move(feed), request->feed_number());
  }
  const size_t tokens_max = parsed->num_choices * static_cast<size_t>(parsed->max_tokens);
  auto* const reactor =
      new GenerateReactor(context, tokens_max + kOtherEventsMax, engine_.load(), std::move(log));
  if (writer != nullptr) reactor->UseFeed(std::move(writer));
  auto sink = std::make_unique<GenerateSink>(reactor, &registry_, parsed->generation_id, parsed->attempt);
  const auto generation = std::make_shared<Generation>(*std::move(parsed), std::move(sink));
  reactor->SetGeneration(generation);
  Begin(generation, [reactor](const absl::Status& status) { reactor->End(status); });
  return reactor;
}

grpc::ServerWriteReactor<v1::FeedEvents>* DecoderService::Feed(grpc::CallbackServerContext* context,
                                                               const v1::FeedRequest* request) {
  absl::Status status = Ready();
  if (status.ok()) {
    absl::StatusOr<std::shared_ptr<EventFeed>> feed = feeds_.Find(request->feed_id());
    status = feed.status();
    if (feed.ok()) {
      absl::StatusOr<grpc::ServerWriteReactor<v1::FeedEvents>*> carrier = (*feed)->Carry(context);
      if (carrier.ok()) return *carrier;
      status = carrier.status();
    }
  }
  return RefuseFeed(context, status);
}

void DecoderService::Begin(const std::shared_ptr<Generation>& generation,
                           const std::function<void(const absl::Status&)>& refused) {
  const std::shared_ptr<AnswerGrammar>& grammar = generation->request().grammar;
  const auto start = [this, generation, refused](const absl::Status& prepared) {
    absl::Status status = prepared;
    if (absl::IsInvalidArgument(prepared)) {
      metrics_.rejected_invalid.Increment();
      status = FieldViolation("sampling.grammar", prepared.message());
    }
    if (status.ok()) status = Start(generation);
    if (!status.ok()) refused(status);
  };
  if (grammar == nullptr) return start(absl::OkStatus());
  if (grammars_ == nullptr) {
    return start(absl::InvalidArgumentError("this decoder has no tokenizer.json and enforces no grammar"));
  }
  const absl::Status queued = grammars_->Prepare(grammar, &generation->cancel_flag(), start);
  if (!queued.ok()) {
    refused(RetryAfter(
        ErrorWithReason(absl::StatusCode::kResourceExhausted, queued.message(), kReasonQueueFull), kRetryMs));
  }
}

grpc::ServerUnaryReactor* DecoderService::Cancel(grpc::CallbackServerContext* context,
                                                 const v1::CancelRequest* request, v1::CancelResponse*) {
  if (const absl::Status status = Ready(); !status.ok()) return FinishNow(context, status);
  if (request->generation_ids_size() > kCancelIdsMax) {
    return FinishNow(context,
                     FieldViolation("generation_ids", absl::StrCat("has ", request->generation_ids_size(),
                                                                   " entries, at most ", kCancelIdsMax)));
  }
  for (const std::string& id : request->generation_ids()) {
    const std::shared_ptr<Generation> generation = registry_.Find(id);
    if (generation != nullptr) engine_.load()->Cancel(*generation);
  }
  return FinishNow(context, absl::OkStatus());
}

grpc::ServerUnaryReactor* DecoderService::Score(grpc::CallbackServerContext* context,
                                                const v1::ScoreRequest* request,
                                                v1::ScoreResponse* response) {
  if (const absl::Status status = Ready(); !status.ok()) return FinishNow(context, status);
  absl::StatusOr<GenerationRequest> parsed = ParseScore(*request, limits_, DeadlineOf(*context));
  if (!parsed.ok()) {
    metrics_.rejected_invalid.Increment();
    return FinishNow(context, parsed.status());
  }
  Engine* const engine = engine_.load();
  auto* const call = new UnaryCall();
  const auto generation =
      std::make_shared<Generation>(*std::move(parsed), std::make_unique<ScoreSink>(call, response));
  call->WhenCancelled([engine, generation] { engine->Cancel(*generation); });
  if (const absl::Status status = engine->Submit(generation); !status.ok()) call->Done(status);
  return call;
}

grpc::ServerUnaryReactor* DecoderService::Describe(grpc::CallbackServerContext* context,
                                                   const v1::DescribeRequest*,
                                                   v1::DescribeResponse* response) {
  const absl::Status status = Ready();
  if (status.ok()) *response = description_;
  return FinishNow(context, status);
}

grpc::ServerUnaryReactor* DecoderService::GetLoad(grpc::CallbackServerContext* context,
                                                  const v1::GetLoadRequest*, v1::GetLoadResponse* response) {
  const absl::Status status = Ready();
  if (!status.ok()) return FinishNow(context, status);
  const EngineLoad load = engine_.load()->Load();
  response->set_running(static_cast<uint32_t>(load.running));
  response->set_waiting(static_cast<uint32_t>(load.waiting));
  response->set_queued_work_s(load.queued_work_s);
  response->set_kv_pages_used(static_cast<uint64_t>(load.kv_pages_used));
  response->set_kv_pages_total(static_cast<uint64_t>(load.kv_pages_total));
  response->set_tokens_per_s(load.tokens_per_s);
  response->set_desired_replicas(load.desired_replicas);
  return FinishNow(context, absl::OkStatus());
}

}  // namespace prism
