// AdmissionGate is the router's door: it admits a chat or refuses it with the time to come back
// (Admission, TenantLimiter), and counts what was admitted until it ends.
//
// Thread safety: all methods may be called from any thread.
// Ownership: clock and metrics outlive the gate, and the gate its tickets.
#pragma once

#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "common/base/clock.h"
#include "common/base/mutex.h"
#include "prism/v1/router.pb.h"
#include "services/router/admission.h"
#include "services/router/metrics.h"
#include "services/router/tenant_limits.h"

namespace prism {

// What an admitted chat used in the end.
struct ChatUse {
  int64_t prompt_tokens = 0;
  int64_t image_tokens = 0;  // of the prompt
  int64_t answer_tokens = 0;
};

class AdmissionGate {
 public:
  // One admitted chat. Ends at the latest when it is destroyed.
  class Ticket {
   public:
    ~Ticket() { End({}); }
    Ticket(const Ticket&) = delete;
    Ticket& operator=(const Ticket&) = delete;

    const std::string& tenant() const { return tenant_; }
    double weight() const { return weight_; }
    // Estimated tokens of prompt and answer.
    double tokens() const { return tokens_; }
    // The chat was given to a decoder. Idempotent.
    void Dispatched() { gate_->Dispatched(this); }
    // The chat is over. Idempotent.
    void End(const ChatUse& use) { gate_->End(this, use); }

   private:
    friend class AdmissionGate;
    Ticket(AdmissionGate* gate, std::string tenant, double weight, double tokens, int pictures,
           SteadyTime now)
        : gate_(gate),
          tenant_(std::move(tenant)),
          weight_(weight),
          tokens_(tokens),
          pictures_(pictures),
          admitted_at_(now) {}
    AdmissionGate* const gate_;
    const std::string tenant_;
    const double weight_;
    const double tokens_;
    const int pictures_;
    const SteadyTime admitted_at_;
    bool waiting_ = true;  // the gate's lock
    bool ended_ = false;   // the gate's lock
  };

  AdmissionGate(const AdmissionOptions& options, TenantTable tenants, const Clock* clock,
                RouterMetrics* metrics);

  // ResourceExhausted with RetryInfo, reason QUEUE_FULL, or RATE_LIMIT for a tenant's own limits.
  absl::StatusOr<std::shared_ptr<Ticket>> Admit(const v1::ChatRequest& request, SteadyTime deadline)
      ABSL_LOCKS_EXCLUDED(mutex_);

  // Whose limits and share a chat counts to.
  static const std::string& TenantOf(const v1::ChatRequest& request);
  // What caches are told apart by: the request's own salt, and the tenant where tenants are isolated.
  std::string SaltOf(const v1::ChatRequest& request) const;

  // Estimated seconds until everything admitted is with a decoder; 0: unknown or nothing.
  double queued_work_s() const ABSL_LOCKS_EXCLUDED(mutex_);

 private:
  double EstimateLocked(const v1::ChatRequest& request, int* pictures) const
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  absl::Status RefusedLocked(const Refusal& refusal) const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void Dispatched(Ticket* ticket) ABSL_LOCKS_EXCLUDED(mutex_);
  void End(Ticket* ticket, const ChatUse& use) ABSL_LOCKS_EXCLUDED(mutex_);
  void ShowLocked() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  const AdmissionOptions options_;
  const TenantTable table_;
  const Clock* const clock_;
  RouterMetrics* const metrics_;
  mutable Mutex mutex_;
  Admission admission_ ABSL_GUARDED_BY(mutex_);
  TenantLimiter tenants_ ABSL_GUARDED_BY(mutex_);
  // Running means, for estimates at the door.
  double picture_tokens_ ABSL_GUARDED_BY(mutex_) = 256;
  double answer_tokens_ ABSL_GUARDED_BY(mutex_) = 128;
};

}  // namespace prism
