// Communicator: one rank's way to the others of its tensor-parallel group.
//
// Sums over ranks have one order, that of the op SumPartials (numerics.md 6). Every rank calls the same
// collectives in the same order with the same shapes.
//
// Thread safety: an endpoint belongs to its rank's thread.
#pragma once

#include <memory>
#include <vector>

#include "absl/status/status.h"
#include "kernels/device/backend.h"

namespace prism {

class Communicator {
 public:
  virtual ~Communicator() = default;
  virtual int rank() const = 0;  // 0 .. size() - 1
  virtual int size() const = 0;  // >= 1

  // gathered[r] = rank r's `part`, on every rank. `gathered` is [size, shape of part...], same
  // type. `part` must stay unchanged until the call returns; it may be gathered[rank()] itself.
  // Aborted once any rank called Abort().
  virtual absl::Status AllGather(Stream& stream, const TensorView& part, const TensorView& gathered) = 0;

  // Whether SumParts() is there. Where it is not: AllGather(), then SumPartials.
  virtual bool can_sum() const { return false; }
  // y = the sum of all ranks' parts in the order of SumPartials, on every rank: AllGather() and that op in
  // one, with the same bits. [any shape] f32 on the streams' devices; y may be the part. Peers read and write
  // both until the work that this queues has run. Aborted as AllGather(). REQUIRES: can_sum()
  virtual absl::Status SumParts(Stream& stream, const TensorView& part, const TensorView& y);

  // Blocks this thread until every rank has called it. Freeing device memory waits for what runs there,
  // which may be a peer's kernel that waits for this rank: ranks free memory between two meetings, with
  // nothing queued. Aborted as AllGather().
  virtual absl::Status Meet() = 0;

  // OK while collectives can succeed; Aborted, saying why if it is known, once they cannot. A device
  // that waits for a rank in vain finds out when the wait is over: ask after Synchronize(). Any thread.
  virtual absl::Status Check() const = 0;

  // Makes every collective of every rank, running or to come, return Aborted. For a rank that
  // failed, so that none of the others waits for it. Any thread.
  virtual void Abort() = 0;
};

// The endpoints of a group of threads of this process whose streams share host memory.
// REQUIRES: size >= 1
std::vector<std::unique_ptr<Communicator>> CreateInProcessGroup(int size);

}  // namespace prism
