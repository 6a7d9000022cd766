#include "common/rpc/deadline.h"

#include <grpc/support/time.h>

#include <algorithm>

namespace prism {
namespace {

using Nanoseconds = std::chrono::nanoseconds;

}  // namespace

SteadyTime DeadlineOf(const grpc::ServerContextBase& context) {
  const gpr_timespec deadline = gpr_convert_clock_type(context.raw_deadline(), GPR_CLOCK_MONOTONIC);
  if (gpr_time_cmp(deadline, gpr_inf_future(GPR_CLOCK_MONOTONIC)) == 0) return kNoDeadline;
  const gpr_timespec left = gpr_time_sub(deadline, gpr_now(GPR_CLOCK_MONOTONIC));
  // A caller's year is as good as none, and cannot overflow.
  constexpr int64_t kSecondsMax = 365 * 86400;
  if (left.tv_sec > kSecondsMax) return kNoDeadline;
  const int64_t seconds = std::max<int64_t>(left.tv_sec, -kSecondsMax);
  return Clock::Real().Now() + std::chrono::seconds(seconds) + Nanoseconds(left.tv_nsec);
}

SteadyTime HopDeadline(SteadyTime deadline, SteadyTime now) {
  if (deadline == kNoDeadline || deadline <= now) return deadline;
  const auto margin = std::min<SteadyTime::duration>(kHopMargin, (deadline - now) / 10);
  return deadline - margin;
}

SteadyTime EarlierOf(SteadyTime deadline, SteadyTime now, std::chrono::milliseconds timeout) {
  return std::min(deadline, now + timeout);
}

void SetDeadline(grpc::ClientContext* context, SteadyTime deadline) {
  if (deadline == kNoDeadline) return;
  const auto left = std::chrono::duration_cast<Nanoseconds>(deadline - Clock::Real().Now()).count();
  context->set_deadline(gpr_time_add(gpr_now(GPR_CLOCK_MONOTONIC), gpr_time_from_nanos(left, GPR_TIMESPAN)));
}

}  // namespace prism
