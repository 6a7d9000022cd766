#include "services/vision_encoder/encoder_service.h"

#include <algorithm>
#include <memory>
#include <utility>

#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "common/base/check.h"
#include "common/base/log.h"
#include "common/base/status.h"
#include "common/metrics/build_info.h"
#include "common/rpc/deadline.h"
#include "common/rpc/unary_call.h"
#include "common/wire/request_limits.h"
#include "common/wire/status_codec.h"
#include "services/vision_encoder/encode_log.h"

namespace prism {
namespace {

constexpr size_t kDigestBytes = 32;
constexpr size_t kIdBytes = 16;
constexpr size_t kSaltBytesMax = 256;
constexpr int64_t kRetryMs = 1000;

absl::Status Lost(absl::string_view message) {
  return ErrorWithReason(absl::StatusCode::kNotFound, message, kReasonEmbeddingLost);
}

// What a caller can act upon is said in details too.
absl::Status WithDetails(const absl::Status& status) {
  if (!absl::IsResourceExhausted(status)) return status;
  return RetryAfter(ErrorWithReason(status.code(), status.message(), kReasonQueueFull), kRetryMs);
}

absl::Status CheckCount(absl::string_view field, int count) {
  if (count <= kKeysPerCallMax) return absl::OkStatus();
  return FieldViolation(field, absl::StrCat(count, " given, limit ", kKeysPerCallMax));
}

// Cancels the call of `context` if nothing moves for too long. Removed in OnDone(), until which gRPC
// keeps the context.
int64_t WatchCall(IdleWatch* watch, grpc::CallbackServerContext* context) {
  return watch->Add([context] { context->TryCancel(); });
}

// Takes a file in pieces. One message is read at a time, so nothing here needs a lock.
class PutMediaCall final : public grpc::ServerReadReactor<v1::PutMediaRequest> {
 public:
  PutMediaCall(grpc::CallbackServerContext* context, std::unique_ptr<MediaStore::Upload> upload,
               v1::PutMediaResponse* response, MediaStore* media, EncoderMetrics* metrics, IdleWatch* watch)
      : context_(context),
        upload_(std::move(upload)),
        response_(response),
        media_(media),
        metrics_(metrics),
        watch_(watch),
        watch_id_(WatchCall(watch, context)) {
    StartRead(&request_);
  }
  explicit PutMediaCall(const absl::Status& refusal) { Finish(ToGrpc(refusal)); }

  void OnReadDone(bool ok) override {
    if (upload_ == nullptr) return;
    if (!ok) {
      Finish(ToGrpc(Complete()));
      return;
    }
    const std::string& piece = request_.data();
    absl::Status status;
    if (piece.empty() || piece.size() > kMediaChunkBytesMax) {
      status = FieldViolation("data", absl::StrCat("a piece of ", piece.size(), " bytes; 1 to ",
                                                   kMediaChunkBytesMax, " are taken"));
    } else {
      status = upload_->Add(piece);
    }
    if (!status.ok()) {
      Finish(ToGrpc(status));
      return;
    }
    size_bytes_ += piece.size();
    metrics_->media_bytes.Increment(static_cast<double>(piece.size()));
    request_.Clear();
    watch_->Touch(watch_id_);
    StartRead(&request_);
  }
  void OnDone() override {
    if (watch_ != nullptr && !watch_->Remove(watch_id_)) {
      metrics_->idle_uploads.Increment();
      LogWarning("upload given up: its next piece did not come", {{"limit_ms", watch_->limit().count()}});
    }
    delete this;
  }

 private:
  ~PutMediaCall() override {
    if (upload_ == nullptr) return;
    upload_.reset();
    metrics_->media_store_bytes.Set(static_cast<double>(media_->used_bytes()));
  }

  absl::Status Complete() {
    // A broken stream ends like a finished one, but must not leave half a file.
    if (context_->IsCancelled()) return absl::CancelledError("the upload was cancelled");
    PRISM_ASSIGN_OR_RETURN(const StoredFile file, upload_->Finish());
    response_->set_media_id(file.sha256);
    response_->set_size_bytes(size_bytes_);
    return absl::OkStatus();
  }

