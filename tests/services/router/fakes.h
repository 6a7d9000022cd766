// A vision encoder and a decoder as the router sees them: real gRPC servers on free ports, whose
// answers the test decides.
#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <functional>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "common/base/hash.h"
#include "common/base/ids.h"
#include "common/base/mutex.h"
#include "common/base/thread.h"
#include "common/rpc/server.h"
#include "common/rpc/unary_call.h"
#include "common/rpc/write_reactor.h"
#include "common/wire/status_codec.h"
#include "prism/v1/decoder.grpc.pb.h"
#include "prism/v1/vision.grpc.pb.h"
#include "services/decoder/event_feed.h"

namespace prism {

inline constexpr uint64_t kFakeHidden = 128;
inline constexpr uint64_t kFakeDeepstack = 2;

inline std::string FakeSha(const std::string& bytes) {
  const Sha256Digest digest = Sha256Of(bytes.data(), bytes.size());
  return std::string(digest.begin(), digest.end());
}

// Owns a server of a service, which can be stopped and started again on the same port.
class FakeServer {
 public:
  explicit FakeServer(grpc::Service* service) : service_(service) { Start(0); }
  const std::string& address() const { return address_; }
  // As seen from outside: the process is gone.
  void Kill() { server_.reset(); }
  void Restart() { Start(port_); }
  void SetServing(bool serving) { server_->SetServing(serving); }

 private:
  void Start(int port) {
    auto server = RpcServer::Start({.port = port}, {service_});
    ASSERT_TRUE(server.ok()) << server.status();
    server_ = *std::move(server);
    server_->SetServing(true);
    address_ = server_->address();
    port_ = server_->port();
  }
  grpc::Service* const service_;
  std::unique_ptr<RpcServer> server_;
  std::string address_;
  int port_ = 0;
};

class FakeEncoder final : public v1::VisionEncoder::CallbackService {
 public:
  FakeEncoder() {
    description.set_role("vision-encoder");
    description.set_hidden_size(kFakeHidden);
    description.set_num_deepstack(kFakeDeepstack);
    description.set_weights_digest("vision");
  }
  ~FakeEncoder() override { Kill(); }

  const std::string& address() const { return server_.address(); }
  // Calls that are held are cut off, not answered.
  void Kill() {
    server_.Kill();
    Open();
  }
  void Restart() { server_.Restart(); }
  void SetServing(bool serving) { server_.SetServing(serving); }
  // Holds answers back until Open(); the caller's cancellation ends the wait.
  void Hold() { held_ = true; }
  void Open() { held_ = false; }

  grpc::ServerReadReactor<v1::PutMediaRequest>* PutMedia(grpc::CallbackServerContext*,
                                                         v1::PutMediaResponse* response) override {
    class Reactor final : public grpc::ServerReadReactor<v1::PutMediaRequest> {
     public:
      Reactor(FakeEncoder* encoder, v1::PutMediaResponse* out) : encoder_(encoder), out_(out) {
        StartRead(&chunk_);
      }
      void OnReadDone(bool ok) override {
        if (ok) {
          EXPECT_LE(chunk_.data().size(), size_t{1} << 20);
          bytes_ += chunk_.data();
          StartRead(&chunk_);
          return;
        }
        out_->set_media_id(FakeSha(bytes_));
        {
          MutexLock lock(&encoder_->mutex);
          encoder_->media[out_->media_id()] = bytes_;
        }
        Finish(grpc::Status::OK);
      }
      void OnDone() override { delete this; }

     private:
      FakeEncoder* const encoder_;
      v1::PutMediaResponse* const out_;
      v1::PutMediaRequest chunk_;
      std::string bytes_;
    };
    return new Reactor(this, response);
  }

