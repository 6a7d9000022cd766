// `prism up` as a process, with stand-ins for the programs it starts.
#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <poll.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <map>
#include <nlohmann/json.hpp>
#include <thread>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "tests/common/base/eventually.h"
#include "tests/common/base/listening_port.h"

namespace prism {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;
using std::chrono::milliseconds;
using std::chrono::steady_clock;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

std::string ReadFile(const fs::path& path) {
  std::ifstream file(path);
  return std::string((std::istreambuf_iterator<char>(file)), std::istreambuf_iterator<char>());
}

class UpTest : public testing::Test {
 protected:
  void SetUp() override {
    char pattern[] = "/tmp/prism_up_test_XXXXXX";
    ASSERT_NE(mkdtemp(pattern), nullptr);
    dir_ = pattern;
    model_ = dir_ / "model";
    fs::create_directory(model_);
    fs::copy_file(fs::path(PRISM_BIN_DIR) / "prism", dir_ / "prism");
    for (const char* program : {"prism-gateway", "prism-router", "prism-decoder", "prism-vision-encoder"}) {
      fs::copy_file(fs::path(PRISM_FAKE_PROGRAM), dir_ / program);
    }
    port_.Free();
  }
  void TearDown() override {
    if (pid_ > 0) {
      kill(pid_, SIGKILL);
      waitpid(pid_, nullptr, 0);
    }
    for (const char* variable : {"FAKE_FAIL", "FAKE_STUBBORN", "FAKE_TAKEN", "FAKE_ENDS"}) unsetenv(variable);
    fs::remove_all(dir_);
  }

