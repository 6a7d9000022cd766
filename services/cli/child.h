// Child is a program that this process started and looks after: its output, its end, its restarts.
//
// The kernel kills a child when the process that started it dies, however that happens. A child is in
// a process group of its own, so that Ctrl-C at a terminal reaches its keeper alone.
//
// Threads: all methods on the one thread that also calls Start(), because the kernel ties a child to
// the thread that started it.
#pragma once

#include <sys/types.h>

#include <chrono>
#include <cstdio>
#include <deque>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "common/base/clock.h"

namespace prism {

class Child {
 public:
  // The newest lines of its output are kept for error messages: so many.
  static constexpr size_t kLinesKept = 20;
  static constexpr size_t kLineBytesMax = 16 << 10;

  // `arguments[0]` is the program's path. `log`: where its output goes, line by line; the caller's.
  Child(std::string name, std::vector<std::string> arguments, std::FILE* log)
      : name_(std::move(name)), arguments_(std::move(arguments)), log_(log) {}
  // Kills it if it still runs.
  ~Child();
  Child(const Child&) = delete;
  Child& operator=(const Child&) = delete;

  // REQUIRES: it does not run.
  absl::Status Start();
  bool running() const { return pid_ > 0; }
  pid_t pid() const { return pid_; }
  const std::string& name() const { return name_; }
  const std::vector<std::string>& arguments() const { return arguments_; }
  SteadyTime started() const { return started_; }
  int num_starts() const { return num_starts_; }

  void Signal(int signal) const;

  // For poll(): readable when there is output, -1 when there is none to come.
  int output() const { return output_; }
  // Takes what is there; never blocks.
  void ReadOutput();

  // True, once, when it has ended; its last output is read then. Never blocks.
  bool Reap();
  // How it ended: "exit code 1", "signal 9 (Killed)". REQUIRES: Reap() was true.
  std::string HowItEnded() const;
  // What it said of its end: the message and values of its last log line of level error, or else its
  // plain lines. HowItEnded() if there are only ordinary log lines: they say nothing of an end.
  // REQUIRES: Reap() was true.
  std::string LastWords() const;

 private:
  void TakeLine(const std::string& line);
  void CloseOutput();

  const std::string name_;
  const std::vector<std::string> arguments_;
  std::FILE* const log_;
  pid_t pid_ = 0;
  int output_ = -1;
  int wait_status_ = 0;
  int num_starts_ = 0;
  SteadyTime started_;
  std::string partial_line_;
  std::deque<std::string> lines_;
};

}  // namespace prism
