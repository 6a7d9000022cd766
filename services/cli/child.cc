#include "services/cli/child.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <nlohmann/json.hpp>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "common/base/check.h"

namespace prism {

Child::~Child() {
  if (running()) {
    Signal(SIGKILL);
    waitpid(pid_, &wait_status_, 0);
  }
  CloseOutput();
}

absl::Status Child::Start() {
  PRISM_CHECK(!running());
  int ends[2];
  if (pipe2(ends, O_CLOEXEC) != 0) return absl::InternalError(absl::StrCat("pipe: ", std::strerror(errno)));
  CloseOutput();
  lines_.clear();
  partial_line_.clear();
  std::vector<char*> argv;
  for (const std::string& argument : arguments_) argv.push_back(const_cast<char*>(argument.c_str()));
  argv.push_back(nullptr);
  const pid_t parent = getpid();
  const pid_t pid = fork();
  if (pid < 0) {
    close(ends[0]);
    close(ends[1]);
    return absl::InternalError(absl::StrCat("fork: ", std::strerror(errno)));
  }
  if (pid == 0) {
    // Only what is safe between fork and exec in a process that has threads.
    setpgid(0, 0);
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (getppid() != parent) _exit(127);
    sigset_t none;
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, nullptr);
    signal(SIGPIPE, SIG_DFL);
    const int nothing = open("/dev/null", O_RDONLY);
    dup2(nothing, STDIN_FILENO);
    dup2(ends[1], STDOUT_FILENO);
    dup2(ends[1], STDERR_FILENO);
    execv(argv[0], argv.data());
    const char* const why = std::strerror(errno);
    const char said[] = "cannot be run: ";
    if (write(STDERR_FILENO, said, sizeof(said) - 1) < 0 || write(STDERR_FILENO, why, std::strlen(why)) < 0)
      _exit(126);
    _exit(127);
  }
  setpgid(pid, pid);  // whichever of the two comes first
  close(ends[1]);
  fcntl(ends[0], F_SETFL, O_NONBLOCK);
  output_ = ends[0];
  pid_ = pid;
  ++num_starts_;
  started_ = Clock::Real().Now();
  return absl::OkStatus();
}

void Child::Signal(int signal) const {
  if (running()) kill(pid_, signal);
}

void Child::ReadOutput() {
  char bytes[16384];
  while (output_ >= 0) {
    const ssize_t n = read(output_, bytes, sizeof(bytes));
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return;  // nothing more just now
    if (n == 0) {
      if (!partial_line_.empty()) TakeLine(std::exchange(partial_line_, ""));
      CloseOutput();
      return;
    }
    for (ssize_t i = 0; i < n; ++i) {
      if (bytes[i] != '\n') partial_line_ += bytes[i];
      if (bytes[i] == '\n' || partial_line_.size() >= kLineBytesMax)
        TakeLine(std::exchange(partial_line_, ""));
    }
  }
}

void Child::TakeLine(const std::string& line) {
  if (log_ != nullptr) {
    std::fprintf(log_, "%s\n", line.c_str());
    std::fflush(log_);
  }
  lines_.push_back(line);
  if (lines_.size() > kLinesKept) lines_.pop_front();
}

void Child::CloseOutput() {
  if (output_ >= 0) close(output_);
  output_ = -1;
}

bool Child::Reap() {
  if (!running() || waitpid(pid_, &wait_status_, WNOHANG) != pid_) return false;
  kill(-pid_, SIGKILL);  // what it may have started itself
  pid_ = 0;
  ReadOutput();
  if (!partial_line_.empty()) TakeLine(std::exchange(partial_line_, ""));
  CloseOutput();
  return true;
}

std::string Child::HowItEnded() const {
  if (WIFSIGNALED(wait_status_)) {
    return absl::StrCat("signal ", WTERMSIG(wait_status_), " (", strsignal(WTERMSIG(wait_status_)), ")");
  }
  return absl::StrCat("exit code ", WEXITSTATUS(wait_status_));
}

std::string Child::LastWords() const {
  for (auto line = lines_.rbegin(); line != lines_.rend(); ++line) {
    if (!absl::StrContains(*line, "\"level\":\"error\"")) continue;
    const auto json = nlohmann::ordered_json::parse(*line, nullptr, /*allow_exceptions=*/false);
    if (!json.is_object()) continue;
    std::string words;
    for (const auto& [key, value] : json.items()) {  // the message comes before what it is about
      if (key == "time" || key == "level" || key == "program") continue;
      absl::StrAppend(&words, words.empty() ? "" : ": ",
                      value.is_string() ? value.get<std::string>() : value.dump());
    }
    if (!words.empty()) return words;
  }
  // No log: what a program says before its log is set up, such as a flag it does not know.
  std::string words;
  for (const std::string& line : lines_) {
    if (!line.empty() && line[0] != '{') absl::StrAppend(&words, words.empty() ? "" : " ", line);
  }
  return words.empty() ? HowItEnded() : words;
}

}  // namespace prism
