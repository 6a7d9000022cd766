// RouterService is the Router of router.proto: one reactor an RPC, and a ChatSession for each chat.
//
// Threads: gRPC's callbacks. Ownership: the parts are the caller's and outlive the service; the
// server is shut down before the service goes.
#pragma once

#include <atomic>
#include <string>

#include "absl/status/status.h"
#include "common/base/idle_watch.h"
#include "prism/v1/router.grpc.pb.h"
#include "services/router/parts.h"
#include "services/router/session_registry.h"

namespace prism {

class RouterService final : public v1::Router::CallbackService {
 public:
  explicit RouterService(const RouterParts* parts);

  grpc::ServerWriteReactor<v1::ChatEvent>* Chat(grpc::CallbackServerContext* context,
                                                const v1::ChatRequest* request) override;
  grpc::ServerUnaryReactor* ChatUnary(grpc::CallbackServerContext* context, const v1::ChatRequest* request,
                                      v1::ChatResponse* response) override;
  grpc::ServerReadReactor<v1::PutMediaRequest>* PutMedia(grpc::CallbackServerContext* context,
                                                         v1::PutMediaResponse* response) override;
  grpc::ServerUnaryReactor* Cancel(grpc::CallbackServerContext* context, const v1::CancelRequest* request,
                                   v1::CancelResponse* response) override;
  grpc::ServerWriteReactor<v1::ChatEvent>* Resume(grpc::CallbackServerContext* context,
                                                  const v1::ResumeRequest* request) override;
  grpc::ServerUnaryReactor* CountTokens(grpc::CallbackServerContext* context, const v1::ChatRequest* request,
                                        v1::CountTokensResponse* response) override;
  grpc::ServerUnaryReactor* ListModels(grpc::CallbackServerContext* context,
                                       const v1::ListModelsRequest* request,
                                       v1::ListModelsResponse* response) override;
  grpc::ServerUnaryReactor* Tokenize(grpc::CallbackServerContext* context, const v1::TokenizeRequest* request,
                                     v1::TokenizeResponse* response) override;
  grpc::ServerUnaryReactor* Describe(grpc::CallbackServerContext* context, const v1::DescribeRequest* request,
                                     v1::DescribeResponse* response) override;
  grpc::ServerUnaryReactor* GetLoad(grpc::CallbackServerContext* context, const v1::GetLoadRequest* request,
                                    v1::GetLoadResponse* response) override;
  grpc::ServerUnaryReactor* ListReplicas(grpc::CallbackServerContext* context,
                                         const v1::ListReplicasRequest* request,
                                         v1::ListReplicasResponse* response) override;

  // OK when at least one encoder and one decoder are ready. Any thread.
  absl::Status Ready() const;
  // Chats under way, waiting ones included. Any thread.
  int running() const { return sessions_.running() + sessions_.waiting(); }

 private:
  // When a chat has to be done: the caller's deadline or --request-timeout-s.
  SteadyTime ChatDeadline(const grpc::CallbackServerContext& context) const;
  absl::StatusOr<SessionRegistry::Chat> Admit(const grpc::CallbackServerContext& context,
                                              const v1::ChatRequest& request);
  // Admits the chat and has `reactor`, a ChatSink, read it from the start.
  template <typename Reactor>
  void ServeChat(const grpc::CallbackServerContext& context, const v1::ChatRequest& request,
                 Reactor* reactor);

  const RouterParts* const parts_;
  const std::string incarnation_;  // 16 bytes
  const uint64_t created_unix_s_;
  std::atomic<int> counting_{0};  // CountTokens under way
  SessionRegistry sessions_;
  IdleWatch idle_watch_;
};

}  // namespace prism
