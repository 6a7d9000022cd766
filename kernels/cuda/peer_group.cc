#include "kernels/cuda/peer_group.h"

#include <algorithm>
#include <array>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/base/status.h"
#include "kernels/cuda/cuda_status.h"
#include "kernels/cuda/cuda_stream.h"
#include "kernels/cuda/peer_exchange_kernels.h"
#include "kernels/cuda/peer_sum_kernels.h"
#include "kernels/device/fault.h"

namespace prism::cuda {
namespace {

// One rank's memory on its device.
struct PeerMemory {
  int device = 0;
  ExchangeInbox inbox = {};
  uint32_t* counts = nullptr;
  SumInbox sum_inbox = {};
  uint64_t* sum_counts = nullptr;
};

// What the endpoints of one group share. Any thread: everything but the abort word is written once.
class PeerGroup {
 public:
  static absl::StatusOr<std::shared_ptr<PeerGroup>> Create(const PeerGroupOptions& options);
  PeerGroup(const PeerGroup&) = delete;
  PeerGroup& operator=(const PeerGroup&) = delete;
  ~PeerGroup();

  int size() const { return size_; }
  SumForm sum_form() const { return sum_form_; }
  ExchangeParams ParamsOf(int rank) const;
  SumParams SumParamsOf(int rank) const;

  void Abort() { control_->aborted = 1; }
  absl::Status Check() const;

 private:
  explicit PeerGroup(const PeerGroupOptions& options)
      : size_(static_cast<int>(options.devices.size())),
        sum_form_(options.sum_form),
        timeout_ns_(static_cast<int64_t>(options.timeout_s * 1e9)) {
    for (int rank = 0; rank < size_; ++rank)
      memory_[static_cast<size_t>(rank)].device = options.devices[static_cast<size_t>(rank)];
  }
  absl::Status Init();
  absl::Status InitRank(PeerMemory& memory);

  const int size_;
  const SumForm sum_form_;
  const int64_t timeout_ns_;
  std::array<PeerMemory, kPeersMax> memory_;
  volatile ExchangeControl* control_ = nullptr;  // mapped host memory
};

// Makes `device` current and the one before it again at the end.
class OnDevice {
 public:
  explicit OnDevice(int device) {
    cudaGetDevice(&before_);
    error_ = cudaSetDevice(device);
    if (error_ != cudaSuccess) cudaGetLastError();
  }
  ~OnDevice() { cudaSetDevice(before_); }
  OnDevice(const OnDevice&) = delete;
  OnDevice& operator=(const OnDevice&) = delete;
  cudaError_t error() const { return error_; }