  void Start(const std::vector<std::string>& more = {}, int port = 0) {
    std::vector<std::string> arguments = {(dir_ / "prism").string(),
                                          "up",
                                          "--port",
                                          std::to_string(port == 0 ? port_.number() : port),
                                          "--state-file",
                                          (dir_ / "state.json").string()};
    if (!model_.empty()) arguments.insert(arguments.end(), {"--model", model_.string()});
    arguments.insert(arguments.end(), more.begin(), more.end());
    std::vector<char*> argv;
    for (std::string& argument : arguments) argv.push_back(argument.data());
    argv.push_back(nullptr);
    start_ = steady_clock::now();
    pid_ = fork();
    if (pid_ == 0) {
      const int out = open((dir_ / "out").c_str(), O_CREAT | O_WRONLY | O_TRUNC, 0600);
      const int err = open((dir_ / "err").c_str(), O_CREAT | O_WRONLY | O_TRUNC, 0600);
      dup2(out, STDOUT_FILENO);
      dup2(err, STDERR_FILENO);
      execv(argv[0], argv.data());
      _exit(127);
    }
  }
  bool WaitReady() {
    return Eventually([&] {
      return ReadFile(dir_ / "out") == absl::StrCat("ready http://127.0.0.1:", port_.number(), "\n");
    });
  }
  // The exit code, or -1 if it did not end in time.
  int WaitEnd(milliseconds limit = milliseconds(15'000)) {
    int status = 0;
    if (!Eventually([&] { return waitpid(pid_, &status, WNOHANG) == pid_; }, limit)) return -1;
    pid_ = 0;
    return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
  }
  json State() { return json::parse(ReadFile(dir_ / "state.json"), nullptr, false); }
  json Program(const std::string& name) {
    const json state = State();
    for (const json& program : state["programs"]) {
      if (program["name"] == name) return program;
    }
    return nullptr;
  }
  std::vector<pid_t> Pids() {
    std::vector<pid_t> pids;
    const json state = State();
    for (const json& program : state["programs"]) pids.push_back(program["pid"].get<pid_t>());
    return pids;
  }
  // Gone, and not merely dying.
  static bool AllGone(const std::vector<pid_t>& pids) {
    for (const pid_t pid : pids) {
      if (kill(pid, 0) == 0) return false;
    }
    return true;
  }
  std::string Errors() { return ReadFile(dir_ / "err"); }

  fs::path dir_;
  fs::path model_;  // empty: no --model
  ListeningPort port_;
  pid_t pid_ = 0;
  steady_clock::time_point start_;
};

TEST_F(UpTest, SaysReadyAndStopsInOrderAndLeavesNoProcess) {
  setenv("FAKE_ENDS", (dir_ / "ends").c_str(), 1);
  Start({"--vision-encoders", "2", "--decoders", "2"});
  ASSERT_TRUE(WaitReady()) << Errors();
  EXPECT_TRUE(State()["ready"].get<bool>());
  const std::vector<pid_t> pids = Pids();
  EXPECT_EQ(pids.size(), 6u);
  kill(pid_, SIGTERM);
  EXPECT_EQ(WaitEnd(), 0) << Errors();
  EXPECT_TRUE(AllGone(pids));
  EXPECT_EQ(ReadFile(dir_ / "ends"),
            "prism-gateway\nprism-router\nprism-decoder\nprism-decoder\nprism-vision-encoder\nprism-vision-"
            "encoder\n");
  EXPECT_FALSE(fs::exists(dir_ / "state.json"));
}

TEST_F(UpTest, EndsAtOnceWithTheWordsOfAProgramThatCannotStart) {
  setenv("FAKE_FAIL", "prism-decoder", 1);
  Start();
  EXPECT_EQ(WaitEnd(milliseconds(5'000)), 1);
  EXPECT_THAT(Errors(),
              HasSubstr("prism up: decoder-0 ended with exit code 1: cannot start: 3 tensors are missing"));
  EXPECT_EQ(ReadFile(dir_ / "out"), "");
}

TEST_F(UpTest, SaysThatItsPortIsInUse) {
  const ListeningPort taken;
  Start({}, taken.number());
  EXPECT_EQ(WaitEnd(milliseconds(5'000)), 1);
  EXPECT_EQ(Errors(), absl::StrCat("prism up: cannot listen on 127.0.0.1:", taken.number(),
                                   ": Address already in use\n"));
}

TEST_F(UpTest, ServesTheDemoModelWhereNoOtherIsNamed) {
  model_.clear();
  Start();
  EXPECT_EQ(WaitEnd(milliseconds(5'000)), 1);
  EXPECT_THAT(Errors(), HasSubstr("no --model was given, and neither "));
  for (const char* place : {"models/demo", "share/prism/models/demo"}) {
    fs::create_directories(dir_ / place);
    std::ofstream(dir_ / place / "config.json") << "{}";
    fs::remove(dir_ / "out");
    Start();
    ASSERT_TRUE(WaitReady()) << place << Errors();
    kill(pid_, SIGTERM);
    EXPECT_EQ(WaitEnd(), 0) << Errors();
    fs::remove_all(dir_ / place);
  }
}

TEST_F(UpTest, SaysThatThereIsNoSuchModel) {
  fs::remove(dir_ / "model");
  Start();
  EXPECT_EQ(WaitEnd(milliseconds(5'000)), 1);
  EXPECT_THAT(Errors(), HasSubstr("there is no such folder"));
}

TEST_F(UpTest, StartsAnewOnOtherPortsWhenOneWasTaken) {
  setenv("FAKE_TAKEN", (dir_ / "taken").c_str(), 1);
  Start();
  EXPECT_TRUE(WaitReady()) << Errors();
  EXPECT_TRUE(fs::exists(dir_ / "taken"));
}

TEST_F(UpTest, StartsAgainWhatDiesAtTheSameAddress) {
  Start();
  ASSERT_TRUE(WaitReady()) << Errors();
  for (const char* name : {"decoder-0", "router", "gateway"}) {
    const json before = Program(name);
    kill(before["pid"].get<pid_t>(), SIGKILL);
    ASSERT_TRUE(Eventually([&] { return Program(name)["starts"] == 2; })) << Errors();
    const json after = Program(name);
    EXPECT_NE(after["pid"], before["pid"]);
    EXPECT_EQ(after["port"], before["port"]);
    EXPECT_EQ(after["metrics_port"], before["metrics_port"]);
  }
  EXPECT_THAT(Errors(), HasSubstr("\"how\":\"signal 9 (Killed)\",\"error\":\"signal 9 (Killed)\""));
  kill(pid_, SIGINT);
  EXPECT_EQ(WaitEnd(), 0);
}

TEST_F(UpTest, WithoutRestartsGoesOnAsLongAsItCanBeReached) {
  Start({"--no-restart", "--decoders", "2"});
  ASSERT_TRUE(WaitReady()) << Errors();
  kill(Program("decoder-1")["pid"].get<pid_t>(), SIGKILL);
  ASSERT_TRUE(Eventually([&] { return Program("decoder-1")["pid"] == 0; }));
  std::this_thread::sleep_for(milliseconds(500));  // longer than the first backoff
  EXPECT_EQ(Program("decoder-1")["starts"], 1);
  const std::vector<pid_t> pids = Pids();
  kill(Program("router")["pid"].get<pid_t>(), SIGKILL);
  EXPECT_EQ(WaitEnd(), 1);
  EXPECT_THAT(Errors(), HasSubstr("prism up: router ended with signal 9"));
  for (const pid_t pid : pids) EXPECT_TRUE(pid == 0 || kill(pid, 0) != 0);
}

TEST_F(UpTest, ItsProgramsDieWithIt) {
  Start();
  ASSERT_TRUE(WaitReady()) << Errors();
  const std::vector<pid_t> pids = Pids();
  kill(pid_, SIGKILL);
  EXPECT_EQ(WaitEnd(), 128 + SIGKILL);
  EXPECT_TRUE(Eventually([&] { return AllGone(pids); }));
}

TEST_F(UpTest, ASecondSignalKillsWhatDoesNotEnd) {
  setenv("FAKE_STUBBORN", "prism-decoder", 1);
  Start();
  ASSERT_TRUE(WaitReady()) << Errors();
  const std::vector<pid_t> pids = Pids();
  kill(pid_, SIGTERM);
  std::this_thread::sleep_for(milliseconds(300));
  EXPECT_FALSE(AllGone(pids));
  kill(pid_, SIGTERM);
  EXPECT_EQ(WaitEnd(milliseconds(5'000)), 1);
  EXPECT_TRUE(AllGone(pids));
}

TEST_F(UpTest, WritesALogFileAProgram) {
  Start({"--log-dir", (dir_ / "logs").string()});
  ASSERT_TRUE(WaitReady());
  for (const char* name : {"gateway", "router", "decoder-0", "vision-encoder-0"}) {
    EXPECT_THAT(ReadFile(dir_ / "logs" / absl::StrCat(name, ".log")), HasSubstr("listening"));
  }
}

}  // namespace
}  // namespace prism
