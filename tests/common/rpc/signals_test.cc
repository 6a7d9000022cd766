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

TEST(ExitAtNextSignalTest, ASignalDuringTheDrainEndsTheProcess) {
  const auto drain = [] {
    BlockTermination();
    const ExitAtNextSignal impatience;
    RequestTermination();
    std::this_thread::sleep_for(std::chrono::seconds(30));
  };
  EXPECT_EXIT(drain(), testing::ExitedWithCode(1), "");
}

TEST(ExitAtNextSignalTest, LeavesSignalsAloneOnceTheDrainIsOver) {
  BlockTermination();
  {
    const ExitAtNextSignal impatience;
  }
  RequestTermination();
  EXPECT_EQ(WaitForTermination(std::chrono::milliseconds(1000)), SIGTERM);
}

}  // namespace
}  // namespace prism
