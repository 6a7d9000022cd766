#include "services/router/picture_encode.h"

#include <algorithm>
#include <type_traits>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/base/status.h"
#include "common/rpc/client_call.h"
#include "common/rpc/deadline.h"
#include "common/rpc/trace_context.h"
#include "common/wire/request_limits.h"
#include "common/wire/status_codec.h"

namespace prism {
namespace {

using EncodeCall = ClientUnary<v1::EncodeRequest, v1::EncodeResponse>;
using UploadCall = ClientUpload<v1::PutMediaRequest, v1::PutMediaResponse>;

// A picture is sent to this many encoders at the most.
constexpr size_t kTriesMax = 2;

constexpr int64_t kRetryMs = 1000;

// Whether another encoder may do better with the same picture.
bool WorthAnother(const absl::Status& status) {
  return absl::IsUnavailable(status) || absl::IsDeadlineExceeded(status) || absl::IsNotFound(status) ||
         absl::IsAborted(status);
}

}  // namespace

void PictureEncode::Start(const RouterParts* parts, PictureRequest request,
                          std::shared_ptr<Cancellation> cancellation, DoneFn done) {
  const std::shared_ptr<PictureEncode> encode(
      new PictureEncode(parts, std::move(request), std::move(cancellation), std::move(done)));
  encode->Queue(encode->request_.share.urgent);
}

PictureEncode::PictureEncode(const RouterParts* parts, PictureRequest request,
                             std::shared_ptr<Cancellation> cancellation, DoneFn done)
    : parts_(parts),
      request_(std::move(request)),
      cancellation_(std::move(cancellation)),
      sha256_(request_.file->sha256),
      by_id_(request_.file->bytes.size() > static_cast<size_t>(kInlineMediaBytesMax)),
      queued_at_(parts->clock->Now()),
      file_(std::move(request_.file)),
      done_(std::move(done)) {}

std::shared_ptr<const MediaFile> PictureEncode::File() {
  MutexLock lock(&mutex_);
  return file_;
}

SteadyTime PictureEncode::CallDeadline() const {
  const SteadyTime now = Clock::Real().Now();
  return EarlierOf(HopDeadline(request_.deadline, now), now, parts_->options->encode_timeout);
}

void PictureEncode::Queue(bool urgent) {
  if (const absl::Status cancelled = cancellation_->status(); !cancelled.ok()) return Finish(cancelled);
  EncoderWish wish{.sha256 = sha256_, .excluded = request_.avoid};
  {
    MutexLock lock(&mutex_);
    if (!failed_.empty()) {
      wish.excluded = failed_;
      wish.only_others = true;
    }
  }
  Share share = request_.share;
  share.urgent = urgent;
  cancellation_->Add(parts_->encode_queue->Add(
      share, [set = parts_->encoders, wish = std::move(wish)] { return set->TryEncoder(wish); },
      [self = shared_from_this()](absl::StatusOr<ReplicaUse> use) {
        if (use.ok()) return self->Begin(*std::move(use), false);
        const absl::Status cancelled = self->cancellation_->status();
        if (!cancelled.ok()) return self->Finish(cancelled);
        // What became of the first encoder says more than that there is no other.
        absl::Status error;
        {
          MutexLock lock(&self->mutex_);
          error = self->last_error_;
        }
        self->Finish(error.ok() ? use.status() : error);
      }));
}

void PictureEncode::Begin(ReplicaUse use, bool is_hedge) {
  const auto attempt = std::make_shared<Attempt>();
  attempt->is_hedge = is_hedge;
  attempt->use = std::move(use);
  attempt->begun = parts_->clock->Now();
  bool first = false;
  {
    MutexLock lock(&mutex_);
    // The one it was to help has answered meanwhile.
    if (is_hedge && !MayHedgeLocked()) return;
    first = attempts_.empty() && failed_.empty();
    attempts_.push_back(attempt);
  }
  if (first) {
    parts_->metrics->encode_queue_s.Observe(SecondsBetween(queued_at_, attempt->begun));
    const auto delay = parts_->encoders->HedgeDelay();
    if (delay.has_value() && !std::exchange(hedge_armed_, true)) {
      const gpr_timespec when =
          gpr_time_add(gpr_now(GPR_CLOCK_MONOTONIC), gpr_time_from_millis(delay->count(), GPR_TIMESPAN));
      // Weak: an alarm keeps its function until it is destroyed. The attempt's call keeps this alive.
      hedge_alarm_.Set(when, [weak = weak_from_this()](bool ok) {
        const std::shared_ptr<PictureEncode> self = weak.lock();
        if (ok && self != nullptr) self->Hedge();
      });
    }
  }
  if (by_id_) {
    Upload(attempt);
  } else {
    Encode(attempt);
  }
}

template <typename Call>
void PictureEncode::Track(const AttemptPtr& attempt, const std::shared_ptr<Call>& call) {
  cancellation_->Add(call);
  bool over = false;
  {
    MutexLock lock(&mutex_);
    over = attempt->over;
    // An upload may have ended, and its encode begun, before it was known here.
    const bool past = attempt->encoding && !std::is_same_v<Call, EncodeCall>;
    if (!over && !past)
      attempt->cancel = [weak = std::weak_ptr<Call>(call)] {
        if (const std::shared_ptr<Call> alive = weak.lock()) alive->Cancel();
      };
  }
  if (over) call->Cancel();
}

void PictureEncode::Upload(const AttemptPtr& attempt) {
  const std::shared_ptr<PictureEncode> self = shared_from_this();
  std::shared_ptr<const MediaFile> file = File();
  if (file == nullptr) return Answered(attempt, absl::CancelledError("answered by another encoder"), {});
  v1::VisionEncoder::StubInterface* const stub = attempt->use.encoder();
  Track(attempt, UploadCall::Start(
                     CallDeadline(),
                     [stub](auto* context, auto* response, auto* reactor) {
                       stub->async()->PutMedia(context, response, reactor);
                     },
                     [file = std::move(file), offset = size_t{0}](v1::PutMediaRequest* chunk) mutable {
                       if (offset >= file->bytes.size()) return false;
                       chunk->set_data(file->bytes.substr(offset, kMediaChunkBytesMax));
                       offset += chunk->data().size();
                       return true;
                     },
                     [self, attempt](const absl::Status& status, const v1::PutMediaResponse&) {
                       if (status.ok()) {
                         self->Encode(attempt);
                       } else {
                         self->Answered(attempt, status, {});
                       }
                     }));
}

void PictureEncode::Encode(const AttemptPtr& attempt) {
  const std::shared_ptr<PictureEncode> self = shared_from_this();
  {
    MutexLock lock(&mutex_);
    attempt->encoding = true;
  }
  v1::VisionEncoder::StubInterface* const stub = attempt->use.encoder();
  v1::EncodeRequest request;
  if (by_id_) {
    request.mutable_media()->set_media_id(sha256_);
  } else {
    const std::shared_ptr<const MediaFile> file = File();
    if (file == nullptr) return Answered(attempt, absl::CancelledError("answered by another encoder"), {});
    request.mutable_media()->set_inline_data(file->bytes);
  }
  request.mutable_frame_bytes()->Add(request_.frame_bytes.begin(), request_.frame_bytes.end());
  *request.mutable_options() = request_.options;
  request.set_cache_salt(request_.cache_salt);
  Track(attempt, EncodeCall::Start(
                     std::move(request), CallDeadline(),
                     [stub, traceparent = request_.traceparent](auto* context, auto* message, auto* response,
                                                                auto done) {
                       SetTraceparent(context, traceparent);
                       stub->async()->Encode(context, message, response, std::move(done));
                     },
                     [self, attempt](const absl::Status& status, v1::EncodeResponse response) {
                       self->Answered(attempt, status, std::move(response));
                     }));
}

void PictureEncode::Hedge() {
  EncoderWish wish{.sha256 = sha256_, .only_others = true};
  {
    MutexLock lock(&mutex_);
    if (hedged_ || !MayHedgeLocked()) return;
    hedged_ = true;
    wish.excluded = {attempts_[0]->use.index()};
  }
  // Only where an encoder has nothing better to do.
  if (!cancellation_->status().ok() || parts_->encode_queue->waiting() > 0) return;
  absl::StatusOr<ReplicaUse> use = parts_->encoders->TryEncoder(wish);
  if (!use.ok() || !parts_->encoders->TakeHedge()) return;
  parts_->metrics->hedges.Increment();
  Begin(*std::move(use), true);
}

void PictureEncode::Answered(const AttemptPtr& attempt, const absl::Status& status,
                             v1::EncodeResponse response) {
  absl::Status outcome = status;
  if (outcome.ok()) outcome = CheckHandle(response.handle());
  const bool cancelled = !cancellation_->status().ok();
  const size_t encoder = attempt->use.index();
  bool won = false, lost = false, other_runs = false;
  Ending ending;
  std::vector<std::function<void()>> cancels;
  size_t num_failed = 0;
  {
    MutexLock lock(&mutex_);
    attempt->over = true;
    attempt->cancel = nullptr;
    std::erase(attempts_, attempt);
    lost = !done_;
    other_runs = !attempts_.empty();
    won = outcome.ok() && !cancelled && !lost;
    if (won) {
      ending = TakeEnding();  // here: a loser that hears of its end at once must find it taken
      for (const AttemptPtr& other : attempts_) {
        other->over = true;
        if (other->cancel) cancels.push_back(std::move(other->cancel));
      }
    } else if (!lost && !cancelled && !absl::IsResourceExhausted(outcome)) {
      failed_.push_back(encoder);
    }
    num_failed = failed_.size();
  }
  if (won) {
    for (const std::function<void()>& cancel : cancels) cancel();
    if (response.handle().address().empty()) response.mutable_handle()->set_address(attempt->use.address());
    parts_->metrics->pictures.Increment();
    if (response.cached()) {
      parts_->metrics->pictures_cached.Increment();
    } else {
      parts_->encoders->RecordSeconds(SecondsBetween(attempt->begun, parts_->clock->Now()));
    }
    if (attempt->is_hedge) parts_->metrics->hedges_won.Increment();
    attempt->use.End();
    return Finish(std::move(ending), EncodedPicture{.response = std::move(response), .encoder = encoder});
  }
  if (outcome.ok()) {
    // Nobody wants this one: its lease goes back at once.
    parts_->encoders->ReleaseHandles(encoder, {response.handle().handle_id()});
  }
  if (!lost && !cancelled && absl::IsUnavailable(outcome)) attempt->use.ReportGone(outcome);
  if (!lost && !cancelled && absl::IsResourceExhausted(outcome)) attempt->use.ReportFull();
  const absl::Status error =
      Annotate(outcome, absl::StrCat(request_.path, " on encoder ", attempt->use.address()));
  attempt->use.End();
  if (lost) return;
  if (cancelled) return Finish(cancellation_->status());
  if (other_runs) return;
  if (absl::IsInvalidArgument(outcome)) return Finish(FieldViolation(request_.path, outcome.message()));
  const SteadyTime now = parts_->clock->Now();
  if (absl::IsResourceExhausted(outcome)) {
    SteadyTime full_since;
    {
      MutexLock lock(&mutex_);
      if (!full_since_.has_value()) full_since_ = now;
      full_since = *full_since_;
    }
    // A stream that has begun is not shed: it waits as long as its deadline lets it.
    const bool waits_on = request_.share.urgent || now - full_since < parts_->options->full_encoder_wait;
    if (!waits_on || now >= request_.deadline) {
      return Finish(RetryDelayMsOf(error).has_value() ? error : RetryAfter(error, kRetryMs));
    }
    parts_->metrics->encode_retries.Increment();
    return Queue(true);
  }
  if (!WorthAnother(outcome) || num_failed >= kTriesMax || Clock::Real().Now() >= request_.deadline) {
    return Finish(error);
  }
  parts_->metrics->encode_retries.Increment();
  {
    MutexLock lock(&mutex_);
    last_error_ = error;
  }
  Queue(true);
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

PictureEncode::Ending PictureEncode::TakeEnding() {
  return {.done = std::exchange(done_, nullptr), .file = std::move(file_)};
}

void PictureEncode::Finish(absl::StatusOr<EncodedPicture> result) {
  Ending ending;
  {
    MutexLock lock(&mutex_);
    ending = TakeEnding();
  }
  Finish(std::move(ending), std::move(result));
}

void PictureEncode::Finish(Ending ending, absl::StatusOr<EncodedPicture> result) {
  ending.file.reset();  // first of all: whoever is told may count on it
  hedge_alarm_.Cancel();
  if (ending.done) ending.done(std::move(result));
}

}  // namespace prism
