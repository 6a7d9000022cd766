#include "services/router/prompt_job.h"

#include <algorithm>
#include <map>
#include <numeric>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/base/mutex.h"
#include "common/base/status.h"
#include "common/wire/status_codec.h"
#include "services/router/answer_form.h"
#include "services/router/bad_words.h"
#include "services/router/chat_validation.h"

namespace prism {
namespace {

constexpr int64_t kRetryMs = 1000;

// A picture's share of the encoders; each two frames of a clip are one more.
double PictureCost(size_t num_frames) { return std::max<double>(1, static_cast<double>(num_frames) / 2); }

// The layouts fit their slots, so all that a caller can have wrong is the length.
absl::Status AsContextLength(const absl::Status& status) {
  if (!absl::IsInvalidArgument(status)) return status;
  return ErrorWithReason(status.code(), status.message(), kReasonContextLength);
}

void TakeLonger(const v1::EncodeTimes& times, v1::EncodeTimes* longest) {
  longest->set_decode_s(std::max(longest->decode_s(), times.decode_s()));
  longest->set_preprocess_s(std::max(longest->preprocess_s(), times.preprocess_s()));
  longest->set_queue_s(std::max(longest->queue_s(), times.queue_s()));
  longest->set_encode_s(std::max(longest->encode_s(), times.encode_s()));
}

}  // namespace

// Collects the answers of all pictures; the last one goes on. A picture that fails ends the others.
struct PromptJob::Round {
  Mutex mutex;
  std::vector<absl::StatusOr<EncodedPicture>> results ABSL_GUARDED_BY(mutex);
  size_t missing ABSL_GUARDED_BY(mutex) = 0;
  std::shared_ptr<Cancellation> cancellation = std::make_shared<Cancellation>();

