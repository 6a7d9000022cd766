// What kind of cluster, workload and faults a seed has.
//
// Thread safety: pure functions of the Random.
#pragma once

#include "services/sim/cluster.h"
#include "services/sim/faults.h"
#include "services/sim/random.h"
#include "services/sim/workload.h"

namespace prism::sim {

struct Drawn {
  ClusterOptions cluster;
  WorkloadOptions workload;
  FaultOptions faults;
};

// A different cluster for each seed: roomy and scarce ones, quick and slow ones, idle and overrun ones.
Drawn Draw(Random& random);

}  // namespace prism::sim
