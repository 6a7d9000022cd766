// prism-vision-encoder as a process: flags, ports, signals, and the reference's embeddings over gRPC.
#include <fcntl.h>
#include <gmock/gmock.h>
#include <grpcpp/grpcpp.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmath>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <future>
#include <thread>

#include "common/rpc/channel.h"
#include "common/wire/status_codec.h"
#include "common/wire/tensor_frames.h"
#include "prism/v1/vision.grpc.pb.h"
#include "tests/common/base/eventually.h"
#include "tests/oracle/oracle_case.h"
#include "tests/services/vision_encoder/image/picture_files.h"

extern char** environ;

namespace prism {
namespace {

using ::prism::testing::OraclePicture;
using ::prism::testing::ReadFile;
using std::chrono::milliseconds;
using ::testing::HasSubstr;

// One run of the program; ended by force if the test did not end it.
class Program {
 public:
  explicit Program(std::vector<std::string> flags, const std::string& model = "moe-micro") {
    static int count = 0;
    log_ = std::filesystem::path(::testing::TempDir()) /
           ("prism-vision-encoder." + std::to_string(getpid()) + "." + std::to_string(count++) + ".log");
    std::vector<std::string> arguments = {std::string(PRISM_BIN_DIR) + "/prism-vision-encoder", "--model",
                                          std::string(PRISM_SOURCE_DIR) + "/tests/oracle/models/" + model,
                                          "--load-format=synthetic", "--metrics-port=0"};
    arguments.insert(arguments.end(), flags.begin(), flags.end());
    std::vector<char*> argv;
    for (std::string& argument : arguments) argv.push_back(argument.data());
    argv.push_back(nullptr);
    posix_spawn_file_actions_t actions;
    posix_spawn_file_actions_init(&actions);
    posix_spawn_file_actions_addopen(&actions, STDERR_FILENO, log_.c_str(), O_WRONLY | O_CREAT | O_TRUNC,
                                     0600);
    EXPECT_EQ(posix_spawn(&pid_, argv[0], &actions, nullptr, argv.data(), environ), 0);
    posix_spawn_file_actions_destroy(&actions);
  }
  ~Program() {
    if (pid_ > 0) {
      kill(pid_, SIGKILL);
      waitpid(pid_, nullptr, 0);
    }
    std::filesystem::remove(log_);
  }

  std::string Log() const { return std::filesystem::exists(log_) ? ReadFile(log_) : ""; }
  // The number after `"key":` in the log, once the program is ready.
  int AwaitReady(const std::string& key = "port") {
    if (!Eventually([&] { return Log().find("\"message\":\"ready\"") != std::string::npos; })) {
      ADD_FAILURE() << "not ready: " << Log();
      return 0;
    }
    const std::string log = Log();
    const size_t at = log.find("\"" + key + "\":");
    return at == std::string::npos ? 0 : std::atoi(log.c_str() + at + key.size() + 3);
  }
  void Terminate() { kill(pid_, SIGTERM); }
  // The exit code, or -1 if the program does not end in time.
  int AwaitExit(std::chrono::seconds limit = std::chrono::seconds(15)) {
    int status = 0;
    if (!Eventually([&] { return waitpid(pid_, &status, WNOHANG) != 0; }, limit)) return -1;
    pid_ = -1;
    return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
  }

 private:
  std::filesystem::path log_;
  pid_t pid_ = -1;
};

class Client {
 public:
  explicit Client(int port)
      : stub_(v1::VisionEncoder::NewStub(NewChannel("127.0.0.1:" + std::to_string(port)))) {}

  absl::StatusOr<v1::EncodeResponse> Encode(const std::string& file, uint64_t max_pixels = 0,
                                            uint64_t min_pixels = 0) {
    grpc::ClientContext context;
    context.set_deadline(std::chrono::system_clock::now() + std::chrono::seconds(60));
    v1::EncodeRequest request;
    request.mutable_media()->set_inline_data(file);
    if (max_pixels != 0) request.mutable_options()->set_max_pixels(max_pixels);
    if (min_pixels != 0) request.mutable_options()->set_min_pixels(min_pixels);
    v1::EncodeResponse response;
    const absl::Status status = FromGrpc(stub_->Encode(&context, request, &response));
    if (!status.ok()) return status;
    return response;
  }

