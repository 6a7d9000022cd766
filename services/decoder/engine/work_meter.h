// WorkMeter measures how much of a decoder its work takes, and how long what waits would take all of it.
//
// The seconds of a step are its answers' as far as a step of their rows alone takes them, and its prompts'
// beyond. Prompts take the whole device. Answers take as much of it as their rows fill a step of
// `sequences_max`: on a device that reads all weights for one row or for many, one stream keeps it working
// all the time and leaves room for the others.
//
//   in use      = the larger of  the share of the time of late that prompts took
//                                + that of answers x their rows / sequences_max
//                           and  pages used or promised / pages
//   queued work = seconds of steps for the rows that are known and not computed
//                 + sequences that wait x tokens of an answer of late
//                   x seconds of a step of sequences_max rows / sequences_max
//
// Thread safety: thread-compatible.
#pragma once

#include <cstdint>

#include "common/base/clock.h"
#include "common/metrics/busy_share.h"
#include "services/decoder/sched/step_times.h"

namespace prism {

class WorkMeter {
 public:
  // REQUIRES: both >= 1
  WorkMeter(int64_t sequences_max, int64_t rows_max, SteadyTime start)
      : sequences_max_(sequences_max), rows_max_(rows_max), busy_(start) {}

  struct Step {
    SteadyTime began;
    SteadyTime computed;          // when its logits were there
    SteadyTime ended;             // when its tokens were
    int64_t num_rows = 1;         // >= 1
    int64_t num_answer_rows = 0;  // of them, those that go on an answer by a token
  };
  // A step has ended; `times` knows it. REQUIRES: the times ascend, and this step began after the last ended
  void ObserveStep(const Step& step, const StepTimes& times);
  // An answer of so many tokens has ended.
  void ObserveAnswer(int64_t num_tokens);

  struct Pages {
    int64_t in_use = 0;  // promised ones included
    int64_t total = 1;   // >= 1
  };
  // 0 .. 1. `idle_until`: now, or when the step that is under way began.
  double InUse(const Pages& pages, SteadyTime idle_until) const;
  // `pending_rows`: known and not computed. `waiting`: sequences in no step yet.
  double QueuedWorkS(int64_t pending_rows, int64_t waiting, const StepTimes& times) const;

 private:
  const int64_t sequences_max_;
  const int64_t rows_max_;
  BusyShare busy_;
  double answer_tokens_ = 0;  // smoothed; 0: none has ended
};

}  // namespace prism