  grpc::CallbackServerContext* const context_ = nullptr;
  std::unique_ptr<MediaStore::Upload> upload_;
  v1::PutMediaResponse* const response_ = nullptr;
  MediaStore* const media_ = nullptr;
  EncoderMetrics* const metrics_ = nullptr;
  IdleWatch* const watch_ = nullptr;
  const int64_t watch_id_ = -1;
  uint64_t size_bytes_ = 0;
  v1::PutMediaRequest request_;
};

// Sends an embedding frame by frame, each when the one before is on its way, so that a slow reader
// costs one frame and a hold on the embedding. One write runs at a time, so nothing needs a lock.
class FetchCall final : public grpc::ServerWriteReactor<v1::TensorFrame> {
 public:
  FetchCall(grpc::CallbackServerContext* context, SharedEmbedding embedding, uint64_t offset,
            std::atomic<int64_t>* num_fetches, EncoderMetrics* metrics, IdleWatch* watch)
      : embedding_(std::move(embedding)),
        splitter_(embedding_->bytes(), offset),
        num_fetches_(num_fetches),
        metrics_(metrics),
        watch_(watch),
        watch_id_(WatchCall(watch, context)) {
    Next();
  }
  FetchCall(const absl::Status& refusal, std::atomic<int64_t>* num_fetches)
      : splitter_({}), num_fetches_(num_fetches) {
    Finish(ToGrpc(refusal));
  }

  void OnWriteDone(bool ok) override {
    if (!ok) {
      embedding_.reset();
      Finish(ToGrpc(absl::CancelledError("the reader is gone")));
      return;
    }
    metrics_->embedding_bytes_out.Increment(static_cast<double>(frame_.data().size()));
    watch_->Touch(watch_id_);
    Next();
  }
  void OnDone() override {
    if (watch_ != nullptr && !watch_->Remove(watch_id_)) {
      metrics_->idle_fetches.Increment();
      LogWarning("embedding not sent: nobody takes its frames", {{"limit_ms", watch_->limit().count()}});
    }
    delete this;
  }

 private:
  ~FetchCall() override { num_fetches_->fetch_sub(1); }

  void Next() {
    if (splitter_.Next(&frame_)) {
      StartWrite(&frame_);
    } else {
      embedding_.reset();  // before the reader is told, who may count on it
      Finish(grpc::Status::OK);
    }
  }

