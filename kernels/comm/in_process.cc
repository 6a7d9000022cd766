#include <cstring>

#include "absl/strings/str_cat.h"
#include "common/base/mutex.h"
#include "kernels/comm/communicator.h"

namespace prism {
namespace {

// What the endpoints of one group share: a meeting point, and where each rank's part lies.
class Meeting {
 public:
  explicit Meeting(int size) : parts_(static_cast<size_t>(size)), size_(size) {}

  int size() const { return size_; }

  // Waits until all ranks are here. Aborted if any gave up.
  absl::Status Arrive() ABSL_LOCKS_EXCLUDED(mutex_) {
    MutexLock lock(&mutex_);
    if (aborted_) return absl::AbortedError("tensor-parallel group was aborted");
    const uint64_t round = round_;
    if (++arrived_ == size_) {
      arrived_ = 0;
      ++round_;
      changed_.NotifyAll();
      return absl::OkStatus();
    }
    while (round_ == round && !aborted_) changed_.Wait(&mutex_);
    // A round that was completed counts even if somebody gave up right after it.
    if (round_ == round) return absl::AbortedError("tensor-parallel group was aborted");
    return absl::OkStatus();
  }

  void Abort() ABSL_LOCKS_EXCLUDED(mutex_) {
    MutexLock lock(&mutex_);
    aborted_ = true;
    changed_.NotifyAll();
  }

  absl::Status Check() const ABSL_LOCKS_EXCLUDED(mutex_) {
    MutexLock lock(&mutex_);
    return aborted_ ? absl::AbortedError("tensor-parallel group was aborted") : absl::OkStatus();
  }

  // Written by rank r before it arrives, read by all after they arrived.
  TensorView& part(int rank) { return parts_[static_cast<size_t>(rank)]; }

 private:
  std::vector<TensorView> parts_;
  const int size_;
  mutable Mutex mutex_;
  CondVar changed_;
  int arrived_ ABSL_GUARDED_BY(mutex_) = 0;
  uint64_t round_ ABSL_GUARDED_BY(mutex_) = 0;
  bool aborted_ ABSL_GUARDED_BY(mutex_) = false;
};

class InProcessCommunicator final : public Communicator {
 public:
  InProcessCommunicator(std::shared_ptr<Meeting> meeting, int rank)
      : meeting_(std::move(meeting)), rank_(rank) {}

  int rank() const override { return rank_; }
  int size() const override { return meeting_->size(); }

  absl::Status AllGather(Stream& stream, const TensorView& part, const TensorView& gathered) override {
    if (part.dtype() != gathered.dtype() || gathered.size_bytes() != part.size_bytes() * size()) {
      return absl::InvalidArgumentError(absl::StrCat("AllGather: gathered has ", gathered.size_bytes(),
                                                     " bytes, want ", size(), " x ", part.size_bytes()));
    }
    if (absl::Status status = stream.Synchronize(); !status.ok()) return status;
    meeting_->part(rank_) = part;
    if (absl::Status status = meeting_->Arrive(); !status.ok()) return status;
    absl::Status status;
    for (int r = 0; r < size(); ++r) {
      const TensorView& from = meeting_->part(r);
      if (from.size_bytes() != part.size_bytes()) {
        status = absl::InternalError(absl::StrCat("AllGather: rank ", r, " brought ", from.size_bytes(),
                                                  " bytes, rank ", rank_, " ", part.size_bytes()));
        break;
      }
      char* to = static_cast<char*>(gathered.raw()) + r * part.size_bytes();
      if (to != from.raw()) std::memcpy(to, from.raw(), static_cast<size_t>(part.size_bytes()));
    }
    // Nobody may change its part before all have copied it.
    if (absl::Status left = meeting_->Arrive(); !left.ok()) return left;
    return status;
  }

  absl::Status Meet() override { return meeting_->Arrive(); }
  absl::Status Check() const override { return meeting_->Check(); }
  void Abort() override { meeting_->Abort(); }

 private:
  const std::shared_ptr<Meeting> meeting_;
  const int rank_;
};

}  // namespace

absl::Status Communicator::SumParts(Stream&, const TensorView&, const TensorView&) {
  return absl::UnimplementedError("SumParts: this group only gathers");
}

std::vector<std::unique_ptr<Communicator>> CreateInProcessGroup(int size) {
  PRISM_CHECK(size >= 1);
  auto meeting = std::make_shared<Meeting>(size);
  std::vector<std::unique_ptr<Communicator>> endpoints;
  endpoints.reserve(static_cast<size_t>(size));
  for (int rank = 0; rank < size; ++rank) {
    endpoints.push_back(std::make_unique<InProcessCommunicator>(meeting, rank));
  }
  return endpoints;
}

}  // namespace prism
