// The program itself: its ports, its errors at start, its signals.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <string>
#include <thread>
#include <vector>

#include "common/rpc/channel.h"
#include "common/wire/status_codec.h"
#include "prism/v1/decoder.grpc.pb.h"

extern char** environ;

namespace prism {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;
using testing::HasSubstr;

const std::vector<std::string> kMicro = {"--model",       PRISM_SOURCE_DIR "/tests/oracle/models/dense-micro",
                                         "--load-format", "synthetic",
                                         "--threads",     "1"};

// A running prism-decoder with its standard error read to the end.
class Program {
 public:
  // `variable` is added to the environment, if there is one.
  explicit Program(std::vector<std::string> arguments, std::string variable = "") {
    int pipe_ends[2];
    if (pipe(pipe_ends) != 0) return;
    posix_spawn_file_actions_t actions;
    posix_spawn_file_actions_init(&actions);
    posix_spawn_file_actions_adddup2(&actions, pipe_ends[1], 2);
    posix_spawn_file_actions_addclose(&actions, pipe_ends[0]);
    arguments.insert(arguments.begin(), PRISM_BIN_DIR "/prism-decoder");
    std::vector<char*> argv;
    for (std::string& argument : arguments) argv.push_back(argument.data());
    argv.push_back(nullptr);
    std::vector<char*> environment;
    for (char** entry = environ; *entry != nullptr; ++entry) environment.push_back(*entry);
    if (!variable.empty()) environment.push_back(variable.data());
    environment.push_back(nullptr);
    EXPECT_EQ(posix_spawn(&pid_, argv[0], &actions, nullptr, argv.data(), environment.data()), 0);
    posix_spawn_file_actions_destroy(&actions);
    close(pipe_ends[1]);
    errors_ = fdopen(pipe_ends[0], "r");
  }
  ~Program() {
    if (!waited_) {
      kill(pid_, SIGKILL);
      Wait();
    }
    fclose(errors_);
  }

  // The first line with `text` in it, or empty at the program's end.
  std::string LineWith(const std::string& text) {
    char* line = nullptr;
    size_t capacity = 0;
    std::string found;
    while (found.empty() && getline(&line, &capacity, errors_) > 0) {
      log_ += line;
      if (std::string(line).find(text) != std::string::npos) found = line;
    }
    free(line);
    return found;
  }
  // The address it serves on, once it is ready.
  std::string Address() {
    const std::string line = LineWith("\"message\":\"ready\"");
    const std::string key = "\"address\":\"";
    const size_t begin = line.find(key);
    if (begin == std::string::npos) return "";
    return line.substr(begin + key.size(), line.find('"', begin + key.size()) - begin - key.size());
  }
  void Signal(int number) { kill(pid_, number); }
  // Its exit code, or 128 + the signal that ended it.
  int Wait() {
    LineWith("no line says this");
    int status = 0;
    waitpid(pid_, &status, 0);
    waited_ = true;
    return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
  }
  const std::string& log() const { return log_; }