 private:
  int before_ = 0;
  cudaError_t error_ = cudaSuccess;
};

absl::StatusOr<void*> TakeZeros(int64_t size_bytes, absl::string_view what) {
  void* data = nullptr;
  PRISM_CUDA_RETURN_IF_ERROR(cudaMalloc(&data, static_cast<size_t>(size_bytes)), what);
  PRISM_CUDA_RETURN_IF_ERROR(cudaMemset(data, 0, static_cast<size_t>(size_bytes)), what);
  return data;
}

absl::StatusOr<std::shared_ptr<PeerGroup>> PeerGroup::Create(const PeerGroupOptions& options) {
  if (options.devices.empty() || options.devices.size() > static_cast<size_t>(kPeersMax)) {
    return absl::InvalidArgumentError(
        absl::StrCat("a peer group of ", options.devices.size(), " ranks, want 1 to ", kPeersMax));
  }
  int count = 0;
  PRISM_CUDA_RETURN_IF_ERROR(cudaGetDeviceCount(&count), "cudaGetDeviceCount");
  for (const int device : options.devices) {
    if (device != options.devices[0] && Strikes(Fault::kNoPeerAccess)) continue;  // refused below
    if (device < 0 || device >= count) {
      return absl::NotFoundError(absl::StrCat("CUDA device ", device, " of a group of ",
                                              options.devices.size(), " ranks; this machine has ", count));
    }
  }
  std::shared_ptr<PeerGroup> group(new PeerGroup(options));
  PRISM_RETURN_IF_ERROR(group->Init());
  return group;
}

absl::Status PeerGroup::Init() {
  void* control = nullptr;
  PRISM_CUDA_RETURN_IF_ERROR(
      cudaHostAlloc(&control, sizeof(ExchangeControl), cudaHostAllocPortable | cudaHostAllocMapped),
      "mapped host memory for a peer group");
  control_ = static_cast<volatile ExchangeControl*>(control);
  control_->aborted = 0;
  control_->timed_out = 0;
  control_->missing = 0;
  for (int rank = 0; rank < size_; ++rank)
    PRISM_RETURN_IF_ERROR(InitRank(memory_[static_cast<size_t>(rank)]));
  return absl::OkStatus();
}

absl::Status PeerGroup::InitRank(PeerMemory& memory) {
  const OnDevice here(memory.device);
  PRISM_CUDA_RETURN_IF_ERROR(here.error(), absl::StrCat("CUDA device ", memory.device));
  for (int rank = 0; rank < size_; ++rank) {
    const int peer = memory_[static_cast<size_t>(rank)].device;
    if (peer == memory.device) continue;
    int can = 0;
    if (!Strikes(Fault::kNoPeerAccess)) {
      PRISM_CUDA_RETURN_IF_ERROR(cudaDeviceCanAccessPeer(&can, memory.device, peer),
                                 "cudaDeviceCanAccessPeer");
    }
    if (can == 0) {
      return absl::FailedPreconditionError(absl::StrCat("CUDA device ", memory.device,
                                                        " cannot reach the memory of device ", peer,
                                                        ": tensor parallelism needs GPUs with peer access"));
    }
    const cudaError_t error = cudaDeviceEnablePeerAccess(peer, 0);
    if (error == cudaErrorPeerAccessAlreadyEnabled) {
      cudaGetLastError();
    } else {
      PRISM_CUDA_RETURN_IF_ERROR(error, "cudaDeviceEnablePeerAccess");
    }
  }
  const std::string what = absl::StrCat("an inbox on CUDA device ", memory.device);
  PRISM_ASSIGN_OR_RETURN(void* const data, TakeZeros(kInboxBytes, what));
  memory.inbox.data = static_cast<char*>(data);
  PRISM_ASSIGN_OR_RETURN(void* const flags, TakeZeros(kInboxFlags * int64_t{sizeof(uint32_t)}, what));
  memory.inbox.flags = static_cast<uint32_t*>(flags);
  PRISM_ASSIGN_OR_RETURN(void* const counts, TakeZeros(kExchangeBlocksMax * int64_t{sizeof(uint32_t)}, what));
  memory.counts = static_cast<uint32_t*>(counts);
  PRISM_ASSIGN_OR_RETURN(void* const quick, TakeZeros(kQuickLines * int64_t{sizeof(SumLine)}, what));
  memory.sum_inbox.quick = static_cast<SumLine*>(quick);
  PRISM_ASSIGN_OR_RETURN(void* const meet, TakeZeros(kMeetLines * int64_t{sizeof(SumLine)}, what));
  memory.sum_inbox.meet = static_cast<SumLine*>(meet);
  PRISM_ASSIGN_OR_RETURN(void* const sum_counts, TakeZeros(kSumCounts * int64_t{sizeof(uint64_t)}, what));
  memory.sum_counts = static_cast<uint64_t*>(sum_counts);
  PRISM_CUDA_RETURN_IF_ERROR(LoadPeerExchange(), "the exchange's kernels");
  PRISM_CUDA_RETURN_IF_ERROR(LoadPeerSum(), "the exchange's kernels");
  PRISM_CUDA_RETURN_IF_ERROR(cudaDeviceSynchronize(), what);
  return absl::OkStatus();
}

PeerGroup::~PeerGroup() {
  for (int rank = 0; rank < size_; ++rank) {
    const PeerMemory& memory = memory_[static_cast<size_t>(rank)];
    const OnDevice here(memory.device);
    cudaFree(memory.inbox.data);
    cudaFree(memory.inbox.flags);
    cudaFree(memory.counts);
    cudaFree(memory.sum_inbox.quick);
    cudaFree(memory.sum_inbox.meet);
    cudaFree(memory.sum_counts);
  }
  cudaFreeHost(const_cast<ExchangeControl*>(control_));
}

ExchangeParams PeerGroup::ParamsOf(int rank) const {
  ExchangeParams params = {};
  for (int r = 0; r < size_; ++r) params.inboxes[r] = memory_[static_cast<size_t>(r)].inbox;
  params.counts = memory_[static_cast<size_t>(rank)].counts;
  params.control = control_;
  params.rank = rank;
  params.num_ranks = size_;
  params.timeout_ns = timeout_ns_;
  return params;
}

SumParams PeerGroup::SumParamsOf(int rank) const {
  SumParams params = {};
  for (int r = 0; r < size_; ++r) params.inboxes[r] = memory_[static_cast<size_t>(r)].sum_inbox;
  params.counts = memory_[static_cast<size_t>(rank)].sum_counts;
  params.control = control_;
  params.rank = rank;
  params.num_ranks = size_;
  params.timeout_ns = timeout_ns_;
  return params;
}

absl::Status PeerGroup::Check() const {
  if (control_->aborted == 0) return absl::OkStatus();
  const uint32_t waiting = control_->timed_out;
  if (waiting == 0) return absl::AbortedError("tensor-parallel group was aborted");
  return absl::AbortedError(absl::StrCat("tensor-parallel group was aborted: rank ", waiting - 1, " waited ",
                                         static_cast<double>(timeout_ns_) * 1e-9, " s for rank ",
                                         static_cast<uint32_t>(control_->missing)));
}

class PeerCommunicator final : public Communicator {
 public:
  PeerCommunicator(std::shared_ptr<PeerGroup> group, std::unique_ptr<Communicator> host, int rank)
      : group_(std::move(group)), host_(std::move(host)), rank_(rank) {}

