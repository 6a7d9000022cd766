// Admission: whether a generation may join the queue: by how many wait, by their rows and the bytes of
// their embeddings, and by whether its deadline can be met at the speed that was measured.
//
// Pure: the queue, the speed and the time are passed in. Thread safety: functions and plain values.
#pragma once

#include <chrono>
#include <cstdint>
#include <string>
#include <vector>

#include "common/base/clock.h"
#include "services/decoder/sched/step_times.h"

namespace prism {

struct AdmissionLimits {
  int64_t waiting_max = 128;         // generations in no step yet, >= 1
  int64_t waiting_rows_max = 0;      // their known tokens; 0: not bounded
  int64_t waiting_bytes_max = 0;     // bytes of their embeddings; 0: not bounded
  int64_t rows_per_step_max = 2048;  // >= 1
};

// The waiting ones as the door sees them.
struct WaitingTotals {
  int64_t generations = 0;
  int64_t rows = 0;
  int64_t bytes = 0;
};

// What is to be computed before a newcomer, as it was after some step.
struct QueuedWork {
  struct Waiting {
    int32_t priority = 0;
    SteadyTime due;
    int64_t rows = 0;
  };
  int64_t running_rows = 0;      // known and not computed, of those that run
  std::vector<Waiting> waiting;  // in any order
  StepTimes times;

  int64_t total_rows() const;
  // Of those that run and those that wait before a newcomer.
  int64_t RowsBefore(int32_t priority, SteadyTime due) const;
};

struct AdmissionRequest {
  int64_t rows = 0;   // known tokens
  int64_t bytes = 0;  // of its embeddings
  int32_t priority = 0;
  SteadyTime due = SteadyTime::max();
  SteadyTime deadline = SteadyTime::max();
  bool resumed = false;  // its client has seen a part: only what cannot be helped refuses it
};

// Resumed generations that may wait besides AdmissionLimits.waiting_max.
inline constexpr int64_t kResumedMax = 4096;

struct AdmissionDecision {
  enum class Outcome {
    kAccept,
    kQueueFull,     // too many, too many rows or too many bytes wait
    kBusy,          // the deadline cannot be met behind what is queued
    kDeadlinePast,  // nor without it
  };
  Outcome outcome = Outcome::kAccept;
  std::string message;       // why not, with the numbers
  double retry_after_s = 0;  // of kQueueFull and kBusy: when it may be otherwise
};

// A class's answers are due its objective after arrival, and never after the deadline.
SteadyTime DueOf(SteadyTime arrival, SteadyTime deadline, std::chrono::milliseconds objective);

AdmissionDecision Decide(const AdmissionLimits& limits, const AdmissionRequest& request,
                         const WaitingTotals& waiting, const QueuedWork& queued, SteadyTime now);

}  // namespace prism
