// DecoderService answers prism.v1.Decoder: it checks requests, hands them to the engine and streams
// what the engine tells.
//
// Threads: gRPC's callbacks and the engine's thread; nothing here blocks.
// Ownership: the engine outlives every call, so the server is shut down before the engine goes.
#pragma once

#include <atomic>
#include <functional>
#include <memory>
#include <string>

#include "prism/v1/decoder.grpc.pb.h"
#include "services/decoder/engine/engine.h"
#include "services/decoder/event_feed.h"
#include "services/decoder/generation_registry.h"
#include "services/decoder/metrics.h"
#include "services/decoder/request_codec.h"

namespace prism {

class DecoderService final : public v1::Decoder::CallbackService {
 public:
  DecoderService() = default;

  // Takes calls from now on; before, every call is Unavailable. Called once. `engine` outlives the
  // calls, and so does `grammars`; without those (null) requests with a grammar are refused.
  void Serve(Engine* engine, const ModelLimits& limits, const v1::DescribeResponse& description,
             const DecoderMetrics& metrics, AnswerGrammars* grammars = nullptr);

  // Feeds end as soon as none of their generations is under way, so that a server can drain.
  void Drain() { feeds_.Drain(); }

  grpc::ServerWriteReactor<v1::GenerateEvent>* Generate(grpc::CallbackServerContext* context,
                                                        const v1::GenerateRequest* request) override;
  grpc::ServerWriteReactor<v1::FeedEvents>* Feed(grpc::CallbackServerContext* context,
                                                 const v1::FeedRequest* request) override;
  grpc::ServerUnaryReactor* Cancel(grpc::CallbackServerContext* context, const v1::CancelRequest* request,
                                   v1::CancelResponse* response) override;
  grpc::ServerUnaryReactor* Score(grpc::CallbackServerContext* context, const v1::ScoreRequest* request,
                                  v1::ScoreResponse* response) override;
  grpc::ServerUnaryReactor* Describe(grpc::CallbackServerContext* context, const v1::DescribeRequest* request,
                                     v1::DescribeResponse* response) override;
  grpc::ServerUnaryReactor* GetLoad(grpc::CallbackServerContext* context, const v1::GetLoadRequest* request,
                                    v1::GetLoadResponse* response) override;

 private:
  // OK once Serve() was called.
  absl::Status Ready() const;
  // Start(), once the generation's grammar is prepared, if it has one. `refused` is told of an error.
  void Begin(const std::shared_ptr<Generation>& generation,
             const std::function<void(const absl::Status&)>& refused);
  // Registers and submits the generation, in place of an older attempt.
  absl::Status Start(const std::shared_ptr<Generation>& generation);

  std::atomic<Engine*> engine_{nullptr};  // set last by Serve(); the rest is constant from then on
  ModelLimits limits_;
  v1::DescribeResponse description_;
  DecoderMetrics metrics_;
  AnswerGrammars* grammars_ = nullptr;
  GenerationRegistry registry_;
  FeedRegistry feeds_;
};

}  // namespace prism