  SharedEmbedding embedding_;  // until all of it is sent
  FrameSplitter splitter_;
  v1::TensorFrame frame_;
  std::atomic<int64_t>* const num_fetches_;
  EncoderMetrics* const metrics_ = nullptr;
  IdleWatch* const watch_ = nullptr;
  const int64_t watch_id_ = -1;
};

}  // namespace

EncoderService::EncoderService(const EncoderServiceOptions& options, Encoder* encoder, MediaStore* media,
                               EncoderMetrics* metrics)
    : options_(options),
      encoder_(encoder),
      media_(media),
      metrics_(metrics),
      idle_watch_("stream-idle", options.stream_idle) {
  PRISM_CHECK(options.incarnation.size() == kIdBytes);
}

absl::Status EncoderService::CheckServing() const {
  if (draining_.load()) {
    return ErrorWithReason(absl::StatusCode::kUnavailable, "the encoder is draining", kReasonDraining);
  }
  return encoder_->Ready();
}

grpc::ServerReadReactor<v1::PutMediaRequest>* EncoderService::PutMedia(grpc::CallbackServerContext* context,
                                                                       v1::PutMediaResponse* response) {
  const absl::Status serving = CheckServing();
  if (!serving.ok()) return new PutMediaCall(serving);
  absl::StatusOr<std::unique_ptr<MediaStore::Upload>> upload = media_->StartUpload();
  if (!upload.ok()) return new PutMediaCall(WithDetails(upload.status()));
  return new PutMediaCall(context, *std::move(upload), response, media_, metrics_, &idle_watch_);
}

absl::StatusOr<EncodeInput> EncoderService::InputOf(const v1::EncodeRequest& request,
                                                    SteadyTime deadline) const {
  EncodeInput input{.deadline = deadline};
  switch (request.media().source_case()) {
    case v1::Media::kMediaId: {
      const std::string& id = request.media().media_id();
      if (id.size() != kDigestBytes) {
        return FieldViolation("media.media_id", absl::StrCat(id.size(), " bytes, want ", kDigestBytes));
      }
      input.file = media_->Find(id);
      if (input.file == nullptr) {
        return absl::NotFoundError(
            absl::StrCat("media ", absl::BytesToHexString(id), " is not held; put it again"));
      }
      break;
    }
    case v1::Media::kInlineData: {
      const std::string& bytes = request.media().inline_data();
      if (static_cast<int64_t>(bytes.size()) > kInlineMediaBytesMax) {
        return FieldViolation("media.inline_data",
                              absl::StrCat(bytes.size(), " bytes, limit ", kInlineMediaBytesMax,
                                           "; larger files go through PutMedia"));
      }
      // The call may end while a worker still reads the file, and the request goes with the call.
      input.file = std::make_shared<const std::string>(bytes);
      break;
    }
    case v1::Media::SOURCE_NOT_SET:
      return FieldViolation("media", "neither media_id nor inline_data is given");
  }
  const v1::ProcessorOptions& options = request.options();
  switch (options.alpha()) {
    case v1::ALPHA_POLICY_UNSPECIFIED:
      input.choice.alpha = options_.alpha;
      break;
    case v1::ALPHA_POLICY_WHITE:
      input.choice.alpha = AlphaMode::kWhite;
      break;
    case v1::ALPHA_POLICY_DROP:
      input.choice.alpha = AlphaMode::kDrop;
      break;
    default:
      return FieldViolation("options.alpha",
                            absl::StrCat(static_cast<int>(options.alpha()), " is no alpha policy"));
  }
  if (options.has_min_pixels() && options.min_pixels() == 0)
    return FieldViolation("options.min_pixels", "0, want at least 1");
  if (options.has_max_pixels() && options.max_pixels() == 0)
    return FieldViolation("options.max_pixels", "0, want at least 1");
  constexpr uint64_t kPixelsMax = uint64_t{1} << 62;  // far above every limit, safe to compare as int64
  PRISM_ASSIGN_OR_RETURN(
      input.choice.bounds,
      ResolveBounds(options_.budget, static_cast<int64_t>(std::min(options.min_pixels(), kPixelsMax)),
                    static_cast<int64_t>(std::min(options.max_pixels(), kPixelsMax))));
  if (request.frame_bytes_size() > 0) {
    input.choice.bounds = ResolveClipBounds(options_.budget);
    input.frame_bytes.assign(request.frame_bytes().begin(), request.frame_bytes().end());
  }
  if (request.cache_salt().size() > kSaltBytesMax) {
    return FieldViolation("cache_salt",
                          absl::StrCat(request.cache_salt().size(), " bytes, limit ", kSaltBytesMax));
  }
  input.salt = request.cache_salt();
  return input;
}

void EncoderService::Fill(const EncodeOutcome& outcome, v1::EncodeResponse* response) const {
  const VisionEmbedding& embedding = *outcome.embedding;
  v1::EmbeddingHandle* handle = response->mutable_handle();
  handle->set_handle_id(outcome.handle);
  handle->set_content_key(outcome.key);
  handle->set_address(address_);
  handle->set_incarnation(options_.incarnation);
  handle->mutable_grid()->set_t(static_cast<uint32_t>(embedding.grid.t));
  handle->mutable_grid()->set_h(static_cast<uint32_t>(embedding.grid.h));
  handle->mutable_grid()->set_w(static_cast<uint32_t>(embedding.grid.w));
  handle->set_num_tokens(static_cast<uint32_t>(embedding.num_tokens()));
  handle->set_hidden_size(static_cast<uint32_t>(embedding.hidden_size()));
  handle->set_num_deepstack(static_cast<uint32_t>(embedding.num_deepstack()));
  handle->set_dtype(embedding.values.dtype() == DType::kBF16 ? v1::DATA_TYPE_BF16 : v1::DATA_TYPE_F32);
  handle->set_size_bytes(static_cast<uint64_t>(embedding.size_bytes()));
  handle->set_digest(embedding.digest);
  handle->set_lease_ms(static_cast<uint32_t>(outcome.lease.count()));
  response->set_media_sha256(outcome.media_sha256);
  response->set_cached(outcome.cached);
  response->set_image_width(static_cast<uint32_t>(outcome.size.width));
  response->set_image_height(static_cast<uint32_t>(outcome.size.height));
  if (outcome.cached) return;
  response->mutable_times()->set_decode_s(outcome.decode_s);
  response->mutable_times()->set_preprocess_s(outcome.preprocess_s);
  response->mutable_times()->set_queue_s(outcome.queue_s);
  response->mutable_times()->set_encode_s(outcome.encode_s);
}

grpc::ServerUnaryReactor* EncoderService::Encode(grpc::CallbackServerContext* context,
                                                 const v1::EncodeRequest* request,
                                                 v1::EncodeResponse* response) {
  UnaryCall* const reactor = new UnaryCall();
  // Written when the call is over: not by the device's thread.
  const auto log = std::make_shared<EncodeLog>(ContinueTrace(TraceparentOf(*context)), Clock::Real().Now());
  reactor->WhenOver([log] { log->Write(Clock::Real().Now()); });
  const auto end = [this, reactor, response, log](absl::StatusOr<EncodeOutcome> outcome) {
    log->SetEnd(outcome);
    if (outcome.ok()) {
      Fill(*outcome, response);
      outcome->embedding.reset();  // who is told may count on the store's being able to give it up
    }
    reactor->Done(WithDetails(outcome.status()));
  };
  if (const absl::Status serving = CheckServing(); !serving.ok()) {
    end(serving);
    return reactor;
  }
  absl::StatusOr<EncodeInput> input = InputOf(*request, DeadlineOf(*context));
  if (!input.ok()) {
    end(input.status());
    return reactor;
  }
  const std::shared_ptr<EncodeCall> call = encoder_->NewCall(*std::move(input), end);
  // From here on the reactor may be gone at any time.
  reactor->WhenCancelled([call] { call->Cancel(); });
  encoder_->Start(call);
  return reactor;
}

grpc::ServerUnaryReactor* EncoderService::HasEmbedding(grpc::CallbackServerContext* context,
                                                       const v1::HasEmbeddingRequest* request,
                                                       v1::HasEmbeddingResponse* response) {
  const absl::Status count = CheckCount("content_keys", request->content_keys_size());
  if (!count.ok()) return FinishNow(context, count);
  for (const std::string& key : request->content_keys()) response->add_held(encoder_->store().Holds(key));
  return FinishNow(context, absl::OkStatus());
}

absl::StatusOr<SharedEmbedding> EncoderService::Find(const v1::FetchEmbeddingRequest& request) const {
  if (request.incarnation() != options_.incarnation) {
    return Lost("the handle is of another incarnation of this encoder");
  }
  absl::StatusOr<SharedEmbedding> embedding = encoder_->store().Fetch(request.handle_id());
  if (!embedding.ok()) return Lost(embedding.status().message());
  const uint64_t size = static_cast<uint64_t>((*embedding)->size_bytes());
  if (request.offset() >= size) {
    return FieldViolation("offset", absl::StrCat(request.offset(), ", the embedding has ", size, " bytes"));
  }
  return embedding;
}

grpc::ServerWriteReactor<v1::TensorFrame>* EncoderService::FetchEmbedding(
    grpc::CallbackServerContext* context, const v1::FetchEmbeddingRequest* request) {
  if (num_fetches_.fetch_add(1) >= kFetchesMax) {
    return new FetchCall(WithDetails(absl::ResourceExhaustedError(
                             absl::StrCat(kFetchesMax, " embeddings are being sent, the limit"))),
                         &num_fetches_);
  }
  absl::StatusOr<SharedEmbedding> embedding = Find(*request);
  if (!embedding.ok()) return new FetchCall(embedding.status(), &num_fetches_);
  return new FetchCall(context, *std::move(embedding), request->offset(), &num_fetches_, metrics_,
                       &idle_watch_);
}

grpc::ServerUnaryReactor* EncoderService::Extend(grpc::CallbackServerContext* context,
                                                 const v1::ExtendRequest* request,
                                                 v1::ExtendResponse* response) {
  absl::Status status = CheckCount("handle_ids", request->handle_ids_size());
  if (status.ok() && (request->lease_ms() < 1 || request->lease_ms() > kLeaseMsMax)) {
    status = FieldViolation("lease_ms", absl::StrCat(request->lease_ms(), ", want 1 to ", kLeaseMsMax));
  }
  for (const std::string& id : request->handle_ids()) {
    if (!status.ok()) break;
    const absl::Status extended =
        encoder_->store().Extend(id, std::chrono::milliseconds(request->lease_ms()));
    if (!extended.ok()) status = Lost(extended.message());
  }
  response->set_lease_ms(request->lease_ms());
  return FinishNow(context, status);
}

grpc::ServerUnaryReactor* EncoderService::Release(grpc::CallbackServerContext* context,
                                                  const v1::ReleaseRequest* request, v1::ReleaseResponse*) {
  const absl::Status count = CheckCount("handle_ids", request->handle_ids_size());
  if (!count.ok()) return FinishNow(context, count);
  for (const std::string& id : request->handle_ids()) encoder_->store().Release(id);
  encoder_->ShowUsage();
  return FinishNow(context, absl::OkStatus());
}

grpc::ServerUnaryReactor* EncoderService::Describe(grpc::CallbackServerContext* context,
                                                   const v1::DescribeRequest*,
                                                   v1::DescribeResponse* response) {
  const absl::Status ready = encoder_->Ready();
  if (!ready.ok()) return FinishNow(context, ready);
  response->set_role("vision-encoder");
  response->set_model(options_.model);
  response->set_weights_digest(encoder_->options().weights_digest);
  response->set_numerics_id(encoder_->options().numerics_id);
  response->set_device(options_.device);
  response->set_tensor_parallel_size(1);
  response->set_build(BuildName());
  response->set_api_version(1);
  response->set_incarnation(options_.incarnation);
  response->set_image_tokens_max(static_cast<uint64_t>(options_.budget.image_tokens_max));
  response->set_hidden_size(static_cast<uint64_t>(encoder_->hidden_size()));
  response->set_num_deepstack(static_cast<uint64_t>(encoder_->num_deepstack()));
  response->set_calls_max(static_cast<uint64_t>(encoder_->options().calls_max));
  return FinishNow(context, absl::OkStatus());
}

grpc::ServerUnaryReactor* EncoderService::GetLoad(grpc::CallbackServerContext* context,
                                                  const v1::GetLoadRequest*, v1::GetLoadResponse* response) {
  const Encoder::Load load = encoder_->load();
  response->set_running(static_cast<uint32_t>(load.num_running));
  response->set_waiting(static_cast<uint32_t>(load.num_waiting));
  response->set_queued_work_s(load.queued_work_s);
  response->set_tokens_per_s(load.tokens_per_s);
  response->set_item_s(load.item_s);
  response->set_desired_replicas(load.desired_replicas);
  metrics_->desired_replicas.Set(load.desired_replicas);
  return FinishNow(context, absl::OkStatus());
}

}  // namespace prism
