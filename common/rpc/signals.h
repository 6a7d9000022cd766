// SIGTERM and SIGINT as something main() waits for.
//
// A signal blocked after a thread exists still ends the process through that thread, so
// BlockTermination() is the first statement of main(), before any gRPC object.
#pragma once

#include <chrono>

#include "absl/strings/string_view.h"

namespace prism {

// Blocks SIGTERM and SIGINT in this thread and all it will start, and ignores SIGPIPE.
void BlockTermination();

// Blocks until one of the two arrives; returns its number. REQUIRES: BlockTermination() was called.
int WaitForTermination();

// As above, but 0 when `timeout` passed first.
int WaitForTermination(std::chrono::milliseconds timeout);

// Sends this process SIGTERM: how a thread that cannot go on asks main() to shut down. Any thread.
void RequestTermination();

}  // namespace prism
