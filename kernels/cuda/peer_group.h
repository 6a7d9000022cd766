// A tensor-parallel group whose ranks are threads of this process, each with a CUDA device: messages
// go through peer memory in one kernel a collective, with no call that waits on the host.
//
// What a rank waits for on its device ends when a peer's message comes, when any rank calls Abort(), or
// after a time limit; in the last two cases Check() of every rank says so from then on.
#pragma once

#include <cuda_runtime_api.h>

#include <memory>
#include <vector>

#include "absl/status/statusor.h"
#include "kernels/comm/communicator.h"
#include "kernels/cuda/peer_sum_kernels.h"

namespace prism::cuda {

struct PeerGroupOptions {
  std::vector<int> devices;  // one a rank, 1 .. kPeersMax of them; ranks may share one, in tests
  double timeout_s = 8;      // that a rank waits for another; RankWatch gives up before
  SumForm sum_form = SumForm::kAuto;
};

// The endpoints, in order. FailedPrecondition if a device cannot reach another's memory, NotFound if
// there is no such device, ResourceExhausted if one has no memory for its inbox (16 MiB).
absl::StatusOr<std::vector<std::unique_ptr<Communicator>>> CreatePeerGroup(const PeerGroupOptions& options);

}  // namespace prism::cuda
