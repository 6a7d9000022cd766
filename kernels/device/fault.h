// Fault points: places of the device code where a test makes happen what it cannot bring about
// otherwise. One fault is armed at a time, by ArmFault() or by the environment:
//
//   PRISM_FAULT=NAME[:RANK][@COUNT]     e.g. rank_stops:1@200
//
//   driver_too_old   the driver supports an older CUDA than the program needs
//   no_peer_access   no device can reach another's memory
//   out_of_memory    the device gives no more memory
//   rank_stops       a rank's thread queues nothing any more and never comes back
//   endless_kernel   a rank's device gets work that does not end
//
// RANK (0 if absent) is the tensor-parallel rank it strikes, where the point belongs to one; it strikes
// from the COUNTth time on (1 if absent) that the point is passed. Points that are not armed cost one
// look at a variable. Programs read the environment once, at their start, and log what is armed.
//
// Thread safety: any thread may pass a point; arm and disarm while nobody does, or from a point's own
// consequences.
#pragma once

#include <cstdint>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace prism {

enum class Fault { kNone, kDriverTooOld, kNoPeerAccess, kOutOfMemory, kRankStops, kEndlessKernel };

// "driver_too_old" and so on; "none".
absl::string_view Name(Fault fault);

struct ArmedFault {
  Fault fault = Fault::kNone;
  int rank = 0;
  int64_t count = 1;
};

// InvalidArgument naming the faults there are. An empty text is no fault.
absl::StatusOr<ArmedFault> ParseFault(absl::string_view text);

// Arms, and counts from nothing; Fault::kNone disarms and frees who waits in WaitWhileArmed().
void ArmFault(const ArmedFault& armed);
// Arms what PRISM_FAULT says, if anything, with a warning in the log. ParseFault()'s error.
absl::Status ArmFaultFromEnvironment();

// The point: whether it strikes now.
bool Strikes(Fault fault, int rank = 0);
// Blocks while any fault is armed: for ever, but in a test that disarms it.
void WaitWhileArmed();

}  // namespace prism