  absl::StatusOr<std::vector<float>> Fetch(const v1::EmbeddingHandle& handle) {
    grpc::ClientContext context;
    v1::FetchEmbeddingRequest request;
    request.set_handle_id(handle.handle_id());
    request.set_incarnation(handle.incarnation());
    auto reader = stub_->FetchEmbedding(&context, request);
    std::vector<float> values(handle.size_bytes() / sizeof(float));
    FrameAssembler assembler(
        absl::MakeSpan(reinterpret_cast<uint8_t*>(values.data()), values.size() * sizeof(float)));
    v1::TensorFrame frame;
    absl::Status status;
    while (status.ok() && reader->Read(&frame)) status = assembler.Add(frame);
    if (status.ok()) status = FromGrpc(reader->Finish());
    if (status.ok()) status = assembler.Finish(handle.digest());
    if (!status.ok()) return status;
    return values;
  }

 private:
  std::unique_ptr<v1::VisionEncoder::Stub> stub_;
};

class ReferenceTest : public ::testing::TestWithParam<const char*> {};

TEST_P(ReferenceTest, GivesTheReferencesEmbeddingsOverGrpc) {
  Program program({"--port=0", "--alpha=drop"}, GetParam());
  Client client(program.AwaitReady());
  double worst = 0;
  for (const std::string name :
       {"image_photo", "image_rgba", "image_small", "image_two_turns", "image_wide_gray"}) {
    const auto oracle = OracleCase::Open(GetParam(), name);
    if (!oracle.ok()) continue;  // a model has not all of them
    int64_t row = 0;
    for (const std::string& picture : (*oracle)->images) {
      const auto response = client.Encode(OraclePicture(picture));
      ASSERT_TRUE(response.ok()) << picture << ": " << response.status();
      const auto values = client.Fetch(response->handle());
      ASSERT_TRUE(values.ok()) << values.status();
      const int64_t tokens = response->handle().num_tokens();
      const int64_t width = response->handle().hidden_size();
      for (uint32_t level = 0; level <= response->handle().num_deepstack(); ++level) {
        const TensorView want = (*oracle)->tensor(
            level == 0 ? std::string("vision.merged") : "vision.deepstack." + std::to_string(level - 1));
        ASSERT_TRUE(want.present()) << name << " level " << level;
        ASSERT_EQ(want.dim(1), width);
        ASSERT_LE(row + tokens, want.dim(0));
        const float* expected = want.Rows(row, tokens).data<float>();
        const float* got = values->data() + static_cast<int64_t>(level) * tokens * width;
        for (int64_t i = 0; i < tokens * width; ++i) {
          worst = std::max(worst, std::fabs(static_cast<double>(got[i]) - static_cast<double>(expected[i])));
        }
      }
      row += tokens;
    }
  }
  std::printf("%s: largest difference of an embedding %.2g\n", GetParam(), worst);
  EXPECT_GT(worst, 0);
  EXPECT_LT(worst, 1e-4);
}

INSTANTIATE_TEST_SUITE_P(Models, ReferenceTest, ::testing::Values("moe-micro", "dense-micro"));

TEST(ProgramTest, GivesTheSameBitsAloneInABatchAndWithAnotherNumberOfThreads) {
  const std::vector<std::string> files = {OraclePicture("coffee.jpg"), OraclePicture("astronaut.jpg"),
                                          OraclePicture("tiny.png"), OraclePicture("wide_gray.png")};
  const std::vector<uint64_t> sizes = {70000, 120000, 0};
  std::vector<std::string> alone;
  {
    Program program({"--port=0", "--threads=1"});
    Client client(program.AwaitReady());
    for (const std::string& file : files) {
      for (const uint64_t size : sizes) {
        const auto response = client.Encode(file, size);
        ASSERT_TRUE(response.ok()) << response.status();
        alone.push_back(response->handle().digest());
      }
    }
  }
  Program program({"--port=0", "--threads=2", "--image-threads=2"});
  const int port = program.AwaitReady();
  Client client(port);
  std::vector<std::future<std::string>> together;
  for (const std::string& file : files) {
    for (const uint64_t size : sizes) {
      together.push_back(std::async(std::launch::async, [&client, &file, size] {
        const auto response = client.Encode(file, size);
        return response.ok() ? response->handle().digest() : std::string(response.status().message());
      }));
    }
  }
  for (size_t i = 0; i < alone.size(); ++i) EXPECT_EQ(together[i].get(), alone[i]) << "picture " << i;
}

TEST(ProgramTest, SaysThatItsPortIsInUseAndEnds) {
  Program first({"--port=0"});
  const int port = first.AwaitReady();
  ASSERT_GT(port, 0);
  Program second({"--port=" + std::to_string(port)});
  EXPECT_EQ(second.AwaitExit(), 1);
  EXPECT_THAT(second.Log(), HasSubstr("127.0.0.1:" + std::to_string(port)));
  EXPECT_THAT(second.Log(), HasSubstr("in use"));
}

TEST(ProgramTest, RefusesSettingsThatContradictEachOther) {
  const std::pair<std::vector<std::string>, std::string> cases[] = {
      {{"--max-batch-patches=100"}, "--max-batch-patches is 100, below the 16384 patches"},
      {{"--store-bytes=1000"}, "--store-bytes is 1000, too few for one embedding"},
      {{"--media-store-bytes=1000"}, "--media-store-bytes is 1000, below --limit-media-bytes"},
      {{"--host=0.0.0.0"}, "--advertise-address is needed"},
  };
  for (const auto& [flags, message] : cases) {
    Program program(flags);
    EXPECT_EQ(program.AwaitExit(), 1) << flags[0];
    EXPECT_THAT(program.Log(), HasSubstr(message));
  }
  Program unknown({"--alpha=black"});
  EXPECT_EQ(unknown.AwaitExit(), 2);
  Program nowhere({}, "no-such-model");
  EXPECT_EQ(nowhere.AwaitExit(), 1);
  EXPECT_THAT(nowhere.Log(), HasSubstr("no-such-model"));
}

TEST(ProgramTest, DrainsAtSigtermWithCallsUnderWay) {
  Program program({"--port=0"});
  Client client(program.AwaitReady());
  std::vector<std::future<absl::Status>> calls;
  for (uint64_t i = 0; i < 6; ++i) {
    calls.push_back(std::async(std::launch::async, [&client, i] {
      return client.Encode(OraclePicture("astronaut.jpg"), 0, 700'000 + i * 1024).status();
    }));
  }
  std::this_thread::sleep_for(milliseconds(200));  // some are decoded, some computed, some wait
  program.Terminate();
  EXPECT_EQ(program.AwaitExit(), 0) << program.Log();
  for (auto& call : calls) {
    const absl::Status status = call.get();
    EXPECT_TRUE(status.ok() || absl::IsUnavailable(status) || absl::IsCancelled(status)) << status;
  }
  EXPECT_THAT(program.Log(), HasSubstr("\"message\":\"stopped\""));
}

TEST(ProgramTest, LivesOnAfterBadPictures) {
  Program program({"--port=0"});
  const int port = program.AwaitReady();
  const std::string jpeg = OraclePicture("rocket.jpg");
  for (const std::string& bad : {std::string(), std::string("GIF89a"), std::string("\xff\xd8\xff"),
                                 jpeg.substr(0, 20000), testing::PngBomb(20000, 20000),
                                 testing::PngBomb(28, 5601), testing::JpegWithSize(jpeg, 64250, 64250)}) {
    const absl::Status status = Client(port).Encode(bad).status();
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << status;
  }
  EXPECT_TRUE(Client(port).Encode(jpeg).ok());
  program.Terminate();
  EXPECT_EQ(program.AwaitExit(), 0);
}

}  // namespace
}  // namespace prism
