// EncoderService answers the RPCs of prism.v1.VisionEncoder. It checks requests, turns them into
// calls of Encoder, and sends embeddings; it computes nothing.
//
// Threads: gRPC's callbacks. Ownership: encoder, media store and metrics outlive the service, and
// the service the server.
#pragma once

#include <atomic>
#include <chrono>
#include <string>

#include "common/base/idle_watch.h"
#include "common/wire/tensor_frames.h"
#include "prism/v1/vision.grpc.pb.h"
#include "services/vision_encoder/encoder.h"
#include "services/vision_encoder/media_store.h"
#include "services/vision_encoder/metrics.h"

namespace prism {

inline constexpr int kKeysPerCallMax = 256;  // keys or handles of one call
inline constexpr uint32_t kLeaseMsMax = 600'000;
inline constexpr int64_t kFetchesMax = 256;  // FetchEmbedding calls at once
// A PutMedia without a next piece, or a FetchEmbedding whose frames nobody takes, is ended after this.
inline constexpr std::chrono::milliseconds kStreamIdleMax{30'000};

struct EncoderServiceOptions {
  std::string model;                    // name clients ask for
  std::string device;                   // "cpu"
  AlphaMode alpha = AlphaMode::kWhite;  // where a request leaves it open
  PixelBudget budget;
  std::string incarnation;  // 16 bytes, random at every start
  std::chrono::milliseconds stream_idle = kStreamIdleMax;
};

class EncoderService final : public v1::VisionEncoder::CallbackService {
 public:
  EncoderService(const EncoderServiceOptions& options, Encoder* encoder, MediaStore* media,
                 EncoderMetrics* metrics);

  // host:port under which decoders reach this process; stands in every handle. Before the first call.
  void set_address(const std::string& address) { address_ = address; }
  // From now on Encode and PutMedia are refused with Unavailable, reason DRAINING.
  void Drain() { draining_.store(true); }

  grpc::ServerReadReactor<v1::PutMediaRequest>* PutMedia(grpc::CallbackServerContext* context,
                                                         v1::PutMediaResponse* response) override;
  grpc::ServerUnaryReactor* Encode(grpc::CallbackServerContext* context, const v1::EncodeRequest* request,
                                   v1::EncodeResponse* response) override;
  grpc::ServerUnaryReactor* HasEmbedding(grpc::CallbackServerContext* context,
                                         const v1::HasEmbeddingRequest* request,
                                         v1::HasEmbeddingResponse* response) override;
  grpc::ServerWriteReactor<v1::TensorFrame>* FetchEmbedding(
      grpc::CallbackServerContext* context, const v1::FetchEmbeddingRequest* request) override;
  grpc::ServerUnaryReactor* Extend(grpc::CallbackServerContext* context, const v1::ExtendRequest* request,
                                   v1::ExtendResponse* response) override;
  grpc::ServerUnaryReactor* Release(grpc::CallbackServerContext* context, const v1::ReleaseRequest* request,
                                    v1::ReleaseResponse* response) override;
  grpc::ServerUnaryReactor* Describe(grpc::CallbackServerContext* context, const v1::DescribeRequest* request,
                                     v1::DescribeResponse* response) override;
  grpc::ServerUnaryReactor* GetLoad(grpc::CallbackServerContext* context, const v1::GetLoadRequest* request,
                                    v1::GetLoadResponse* response) override;

 private:
  absl::Status CheckServing() const;
  absl::StatusOr<EncodeInput> InputOf(const v1::EncodeRequest& request, SteadyTime deadline) const;
  void Fill(const EncodeOutcome& outcome, v1::EncodeResponse* response) const;
  // The embedding that a FetchEmbedding asks for, checked.
  absl::StatusOr<SharedEmbedding> Find(const v1::FetchEmbeddingRequest& request) const;

  const EncoderServiceOptions options_;
  Encoder* const encoder_;
  MediaStore* const media_;
  EncoderMetrics* const metrics_;
  std::string address_;
  std::atomic<bool> draining_{false};
  std::atomic<int64_t> num_fetches_{0};
  IdleWatch idle_watch_;
};

}  // namespace prism
