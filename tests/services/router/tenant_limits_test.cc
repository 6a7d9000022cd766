#include "services/router/tenant_limits.h"

#include <gtest/gtest.h>

namespace prism {
namespace {

using std::chrono::milliseconds;
using Reason = Refusal::Reason;

TEST(TenantLimiterTest, ChatsAtOnceAreBoundedForEachTenantByItself) {
  TenantLimiter limiter({.other = {.concurrency = 2}});
  const SteadyTime now;
  EXPECT_FALSE(limiter.Admit(now, "a", 10).has_value());
  EXPECT_FALSE(limiter.Admit(now, "a", 10).has_value());
  const auto refusal = limiter.Admit(now, "a", 10);
  ASSERT_TRUE(refusal.has_value());
  EXPECT_EQ(refusal->reason, Reason::kConcurrency);
  EXPECT_FALSE(limiter.Admit(now, "b", 10).has_value());
  limiter.Ended(now, "a", 10, 10, 4);
  EXPECT_FALSE(limiter.Admit(now, "a", 10).has_value());
  // Two chats of 4 s at once: one ends every 2 s.
  EXPECT_EQ(limiter.Admit(now, "a", 10)->retry_ms, 2000);
}

TEST(TenantLimiterTest, TokensAreChargedAtTheDoorAndPutRightAtTheEnd) {
  TenantLimiter limiter({.other = {.tokens_per_minute = 600}});
  SteadyTime now;
  EXPECT_FALSE(limiter.Admit(now, "a", 600).has_value());
  const auto refusal = limiter.Admit(now, "a", 100);
  ASSERT_TRUE(refusal.has_value());
  EXPECT_EQ(refusal->reason, Reason::kTokens);
  EXPECT_EQ(refusal->retry_ms, 10'000);  // 10 tokens a second
  limiter.Ended(now, "a", 600, 450, 1);  // 150 come back
  EXPECT_FALSE(limiter.Admit(now, "a", 100).has_value());
  limiter.Ended(now, "a", 100, 250, 1);  // 100 too many
  now += milliseconds(5'000);
  EXPECT_EQ(limiter.Admit(now, "a", 50)->retry_ms, 10'000);
}

TEST(TenantLimiterTest, NamedTenantsHaveTheirOwnLimits) {
  TenantLimiter limiter({.other = {.concurrency = 1}, .named = {{"big", {.concurrency = 3}}}});
  const SteadyTime now;
  for (int i = 0; i < 3; ++i) EXPECT_FALSE(limiter.Admit(now, "big", 1).has_value());
  EXPECT_TRUE(limiter.Admit(now, "big", 1).has_value());
}

TEST(TenantLimiterTest, TenantsWithoutLimitsLeaveNothingBehind) {
  TenantLimiter limiter({});
  const SteadyTime now;
  for (int i = 0; i < 100; ++i) {
    const std::string name = "user " + std::to_string(i);
    EXPECT_FALSE(limiter.Admit(now, name, 1).has_value());
    limiter.Ended(now, name, 1, 1, 1);
  }
  EXPECT_EQ(limiter.num_remembered(), 0u);
}

TEST(TenantLimiterTest, BeyondTheMostTenantsNewOnesShareOnePast) {
  TenantLimiter limiter({.other = {.concurrency = 1}});
  const SteadyTime now;
  for (size_t i = 0; i < kTenantsMax; ++i) {
    ASSERT_FALSE(limiter.Admit(now, "user " + std::to_string(i), 1).has_value());
  }
  EXPECT_FALSE(limiter.Admit(now, "one more", 1).has_value());
  EXPECT_TRUE(limiter.Admit(now, "and another", 1).has_value());
  EXPECT_LE(limiter.num_remembered(), kTenantsMax + 1);
  limiter.Ended(now, "one more", 1, 1, 1);
  // Once others have ended there is room again.
  limiter.Ended(now, "user 7", 1, 1, 1);
  EXPECT_FALSE(limiter.Admit(now, "and another", 1).has_value());
}

}  // namespace
}  // namespace prism
