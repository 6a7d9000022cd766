#include "services/router/picture_encode.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/base/status.h"
#include "common/rpc/client_call.h"
#include "common/rpc/deadline.h"
#include "common/wire/status_codec.h"

namespace prism {
namespace {

using EncodeCall = ClientUnary<v1::EncodeRequest, v1::EncodeResponse>;
using UploadCall = ClientUpload<v1::PutMediaRequest, v1::PutMediaResponse>;

// A picture is sent to this many encoders at the most.
constexpr size_t kTriesMax = 2;

// Whether another encoder may do better with the same picture.
bool WorthAnother(const absl::Status& status) {
  return absl::IsUnavailable(status) || absl::IsResourceExhausted(status) ||
         absl::IsDeadlineExceeded(status) || absl::IsNotFound(status) || absl::IsAborted(status);
}

}  // namespace

void PictureEncode::Start(const RouterParts* parts, PictureRequest request,
                          std::shared_ptr<Cancellation> cancellation, DoneFn done) {
  const std::shared_ptr<PictureEncode> encode(
      new PictureEncode(parts, std::move(request), std::move(cancellation), std::move(done)));
  encode->Try();
}

PictureEncode::PictureEncode(const RouterParts* parts, PictureRequest request,
                             std::shared_ptr<Cancellation> cancellation, DoneFn done)
    : parts_(parts),
      request_(std::move(request)),
      cancellation_(std::move(cancellation)),
      done_(std::move(done)) {}

SteadyTime PictureEncode::CallDeadline() const {
  const SteadyTime now = Clock::Real().Now();
  return EarlierOf(HopDeadline(request_.deadline, now), now, parts_->options->encode_timeout);
}

void PictureEncode::Try() {
  if (const absl::Status cancelled = cancellation_->status(); !cancelled.ok()) return Finish(cancelled);
  std::vector<size_t> excluded = failed_;
  if (failed_.empty()) excluded = request_.avoid;
  absl::StatusOr<ReplicaUse> use =
      parts_->encoders->PickEncoder(request_.file->sha256, excluded, !failed_.empty());
  if (!use.ok()) return Finish(failed_.empty() ? use.status() : last_error_);
  use_ = *std::move(use);
  if (!failed_.empty()) parts_->metrics->encode_retries.Increment();
  if (request_.file->bytes.size() > static_cast<size_t>(kInlineMediaBytesMax)) {
    Upload();
  } else {
    Encode();
  }
}

void PictureEncode::Upload() {
  const std::shared_ptr<PictureEncode> self = shared_from_this();
  v1::VisionEncoder::StubInterface* const stub = use_.encoder();
  cancellation_->Add(UploadCall::Start(
      CallDeadline(),
      [stub](auto* context, auto* response, auto* reactor) {
        stub->async()->PutMedia(context, response, reactor);
      },
      [file = request_.file, offset = size_t{0}](v1::PutMediaRequest* chunk) mutable {
        if (offset >= file->bytes.size()) return false;
        chunk->set_data(file->bytes.substr(offset, kMediaChunkBytesMax));
        offset += chunk->data().size();
        return true;
      },
      [self](const absl::Status& status, const v1::PutMediaResponse&) {
        if (status.ok()) {
          self->Encode();
        } else {
          self->Answered(status, {});
        }
      }));
}

void PictureEncode::Encode() {
  const std::shared_ptr<PictureEncode> self = shared_from_this();
  v1::VisionEncoder::StubInterface* const stub = use_.encoder();
  v1::EncodeRequest request;
  if (request_.file->bytes.size() > static_cast<size_t>(kInlineMediaBytesMax)) {
    request.mutable_media()->set_media_id(request_.file->sha256);
  } else {
    request.mutable_media()->set_inline_data(request_.file->bytes);
  }
  request.mutable_frame_bytes()->Add(request_.frame_bytes.begin(), request_.frame_bytes.end());
  *request.mutable_options() = request_.options;
  request.set_cache_salt(request_.cache_salt);
  cancellation_->Add(EncodeCall::Start(
      std::move(request), CallDeadline(),
      [stub](auto* context, auto* message, auto* response, auto done) {
        stub->async()->Encode(context, message, response, std::move(done));
      },
      [self](const absl::Status& status, v1::EncodeResponse response) {
        self->Answered(status, std::move(response));
      }));
}

void PictureEncode::Answered(const absl::Status& status, v1::EncodeResponse response) {
  if (const absl::Status cancelled = cancellation_->status(); !cancelled.ok()) return Finish(cancelled);
  absl::Status outcome = status;
  if (outcome.ok()) outcome = CheckHandle(response.handle());
  if (outcome.ok()) {
    if (response.handle().address().empty()) response.mutable_handle()->set_address(use_.address());
    parts_->metrics->pictures.Increment();
    if (response.cached()) parts_->metrics->pictures_cached.Increment();
    return Finish(EncodedPicture{.response = std::move(response), .encoder = use_.index()});
  }
  if (absl::IsInvalidArgument(outcome)) {
    return Finish(FieldViolation(request_.path, outcome.message()));
  }
  last_error_ = Annotate(outcome, absl::StrCat(request_.path, " on encoder ", use_.address()));
  if (absl::IsUnavailable(outcome)) use_.ReportGone(outcome);
  const bool in_time = Clock::Real().Now() < request_.deadline;
  failed_.push_back(use_.index());
  use_.End();
  if (WorthAnother(outcome) && in_time && failed_.size() < kTriesMax) return Try();
  Finish(last_error_);
}

absl::Status PictureEncode::CheckHandle(const v1::EmbeddingHandle& handle) const {
  const v1::PatchGridShape& grid = handle.grid();
  const uint64_t merged = parts_->model->vision.merge_area();
  const uint64_t patches = uint64_t{grid.h()} * grid.w();
  // Two frames of a clip are a temporal patch; a picture is one.
  const uint64_t temporal = std::max<uint64_t>(1, (request_.frame_bytes.size() + 1) / 2);
  if (grid.t() != temporal || patches == 0 || patches % merged != 0 ||
      temporal * (patches / merged) != handle.num_tokens() ||
      handle.num_tokens() > static_cast<uint32_t>(kSlotTokensMax)) {
    return absl::InternalError(absl::StrCat("answered grid ", grid.t(), " x ", grid.h(), " x ", grid.w(),
                                            " with ", handle.num_tokens(), " tokens"));
  }
  if (handle.hidden_size() != parts_->model->text.hidden_size ||
      handle.num_deepstack() != parts_->model->vision.num_deepstack()) {
    return absl::InternalError(absl::StrCat("answered ", handle.hidden_size(), " columns and ",
                                            handle.num_deepstack(), " DeepStack levels, want ",
                                            parts_->model->text.hidden_size, " and ",
                                            parts_->model->vision.num_deepstack()));
  }
  if (handle.content_key().size() != 32) {
    return absl::InternalError(
        absl::StrCat("answered a content key of ", handle.content_key().size(), " bytes"));
  }
  return absl::OkStatus();
}

void PictureEncode::Finish(absl::StatusOr<EncodedPicture> result) {
  use_.End();
  request_.file.reset();
  DoneFn done = std::move(done_);
  done(std::move(result));
}

}  // namespace prism
