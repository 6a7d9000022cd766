#include "services/vision_encoder/encoder.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "common/base/hash.h"
#include "common/metrics/desired_replicas.h"
#include "services/vision_encoder/image/resize.h"

namespace prism {

bool EncodeCall::End(absl::StatusOr<EncodeOutcome> outcome, Spot* spot) {
  EncodeDone done;
  SharedFile file;  // freed outside of the lock
  {
    MutexLock lock(&mutex_);
    if (over_.exchange(true, std::memory_order_acq_rel)) return false;
    done = std::move(done_);
    file = std::move(file_);
    if (spot != nullptr) *spot = std::move(spot_);
  }
  done(std::move(outcome));
  return true;
}

SharedFile EncodeCall::TakeFile() {
  MutexLock lock(&mutex_);
  return std::move(file_);
}

void EncodeCall::Cancel() {
  Spot spot;
  Encoder* const encoder = encoder_;
  if (!End(absl::CancelledError("the call was cancelled"), &spot)) return;
  encoder->metrics_->cancelled.Increment();
  if (spot.has_value()) encoder->batcher_->Leave(spot->first, spot->second);
}

Encoder::Encoder(const EncoderOptions& options, TowerFactory factory, const Clock* clock,
                 EncoderMetrics* metrics)
    : options_(options),
      clock_(clock),
      metrics_(metrics),
      store_(options.store, clock),
      batcher_(std::make_unique<Batcher>(options.batch, std::move(factory), &store_, clock, metrics)),
      pool_(std::make_unique<TaskPool>("image", options.image_threads,
                                       static_cast<size_t>(options.calls_max))) {}

Encoder::~Encoder() {
  pool_.reset();     // what is queued there is prepared and goes to the batcher
  batcher_.reset();  // which answers it
}

std::shared_ptr<EncodeCall> Encoder::NewCall(EncodeInput input, EncodeDone done) {
  return std::shared_ptr<EncodeCall>(new EncodeCall(this, std::move(input), std::move(done)));
}

Encoder::Load Encoder::load() const {
  const Batcher::Load batch = batcher_->load();
  const int64_t num_preparing = num_preparing_.load(std::memory_order_relaxed);
  const double queued_work_s = batch.queued_work_s + static_cast<double>(num_preparing) * batch.item_s;
  return {.num_running = batch.num_running,
          .num_waiting = batch.num_waiting + num_preparing,
          .queued_work_s = queued_work_s,
          .tokens_per_s = batch.tokens_per_s,
          .item_s = batch.item_s,
          .desired_replicas = DesiredReplicas(batch.busy, queued_work_s)};
}

void Encoder::ShowUsage() {
  MutexLock lock(&usage_mutex_);  // so that what is shown last was read last
  const EmbeddingStore::Usage usage = store_.usage();
  metrics_->store_bytes.Set(static_cast<double>(usage.bytes));
  metrics_->store_reserved_bytes.Set(static_cast<double>(usage.reserved_bytes));
  metrics_->store_embeddings.Set(static_cast<double>(usage.num_embeddings));
  metrics_->store_handles.Set(static_cast<double>(usage.num_handles));
}

void Encoder::Start(const std::shared_ptr<EncodeCall>& call) {
  if (call->over()) return;
  const absl::Status ready = batcher_->Ready();
  if (!ready.ok()) return Fail(*call, ready);
  if (num_calls_.fetch_add(1) >= options_.calls_max) {
    num_calls_.fetch_sub(1);
    metrics_->rejected_queue_full.Increment();
    call->End(
        absl::ResourceExhaustedError(absl::StrCat(options_.calls_max, " pictures are under way, the limit")));
    return;
  }
  num_preparing_.fetch_add(1);
  const absl::Status submitted = pool_->TrySubmit([this, call] {
    Prepare(call);
    num_preparing_.fetch_sub(1);
  });
  if (!submitted.ok()) {
    num_preparing_.fetch_sub(1);
    num_calls_.fetch_sub(1);
    metrics_->rejected_queue_full.Increment();
    call->End(submitted);
  }
}

void Encoder::Fail(EncodeCall& call, absl::Status status) {
  // Counted first: who is told may look at the count.
  if (!call.over() && absl::IsInvalidArgument(status)) metrics_->rejected_picture.Increment();
  call.End(std::move(status));
}

std::optional<Encoder::Seen> Encoder::FindSeen(const std::string& file_key) {
  MutexLock lock(&mutex_);
  const auto found = seen_.find(file_key);
  if (found == seen_.end()) return std::nullopt;
  return found->second;
}

void Encoder::AddSeen(const std::string& file_key, const Seen& seen) {
  MutexLock lock(&mutex_);
  if (!seen_.try_emplace(file_key, seen).second) return;
  seen_order_.push_back(file_key);
  if (seen_order_.size() > options_.recent_files_max) {
    seen_.erase(seen_order_.front());
    seen_order_.pop_front();
  }
}

void Encoder::Finish(EncodeCall& call, EncodeOutcome outcome) {
  absl::StatusOr<HandleId> handle = store_.Lease(outcome.key, options_.lease);
  if (!handle.ok()) {
    metrics_->rejected_store_full.Increment();
    return Fail(call, std::move(handle).status());
  }
  outcome.handle = *handle;
  outcome.lease = options_.lease;
  // Nobody knows the handle of a call that ended meanwhile.
  if (!call.End(std::move(outcome))) store_.Release(*handle);
  ShowUsage();
}

bool Encoder::AnswerFromStore(EncodeCall& call, EncodeOutcome& outcome) {
  outcome.embedding = store_.Find(outcome.key);
  if (outcome.embedding == nullptr) return false;
  outcome.cached = true;
  outcome.decode_s = 0;
  metrics_->cache_hits.Increment();
  // Moved: once the caller is told, nobody here holds the embedding.
  Finish(call, std::move(outcome));
  return true;
}

void Encoder::Place(EncodeCall& call, const ContentKey& key, Batcher::WaiterId waiter) {
  bool over = false;
  {
    MutexLock lock(&call.mutex_);
    over = call.over();
    if (!over) call.spot_ = {key, waiter};
  }
  if (over) batcher_->Leave(key, waiter);
}

void Encoder::OnBatchDone(EncodeCall& call, EncodeOutcome outcome, absl::StatusOr<BatchResult> result) {
  if (!result.ok()) return Fail(call, std::move(result).status());
  outcome.embedding = std::move(result->embedding);
  outcome.cached = !result->computed;
  outcome.preprocess_s += result->preprocess_s;
  outcome.queue_s = result->queue_s;
  outcome.encode_s = result->encode_s;
  metrics_->queue_seconds.Observe(outcome.queue_s);
  metrics_->preprocess_seconds.Observe(outcome.preprocess_s);
  Finish(call, std::move(outcome));
}

void Encoder::Prepare(const std::shared_ptr<EncodeCall>& call) {
  // The place among calls_max is given back when this scope ends, or, once the batcher has the
  // call, when its callback is gone.
  const std::shared_ptr<void> admission(nullptr, [this](void*) { num_calls_.fetch_sub(1); });
  const SharedFile file = call->TakeFile();
  if (call->over() || file == nullptr) return;
  const SteadyTime start = clock_->Now();
  if (call->deadline_ <= start) {
    return Fail(*call, absl::DeadlineExceededError("the deadline passed before the picture was decoded"));
  }

  EncodeOutcome outcome;
  const Sha256Digest digest = Sha256Of(file->data(), file->size());
  outcome.media_sha256.assign(digest.begin(), digest.end());
  const std::string file_key =
      ComputeFileKey(outcome.media_sha256, call->frame_bytes_, call->choice_, call->salt_);
  if (const std::optional<Seen> seen = FindSeen(file_key)) {
    outcome.key = seen->key;
    outcome.size = seen->size;
    if (AnswerFromStore(*call, outcome)) return;
  }

  const KeyScope scope = {
      .weights_digest = options_.weights_digest, .numerics_id = options_.numerics_id, .salt = call->salt_};
  absl::StatusOr<DecodedPicture> picture =
      call->frame_bytes_.empty()
          ? DecodePicture(*file, call->choice_, scope, options_.limits, &call->over_)
          : DecodeClip(*file, call->frame_bytes_, call->choice_, scope, options_.limits, &call->over_);
  if (!picture.ok()) return Fail(*call, std::move(picture).status());
  const SteadyTime decoded = clock_->Now();
  outcome.key = picture->key;
  outcome.size = picture->frames[0].size();
  outcome.decode_s = SecondsBetween(start, decoded);
  metrics_->decode_seconds.Observe(outcome.decode_s);
  metrics_->image_pixels.Observe(static_cast<double>(outcome.size.height * outcome.size.width *
                                                     static_cast<int64_t>(picture->frames.size())));
  AddSeen(file_key, {.key = outcome.key, .size = outcome.size});
  if (AnswerFromStore(*call, outcome)) return;

  const auto waiter_of = [&](const EncodeOutcome& so_far) {
    return Batcher::Waiter{.deadline = call->deadline_,
                           .done = [this, call, admission, so_far](absl::StatusOr<BatchResult> result) {
                             OnBatchDone(*call, so_far, std::move(result));
                           }};
  };
  Batcher::Waiter joining = waiter_of(outcome);
  if (const std::optional<Batcher::WaiterId> id = batcher_->Join(outcome.key, joining)) {
    metrics_->cache_joined.Increment();
    return Place(*call, outcome.key, *id);
  }

  // Room for the result first: what could not be kept is not computed.
  const PatchGridSize grid = GridOf(static_cast<int64_t>(picture->frames.size()), picture->target);
  absl::StatusOr<EmbeddingStore::Reservation> reservation =
      store_.Reserve(batcher_->EmbeddingBytes(grid.num_patches()));
  if (!reservation.ok()) {
    // What fills the store may be this very picture, come from another call meanwhile.
    if (const std::optional<Batcher::WaiterId> id = batcher_->Join(outcome.key, joining)) {
      metrics_->cache_joined.Increment();
      return Place(*call, outcome.key, *id);
    }
    // It is in the store before it is under way no more.
    if (AnswerFromStore(*call, outcome)) return;
    metrics_->rejected_store_full.Increment();
    return Fail(*call, std::move(reservation).status());
  }
  for (RgbImage& frame : picture->frames) frame = ResizeBicubic(std::move(frame), picture->target);
  outcome.preprocess_s = SecondsBetween(decoded, clock_->Now());
  if (call->over()) return;
  metrics_->cache_misses.Increment();
  absl::StatusOr<Batcher::WaiterId> id = batcher_->Submit(
      {.key = outcome.key, .frames = std::move(picture->frames), .reservation = *std::move(reservation)},
      waiter_of(outcome));
  if (!id.ok()) {
    if (absl::IsResourceExhausted(id.status())) metrics_->rejected_queue_full.Increment();
    return Fail(*call, std::move(id).status());
  }
  Place(*call, outcome.key, *id);
}

}  // namespace prism
