#include "services/router/tenant_limits.h"

#include <algorithm>

#include "common/base/check.h"

namespace prism {
namespace {

// Whom tenants share a past with once there are too many of them; no tenant's name has a NUL.
const std::string& OverflowKey() {
  static const std::string* const key = new std::string(1, '\0');
  return *key;
}

int64_t RetryMs(double seconds) {
  return static_cast<int64_t>(std::clamp(1000 * seconds, static_cast<double>(kRetryMin.count()),
                                         static_cast<double>(kRetryMax.count())));
}

}  // namespace

const TenantLimit& TenantTable::Of(const std::string& tenant) const {
  const auto found = named.find(tenant);
  return found == named.end() ? other : found->second;
}

std::string TenantLimiter::KeyOf(SteadyTime now, const std::string& tenant) {
  const auto found = states_.find(tenant);
  if (found != states_.end()) return found->first;
  if (states_.size() >= kTenantsMax) {
    for (auto entry = states_.begin(); entry != states_.end();) {
      State& state = entry->second;
      const bool forgotten = state.running == 0 && (!state.bucket.has_value() || state.bucket->full(now));
      entry = forgotten ? states_.erase(entry) : std::next(entry);
    }
  }
  if (states_.size() >= kTenantsMax && !table_.named.contains(tenant)) return OverflowKey();
  return tenant;
}

std::optional<Refusal> TenantLimiter::Admit(SteadyTime now, const std::string& tenant, double tokens) {
  const TenantLimit& limit = table_.Of(tenant);
  const std::string key = KeyOf(now, tenant);
  State& state = states_[key];
  if (limit.tokens_per_minute > 0 && !state.bucket.has_value()) {
    state.bucket.emplace(limit.tokens_per_minute / 60, limit.tokens_per_minute, now);
  }
  if (limit.concurrency > 0 && state.running >= limit.concurrency) {
    // One of its chats ends every so often.
    const double seconds = state.seconds > 0 ? state.seconds / static_cast<double>(limit.concurrency) : 1;
    return Refusal{.reason = Refusal::Reason::kConcurrency, .retry_ms = RetryMs(seconds)};
  }
  if (state.bucket.has_value()) {
    const double wait_s = state.bucket->WaitSeconds(now, tokens);
    if (wait_s > 0) return Refusal{.reason = Refusal::Reason::kTokens, .retry_ms = RetryMs(wait_s)};
    state.bucket->Take(now, tokens);
  }
  ++state.running;
  return std::nullopt;
}

void TenantLimiter::Ended(SteadyTime now, const std::string& tenant, double charged, double used,
                          double seconds) {
  // It may have been charged before its tenant got a past of its own, or after it lost it.
  auto found = states_.find(tenant);
  if (found == states_.end() || found->second.running == 0) found = states_.find(OverflowKey());
  PRISM_CHECK(found != states_.end() && found->second.running > 0);
  State& state = found->second;
  --state.running;
  if (state.bucket.has_value()) state.bucket->Take(now, used - charged);
  if (seconds > 0) state.seconds = state.seconds == 0 ? seconds : 0.8 * state.seconds + 0.2 * seconds;
  const TenantLimit& limit = table_.Of(tenant);
  const bool unlimited = limit.concurrency == 0 && limit.tokens_per_minute == 0;
  if (unlimited && state.running == 0) states_.erase(found);
}

}  // namespace prism
