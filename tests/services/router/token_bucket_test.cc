#include "services/router/token_bucket.h"

#include <gtest/gtest.h>

namespace prism {
namespace {

using std::chrono::milliseconds;

TEST(TokenBucketTest, ABurstGoesThroughAndThenTheRate) {
  const SteadyTime start;
  TokenBucket bucket(10, 100, start);
  EXPECT_EQ(bucket.WaitSeconds(start, 100), 0);
  bucket.Take(start, 100);
  EXPECT_DOUBLE_EQ(bucket.WaitSeconds(start, 5), 0.5);
  EXPECT_DOUBLE_EQ(bucket.WaitSeconds(start + milliseconds(500), 5), 0);
}

TEST(TokenBucketTest, WhatWasEstimatedTooLowIsADebt) {
  const SteadyTime start;
  TokenBucket bucket(10, 100, start);
  bucket.Take(start, 130);
  EXPECT_DOUBLE_EQ(bucket.WaitSeconds(start, 1), 3.1);
  bucket.Take(start, -20);
  EXPECT_DOUBLE_EQ(bucket.WaitSeconds(start, 1), 1.1);
}

TEST(TokenBucketTest, MoreThanABurstWaitsForAFullBucket) {
  const SteadyTime start;
  TokenBucket bucket(10, 100, start);
  EXPECT_EQ(bucket.WaitSeconds(start, 1000), 0);
  bucket.Take(start, 1000);
  EXPECT_DOUBLE_EQ(bucket.WaitSeconds(start, 1000), 100);
}

TEST(TokenBucketTest, ItNeverHoldsMoreThanABurst) {
  const SteadyTime start;
  TokenBucket bucket(10, 100, start);
  EXPECT_DOUBLE_EQ(bucket.level(start + std::chrono::hours(1)), 100);
  bucket.Take(start + std::chrono::hours(1), -50);
  EXPECT_DOUBLE_EQ(bucket.level(start + std::chrono::hours(1)), 100);
}

}  // namespace
}  // namespace prism
