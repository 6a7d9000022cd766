#include "common/rpc/signals.h"

#include <gtest/gtest.h>
#include <signal.h>

#include <thread>

namespace prism {
namespace {

TEST(SignalsTest, ASignalWaitsUntilItIsAskedFor) {
  BlockTermination();
  EXPECT_EQ(WaitForTermination(std::chrono::milliseconds(1)), 0);
  // A thread started afterwards blocks the signals too, so it cannot end the process.
  std::thread other([] { RequestTermination(); });
  other.join();
  EXPECT_EQ(WaitForTermination(), SIGTERM);
  raise(SIGINT);
  EXPECT_EQ(WaitForTermination(std::chrono::milliseconds(1000)), SIGINT);
}

}  // namespace
}  // namespace prism
