#include "services/sim/sim_encoder.h"

#include <algorithm>
#include <chrono>
#include <utility>

#include "absl/strings/str_cat.h"

namespace prism::sim {

SimEncoder::SimEncoder(ProcessId id, const SimEncoderOptions& options, World* world, Network* network)
    : id_(id),
      options_(options),
      world_(world),
      network_(network),
      store_({.bytes_max = BytesOf(options.store_tokens_max)}, world) {}

void SimEncoder::Handle(const Event& event) {
  switch (event.kind) {
    case EventKind::kEncode:
      return OnEncode(event);
    case EventKind::kFetch:
      return OnFetch(event);
    case EventKind::kRelease:
      store_.Release(event.handle->id);
      return network_->End(event.stream, EndCode::kOk);
    case EventKind::kCancel:
      return OnCancel(event.stream);
    case EventKind::kBatchDone:
      return OnBatchDone();
    case EventKind::kAskLoad:
      network_->ToClient(event.stream,
                         {.kind = EventKind::kLoad, .index = static_cast<int64_t>(waiting_.size())});
      return network_->End(event.stream, EndCode::kOk);
    default:
      world_->Violate(absl::StrCat("encoder ", id_, " cannot handle ", Describe(event)));
  }
}

ContentKey SimEncoder::KeyOf(uint64_t content) {
  ContentKey key(32, '\0');
  for (int i = 0; i < 8; ++i) key[static_cast<size_t>(i)] = static_cast<char>(content >> (8 * i));
  return key;
}

SharedEmbedding SimEncoder::MakeEmbedding(int64_t num_tokens) {
  auto embedding = std::make_shared<VisionEmbedding>();
  embedding->values = Tensor::HostZeros(DType::kF32, {1, num_tokens, 1});
  return embedding;
}

bool SimEncoder::AnswerFromStore(const Waiter& waiter, uint64_t content, int64_t num_tokens, bool cached) {
  absl::StatusOr<HandleId> id =
      store_.Lease(KeyOf(content), std::chrono::milliseconds(options_.lease / kMillisecond));
  if (!id.ok()) return false;
  auto handle = std::make_shared<EmbeddingHandle>();
  handle->id = *std::move(id);
  handle->content = content;
  handle->num_tokens = num_tokens;
  handle->encoder = id_;
  handle->cached = cached;
  Event answer{.kind = EventKind::kEncoded, .generation = waiter.generation, .index = waiter.index};
  answer.handle = std::move(handle);
  network_->ToClient(waiter.stream, std::move(answer));
  network_->End(waiter.stream, EndCode::kOk);
  return true;
}

void SimEncoder::OnEncode(const Event& event) {
  const Waiter waiter{.stream = event.stream, .generation = event.generation, .index = event.index};
  const uint64_t content = event.handle->content;
  const int64_t num_tokens = event.handle->num_tokens;
  if (AnswerFromStore(waiter, content, num_tokens, true)) return;
  for (std::list<Picture>* pictures : {&running_, &waiting_}) {
    for (Picture& picture : *pictures) {
      if (picture.content != content || picture.waiters.empty()) continue;
      picture.waiters.push_back(waiter);
      return;
    }
  }
  if (static_cast<int64_t>(waiting_.size()) >= options_.pictures_max) {
    return network_->End(event.stream, EndCode::kExhausted);
  }
  absl::StatusOr<EmbeddingStore::Reservation> reservation = store_.Reserve(BytesOf(num_tokens));
  if (!reservation.ok()) return network_->End(event.stream, EndCode::kExhausted);
  waiting_.push_back({.content = content,
                      .num_tokens = num_tokens,
                      .reservation = *std::move(reservation),
                      .waiters = {waiter}});
  StartBatch();
}

void SimEncoder::StartBatch() {
  if (!running_.empty() || waiting_.empty()) return;
  // Longest first, as many as fit.
  std::list<std::list<Picture>::iterator> order;  // a list's sort keeps the order of equals
  for (auto it = waiting_.begin(); it != waiting_.end(); ++it) order.push_back(it);
  order.sort([](const auto& a, const auto& b) { return a->num_tokens > b->num_tokens; });
  int64_t tokens = 0;
  for (const auto& picture : order) {
    if (tokens > 0 && tokens + picture->num_tokens > options_.batch_tokens_max) continue;
    tokens += picture->num_tokens;
    running_.splice(running_.end(), waiting_, picture);
  }
  SimTime cost = options_.pass_base + options_.pass_token * tokens;
  cost += world_->random().Exponential(static_cast<double>(cost) / 8);
  world_->After(cost, {.kind = EventKind::kBatchDone, .to = id_});
}

void SimEncoder::OnBatchDone() {
  for (Picture& picture : running_) {
    store_.Insert(KeyOf(picture.content), MakeEmbedding(picture.num_tokens), std::move(picture.reservation));
    for (const Waiter& waiter : picture.waiters) {
      if (!AnswerFromStore(waiter, picture.content, picture.num_tokens, false)) {
        network_->End(waiter.stream, EndCode::kExhausted);
      }
    }
  }
  running_.clear();
  StartBatch();
}

void SimEncoder::OnCancel(StreamId stream) {
  const auto leaves = [stream](const Waiter& waiter) { return waiter.stream == stream; };
  for (Picture& picture : running_) std::erase_if(picture.waiters, leaves);
  for (auto it = waiting_.begin(); it != waiting_.end();) {
    std::erase_if(it->waiters, leaves);
    it = it->waiters.empty() ? waiting_.erase(it) : std::next(it);
  }
}

void SimEncoder::OnFetch(const Event& event) {
  const absl::StatusOr<SharedEmbedding> embedding = store_.Fetch(event.handle->id);
  if (!embedding.ok()) return network_->End(event.stream, EndCode::kNotFound);
  if ((*embedding)->num_tokens() != event.handle->num_tokens) {
    world_->Violate(absl::StrCat("encoder ", id_, ": a handle of ", event.handle->num_tokens,
                                 " tokens names an embedding of ", (*embedding)->num_tokens()));
  }
  uint64_t content = event.handle->content;
  if (options_.corrupt_chance > 0 && world_->random().Chance(options_.corrupt_chance)) content ^= 1;
  network_->ToClient(event.stream, {.kind = EventKind::kFetched, .value = static_cast<int64_t>(content)},
                     event.handle->num_tokens * 20);
  network_->End(event.stream, EndCode::kOk);
}

void SimEncoder::Evict() {
  // Asking for ever less throws out what can be.
  for (int64_t bytes = store_.bytes_max(); bytes > 0; bytes /= 2) {
    if (store_.Reserve(bytes).ok()) return;
  }
}

void SimEncoder::Check() {
  const EmbeddingStore::Usage usage = store_.usage();
  int64_t reserved = 0;
  for (const Picture& picture : waiting_) reserved += BytesOf(picture.num_tokens);
  for (const Picture& picture : running_) reserved += BytesOf(picture.num_tokens);
  if (usage.reserved_bytes != reserved) {
    world_->Violate(absl::StrCat("encoder ", id_, ": ", usage.reserved_bytes, " bytes are reserved for ",
                                 reserved, " of pictures to come"));
  }
  if (usage.bytes + usage.reserved_bytes > store_.bytes_max()) {
    world_->Violate(absl::StrCat("encoder ", id_, ": the store holds more than its ", store_.bytes_max()));
  }
  if (static_cast<int64_t>(waiting_.size()) > options_.pictures_max) {
    world_->Violate(absl::StrCat("encoder ", id_, ": too many pictures wait"));
  }
}

}  // namespace prism::sim
