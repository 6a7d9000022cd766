#include "services/decoder/embeddings/embedding_puller.h"

#include <grpcpp/grpcpp.h>

#include <algorithm>
#include <cstring>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/base/check.h"
#include "common/base/hash.h"
#include "common/base/status.h"
#include "common/rpc/channel.h"
#include "common/rpc/deadline.h"
#include "common/wire/status_codec.h"
#include "common/wire/tensor_frames.h"
#include "prism/v1/vision.grpc.pb.h"

namespace prism {
namespace {

// Calls for one embedding: the first, and one that goes on where the first broke off.
constexpr int kCallsMax = 2;

SteadyTime Now() { return Clock::Real().Now(); }

absl::Status Lost(const EmbeddingRef& ref, absl::string_view why) {
  return ErrorWithReason(
      absl::StatusCode::kFailedPrecondition,
      absl::StrCat("embedding ", Hex(ref.content_key).substr(0, 16), " at ", ref.address, " is lost: ", why),
      kReasonEmbeddingLost);
}

absl::Status Corrupt(const EmbeddingRef& ref, absl::string_view why) {
  return ErrorWithReason(absl::StatusCode::kDataLoss,
                         absl::StrCat("embedding ", Hex(ref.content_key).substr(0, 16), " from ", ref.address,
                                      " is corrupt: ", why),
                         kReasonEmbeddingCorrupt);
}

// The first element that is NaN or infinite, or -1. An exponent of all ones is either.
template <typename Word>
int64_t FindNonFinite(const void* data, int64_t count, Word exponent) {
  for (int64_t i = 0; i < count; ++i) {
    Word word;
    std::memcpy(&word, static_cast<const char*>(data) + i * sizeof(Word), sizeof(Word));
    if ((word & exponent) == exponent) return i;
  }
  return -1;
}

absl::Status CheckFinite(const EmbeddingRef& ref, const Buffer& buffer) {
  const int64_t count = ref.size_bytes / static_cast<int64_t>(SizeOf(ref.dtype));
  const int64_t bad = ref.dtype == DType::kF32 ? FindNonFinite<uint32_t>(buffer.data(), count, 0x7F800000u)
                                               : FindNonFinite<uint16_t>(buffer.data(), count, 0x7F80u);
  if (bad < 0) return absl::OkStatus();
  return Corrupt(ref, absl::StrCat("element ", bad, " of ", count, " is not finite"));
}

}  // namespace

class EmbeddingPuller::Pull final : public EmbeddingPull {
 public:
  Pull(EmbeddingPuller* puller, JobId id, Job* job) : puller_(puller), id_(id), job_(job) {}
  ~Pull() override { puller_->Abandon(id_); }

  bool done() const override {
    MutexLock lock(&puller_->mutex_);
    return job_->remaining == 0;
  }
  absl::Status status() const override {
    MutexLock lock(&puller_->mutex_);
    return job_->status;
  }
  bool ready(size_t index) const override {
    MutexLock lock(&puller_->mutex_);
    return job_->slots.at(index).entry != nullptr;
  }
  const PulledEmbedding& embedding(size_t index) const override {
    MutexLock lock(&puller_->mutex_);
    const Entry* const entry = job_->slots.at(index).entry;
    PRISM_CHECK(entry != nullptr);
    return entry->embedding;
  }
  bool cached(size_t index) const override {
    MutexLock lock(&puller_->mutex_);
    return job_->slots.at(index).cached;
  }