  grpc::ServerUnaryReactor* Encode(grpc::CallbackServerContext* context, const v1::EncodeRequest* request,
                                   v1::EncodeResponse* response) override {
    return RunOnPool(context, &pool_, [this, context, request, response]() -> absl::Status {
      ++num_encodes;
      while (held_ && !context->IsCancelled()) std::this_thread::sleep_for(std::chrono::milliseconds(1));
      std::string bytes = request->media().inline_data();
      // One that takes longer than anybody waits for it.
      while (bytes.rfind("endless", 0) == 0 && !context->IsCancelled()) {
        std::this_thread::sleep_for(std::chrono::milliseconds(1));
      }
      if (context->IsCancelled()) {
        ++num_cancelled;
        return absl::CancelledError("cancelled");
      }
      MutexLock lock(&mutex);
      if (request->media().has_media_id()) {
        const auto found = media.find(request->media().media_id());
        if (found == media.end()) return absl::NotFoundError("unknown media id");
        bytes = found->second;
      }
      if (!error.ok()) return error;
      if (bytes.rfind("bad", 0) == 0) return absl::InvalidArgumentError("not a picture");
      last_options = request->options();
      // A picture of n bytes gives a grid of 2 x (2 n mod 16 + 2); so does each two frames of a clip.
      v1::EmbeddingHandle* handle = response->mutable_handle();
      const uint32_t width = 2 + 2 * (bytes.size() % 8);
      handle->set_handle_id(NewId().substr(0, 16));
      leases.insert(handle->handle_id());
      handle->set_content_key(FakeSha("key" + bytes));
      handle->set_address(address());
      const uint32_t frames = static_cast<uint32_t>(request->frame_bytes_size());
      const uint32_t temporal = frames == 0 ? 1 : (frames + 1) / 2;
      handle->mutable_grid()->set_t(temporal);
      handle->mutable_grid()->set_h(2);
      handle->mutable_grid()->set_w(width);
      handle->set_num_tokens(temporal * width / 2);
      handle->set_hidden_size(kFakeHidden);
      handle->set_num_deepstack(kFakeDeepstack);
      response->set_media_sha256(FakeSha(bytes));
      response->mutable_times()->set_decode_s(0.5);
      response->mutable_times()->set_encode_s(0.125);
      return absl::OkStatus();
    });
  }
  grpc::ServerUnaryReactor* Release(grpc::CallbackServerContext* context, const v1::ReleaseRequest* request,
                                    v1::ReleaseResponse*) override {
    MutexLock lock(&mutex);
    for (const std::string& id : request->handle_ids()) leases.erase(id);
    return FinishNow(context, absl::OkStatus());
  }
  size_t num_leases() {
    MutexLock lock(&mutex);
    return leases.size();
  }
  grpc::ServerUnaryReactor* Describe(grpc::CallbackServerContext* context, const v1::DescribeRequest*,
                                     v1::DescribeResponse* response) override {
    MutexLock lock(&mutex);
    *response = description;
    return FinishNow(context, absl::OkStatus());
  }
  grpc::ServerUnaryReactor* GetLoad(grpc::CallbackServerContext* context, const v1::GetLoadRequest*,
                                    v1::GetLoadResponse*) override {
    return FinishNow(context, absl::OkStatus());
  }

  Mutex mutex;
  v1::DescribeResponse description;
  absl::Status error;
  std::map<std::string, std::string> media;
  v1::ProcessorOptions last_options;
  std::set<std::string> leases;  // handles given out and not given back
  std::atomic<int> num_encodes{0};
  std::atomic<int> num_cancelled{0};

 private:
  std::atomic<bool> held_{false};
  TaskPool pool_{"fake-encode", 16, 64};
  FakeServer server_{this};
};

class FakeDecoder final : public v1::Decoder::CallbackService {
 public:
  // One Generate call; what plays it runs on a thread of its own.
  class Stream final : public WriteReactor<v1::GenerateEvent> {
   public:
    Stream(grpc::CallbackServerContext* context, v1::GenerateRequest request_in,
           std::shared_ptr<EventFeed> feed)
        : WriteReactor(context, 1),
          request(std::move(request_in)),
          writer_(std::make_unique<FeedWriter>(std::move(feed), request.feed_number())) {
      v1::GenerateEvent fed;
      fed.mutable_fed();
      WriteReactor::Emit(std::move(fed)).IgnoreError();
    }
    const v1::GenerateRequest request;
    std::atomic<bool> gone{false};

