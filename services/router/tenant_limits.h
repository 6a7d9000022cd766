// TenantLimiter holds each tenant to its chats at once and its tokens a minute.
//
// A chat is charged its estimated tokens at the door and put right when it ends. Tenants that nobody
// named in the table have its default limits, each its own.
//
// Thread safety: thread-compatible; time is passed in and must not go backwards.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <unordered_map>

#include "common/base/clock.h"
#include "services/router/admission.h"
#include "services/router/token_bucket.h"

namespace prism {

struct TenantLimit {
  double weight = 1;             // share of what all tenants wait for; > 0
  int64_t concurrency = 0;       // chats at once; 0: no bound
  double tokens_per_minute = 0;  // prompt and answer; a minute's worth may be used at once; 0: no bound
};

struct TenantTable {
  TenantLimit other;  // of tenants that are not named
  std::map<std::string, TenantLimit> named;
  // Tenants share no caches: what a tenant's pictures and prompts become is found by it alone.
  bool isolate = false;

  const TenantLimit& Of(const std::string& tenant) const;
};

// Tenants whose past is remembered; beyond it new ones share one past.
inline constexpr size_t kTenantsMax = 16384;

class TenantLimiter {
 public:
  explicit TenantLimiter(TenantTable table) : table_(std::move(table)) {}

  // Charges a chat of so many estimated tokens to the tenant, or refuses it. Every admitted chat
  // ends once.
  std::optional<Refusal> Admit(SteadyTime now, const std::string& tenant, double tokens);
  // `charged` as at the door, `used` in truth; `seconds` since then, 0 where it did not run.
  void Ended(SteadyTime now, const std::string& tenant, double charged, double used, double seconds);

  const TenantTable& table() const { return table_; }
  size_t num_remembered() const { return states_.size(); }

 private:
  struct State {
    int64_t running = 0;
    std::optional<TokenBucket> bucket;  // if there is a token rate
    double seconds = 0;                 // of its chats of late
  };
  // Of the tenant, or of those that there is no room for.
  std::string KeyOf(SteadyTime now, const std::string& tenant);

  const TenantTable table_;
  std::unordered_map<std::string, State> states_;
};

}  // namespace prism
