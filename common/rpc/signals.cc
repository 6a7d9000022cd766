#include "common/rpc/signals.h"

#include <pthread.h>
#include <signal.h>
#include <unistd.h>

#include <cerrno>
#include <cstdlib>
#include <ctime>

#include "common/base/log.h"

namespace prism {
namespace {

sigset_t TerminationSignals() {
  sigset_t set;
  sigemptyset(&set);
  sigaddset(&set, SIGTERM);
  sigaddset(&set, SIGINT);
  return set;
}

// How long the end of a drain may be held up by the thread that waits for a signal.
constexpr std::chrono::milliseconds kSignalPoll{50};

}  // namespace

void BlockTermination() {
  const sigset_t set = TerminationSignals();
  pthread_sigmask(SIG_BLOCK, &set, nullptr);
  signal(SIGPIPE, SIG_IGN);
}

int WaitForTermination() {
  const sigset_t set = TerminationSignals();
  int number = 0;
  while (sigwait(&set, &number) != 0) {
  }
  return number;
}

int WaitForTermination(std::chrono::milliseconds timeout) {
  const sigset_t set = TerminationSignals();
  const auto deadline = std::chrono::steady_clock::now() + timeout;
  while (true) {
    const auto left =
        std::chrono::duration_cast<std::chrono::nanoseconds>(deadline - std::chrono::steady_clock::now())
            .count();
    const int64_t nanoseconds = left > 0 ? left : 0;
    const timespec wait{.tv_sec = static_cast<time_t>(nanoseconds / 1000000000),
                        .tv_nsec = nanoseconds % 1000000000};
    const int number = sigtimedwait(&set, nullptr, &wait);
    if (number > 0) return number;
    if (errno == EAGAIN) return 0;
  }
}

void RequestTermination() { kill(getpid(), SIGTERM); }

ExitAtNextSignal::ExitAtNextSignal()
    : thread_("next-signal", [this] {
        while (!done_.load()) {
          const int number = WaitForTermination(kSignalPoll);
          if (number == 0) continue;
          LogWarning("a second signal: ending without a drain", {{"signal", number}});
          std::_Exit(1);
        }
      }) {}

ExitAtNextSignal::~ExitAtNextSignal() {
  done_.store(true);
  thread_.Join();
}

}  // namespace prism