    // By the feed.
    absl::Status Emit(v1::GenerateEvent event) {
      const absl::Status status = writer_->Emit(std::move(event));
      writer_->Flush();
      return status;
    }
    // The last touch.
    void Done(absl::Status status) {
      writer_->End();
      WriteReactor::Done(std::move(status));
    }

    // Started with a receipt for every handle.
    void Start() {
      v1::GenerateEvent event;
      event.mutable_started()->set_prompt_tokens(static_cast<uint32_t>(request.token_ids_size()));
      for (const v1::EmbeddingHandle& handle : request.handles()) {
        v1::ImageReceipt* receipt = event.mutable_started()->add_receipts();
        receipt->set_content_key(handle.content_key());
        receipt->set_num_tokens(handle.num_tokens());
        receipt->set_encoder(handle.address());
      }
      Emit(std::move(event)).IgnoreError();
    }
    // Each of the prompt's tokens after the first, when asked for.
    void PromptLogprobs() {
      if (!request.sampling().has_prompt_logprobs()) return;
      v1::GenerateEvent event;
      event.mutable_prompt_logprobs();
      for (int i = 1; i < request.token_ids_size(); ++i) {
        v1::PromptTokenLogprob* token = event.mutable_prompt_logprobs()->add_tokens();
        token->set_token_id(request.token_ids(i));
        token->set_logprob(-i);
        for (uint32_t top = 0; top < request.sampling().prompt_logprobs(); ++top) {
          token->add_top()->set_token_id(top);
        }
      }
      Emit(std::move(event)).IgnoreError();
    }
    void Token(uint32_t choice, uint32_t index, uint32_t id) {
      v1::GenerateEvent event;
      event.mutable_token()->set_choice(choice);
      event.mutable_token()->set_index(index);
      event.mutable_token()->set_token_id(id);
      if (request.sampling().has_top_logprobs()) {
        event.mutable_token()->set_logprob(-0.5);
        v1::TokenLogprob* top = event.mutable_token()->add_top();
        top->set_token_id(id);
        top->set_logprob(-0.5);
      }
      Emit(std::move(event)).IgnoreError();
    }
    void Heartbeat(uint64_t engine_steps, bool waiting = false) {
      v1::GenerateEvent event;
      event.mutable_heartbeat()->set_engine_steps(engine_steps);
      event.mutable_heartbeat()->set_waiting(waiting);
      Emit(std::move(event)).IgnoreError();
    }
    void Draining() {
      v1::GenerateEvent event;
      event.mutable_draining();
      Emit(std::move(event)).IgnoreError();
    }
    void EndChoice(uint32_t choice, v1::GenerateEvent::FinishReason reason, uint32_t tokens) {
      v1::GenerateEvent event;
      event.mutable_choice_finished()->set_choice(choice);
      event.mutable_choice_finished()->set_reason(reason);
      event.mutable_choice_finished()->set_completion_tokens(tokens);
      Emit(std::move(event)).IgnoreError();
    }
    // Says nothing more until the caller is gone, and ends then: false, for `before` of Answers().
    bool EndWithCaller() {
      while (!gone) std::this_thread::sleep_for(std::chrono::milliseconds(1));
      Done(absl::CancelledError("gone"));
      return false;
    }
    void Finished() {
      v1::GenerateEvent event;
      event.mutable_finished()->set_prefill_s(0.25);
      Emit(std::move(event)).IgnoreError();
      Done(absl::OkStatus());
    }

   private:
    void OnPeerGone() override { gone = true; }

    const std::unique_ptr<FeedWriter> writer_;
  };
  using Play = std::function<void(Stream*)>;

  FakeDecoder() {
    description.set_role("decoder");
    description.set_hidden_size(kFakeHidden);
    description.set_num_deepstack(kFakeDeepstack);
    description.set_weights_digest("text");
    description.set_model_length_max(4096);
  }
  ~FakeDecoder() override { Kill(); }

