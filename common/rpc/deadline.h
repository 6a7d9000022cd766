// Deadlines across hops, on the monotonic clock: a jump of the wall clock moves none.
//
// SteadyTime::max() means there is none. Thread safety: functions only.
#pragma once

#include <grpcpp/client_context.h>
#include <grpcpp/server_context.h>

#include <chrono>

#include "common/base/clock.h"

namespace prism {

inline constexpr SteadyTime kNoDeadline = SteadyTime::max();

// What a hop keeps for itself, so that it can still tell its caller why the next one failed:
// kHopMargin, but never more than a tenth of what is left.
inline constexpr std::chrono::milliseconds kHopMargin{50};

// The deadline a caller gave.
SteadyTime DeadlineOf(const grpc::ServerContextBase& context);

// The deadline to give the next hop. Never later than `deadline`.
SteadyTime HopDeadline(SteadyTime deadline, SteadyTime now);

// `now` + `timeout`, or `deadline` if that is earlier.
SteadyTime EarlierOf(SteadyTime deadline, SteadyTime now, std::chrono::milliseconds timeout);

// REQUIRES: the context's call has not started.
void SetDeadline(grpc::ClientContext* context, SteadyTime deadline);

}  // namespace prism
