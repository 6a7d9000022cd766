#include "common/metrics/busy_share.h"

#include <cmath>

#include "common/base/check.h"

namespace prism {
namespace {

double Kept(SteadyTime from, SteadyTime to) {
  return std::exp2(-SecondsBetween(from, to) / BusyShare::kHalfLifeS);
}

}  // namespace

void BusyShare::Observe(SteadyTime began, SteadyTime ended, double share) {
  PRISM_CHECK(end_ <= began && began <= ended && share >= 0 && share <= 1);
  const double kept = Kept(began, ended);
  share_ = At(began) * kept + share * (1 - kept);
  end_ = ended;
}

double BusyShare::At(SteadyTime now) const { return share_ * Kept(end_, now); }

}  // namespace prism