  const std::string& address() const { return server_.address(); }
  void Kill() {
    server_.Kill();
    std::vector<NamedThread> threads;
    {
      MutexLock lock(&mutex);
      threads.swap(threads_);
    }
    threads.clear();
  }
  void Restart() { server_.Restart(); }
  void SetServing(bool serving) { server_.SetServing(serving); }

  // What every stream plays from now on.
  void Plays(Play play) {
    MutexLock lock(&mutex);
    play_ = std::move(play);
  }
  // Answers each choice with these ids and ends with the last; goes on after what was emitted. Before
  // each token `before` is asked; false ends the play, and `before` must have called Done().
  void Answers(std::vector<uint32_t> ids, std::function<bool(Stream*, size_t index)> before = nullptr) {
    Plays([ids, before](Stream* stream) {
      stream->Start();
      stream->PromptLogprobs();
      const uint32_t choices = std::max(stream->request.num_choices(), 1u);
      const size_t length = std::min<size_t>(ids.size(), stream->request.sampling().max_tokens());
      for (size_t i = 0; i < length; ++i) {
        for (uint32_t c = 0; c < choices; ++c) {
          const int emitted = c < static_cast<uint32_t>(stream->request.emitted_size())
                                  ? stream->request.emitted(static_cast<int>(c)).token_ids_size()
                                  : 0;
          if (static_cast<int>(i) < emitted) continue;
          if (before && !before(stream, i)) return;
          stream->Token(c, static_cast<uint32_t>(i), ids[i]);
        }
      }
      for (uint32_t c = 0; c < choices; ++c) {
        stream->EndChoice(c,
                          length == ids.size() ? v1::GenerateEvent::FINISH_REASON_STOP
                                               : v1::GenerateEvent::FINISH_REASON_LENGTH,
                          static_cast<uint32_t>(length));
      }
      stream->Finished();
    });
  }
  std::vector<v1::GenerateRequest> requests() {
    MutexLock lock(&mutex);
    return requests_;
  }

  grpc::ServerWriteReactor<v1::GenerateEvent>* Generate(grpc::CallbackServerContext* context,
                                                        const v1::GenerateRequest* request) override {
    const absl::StatusOr<std::shared_ptr<EventFeed>> feed = feeds_.Find(request->feed_id());
    EXPECT_TRUE(feed.ok()) << feed.status();
    auto* stream = new Stream(context, *request, *feed);
    MutexLock lock(&mutex);
    requests_.push_back(*request);
    threads_.emplace_back("fake-generate", [play = play_, stream] { play(stream); });
    return stream;
  }
  grpc::ServerWriteReactor<v1::FeedEvents>* Feed(grpc::CallbackServerContext* context,
                                                 const v1::FeedRequest* request) override {
    const absl::StatusOr<std::shared_ptr<EventFeed>> feed = feeds_.Find(request->feed_id());
    EXPECT_TRUE(feed.ok()) << feed.status();
    const absl::StatusOr<grpc::ServerWriteReactor<v1::FeedEvents>*> carrier = (*feed)->Carry(context);
    return carrier.ok() ? *carrier : RefuseFeed(context, carrier.status());
  }
  grpc::ServerUnaryReactor* Describe(grpc::CallbackServerContext* context, const v1::DescribeRequest*,
                                     v1::DescribeResponse* response) override {
    MutexLock lock(&mutex);
    *response = description;
    return FinishNow(context, absl::OkStatus());
  }
  grpc::ServerUnaryReactor* GetLoad(grpc::CallbackServerContext* context, const v1::GetLoadRequest*,
                                    v1::GetLoadResponse*) override {
    return FinishNow(context, absl::OkStatus());
  }

  Mutex mutex;
  v1::DescribeResponse description;

 private:
  Play play_;
  std::vector<v1::GenerateRequest> requests_;
  std::vector<NamedThread> threads_;
  FeedRegistry feeds_;
  FakeServer server_{this};
};

}  // namespace prism
