#include "kernels/device/fault.h"

#include <atomic>
#include <cstdlib>
#include <string>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "common/base/log.h"
#include "common/base/mutex.h"
#include "common/base/status.h"

namespace prism {
namespace {

constexpr Fault kFaults[] = {Fault::kDriverTooOld, Fault::kNoPeerAccess, Fault::kOutOfMemory,
                             Fault::kRankStops, Fault::kEndlessKernel};
constexpr char kVariable[] = "PRISM_FAULT";

// What is armed, by itself so that a point that is not costs no lock.
std::atomic<Fault> g_fault{Fault::kNone};

struct State {
  Mutex mutex;
  CondVar disarmed;
  ArmedFault armed ABSL_GUARDED_BY(mutex);
  int64_t passed ABSL_GUARDED_BY(mutex) = 0;  // times that the armed point was passed
};

State& TheState() {
  static State* const state = new State();
  return *state;
}

}  // namespace

absl::string_view Name(Fault fault) {
  switch (fault) {
    case Fault::kNone:
      return "none";
    case Fault::kDriverTooOld:
      return "driver_too_old";
    case Fault::kNoPeerAccess:
      return "no_peer_access";
    case Fault::kOutOfMemory:
      return "out_of_memory";
    case Fault::kRankStops:
      return "rank_stops";
    case Fault::kEndlessKernel:
      return "endless_kernel";
  }
  return "none";
}

absl::StatusOr<ArmedFault> ParseFault(absl::string_view text) {
  ArmedFault armed;
  if (text.empty()) return armed;
  const auto fail = [&] {
    const std::string names = absl::StrJoin(
        kFaults, ", ", [](std::string* out, Fault fault) { absl::StrAppend(out, Name(fault)); });
    return absl::InvalidArgumentError(
        absl::StrCat("fault is \"", text, "\", want NAME[:RANK][@COUNT] with NAME one of ", names));
  };
  absl::string_view name = text;
  if (const size_t at = name.find('@'); at != absl::string_view::npos) {
    if (!absl::SimpleAtoi(name.substr(at + 1), &armed.count) || armed.count < 1) return fail();
    name = name.substr(0, at);
  }
  if (const size_t at = name.find(':'); at != absl::string_view::npos) {
    if (!absl::SimpleAtoi(name.substr(at + 1), &armed.rank) || armed.rank < 0) return fail();
    name = name.substr(0, at);
  }
  for (const Fault fault : kFaults) {
    if (Name(fault) == name) armed.fault = fault;
  }
  if (armed.fault == Fault::kNone) return fail();
  return armed;
}

void ArmFault(const ArmedFault& armed) {
  State& state = TheState();
  MutexLock lock(&state.mutex);
  state.armed = armed;
  state.passed = 0;
  g_fault.store(armed.fault);
  state.disarmed.NotifyAll();
}

absl::Status ArmFaultFromEnvironment() {
  const char* const text = std::getenv(kVariable);
  if (text == nullptr || *text == '\0') return absl::OkStatus();
  PRISM_ASSIGN_OR_RETURN(const ArmedFault armed, ParseFault(text));
  ArmFault(armed);
  LogWarning("a fault is armed, for a test",
             {{"fault", Name(armed.fault)}, {"rank", armed.rank}, {"count", armed.count}});
  return absl::OkStatus();
}

bool Strikes(Fault fault, int rank) {
  if (g_fault.load(std::memory_order_relaxed) != fault) return false;
  State& state = TheState();
  MutexLock lock(&state.mutex);
  if (state.armed.fault != fault || state.armed.rank != rank) return false;
  return ++state.passed >= state.armed.count;
}

void WaitWhileArmed() {
  State& state = TheState();
  MutexLock lock(&state.mutex);
  while (state.armed.fault != Fault::kNone) state.disarmed.Wait(&state.mutex);
}

}  // namespace prism