 private:
  EmbeddingPuller* const puller_;
  const JobId id_;
  Job* const job_;
};

EmbeddingPuller::EmbeddingPuller(const EmbeddingPullerOptions& options)
    : options_(options), memory_gauge_(options.memory_used_bytes) {
  PRISM_CHECK(options.memory_bytes >= 1);
  pool_ = std::make_unique<TaskPool>("embeddings", options.num_threads, options.queue_max);
}

EmbeddingPuller::~EmbeddingPuller() {
  // Abandoned jobs end quickly: their calls are cancelled.
  pool_.reset();
  MutexLock lock(&mutex_);
  PRISM_CHECK(jobs_.empty());
}

absl::Status EmbeddingPuller::CheckFits(absl::Span<const EmbeddingRef> refs) const {
  int64_t size_bytes = 0;
  for (const EmbeddingRef& ref : refs) size_bytes += ref.size_bytes;
  if (size_bytes <= options_.memory_bytes) return absl::OkStatus();
  return absl::ResourceExhaustedError(absl::StrCat(
      "embeddings of ", size_bytes, " bytes, of which memory holds at most ", options_.memory_bytes));
}

int64_t EmbeddingPuller::memory_used_bytes() const {
  MutexLock lock(&mutex_);
  return used_bytes_;
}

std::unique_ptr<EmbeddingPull> EmbeddingPuller::Start(absl::Span<const EmbeddingRef> refs,
                                                      SteadyTime deadline, std::function<void()> on_change) {
  auto owned = std::make_unique<Job>();
  Job* const job = owned.get();
  job->deadline = deadline;
  JobId id = 0;
  std::vector<size_t> missing;
  {
    MutexLock lock(&mutex_);
    int64_t missing_bytes = 0;
    for (const EmbeddingRef& ref : refs) {
      job->slots.push_back({.ref = ref, .key = IdentityOf(ref)});
      Slot& slot = job->slots.back();
      if (const auto found = entries_.find(slot.key); found != entries_.end()) {
        Pin(slot, found->second);
        slot.cached = true;
      } else {
        missing.push_back(job->slots.size() - 1);
        missing_bytes += ref.size_bytes;
      }
    }
    if (!MakeRoom(missing_bytes)) {
      for (Slot& slot : job->slots) Unpin(slot);
      return nullptr;
    }
    AddUsed(missing_bytes);
    job->remaining = missing.size();
    job->on_change = on_change;
    id = ++last_job_;
    jobs_.emplace(id, std::move(owned));
  }
  auto pull = std::make_unique<Pull>(this, id, job);
  if (missing.size() < refs.size()) on_change();
  for (const size_t slot : missing) {
    if (pool_->TrySubmit([this, id, slot] { RunTask(id, slot); }).ok()) continue;
    EndTask(id, slot,
            RetryAfter(ErrorWithReason(absl::StatusCode::kResourceExhausted,
                                       absl::StrCat("too many embeddings wait to be pulled, at most ",
                                                    options_.queue_max, " may"),
                                       kReasonQueueFull),
                       1000));
  }
  return pull;
}

void EmbeddingPuller::RunTask(JobId id, size_t slot) {
  Job* job = nullptr;
  {
    MutexLock lock(&mutex_);
    job = jobs_.at(id).get();
  }
  // The slot's ref is constant; its entry is set by EndTask(), under the lock.
  EndTask(id, slot, Fetch(*job, job->slots[slot].ref));
}

void EmbeddingPuller::EndTask(JobId id, size_t slot, absl::StatusOr<PulledEmbedding> embedding) {
  std::function<void()> on_change;
  {
    MutexLock lock(&mutex_);
    Job& job = *jobs_.at(id);
    on_change = job.on_change;
    if (embedding.ok()) {
      Keep(job.slots[slot], *std::move(embedding));
    } else {
      AddUsed(-job.slots[slot].ref.size_bytes);
      job.status.Update(embedding.status());
      // The request fails, so what else it pulls is of no use to it.
      for (grpc::ClientContext* context : job.contexts) context->TryCancel();
    }
    if (--job.remaining == 0 && job.abandoned) Forget(id);
  }
  on_change();
}

absl::StatusOr<PulledEmbedding> EmbeddingPuller::Fetch(Job& job, const EmbeddingRef& ref) {
  {
    MutexLock lock(&mutex_);
    if (job.abandoned || !job.status.ok()) return absl::CancelledError("the request has ended");
  }
  const SteadyTime now = Now();
  const SteadyTime callers = HopDeadline(job.deadline, now);
  const SteadyTime deadline = EarlierOf(callers, now, options_.timeout);
  Buffer buffer = Buffer::Host(ref.size_bytes);
  FrameAssembler assembler(
      absl::MakeSpan(static_cast<uint8_t*>(buffer.data()), static_cast<size_t>(ref.size_bytes)));
  absl::Status status;
  for (int call = 0; call < kCallsMax; ++call) {
    status = FetchRest(job, ref, deadline, assembler);
    if (!absl::IsUnavailable(status)) break;
  }
  if (!status.ok()) return Classify(status, ref, /*callers_deadline=*/deadline == callers);
  if (const absl::Status whole = assembler.Finish(ref.digest); !whole.ok()) {
    return Corrupt(ref, whole.message());
  }
  PRISM_RETURN_IF_ERROR(CheckFinite(ref, buffer));
  return PulledEmbedding{
      Tensor(std::move(buffer), ref.dtype, {1 + ref.num_deepstack, ref.num_tokens, ref.hidden_size})};
}

absl::Status EmbeddingPuller::FetchRest(Job& job, const EmbeddingRef& ref, SteadyTime deadline,
                                        FrameAssembler& assembler) {
  // All came, and then the connection broke.
  if (assembler.complete()) return absl::OkStatus();
  grpc::ClientContext context;
  SetDeadline(&context, deadline);
  if (!BeginCall(job, &context)) return absl::CancelledError("the request has ended");
  v1::FetchEmbeddingRequest request;
  request.set_handle_id(ref.handle_id);
  request.set_incarnation(ref.incarnation);
  request.set_offset(assembler.received_bytes());
  const auto stub = v1::VisionEncoder::NewStub(ChannelTo(ref.address));
  const auto reader = stub->FetchEmbedding(&context, request);
  absl::Status frames;
  v1::TensorFrame frame;
  while (frames.ok() && reader->Read(&frame)) frames = assembler.Add(frame);
  if (!frames.ok()) context.TryCancel();
  const absl::Status end = FromGrpc(reader->Finish());
  EndCall(job, &context);
  return frames.ok() ? end : frames;
}

absl::Status EmbeddingPuller::Classify(const absl::Status& status, const EmbeddingRef& ref,
                                       bool callers_deadline) const {
  switch (status.code()) {
    case absl::StatusCode::kDataLoss:
      return Corrupt(ref, status.message());
    case absl::StatusCode::kCancelled:
      return status;
    case absl::StatusCode::kDeadlineExceeded:
      if (callers_deadline) {
        return absl::DeadlineExceededError("the deadline passed while an embedding was pulled");
      }
      return Lost(ref, absl::StrCat("it did not arrive within ", options_.timeout.count(), " ms"));
    default:
      return Lost(ref, status.message());
  }
}

bool EmbeddingPuller::BeginCall(Job& job, grpc::ClientContext* context) {
  MutexLock lock(&mutex_);
  if (job.abandoned || !job.status.ok()) return false;
  job.contexts.push_back(context);
  return true;
}

void EmbeddingPuller::EndCall(Job& job, grpc::ClientContext* context) {
  MutexLock lock(&mutex_);
  job.contexts.erase(std::find(job.contexts.begin(), job.contexts.end(), context));
}

std::shared_ptr<grpc::Channel> EmbeddingPuller::ChannelTo(const std::string& address) {
  MutexLock lock(&mutex_);
  const auto found = channels_.find(address);
  if (found != channels_.end()) return found->second;
  // Which one goes matters little: calls under way keep theirs.
  if (channels_.size() >= kChannelsMax) channels_.erase(channels_.begin());
  // The scheme keeps a host like "unix" from being taken for one.
  std::shared_ptr<grpc::Channel> channel = NewChannel("dns:///" + address);
  channels_[address] = channel;
  return channel;
}

void EmbeddingPuller::Abandon(JobId id) {
  MutexLock lock(&mutex_);
  Job& job = *jobs_.at(id);
  job.abandoned = true;
  for (grpc::ClientContext* context : job.contexts) context->TryCancel();
  if (job.remaining == 0) Forget(id);
}

bool EmbeddingPuller::MakeRoom(int64_t size_bytes) {
  while (used_bytes_ + size_bytes > options_.memory_bytes) {
    if (lru_.empty()) return false;
    const auto oldest = entries_.find(lru_.front());
    AddUsed(-oldest->second.size_bytes);
    entries_.erase(oldest);
    lru_.pop_front();
  }
  return true;
}

void EmbeddingPuller::Keep(Slot& slot, PulledEmbedding embedding) {
  const auto [place, is_new] = entries_.try_emplace(slot.key);
  if (is_new) {
    place->second = {
        .embedding = std::move(embedding), .size_bytes = slot.ref.size_bytes, .pins = 1, .place = {}};
    slot.entry = &place->second;
  } else {
    // Another request pulled the same meanwhile; one copy is enough.
    AddUsed(-slot.ref.size_bytes);
    Pin(slot, place->second);
  }
}

void EmbeddingPuller::Pin(Slot& slot, Entry& entry) {
  if (entry.pins++ == 0) lru_.erase(entry.place);
  slot.entry = &entry;
}

void EmbeddingPuller::Unpin(Slot& slot) {
  if (slot.entry == nullptr) return;
  if (--slot.entry->pins == 0) slot.entry->place = lru_.insert(lru_.end(), slot.key);
  slot.entry = nullptr;
}

void EmbeddingPuller::Forget(JobId id) {
  const auto job = jobs_.find(id);
  for (Slot& slot : job->second->slots) Unpin(slot);
  jobs_.erase(job);
}

void EmbeddingPuller::AddUsed(int64_t size_bytes) {
  used_bytes_ += size_bytes;
  memory_gauge_.Set(static_cast<double>(used_bytes_));
}

}  // namespace prism