 private:
  pid_t pid_ = -1;
  FILE* errors_ = nullptr;
  std::string log_;
  bool waited_ = false;
};

std::vector<std::string> With(std::vector<std::string> arguments, std::vector<std::string> more) {
  arguments.insert(arguments.end(), more.begin(), more.end());
  return arguments;
}

const std::vector<std::string> kAnyPorts = {"--port", "0", "--metrics-port", "0"};

v1::GenerateRequest LongRequest() {
  v1::GenerateRequest request;
  request.set_generation_id(std::string(16, 'g'));
  for (uint32_t id = 1; id < 9; ++id) request.add_token_ids(id);
  request.mutable_sampling()->set_temperature(0);
  request.mutable_sampling()->set_ignore_eos(true);
  request.mutable_sampling()->set_max_tokens(1000);
  return request;
}

TEST(DecoderProgramTest, ServesAndEndsByItselfOnceItsStreamsAreOver) {
  Program program(With(With(kMicro, kAnyPorts), {"--tensor-parallel-size", "2"}));
  const std::string address = program.Address();
  ASSERT_FALSE(address.empty()) << program.log();
  const auto stub = v1::Decoder::NewStub(NewChannel(address));
  grpc::ClientContext describe_context;
  v1::DescribeResponse description;
  ASSERT_TRUE(stub->Describe(&describe_context, {}, &description).ok());
  EXPECT_EQ(description.model(), "dense-micro");
  EXPECT_EQ(description.tensor_parallel_size(), 2u);
  EXPECT_EQ(description.weights_digest().size(), 32u);
  EXPECT_EQ(description.incarnation().size(), 16u);
  EXPECT_EQ(description.numerics_id(), "qwen3_vl-cpu-f32-1");
  EXPECT_EQ(description.hidden_size(), 128u);
  EXPECT_EQ(description.num_deepstack(), 3u);

  grpc::ClientContext context;
  const auto reader = stub->Generate(&context, LongRequest());
  v1::GenerateEvent event;
  ASSERT_TRUE(reader->Read(&event));
  program.Signal(SIGTERM);
  int tokens = 0;
  while (reader->Read(&event)) tokens += event.has_token();
  EXPECT_TRUE(reader->Finish().ok()) << "a drain lets running streams end";
  EXPECT_EQ(tokens, 1000);
  EXPECT_EQ(program.Wait(), 0) << program.log();
}

TEST(DecoderProgramTest, CancelsWhatIsLeftWhenTheDrainTakesTooLong) {
  Program program(With(With(kMicro, kAnyPorts), {"--drain-timeout-s", "0"}));
  const auto stub = v1::Decoder::NewStub(NewChannel(program.Address()));
  grpc::ClientContext context;
  v1::GenerateRequest request = LongRequest();
  request.mutable_sampling()->set_max_tokens(4096);
  const auto reader = stub->Generate(&context, request);
  v1::GenerateEvent event;
  ASSERT_TRUE(reader->Read(&event));
  program.Signal(SIGTERM);
  while (reader->Read(&event)) {
  }
  EXPECT_FALSE(reader->Finish().ok());
  EXPECT_EQ(program.Wait(), 0) << program.log();
}

TEST(DecoderProgramTest, EndsWhenARankStops) {
  for (const char* fault : {"PRISM_FAULT=rank_stops:1@20", "PRISM_FAULT=endless_kernel:1@20"}) {
    Program program(With(With(kMicro, kAnyPorts), {"--tensor-parallel-size", "2", "--rank-timeout-s", "1"}),
                    fault);
    const std::string address = program.Address();
    ASSERT_FALSE(address.empty()) << program.log();
    const auto stub = v1::Decoder::NewStub(NewChannel(address));
    grpc::ClientContext context;
    const auto reader = stub->Generate(&context, LongRequest());
    v1::GenerateEvent event;
    while (reader->Read(&event)) {
    }
    EXPECT_FALSE(reader->Finish().ok()) << "the stream is told its end";
    EXPECT_EQ(program.Wait(), 1) << program.log();
    EXPECT_THAT(program.log(),
                HasSubstr("\"message\":\"a rank has not ended its step\",\"rank\":1,\"ranks\":2"));
    EXPECT_THAT(program.log(), HasSubstr("\"step\":20,"));
  }
}

TEST(DecoderProgramTest, RefusesAFaultItDoesNotKnow) {
  Program program(With(kMicro, kAnyPorts), "PRISM_FAULT=gremlins");
  EXPECT_EQ(program.Wait(), 1);
  EXPECT_THAT(program.log(), HasSubstr("want NAME[:RANK][@COUNT]"));
}

TEST(DecoderProgramTest, SaysThatItsPortIsTaken) {
  Program first(With(kMicro, kAnyPorts));
  const std::string address = first.Address();
  const std::string port = address.substr(address.find(':') + 1);
  Program second(With(kMicro, {"--port", port, "--metrics-port", "0"}));
  EXPECT_EQ(second.Wait(), 1);
  EXPECT_THAT(second.log(), HasSubstr("cannot listen on " + address));
  EXPECT_THAT(second.log(), HasSubstr("Address already in use"));
}

TEST(DecoderProgramTest, SlicedExpertsAreAnotherNumericsId) {
  const std::vector<std::string> moe = {"--model",
                                        PRISM_SOURCE_DIR "/tests/oracle/models/moe-micro",
                                        "--load-format",
                                        "synthetic",
                                        "--device",
                                        "cpu",
                                        "--tensor-parallel-size",
                                        "2",
                                        "--moe-shard",
                                        "intermediate"};
  Program program(With(moe, kAnyPorts));
  const std::string address = program.Address();
  ASSERT_FALSE(address.empty()) << program.log();
  const auto stub = v1::Decoder::NewStub(NewChannel(address));
  grpc::ClientContext context;
  v1::DescribeResponse description;
  ASSERT_TRUE(stub->Describe(&context, {}, &description).ok());
  EXPECT_EQ(description.numerics_id(), "qwen3_vl_moe-cpu-f32-1-moe-intermediate-2");
}

TEST(DecoderProgramTest, SaysWhatIsWrongWithItsFlagsAndItsModel) {
  const struct {
    std::vector<std::string> arguments;
    int exit_code;
    const char* log;
  } cases[] = {{{}, 2, "--model"},
               {{"--model", "/no/such/folder"}, 1, "/no/such/folder"},
               {{"--model", PRISM_SOURCE_DIR "/tests/oracle/models/dense-micro"}, 1, "no weights"},
               {With(kMicro, {"--tensor-parallel-size", "3"}), 1, "tensor-parallel size is 3"},
               {With(kMicro, {"--kv-cache-bytes", "10"}), 1, "--kv-cache-bytes is 10"},
               {With(kMicro, {"--max-num-seqs", "0"}), 2, "--max-num-seqs"},
               {With(kMicro, {"--moe-shard", "heads"}), 2, "--moe-shard"},
               {With(kMicro, {"--device", "abacus"}), 2, "--device"}};
  for (const auto& c : cases) {
    Program program(With(c.arguments, kAnyPorts));
    EXPECT_EQ(program.Wait(), c.exit_code) << program.log();
    EXPECT_THAT(program.log(), HasSubstr(c.log));
  }
}

}  // namespace
}  // namespace prism
