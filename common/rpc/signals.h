// SIGTERM and SIGINT as something main() waits for.
//
// A signal blocked after a thread exists still ends the process through that thread, so
// BlockTermination() is the first statement of main(), before any gRPC object.
#pragma once

#include <atomic>
#include <chrono>

#include "common/base/thread.h"

namespace prism {

// Blocks SIGTERM and SIGINT in this thread and all it will start, and ignores SIGPIPE.
void BlockTermination();

// Blocks until one of the two arrives; returns its number. REQUIRES: BlockTermination() was called.
int WaitForTermination();

// As above, but 0 when `timeout` passed first.
int WaitForTermination(std::chrono::milliseconds timeout);

// Sends this process SIGTERM: how a thread that cannot go on asks main() to shut down. Any thread.
void RequestTermination();

// While it lives, the next SIGTERM or SIGINT ends the process at once with exit code 1: how a drain
// that takes too long for whoever asked is cut short. REQUIRES: BlockTermination() was called, and
// nobody else waits for signals meanwhile.
class ExitAtNextSignal {
 public:
  ExitAtNextSignal();
  ~ExitAtNextSignal();
  ExitAtNextSignal(const ExitAtNextSignal&) = delete;
  ExitAtNextSignal& operator=(const ExitAtNextSignal&) = delete;

 private:
  std::atomic<bool> done_{false};
  NamedThread thread_;
};

}  // namespace prism