  int rank() const override { return rank_; }
  int size() const override { return group_->size(); }

  absl::Status AllGather(Stream& stream, const TensorView& part, const TensorView& gathered) override {
    const int64_t size_bytes = part.size_bytes();
    if (part.dtype() != gathered.dtype() || gathered.size_bytes() != size_bytes * size()) {
      return absl::InvalidArgumentError(absl::StrCat("AllGather: gathered has ", gathered.size_bytes(),
                                                     " bytes, want ", size(), " x ", size_bytes));
    }
    PRISM_RETURN_IF_ERROR(group_->Check());
    ExchangeParams params = group_->ParamsOf(rank_);
    params.gathered_stride = size_bytes;
    for (int64_t begin = 0; begin < size_bytes; begin += kExchangeBytesMax) {
      params.part = static_cast<const char*>(part.raw()) + begin;
      params.gathered = static_cast<char*>(gathered.raw()) + begin;
      params.size_bytes = std::min(kExchangeBytesMax, size_bytes - begin);
      PRISM_RETURN_IF_ERROR(CudaStatus(LaunchPeerExchange(params, HandleOf(stream)), "AllGather"));
    }
    return absl::OkStatus();
  }

  bool can_sum() const override { return size() == 2 || size() == 4; }
  absl::Status SumParts(Stream& stream, const TensorView& part, const TensorView& y) override {
    if (!can_sum() || part.dtype() != DType::kF32 || y.dtype() != DType::kF32 ||
        part.num_elements() != y.num_elements()) {
      return absl::InvalidArgumentError(absl::StrCat("SumParts of ", part.num_elements(), " elements into ",
                                                     y.num_elements(), " on ", size(), " ranks"));
    }
    PRISM_RETURN_IF_ERROR(group_->Check());
    SumParams params = group_->SumParamsOf(rank_);
    params.part = part.data<float>();
    params.y = y.data<float>();
    params.size = part.num_elements();
    return CudaStatus(LaunchPeerSum(params, group_->sum_form(), HandleOf(stream)), "SumParts");
  }

  absl::Status Meet() override { return host_->Meet(); }
  absl::Status Check() const override { return group_->Check(); }
  void Abort() override {
    group_->Abort();
    host_->Abort();
  }

 private:
  const std::shared_ptr<PeerGroup> group_;
  const std::unique_ptr<Communicator> host_;  // where the ranks' threads meet
  const int rank_;
};

}  // namespace

absl::StatusOr<std::vector<std::unique_ptr<Communicator>>> CreatePeerGroup(const PeerGroupOptions& options) {
  PRISM_ASSIGN_OR_RETURN(const std::shared_ptr<PeerGroup> group, PeerGroup::Create(options));
  std::vector<std::unique_ptr<Communicator>> hosts = CreateInProcessGroup(group->size());
  std::vector<std::unique_ptr<Communicator>> endpoints;
  for (int rank = 0; rank < group->size(); ++rank) {
    endpoints.push_back(
        std::make_unique<PeerCommunicator>(group, std::move(hosts[static_cast<size_t>(rank)]), rank));
  }
  return endpoints;
}

}  // namespace prism::cuda
