#include "services/vision_encoder/batcher.h"

#include <algorithm>
#include <cstring>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/base/check.h"
#include "common/base/hash.h"
#include "common/base/status.h"

namespace prism {
namespace {

int64_t Nanoseconds(SteadyTime time) {
  return std::chrono::duration_cast<std::chrono::nanoseconds>(time.time_since_epoch()).count();
}

PatchGridSize GridOfFrames(const std::vector<RgbImage>& frames) {
  PRISM_CHECK(!frames.empty());
  return GridOf(static_cast<int64_t>(frames.size()), frames[0].size());
}

}  // namespace

struct Batcher::Entry {
  std::vector<RgbImage> frames;  // moved into the batch when it runs
  EmbeddingStore::Reservation reservation;
  PatchGridSize grid;
  SteadyTime queued_at;
  std::list<ContentKey>::iterator place;  // in queue_, until it runs
  bool running = false;
  std::unordered_map<WaiterId, Waiter> waiters;
};

struct Batcher::Batch {
  struct Item {
    ContentKey key;
    std::vector<RgbImage> frames;
    PatchGridSize grid;
    EmbeddingStore::Reservation reservation;
    double queue_s = 0;
  };
  std::vector<Item> items;
  std::vector<BatchDone> too_late;
  int64_t num_patches = 0;
};

Batcher::Batcher(const BatcherOptions& options, TowerFactory factory, EmbeddingStore* store,
                 const Clock* clock, EncoderMetrics* metrics)
    : options_(options), store_(store), clock_(clock), metrics_(metrics), busy_share_(clock->Now()) {
  PRISM_CHECK(options.batch_patches_max >= 4 && options.pictures_max >= 1);
  device_ = NamedThread("device", [this, factory = std::move(factory)] { Run(factory); });
}

Batcher::~Batcher() {
  {
    MutexLock lock(&mutex_);
    stopping_ = true;
    changed_.NotifyAll();
  }
  device_.Join();
}

absl::Status Batcher::WaitUntilReady() {
  MutexLock lock(&mutex_);
  while (!ready_.has_value()) changed_.Wait(&mutex_);
  return *ready_;
}

absl::Status Batcher::Ready() const {
  MutexLock lock(&mutex_);
  return ready_.has_value() ? *ready_ : absl::UnavailableError("the weights are being loaded");
}

absl::Status Batcher::Live() const {
  if (!busy_.load(std::memory_order_acquire)) return absl::OkStatus();
  const int64_t silent_ms =
      (Nanoseconds(clock_->Now()) - progress_ns_.load(std::memory_order_acquire)) / 1'000'000;
  if (silent_ms <= options_.stall_max.count()) return absl::OkStatus();
  return absl::UnavailableError(absl::StrCat("the device thread made no progress for ", silent_ms,
                                             " ms, limit ", options_.stall_max.count()));
}

void Batcher::MarkProgress(bool busy) {
  const SteadyTime now = clock_->Now();
  progress_ns_.store(Nanoseconds(now), std::memory_order_release);
  busy_.store(busy, std::memory_order_release);
  metrics_->last_step_timestamp_seconds.Set(UnixSeconds());
}

int64_t Batcher::EmbeddingBytes(int64_t num_patches) const {
  return (1 + num_deepstack()) * (num_patches / 4) * hidden_size() * static_cast<int64_t>(SizeOf(dtype()));
}

std::optional<Batcher::WaiterId> Batcher::Join(const ContentKey& key, Waiter& waiter) {
  MutexLock lock(&mutex_);
  const auto entry = entries_.find(key);
  if (entry == entries_.end()) return std::nullopt;
  const WaiterId id = next_waiter_++;
  entry->second->waiters.emplace(id, std::move(waiter));
  return id;
}

absl::StatusOr<Batcher::WaiterId> Batcher::Submit(Picture picture, Waiter waiter) {
  const PatchGridSize grid = GridOfFrames(picture.frames);
  if (grid.num_patches() > options_.batch_patches_max) {
    return absl::InvalidArgumentError(absl::StrCat("the picture has ", grid.num_patches(),
                                                   " patches, a batch at most ", options_.batch_patches_max));
  }
  PRISM_RETURN_IF_ERROR(Ready());
  MutexLock lock(&mutex_);
  if (stopping_) return absl::UnavailableError("the encoder is shutting down");
  const WaiterId id = next_waiter_;
  std::unique_ptr<Entry>& entry = entries_[picture.key];
  if (entry == nullptr) {
    if (static_cast<int64_t>(queue_.size()) >= options_.pictures_max) {
      entries_.erase(picture.key);
      return absl::ResourceExhaustedError(
          absl::StrCat(options_.pictures_max, " pictures wait for the device, the limit"));
    }
    entry = std::make_unique<Entry>();
    entry->frames = std::move(picture.frames);
    entry->reservation = std::move(picture.reservation);
    entry->grid = grid;
    entry->queued_at = clock_->Now();
    entry->place = queue_.insert(queue_.end(), picture.key);
    queued_patches_ += grid.num_patches();
    changed_.NotifyAll();
  }
  entry->waiters.emplace(id, std::move(waiter));
  ++next_waiter_;
  ShowLoad();
  return id;
}

void Batcher::Leave(const ContentKey& key, WaiterId waiter) {
  std::unique_ptr<Entry> dropped;  // freed after the lock: its reservation goes back to the store
  Waiter left;
  {
    MutexLock lock(&mutex_);
    const auto found = entries_.find(key);
    if (found == entries_.end()) return;
    Entry& entry = *found->second;
    const auto who = entry.waiters.find(waiter);
    if (who == entry.waiters.end()) return;
    left = std::move(who->second);
    entry.waiters.erase(who);
    if (!entry.waiters.empty() || entry.running) return;
    queued_patches_ -= entry.grid.num_patches();
    queue_.erase(entry.place);
    dropped = std::move(found->second);
    entries_.erase(found);
    ShowLoad();
  }
}

double Batcher::QueuedWorkS() const {
  return static_cast<double>(queued_patches_ + running_patches_) * seconds_per_patch_;
}

void Batcher::ShowLoad() const {
  metrics_->queued_work_s.Set(QueuedWorkS());
  metrics_->running.Set(static_cast<double>(running_.size()));
  metrics_->waiting.Set(static_cast<double>(queue_.size()));
}

Batcher::Load Batcher::load() const {
  MutexLock lock(&mutex_);
  return {.num_running = static_cast<int64_t>(running_.size()),
          .num_waiting = static_cast<int64_t>(queue_.size()),
          .queued_work_s = QueuedWorkS(),
          .tokens_per_s = seconds_per_patch_ > 0 ? 0.25 / seconds_per_patch_ : 0,
          .item_s = seconds_per_patch_ * patches_per_picture_,
          .busy = running_.empty() ? busy_share_.At(clock_->Now()) : busy_share_.AtEnd()};
}

void Batcher::Run(const TowerFactory& factory) {
  absl::StatusOr<std::unique_ptr<Tower>> tower = factory();
  absl::Status status = tower.status();
  if (status.ok()) status = SelfTest(**tower);
  if (status.ok()) {
    hidden_size_.store((*tower)->hidden_size(), std::memory_order_release);
    num_deepstack_.store((*tower)->num_deepstack(), std::memory_order_release);
    dtype_.store((*tower)->dtype(), std::memory_order_release);
  }
  MarkProgress(false);
  {
    MutexLock lock(&mutex_);
    ready_ = status;
    changed_.NotifyAll();
  }
  if (status.ok()) {
    while (std::optional<Batch> batch = TakeBatch()) Process(**tower, *std::move(batch));
    patches_ = Tensor();
  }
  AnswerAll(absl::UnavailableError("the encoder is shutting down"));
}

void Batcher::AnswerAll(const absl::Status& status) {
  std::unordered_map<ContentKey, std::unique_ptr<Entry>> left;
  {
    MutexLock lock(&mutex_);
    left.swap(entries_);
    queue_.clear();
    running_.clear();
    queued_patches_ = running_patches_ = 0;
    ShowLoad();
  }
  for (auto& [key, entry] : left) {
    for (auto& [id, waiter] : entry->waiters) waiter.done(status);
  }
}

std::optional<Batcher::Batch> Batcher::TakeBatch() {
  MutexLock lock(&mutex_);
  while (queue_.empty() && !stopping_) changed_.Wait(&mutex_);
  if (stopping_) return std::nullopt;
  Batch batch;
  const SteadyTime now = clock_->Now();
  struct Queued {
    std::list<ContentKey>::iterator place;
    Entry* entry = nullptr;
    size_t arrival = 0;
  };
  std::vector<Queued> queued;
  for (auto place = queue_.begin(); place != queue_.end();) {
    const auto found = entries_.find(*place);
    Entry& entry = *found->second;
    for (auto waiter = entry.waiters.begin(); waiter != entry.waiters.end();) {
      if (waiter->second.deadline > now) {
        ++waiter;
        continue;
      }
      batch.too_late.push_back(std::move(waiter->second.done));
      waiter = entry.waiters.erase(waiter);
    }
    if (!entry.waiters.empty()) {
      queued.push_back({place++, &entry, queued.size()});
      continue;
    }
    // Its room in the store goes back with the batch, outside of the lock.
    batch.items.push_back({.reservation = std::move(entry.reservation)});
    queued_patches_ -= entry.grid.num_patches();
    place = queue_.erase(place);
    entries_.erase(found);
  }
  // The one that waited longest opens the batch, so that nobody waits for ever; the others fill it, the
  // largest first, which leaves the least of the budget unused.
  if (!queued.empty()) {
    std::sort(queued.begin() + 1, queued.end(), [](const Queued& a, const Queued& b) {
      const int64_t patches_a = a.entry->grid.num_patches();
      const int64_t patches_b = b.entry->grid.num_patches();
      return patches_a != patches_b ? patches_a > patches_b : a.arrival < b.arrival;
    });
  }
  for (const Queued& next : queued) {
    Entry& entry = *next.entry;
    const int64_t patches = entry.grid.num_patches();
    if (batch.num_patches + patches > options_.batch_patches_max) continue;
    entry.running = true;
    batch.num_patches += patches;
    batch.items.push_back({.key = *next.place,
                           .frames = std::move(entry.frames),
                           .grid = entry.grid,
                           .reservation = std::move(entry.reservation),
                           .queue_s = SecondsBetween(entry.queued_at, now)});
    running_.push_back(*next.place);
    queued_patches_ -= patches;
    queue_.erase(next.place);
  }
  running_patches_ = batch.num_patches;
  ShowLoad();
  return batch;
}

absl::Status Batcher::Continue() {
  MarkProgress(true);
  MutexLock lock(&mutex_);
  if (stopping_) return absl::UnavailableError("the encoder is shutting down");
  for (const ContentKey& key : running_) {
    if (!entries_.at(key)->waiters.empty()) return absl::OkStatus();
  }
  for (const ContentKey& key : running_) entries_.erase(key);
  running_.clear();
  running_patches_ = 0;
  ShowLoad();
  return absl::CancelledError("nobody waits for the batch");
}

void Batcher::Answer(const ContentKey& key, absl::StatusOr<BatchResult> result) {
  std::unique_ptr<Entry> entry;
  {
    MutexLock lock(&mutex_);
    const auto found = entries_.find(key);
    if (found == entries_.end() || !found->second->running) return;
    entry = std::move(found->second);
    entries_.erase(found);
    running_.erase(std::find(running_.begin(), running_.end(), key));
    running_patches_ -= entry->grid.num_patches();
    ShowLoad();
  }
  // The last gets the result itself: once everybody is told, only who was told holds the embedding,
  // and the store may give it up as soon as they let go of it.
  size_t left = entry->waiters.size();
  for (auto& [id, waiter] : entry->waiters) {
    if (--left == 0) {
      waiter.done(std::move(result));  // NOLINT(bugprone-use-after-move): the last time round
    } else {
      waiter.done(result);
    }
  }
}

void Batcher::Process(Tower& tower, Batch batch) {
  // Room goes back to the store before anybody is told, so that trying again finds it.
  std::erase_if(batch.items, [](const Batch::Item& item) { return item.key.empty(); });
  // And what else a waiter holds goes back with its answer, not at the end of the pass.
  for (BatchDone& each : batch.too_late) {
    const BatchDone done = std::exchange(each, nullptr);
    done(absl::DeadlineExceededError("the deadline passed before the picture reached the device"));
  }
  // A call that missed the store may have come in just after its picture was computed.
  for (Batch::Item& item : batch.items) {
    if (SharedEmbedding there = store_->Find(item.key)) {
      item.reservation = {};
      Answer(item.key, BatchResult{.embedding = std::move(there), .queue_s = item.queue_s});
    }
  }
  std::erase_if(batch.items, [this](const Batch::Item& item) {
    MutexLock lock(&mutex_);
    return !entries_.contains(item.key) || !entries_.at(item.key)->running;
  });
  if (batch.items.empty()) return;

  MarkProgress(true);
  const SteadyTime start = clock_->Now();
  std::vector<PatchGridSize> grids;
  int64_t num_patches = 0;
  for (const Batch::Item& item : batch.items) {
    grids.push_back(item.grid);
    num_patches += item.grid.num_patches();
  }
  if (!patches_.present() || patches_.shape()[0] < num_patches) {
    absl::StatusOr<Tensor> larger = tower.AllocateHost(DType::kF32, {num_patches, kPatchValues});
    patches_ = larger.ok() ? *std::move(larger) : Tensor::Host(DType::kF32, {num_patches, kPatchValues});
  }
  const TensorView patches = patches_.view().Rows(0, num_patches);
  int64_t row = 0;
  for (Batch::Item& item : batch.items) {
    std::vector<const RgbImage*> frames;
    frames.reserve(item.frames.size());
    for (const RgbImage& frame : item.frames) frames.push_back(&frame);
    const int64_t rows = item.grid.num_patches();
    PatchifyInto(frames, patches.span<float>().subspan(static_cast<size_t>(row * kPatchValues),
                                                       static_cast<size_t>(rows * kPatchValues)));
    item.frames.clear();
    row += rows;
  }
  const SteadyTime cut = clock_->Now();

  const int64_t levels = 1 + num_deepstack();
  const int64_t width = hidden_size();
  const int64_t num_tokens = num_patches / 4;
  Tensor whole = Tensor::Host(dtype(), {levels, num_tokens, width});
  const TensorView values = whole.view().Reshape({levels * num_tokens, width});
  const absl::Status status = tower.Forward(patches, grids, values.Rows(0, num_tokens),
                                            whole.view().Rows(1, levels - 1), [this] { return Continue(); });
  const SteadyTime end = clock_->Now();
  MarkProgress(true);

  const double encode_s = SecondsBetween(cut, end);
  if (status.ok()) {
    MutexLock lock(&mutex_);
    const double now_per_patch = SecondsBetween(start, end) / static_cast<double>(num_patches);
    const double now_per_picture = static_cast<double>(num_patches) / static_cast<double>(batch.items.size());
    const bool first = seconds_per_patch_ == 0;
    seconds_per_patch_ = first ? now_per_patch : 0.8 * seconds_per_patch_ + 0.2 * now_per_patch;
    patches_per_picture_ = first ? now_per_picture : 0.8 * patches_per_picture_ + 0.2 * now_per_picture;
    busy_share_.Observe(start, end);
  }
  metrics_->batch_images.Observe(static_cast<double>(batch.items.size()));
  metrics_->batch_patches.Observe(static_cast<double>(num_patches));
  metrics_->encode_seconds.Observe(encode_s);

  int64_t first_token = 0;
  for (Batch::Item& item : batch.items) {
    const int64_t tokens = item.grid.num_tokens();
    if (!status.ok()) {
      item.reservation = {};
      Answer(item.key, status);
      continue;
    }
    auto embedding = std::make_shared<VisionEmbedding>();
    embedding->grid = item.grid;
    if (batch.items.size() == 1) {
      embedding->values = std::move(whole);  // NOLINT(bugprone-use-after-move): there is no other item
    } else {
      embedding->values = Tensor::Host(dtype(), {levels, tokens, width});
      const TensorView own = embedding->values.view().Reshape({levels * tokens, width});
      for (int64_t level = 0; level < levels; ++level) {
        const TensorView from = values.Rows(level * num_tokens + first_token, tokens);
        std::memcpy(own.Rows(level * tokens, tokens).raw(), from.raw(),
                    static_cast<size_t>(from.size_bytes()));
      }
    }
    first_token += tokens;
    const absl::Status finite = CheckFinite(embedding->values.view());
    if (!finite.ok()) {
      item.reservation = {};
      Answer(item.key, finite);
      continue;
    }
    const absl::Span<const uint8_t> bytes = embedding->bytes();
    const Sha256Digest digest = Sha256Of(bytes.data(), bytes.size());
    embedding->digest.assign(digest.begin(), digest.end());
    store_->Insert(item.key, embedding, std::move(item.reservation));
    // Held by the result until everybody who waits had the chance to lease it.
    Answer(item.key, BatchResult{.embedding = std::move(embedding),
                                 .computed = true,
                                 .preprocess_s = SecondsBetween(start, cut),
                                 .queue_s = item.queue_s,
                                 .encode_s = encode_s});
  }
  MarkProgress(false);
}

}  // namespace prism
