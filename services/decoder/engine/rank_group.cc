#include "services/decoder/engine/rank_group.h"

#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/base/check.h"
#include "common/base/status.h"

namespace prism {

absl::StatusOr<std::unique_ptr<RankGroup>> RankGroup::Load(Backend& backend, const Checkpoint& checkpoint,
                                                           std::vector<std::unique_ptr<Communicator>> comms,
                                                           const std::vector<RankOptions>& options,
                                                           RankWatchOptions watch) {
  PRISM_CHECK(!comms.empty() && comms.size() == options.size());
  std::unique_ptr<RankGroup> group(new RankGroup(std::move(comms), std::move(watch)));
  group->device_memory_ = backend.has_device_memory();
  const size_t num_ranks = options.size();
  // For all ranks, until they are loaded. Several of them read the same tensors, which then had better stay
  // in the page cache; so they had where the host computes, whose memory weights only pass through on a
  // device.
  const bool direct = num_ranks == 1 && backend.has_device_memory();
  const std::unique_ptr<ReadAhead> read_ahead = checkpoint.StartReadAhead(direct);
  {
    MutexLock lock(&group->mutex_);
    group->busy_ = static_cast<int>(num_ranks);
  }
  for (size_t index = 0; index < num_ranks; ++index) {
    RankOptions rank_options = options[index];
    rank_options.watch = &group->watch_;
    group->threads_.emplace_back(absl::StrCat("rank", index),
                                 [raw = group.get(), index, &backend, &checkpoint, rank_options] {
                                   raw->RunRank(index, &backend, &checkpoint, rank_options);
                                 });
  }
  absl::Status status;
  {
    MutexLock lock(&group->mutex_);
    while (group->BusyLocked()) group->done_.Wait(&group->mutex_);
    status = group->status_;
  }
  if (!status.ok()) return status;
  group->watch_.WarmedUp();
  return group;
}

RankGroup::RankGroup(std::vector<std::unique_ptr<Communicator>> comms, RankWatchOptions watch)
    : comms_(std::move(comms)), watch_(static_cast<int>(comms_.size()), [&] {
        watch.abort = [this] { comms_[0]->Abort(); };
        return std::move(watch);
      }()) {}

RankGroup::~RankGroup() {
  {
    MutexLock lock(&mutex_);
    stop_ = true;
    start_.NotifyAll();
  }
  threads_.clear();
}

void RankGroup::RunRank(size_t index, Backend* backend, const Checkpoint* checkpoint, RankOptions options) {
  absl::StatusOr<std::unique_ptr<Rank>> rank = Rank::Load(*backend, *checkpoint, *comms_[index], options);
  if (rank.ok() && index == 0) {
    vocab_size_ = (*rank)->vocab_size();
    kv_pages_ = (*rank)->kv_pages();
    can_sample_ = (*rank)->can_sample();
  }
  // From here on backend and checkpoint may be gone as far as this thread knows.
  Report(index, rank.ok() ? absl::StatusOr<TensorView>(TensorView()) : rank.status());
  for (uint64_t seen = 0; AwaitStep(seen); ++seen) {
    const StepPlan* plan;
    absl::Span<const VisualRowSource> visual;
    SamplingWishes wishes;
    {
      MutexLock lock(&mutex_);
      plan = plan_;
      visual = visual_;
      if (index == 0) wishes = std::move(wishes_);
    }
    if (!rank.ok()) {
      Report(index, rank.status());
      continue;
    }
    absl::StatusOr<TensorView> result = (*rank)->Run(*plan, visual, wishes);
    Report(index, std::move(result), (*rank)->samples());
  }
}

bool RankGroup::AwaitStep(uint64_t seen) {
  MutexLock lock(&mutex_);
  while (step_ == seen && !stop_) start_.Wait(&mutex_);
  return !stop_;
}

void RankGroup::Report(size_t index, absl::StatusOr<TensorView> result, absl::Span<const RowSample> samples) {
  bool abort = false;
  {
    MutexLock lock(&mutex_);
    if (!result.ok()) {
      const std::string message = absl::StrCat("rank ", index, ": ", result.status().message());
      const absl::Status status(result.status().code(), message);
      // Those that were waiting for the failed one only say that they were.
      if (status_.ok() || absl::IsAborted(status_)) status_ = status;
      abort = comms_.size() > 1;
      const bool lost = device_memory_ && absl::IsInternal(status);
      if ((abort || lost) && broken_.ok()) {
        broken_ = absl::UnavailableError(absl::StrCat(
            abort ? "the tensor-parallel group was given up after " : "the device was lost after ", message));
      }
    } else if (index == 0) {
      logits_ = *result;
      samples_ = samples;
    }
  }
  if (abort) comms_[index]->Abort();
  MutexLock lock(&mutex_);
  if (--busy_ == 0) done_.NotifyAll();
}

void RankGroup::SampleNext(const SamplingWishes& wishes) {
  MutexLock lock(&mutex_);
  next_wishes_ = wishes;
}

void RankGroup::Start(const StepPlan& plan, absl::Span<const VisualRowSource> visual) {
  MutexLock lock(&mutex_);
  PRISM_CHECK(!BusyLocked());
  plan_ = &plan;
  visual_ = visual;
  wishes_ = std::move(next_wishes_);
  next_wishes_.clear();
  status_ = absl::OkStatus();
  busy_ = static_cast<int>(comms_.size());
  ++step_;
  start_.NotifyAll();
}

bool RankGroup::WaitUntil(SteadyTime time) {
  MutexLock lock(&mutex_);
  while (BusyLocked()) {
    if (!done_.WaitUntil(&mutex_, time) && BusyLocked()) return false;
  }
  return true;
}

absl::StatusOr<TensorView> RankGroup::logits() {
  MutexLock lock(&mutex_);
  PRISM_CHECK(!BusyLocked());
  if (!status_.ok()) return status_;
  return logits_;
}

absl::Span<const RowSample> RankGroup::samples() const {
  MutexLock lock(&mutex_);
  PRISM_CHECK(!BusyLocked());
  return samples_;
}

absl::Status RankGroup::Healthy() const {
  PRISM_RETURN_IF_ERROR(watch_.Verdict());
  MutexLock lock(&mutex_);
  return broken_;
}

}  // namespace prism
