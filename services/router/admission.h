// Admission refuses at the door what would wait too long inside, and says when to come back.
//
// The queue is what was admitted and has not yet been given to a decoder. Its work is counted in
// tokens (prompt, pictures and answer, as estimated at the door); the rate at which work leaves it is
// measured while it is backed up, so that
//
//   wait_s = work queued / work a second            (rate unknown: only waiting_max counts)
//
// is refused when it is above wait_max or reaches past the caller's deadline. A refused caller is told
// to come back when the queue will have room for it and for those that were told before it:
//
//   retry_s = (work queued + its own + work sent away and not yet due) / work a second - wait_max
//
// (where waiting_max is the reason, it is room for one that is waited for: without the work queued and
// wait_max).
//
// Thread safety: thread-compatible; time is passed in and must not go backwards.
#pragma once

#include <chrono>
#include <cstdint>
#include <optional>

#include "common/base/clock.h"

namespace prism {

struct AdmissionOptions {
  int64_t waiting_max = 256;                 // chats in the queue
  std::chrono::milliseconds wait_max{5000};  // estimated wait above which a chat is refused
};

// Told to whoever is refused, at least and at most.
inline constexpr std::chrono::milliseconds kRetryMin{100};
inline constexpr std::chrono::milliseconds kRetryMax{60'000};
// The rate is measured while so many chats or more wait; fewer are never refused for their wait.
inline constexpr int64_t kBackedUp = 8;
// Measurements lose half their weight in this time of being backed up.
inline constexpr double kRateHalfLifeS = 4;
// ... and count once there is so much of it.
inline constexpr double kRateKnownS = 0.5;

struct Refusal {
  enum class Reason {
    kQueueFull,    // waiting_max chats wait
    kWait,         // the estimated wait is above wait_max
    kDeadline,     // the estimated wait reaches past the deadline
    kConcurrency,  // the tenant's chats at once
    kTokens,       // the tenant's token rate
  };
  Reason reason = Reason::kQueueFull;
  int64_t retry_ms = 0;  // when to come back
  double wait_s = 0;     // estimated; 0 where it is unknown or not the reason
};

class Admission {
 public:
  // REQUIRES: waiting_max >= 1
  explicit Admission(const AdmissionOptions& options) : options_(options) {}

  // Takes a chat of so much work into the queue, or refuses it. Every admitted chat leaves it once.
  // REQUIRES: work > 0
  std::optional<Refusal> Admit(SteadyTime now, double work, SteadyTime deadline);

  // The chat was given to a decoder.
  void Dispatched(SteadyTime now, double work);
  // The chat ended before that.
  void Left(SteadyTime now, double work);

  int64_t waiting() const { return waiting_; }
  // Estimated seconds until the queue is empty; 0 while the rate is unknown.
  double queued_work_s() const;
  // Work a second while backed up; 0: unknown.
  double rate() const;

 private:
  // Brings the measurements up to `now`.
  void Advance(SteadyTime now);
  Refusal Refuse(Refusal::Reason reason, double work, double limit_s);

  const AdmissionOptions options_;
  int64_t waiting_ = 0;
  double queued_work_ = 0;
  double away_work_ = 0;  // told to come back and not yet due
  double busy_s_ = 0;     // time of being backed up, decayed
  double done_work_ = 0;  // that left the queue in it, decayed
  std::optional<SteadyTime> advanced_at_;
};

}  // namespace prism