  // What the request's cancellation calls.
  void Cancel() { cancellation->Cancel(absl::CancelledError("the request was cancelled")); }
};

PromptJob::PromptJob(const RouterParts* parts, v1::ChatRequest request, PromptPurpose purpose,
                     SteadyTime deadline, std::shared_ptr<Cancellation> cancellation, std::string traceparent)
    : parts_(parts),
      request_(std::move(request)),
      purpose_(purpose),
      deadline_(deadline),
      cancellation_(std::move(cancellation)),
      traceparent_(std::move(traceparent)) {}

void PromptJob::Start(DoneFn done) {
  done_ = std::move(done);
  if (purpose_ == PromptPurpose::kChat) {
    absl::StatusOr<std::shared_ptr<AdmissionGate::Ticket>> ticket = parts_->gate->Admit(request_, deadline_);
    if (!ticket.ok()) return Finish(ticket.status());
    ticket_ = *std::move(ticket);
  }
  request_.set_cache_salt(parts_->gate->SaltOf(request_));
  OnPool([self = shared_from_this()] { self->Prepare(); });
}

void PromptJob::EncodeAgain(bool elsewhere, DoneFn done) {
  done_ = std::move(done);
  EncodeAll(elsewhere ? encoders_ : std::vector<size_t>());
}

void PromptJob::OnPool(std::function<void()> task) {
  const std::shared_ptr<PromptJob> self = shared_from_this();
  const absl::Status submitted = parts_->pool->TrySubmit(std::move(task));
  if (submitted.ok()) return;
  Finish(RetryAfter(ErrorWithReason(absl::StatusCode::kResourceExhausted,
                                    "too many prompts wait for their tokens", kReasonQueueFull),
                    kRetryMs));
}

void PromptJob::Prepare() {
  stage_start_ = parts_->clock->Now();
  absl::Status status = cancellation_->status();
  if (status.ok()) status = PrepareText();
  const SteadyTime rendered = parts_->clock->Now();
  prompt_s_ += SecondsBetween(stage_start_, rendered);
  if (status.ok()) status = HoldPictures();
  fetch_s_ += SecondsBetween(rendered, parts_->clock->Now());
  if (!status.ok()) return Finish(status);
  if (pictures_.empty()) return Assemble();
  EncodeAll({});
}

absl::Status PromptJob::PrepareText() {
  PRISM_RETURN_IF_ERROR(ValidateChat(request_, *parts_->options, parts_->model->text.vocab_size));
  PRISM_RETURN_IF_ERROR(ResolveBadWords(*parts_->tokenizer, &request_));
  PRISM_ASSIGN_OR_RETURN(answer_form_,
                         AnswerFormOf(request_, *parts_->format, *parts_->tokenizer, parts_->grammars));
  const std::vector<std::string> tools(request_.tools_json().begin(), request_.tools_json().end());
  absl::StatusOr<ChatPrompt> prompt = parts_->format->Render(MessagesOf(request_), tools, {});
  if (!prompt.ok()) return WithFieldPath(prompt.status());
  prompt_ = *std::move(prompt);
  if (prompt_.slots.empty()) return absl::OkStatus();
  PRISM_RETURN_IF_ERROR(parts_->encoders->ready());
  // A prompt whose text alone is too long is refused before its pictures cost anything.
  std::vector<SlotLayout> least;
  for (const PromptSlot& slot : prompt_.slots) {
    PRISM_ASSIGN_OR_RETURN(SlotLayout layout, LayoutOf(slot, 1));
    least.push_back(std::move(layout));
  }
  return AsContextLength(parts_->format->Assemble(prompt_, least, parts_->LengthMax()).status());
}

absl::StatusOr<SlotLayout> PromptJob::LayoutOf(const PromptSlot& slot, uint32_t num_tokens) const {
  SlotLayout layout{.num_tokens = static_cast<int32_t>(num_tokens), .timestamps_s = {}};
  if (slot.kind != ChatPart::Kind::kVideo) return layout;
  const v1::Clip& clip = request_.messages(static_cast<int>(slot.message_index))
                             .content(static_cast<int>(slot.part_index))
                             .clip();
  // The frames are those that are to be seen: nothing is sampled from them.
  std::vector<int64_t> frames(static_cast<size_t>(clip.frame_bytes_size()));
  std::iota(frames.begin(), frames.end(), 0);
  PRISM_ASSIGN_OR_RETURN(
      layout.timestamps_s,
      VideoTimestamps(frames, clip.has_fps() ? clip.fps() : parts_->model->video_sampling.fps));
  return layout;
}

absl::Status PromptJob::HoldPictures() {
  for (const PromptSlot& slot : prompt_.slots) {
    v1::ContentPart* const part = request_.mutable_messages(static_cast<int>(slot.message_index))
                                      ->mutable_content(static_cast<int>(slot.part_index));
    v1::Media* const media =
        part->has_clip() ? part->mutable_clip()->mutable_frames() : part->mutable_image();
    Picture picture;
    if (part->has_clip()) {
      picture.frame_bytes.assign(part->clip().frame_bytes().begin(), part->clip().frame_bytes().end());
    }
    picture.path = absl::StrCat("messages.", slot.message_index, ".content.", slot.part_index);
    absl::StatusOr<std::shared_ptr<const MediaFile>> file =
        media->has_media_id() ? parts_->media->Find(media->media_id())
                              : parts_->media->Hold(std::move(*media->mutable_inline_data()));
    if (!file.ok()) return Annotate(file.status(), picture.path);
    picture.file = *std::move(file);
    pictures_.push_back(std::move(picture));
    media->clear_source();
  }
  return absl::OkStatus();
}

void PromptJob::EncodeAll(const std::vector<size_t>& avoid) {
  stage_start_ = parts_->clock->Now();
  const auto round = std::make_shared<Round>();
  {
    MutexLock lock(&round->mutex);
    round->results.assign(pictures_.size(), absl::UnknownError("not answered"));
    round->missing = pictures_.size();
  }
  cancellation_->Add(round);
  // Counted first: once the last one is under way, the chat may end and let go of its pictures.
  const size_t num_pictures = pictures_.size();
  for (size_t i = 0; i < num_pictures; ++i) {
    PictureEncode::Start(parts_,
                         {.file = pictures_[i].file,
                          .frame_bytes = pictures_[i].frame_bytes,
                          .options = request_.processor(),
                          .cache_salt = request_.cache_salt(),
                          .path = pictures_[i].path,
                          .deadline = deadline_,
                          .avoid = avoid,
                          .traceparent = traceparent_,
                          .share = ShareOf(PictureCost(pictures_[i].frame_bytes.size()))},
                         round->cancellation,
                         [self = shared_from_this(), round, i](absl::StatusOr<EncodedPicture> result) {
                           if (!result.ok())
                             round->cancellation->Cancel(absl::CancelledError("another picture failed"));
                           std::vector<absl::StatusOr<EncodedPicture>> results;
                           {
                             MutexLock lock(&round->mutex);
                             round->results[i] = std::move(result);
                             if (--round->missing > 0) return;
                             results = std::move(round->results);
                           }
                           self->Encoded(std::move(results));
                         });
  }
}

void PromptJob::Encoded(std::vector<absl::StatusOr<EncodedPicture>> results) {
  encode_s_ += SecondsBetween(stage_start_, parts_->clock->Now());
  ReleaseHandles();
  // The error of the first picture that failed by itself.
  absl::Status error;
  for (absl::StatusOr<EncodedPicture>& result : results) {
    if (result.ok()) {
      TakeLonger(result->response.times(), &encode_times_);
      handles_.push_back(std::move(*result->response.mutable_handle()));
      encoders_.push_back(result->encoder);
    } else if (error.ok() || (absl::IsCancelled(error) && !absl::IsCancelled(result.status()))) {
      error = result.status();
    }
  }
  if (const absl::Status cancelled = cancellation_->status(); !cancelled.ok()) return Finish(cancelled);
  if (!error.ok()) return Finish(error);
  OnPool([self = shared_from_this()] { self->Assemble(); });
}

void PromptJob::ReleaseHandles() {
  std::map<size_t, std::vector<std::string>> by_encoder;
  for (size_t i = 0; i < handles_.size(); ++i) by_encoder[encoders_[i]].push_back(handles_[i].handle_id());
  for (const auto& [encoder, handle_ids] : by_encoder) parts_->encoders->ReleaseHandles(encoder, handle_ids);
  handles_.clear();
  encoders_.clear();
}

void PromptJob::End(const ChatUse& use) {
  pictures_.clear();
  ReleaseHandles();
  if (ticket_ != nullptr) ticket_->End(use);
}

void PromptJob::Assemble() {
  stage_start_ = parts_->clock->Now();
  absl::StatusOr<PreparedPrompt> prepared = Assembled();
  prompt_s_ += SecondsBetween(stage_start_, parts_->clock->Now());
  if (prepared.ok()) {
    prepared->prompt_s = prompt_s_;
    prepared->fetch_s = fetch_s_;
    prepared->encode_s = encode_s_;
    prepared->encode_times = encode_times_;
    if (ticket_ != nullptr && !dispatched_) return Dispatch(*std::move(prepared));
  }
  Finish(std::move(prepared));
}

Share PromptJob::ShareOf(double cost) const {
  Share share{.cost = cost, .urgent = dispatched_};
  if (ticket_ != nullptr) {
    share.tenant = ticket_->tenant();
    share.weight = ticket_->weight();
  }
  return share;
}

void PromptJob::Dispatch(PreparedPrompt prepared) {
  std::vector<PrefixMedia> media;
  for (const v1::ImageSpan& span : prepared.spans) {
    media.push_back({.offset = span.offset(),
                     .num_tokens = span.num_tokens(),
                     .content_key = prepared.handles[span.handle_index()].content_key(),
                     .first_row = span.first_row()});
  }
  DecoderWish wish{.prompt_tokens = static_cast<int64_t>(prepared.token_ids.size()),
                   .blocks = PrefixBlocks(prepared.token_ids, media, request_.cache_salt()),
                   .choices = std::max(request_.num_choices(), 1u)};
  const SteadyTime start = parts_->clock->Now();
  const auto waiting = std::make_shared<PreparedPrompt>(std::move(prepared));
  cancellation_->Add(parts_->generate_queue->Add(
      ShareOf(std::max(1.0, ticket_->tokens())),
      [set = parts_->decoders, wish = std::move(wish)] { return set->TryDecoder(wish); },
      [self = shared_from_this(), start, waiting](absl::StatusOr<ReplicaUse> use) {
        if (!use.ok()) return self->Finish(use.status());
        self->dispatched_ = true;
        self->ticket_->Dispatched();
        self->parts_->metrics->dispatch_s.Observe(SecondsBetween(start, self->parts_->clock->Now()));
        waiting->decoder = *std::move(use);
        self->Finish(std::move(*waiting));
      }));
}

absl::StatusOr<PreparedPrompt> PromptJob::Assembled() {
  std::vector<SlotLayout> layouts;
  for (size_t i = 0; i < handles_.size(); ++i) {
    PRISM_ASSIGN_OR_RETURN(SlotLayout layout,
                           LayoutOf(prompt_.slots[i], handles_[i].num_tokens() / handles_[i].grid().t()));
    layouts.push_back(std::move(layout));
  }
  absl::StatusOr<AssembledPrompt> assembled = parts_->format->Assemble(prompt_, layouts, parts_->LengthMax());
  if (!assembled.ok()) return AsContextLength(assembled.status());
  PreparedPrompt prepared;
  prepared.token_ids = std::move(assembled->ids);
  prepared.image_tokens = assembled->num_media_tokens;
  prepared.handles = handles_;
  for (const MediaSpan& span : assembled->spans) {
    v1::ImageSpan& out = prepared.spans.emplace_back();
    out.set_offset(static_cast<uint32_t>(span.offset));
    out.set_num_tokens(static_cast<uint32_t>(span.num_tokens));
    *out.mutable_grid() = handles_[span.slot_index].grid();
    out.mutable_grid()->set_t(1);
    out.set_handle_index(static_cast<uint32_t>(span.slot_index));
    out.set_first_row(static_cast<uint32_t>(span.temporal_patch * span.num_tokens));
  }
  return prepared;
}

void PromptJob::Finish(absl::StatusOr<PreparedPrompt> result) {
  DoneFn done = std::move(done_);
  done(std::move(result));
}

}  // namespace prism
