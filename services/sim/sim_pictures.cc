#include "services/sim/sim_pictures.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"

namespace prism::sim {
namespace {

// A picture is tried on this many encoders that fail.
constexpr size_t kTriesMax = 2;

}  // namespace

SimPictures::SimPictures(const SimPicturesOptions& options, World* world, Network* network, DoneFn done)
    : options_(options),
      world_(world),
      network_(network),
      done_(std::move(done)),
      encoders_(options.encoders, "encoder", world, network),
      queue_([this](uint64_t work) { return Try(work); }) {}

void SimPictures::Encode(uint64_t generation, std::shared_ptr<const ChatSpec> chat, double weight) {
  Job& job = jobs_[generation];
  job.chat = std::move(chat);
  job.weight = weight;
  job.pictures.resize(job.chat->pictures.size());
  for (size_t i = 0; i < job.pictures.size(); ++i) {
    queue_.Push(WorkOf(generation, i), job.chat->tenant, weight, 1);
  }
  queue_.Pump();
}

void SimPictures::EncodeAgain(uint64_t generation, bool elsewhere) {
  Job& job = jobs_.at(generation);
  job.again = true;
  for (size_t i = 0; i < job.pictures.size(); ++i) {
    Picture& picture = job.pictures[i];
    const size_t encoder = picture.encoder;
    if (picture.handle != nullptr) Release(std::move(picture.handle));
    picture = {};
    if (elsewhere) picture.avoid.push_back(encoder);
    queue_.PushUrgent(WorkOf(generation, i));
  }
  queue_.Pump();
}

bool SimPictures::Try(uint64_t work) {
  const uint64_t generation = work >> 8;
  const size_t index = work & 0xFF;
  const auto found = jobs_.find(generation);
  if (found == jobs_.end()) return true;
  Picture& picture = found->second.pictures[index];
  std::vector<size_t> excluded = picture.failed;
  if (picture.failed.empty() && encoders_.AnyReady(picture.avoid)) excluded = picture.avoid;
  SimReplicas::Lack lack;
  const std::optional<SimReplicas::Use> use =
      encoders_.TryEncoder(absl::StrCat("picture-", found->second.chat->pictures[index]), excluded, &lack);
  if (use.has_value()) {
    Ask(generation, index, *use);
    return true;
  }
  if (lack == SimReplicas::Lack::kRoom) return false;
  Done(generation, EndCode::kUnavailable);
  return true;
}

void SimPictures::Ask(uint64_t generation, size_t index, const SimReplicas::Use& use) {
  Job& job = jobs_.at(generation);
  auto handle = std::make_shared<EmbeddingHandle>();
  handle->content = job.chat->pictures[index];
  handle->num_tokens = job.chat->spans[index].num_tokens;
  Event encode{.kind = EventKind::kEncode, .generation = generation, .index = static_cast<int64_t>(index)};
  encode.handle = std::move(handle);
  const StreamId stream = network_->Open(kRouter, encoders_.process(use.replica), std::move(encode));
  job.pictures[index].calls.push_back({.stream = stream, .use = use, .asked_at = world_->now()});
  calls_[stream] = WorkOf(generation, index);
}

bool SimPictures::TakeEvent(const Event& event) {
  if (encoders_.TakePollEvent(event)) {
    queue_.Pump();
    return true;
  }
  const auto found = calls_.find(event.stream);
  if (found == calls_.end()) {
    // An answer to a call that was given up: nobody wants this one, its lease goes back.
    if (event.kind == EventKind::kEncoded) Release(event.handle);
    return event.kind == EventKind::kEncoded;
  }
  const uint64_t work = found->second;
  if (event.kind == EventKind::kEnd) calls_.erase(found);
  if (work == 0) return true;
  if (event.kind == EventKind::kEncoded) {
    OnEncoded(event, work);
  } else {
    OnEnd(event, work);
  }
  queue_.Pump();
  return true;
}

void SimPictures::OnEncoded(const Event& event, uint64_t work) {
  const uint64_t generation = work >> 8;
  const size_t index = work & 0xFF;
  Job& job = jobs_.at(generation);
  Picture& picture = job.pictures[index];
  if (event.handle->content != job.chat->pictures[index] ||
      event.handle->num_tokens != job.chat->spans[index].num_tokens) {
    world_->Violate(absl::StrCat("generation ", generation, ": an encoder answered with another picture"));
  }
  for (const Call& call : picture.calls) {
    if (call.stream != event.stream) continue;
    picture.encoder = call.use.replica;
    if (!event.handle->cached) {
      hedge_.Record(static_cast<double>(world_->now() - call.asked_at) / kSecond);
    }
  }
  ++encodes_;
  if (event.handle->cached) ++cached_;
  picture.handle = event.handle;
  CloseCalls(picture);
  const auto is_here = [](const Picture& each) { return each.handle != nullptr; };
  if (std::all_of(job.pictures.begin(), job.pictures.end(), is_here)) Done(generation, EndCode::kOk);
}

void SimPictures::OnEnd(const Event& event, uint64_t work) {
  const uint64_t generation = work >> 8;
  const size_t index = work & 0xFF;
  Picture& picture = jobs_.at(generation).pictures[index];
  const auto call = std::find_if(picture.calls.begin(), picture.calls.end(),
                                 [&event](const Call& each) { return each.stream == event.stream; });
  if (call == picture.calls.end()) return;
  const Call ended = *call;
  picture.calls.erase(call);
  Failed(generation, index, ended, event.code);
}

void SimPictures::Failed(uint64_t generation, size_t index, const Call& call, EndCode code) {
  Picture& picture = jobs_.at(generation).pictures[index];
  const bool full = code == EndCode::kExhausted;
  if (code == EndCode::kConnectionLost) encoders_.ReportGone(call.use.replica);
  encoders_.End(call.use, full);
  if (!full) picture.failed.push_back(call.use.replica);
  if (!picture.calls.empty()) return;  // the other one may still do it
  if (full) {
    if (picture.full_since == kNever) picture.full_since = world_->now();
    const bool long_enough = world_->now() - picture.full_since >= options_.full_wait;
    if (long_enough && !jobs_.at(generation).again) return Done(generation, code);
    return queue_.PushUrgent(WorkOf(generation, index));
  }
  if (picture.failed.size() >= kTriesMax || !encoders_.AnyReady(picture.failed)) {
    return Done(generation, EndCode::kUnavailable);
  }
  queue_.PushUrgent(WorkOf(generation, index));
}

void SimPictures::Hedge(uint64_t generation, size_t index) {
  Job& job = jobs_.at(generation);
  Picture& picture = job.pictures[index];
  if (picture.hedged || picture.calls.size() != 1 || !picture.failed.empty()) return;
  const auto delay = hedge_.Delay();
  if (!delay.has_value() || world_->now() - picture.calls[0].asked_at < delay->count() * kMillisecond) return;
  SimReplicas::Lack lack;
  const std::optional<SimReplicas::Use> use = encoders_.TryEncoder(
      absl::StrCat("picture-", job.chat->pictures[index]), {picture.calls[0].use.replica}, &lack);
  if (!use.has_value()) return;
  if (!hedge_.Take()) return encoders_.End(*use, false);
  picture.hedged = true;
  ++hedges_;
  Ask(generation, index, *use);
}

void SimPictures::Tick() {
  std::vector<uint64_t> generations;
  for (const auto& [id, job] : jobs_) generations.push_back(id);
  for (const uint64_t generation : generations) {
    const auto found = jobs_.find(generation);
    if (found == jobs_.end()) continue;
    for (size_t i = 0; i < found->second.pictures.size(); ++i) {
      Hedge(generation, i);
      Picture& picture = found->second.pictures[i];
      if (picture.calls.empty()) continue;
      const Call call = picture.calls.front();
      if (world_->now() - call.asked_at < options_.encode_timeout) continue;
      picture.calls.erase(picture.calls.begin());
      network_->Cancel(call.stream);
      calls_.erase(call.stream);
      Failed(generation, i, call, EndCode::kDeadline);
      if (!jobs_.contains(generation)) break;
    }
  }
  queue_.Pump();
}

void SimPictures::CloseCalls(Picture& picture) {
  for (const Call& call : picture.calls) {
    network_->Cancel(call.stream);
    calls_.erase(call.stream);
    encoders_.End(call.use, false);
  }
  picture.calls.clear();
}

void SimPictures::Release(std::shared_ptr<const EmbeddingHandle> handle) {
  Event release{.kind = EventKind::kRelease};
  const ProcessId encoder = handle->encoder;
  release.handle = std::move(handle);
  calls_[network_->Open(kRouter, encoder, std::move(release))] = 0;
}

void SimPictures::Done(uint64_t generation, EndCode code) { done_(generation, code); }

void SimPictures::Drop(uint64_t generation) {
  const auto found = jobs_.find(generation);
  if (found == jobs_.end()) return;
  for (size_t i = 0; i < found->second.pictures.size(); ++i) {
    Picture& picture = found->second.pictures[i];
    CloseCalls(picture);
    if (picture.handle != nullptr) Release(std::move(picture.handle));
    queue_.Remove(WorkOf(generation, i));
  }
  jobs_.erase(found);
  queue_.Pump();
}

std::vector<std::shared_ptr<const EmbeddingHandle>> SimPictures::HandlesOf(uint64_t generation) const {
  std::vector<std::shared_ptr<const EmbeddingHandle>> handles;
  for (const Picture& picture : jobs_.at(generation).pictures) handles.push_back(picture.handle);
  return handles;
}

void SimPictures::CheckIdle() const {
  encoders_.CheckIdle();
  if (jobs_.empty() && queue_.size() == 0) return;
  world_->Violate(absl::StrCat(jobs_.size(), " chats have pictures at the router when all has ended"));
}

}  // namespace prism::sim
