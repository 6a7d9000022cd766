// What it costs to carry a decoder's tokens to another process, and what one message a step would save.
//
//   bench_step_message [--streams 64] [--decoders 4] [--steps 400] [--interval-ms 25] [--rounds 5]
//
// A receiver, in a process of its own, as the router is: it reads the tokens of all streams and does nothing
// with them. By turns
//   each:  every stream is a call of its own, one message a token: Decoder.Generate as it is;
//   one:   one call a decoder, one message a step. What it carries is stood in for by a token with one
//          alternative for each stream: a number, an id and eight bytes more than that needs.
// What is told is the processor time a token of the receiver and of the senders, which are all decoders
// together. Nothing else is in these figures, so that "each" less "one" is the most that a router can save.
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cstdio>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "common/base/check.h"
#include "common/base/clock.h"
#include "common/base/log.h"
#include "common/base/mutex.h"
#include "common/rpc/channel.h"
#include "common/rpc/client_call.h"
#include "common/rpc/flags.h"
#include "common/rpc/server.h"
#include "common/rpc/write_reactor.h"
#include "prism/v1/decoder.grpc.pb.h"

namespace prism {
namespace {

using std::chrono::microseconds;
using std::chrono::milliseconds;

struct Options {
  int streams = 64;
  int decoders = 4;
  int steps = 400;
  int interval_ms = 25;
  int rounds = 5;
};

double CpuSeconds() {
  rusage usage{};
  PRISM_CHECK(getrusage(RUSAGE_SELF, &usage) == 0);
  const auto seconds = [](const timeval& time) {
    return static_cast<double>(time.tv_sec) + 1e-6 * static_cast<double>(time.tv_usec);
  };
  return seconds(usage.ru_utime) + seconds(usage.ru_stime);
}

// Sends a message to every open call when told to.
class Sender final : public v1::Decoder::CallbackService {
 public:
  grpc::ServerWriteReactor<v1::GenerateEvent>* Generate(grpc::CallbackServerContext* context,
                                                        const v1::GenerateRequest* request) override {
    MutexLock lock(&mutex_);
    calls_.push_back({new Reactor(context), request->sampling().top_logprobs()});
    return calls_.back().reactor;
  }
  size_t num_open() {
    MutexLock lock(&mutex_);
    return calls_.size();
  }
  void Step(uint32_t index) {
    MutexLock lock(&mutex_);
    for (const Call& call : calls_) {
      v1::GenerateEvent event;
      v1::GenerateEvent::Token* token = event.mutable_token();
      token->set_index(index);
      token->set_token_id(32 + index % 64);
      for (uint32_t i = 0; i < call.width; ++i) {
        v1::TokenLogprob* each = token->add_top();
        each->set_token_id(32 + i);
        each->set_logprob(index + 1);
      }
      call.reactor->Emit(std::move(event)).IgnoreError();
    }
  }
  void End() {
    MutexLock lock(&mutex_);
    for (const Call& call : calls_) call.reactor->Done(absl::OkStatus());
    calls_.clear();
  }

 private:
  class Reactor final : public WriteReactor<v1::GenerateEvent> {
   public:
    explicit Reactor(grpc::CallbackServerContext* context) : WriteReactor(context, 1 << 20) {}
  };
  struct Call {
    Reactor* reactor;
    uint32_t width;  // alternatives a token
  };
  Mutex mutex_;
  std::vector<Call> calls_ ABSL_GUARDED_BY(mutex_);
};

// Opens so many calls to each sender, reads them to their end; its processor time.
double Receive(const std::vector<std::unique_ptr<v1::Decoder::Stub>>& senders, int calls, int width) {
  Mutex mutex;
  CondVar changed;
  size_t missing = senders.size() * static_cast<size_t>(calls);
  const double before = CpuSeconds();
  for (const auto& sender : senders) {
    for (int i = 0; i < calls; ++i) {
      v1::GenerateRequest request;
      request.mutable_sampling()->set_top_logprobs(static_cast<uint32_t>(width));
      ClientStream<v1::GenerateRequest, v1::GenerateEvent>::Start(
          std::move(request), Clock::Real().Now() + std::chrono::seconds(600),
          [&](auto* context, auto* message, auto* reactor) {
            sender->async()->Generate(context, message, reactor);
          },
          [](const v1::GenerateEvent& event) {
            PRISM_CHECK(event.has_token());
            return StreamNext::kRead;
          },
          [&](const absl::Status& status) {
            PRISM_CHECK(status.ok());
            MutexLock lock(&mutex);
            if (--missing == 0) changed.NotifyAll();
          });
    }
  }
  MutexLock lock(&mutex);
  while (missing > 0) changed.Wait(&mutex);
  return CpuSeconds() - before;
}

// The receiver's process: reads addresses, then writes the processor seconds of each run.
int ReceiverMain(const Options& options, int in, int out) {
  std::vector<std::unique_ptr<v1::Decoder::Stub>> senders;
  for (int i = 0; i < options.decoders; ++i) {
    int port = 0;
    PRISM_CHECK(read(in, &port, sizeof(port)) == sizeof(port));
    senders.push_back(v1::Decoder::NewStub(NewChannel("127.0.0.1:" + std::to_string(port))));
  }
  for (int i = 0; i < options.rounds; ++i) {
    for (const bool one : {false, true}) {
      const double seconds =
          one ? Receive(senders, 1, options.streams) : Receive(senders, options.streams, 0);
      PRISM_CHECK(write(out, &seconds, sizeof(seconds)) == sizeof(seconds));
    }
  }
  return 0;
}

int Main(const Options& options) {
  int to_receiver[2], from_receiver[2];
  PRISM_CHECK(pipe(to_receiver) == 0 && pipe(from_receiver) == 0);
  const pid_t pid = fork();  // before gRPC has threads
  if (pid == 0) _exit(ReceiverMain(options, to_receiver[0], from_receiver[1]));
  std::vector<std::unique_ptr<Sender>> senders;
  std::vector<std::unique_ptr<RpcServer>> servers;
  for (int i = 0; i < options.decoders; ++i) {
    senders.push_back(std::make_unique<Sender>());
    auto server = RpcServer::Start({.concurrent_streams_max = 8192}, {senders.back().get()});
    PRISM_CHECK(server.ok());
    const int port = (*server)->port();
    PRISM_CHECK(write(to_receiver[1], &port, sizeof(port)) == sizeof(port));
    servers.push_back(*std::move(server));
  }
  const double tokens = static_cast<double>(options.streams) * options.decoders * options.steps;
  const auto gap = microseconds(options.interval_ms * 1000 / options.decoders);
  std::printf("%d decoders of %d streams, a token each %d ms, %d steps\n", options.decoders, options.streams,
              options.interval_ms, options.steps);
  std::vector<double> received[2], sent[2];
  for (int round = 0; round < options.rounds; ++round) {
    for (const bool one : {false, true}) {
      const double before = CpuSeconds();
      for (const auto& sender : senders) {
        while (sender->num_open() < static_cast<size_t>(one ? 1 : options.streams)) {
          std::this_thread::sleep_for(milliseconds(1));
        }
      }
      SteadyTime next = Clock::Real().Now();
      for (int step = 0; step < options.steps; ++step) {
        for (const auto& sender : senders) {
          std::this_thread::sleep_until(next += gap);
          sender->Step(static_cast<uint32_t>(step));
        }
      }
      for (const auto& sender : senders) sender->End();
      double seconds = 0;
      PRISM_CHECK(read(from_receiver[0], &seconds, sizeof(seconds)) == sizeof(seconds));
      received[one].push_back(1e6 * seconds / tokens);
      sent[one].push_back(1e6 * (CpuSeconds() - before) / tokens);
      std::printf("  %s: receiver %.2f us a token, senders %.2f us\n", one ? "one " : "each",
                  received[one].back(), sent[one].back());
    }
  }
  const auto median = [](std::vector<double> values) {
    std::sort(values.begin(), values.end());
    return values[values.size() / 2];
  };
  std::printf("medians: receiver %.2f -> %.2f us a token, senders %.2f -> %.2f us\n", median(received[0]),
              median(received[1]), median(sent[0]), median(sent[1]));
  for (const auto& server : servers) server->Shutdown(milliseconds(1000));
  int status = 0;
  waitpid(pid, &status, 0);
  return WIFEXITED(status) ? WEXITSTATUS(status) : 1;
}

}  // namespace
}  // namespace prism

int main(int argc, char** argv) {
  prism::Options options;
  prism::FlagSet flags("bench_step_message", "What one message a step would save between two processes.");
  flags.Add("--streams", &options.streams, "Streams of each decoder", {.min = 1, .max = 4096});
  flags.Add("--decoders", &options.decoders, "Decoders", {.min = 1, .max = 64});
  flags.Add("--steps", &options.steps, "Tokens of each stream", {.min = 1, .max = 100000});
  flags.Add("--interval-ms", &options.interval_ms, "Between two steps of a decoder",
            {.unit = "ms", .min = 1, .max = 10000});
  flags.Add("--rounds", &options.rounds, "Of both ways", {.min = 1, .max = 1000});
  if (const auto exit_code = flags.Parse(argc, argv)) return *exit_code;
  prism::InitLog("bench_step_message", "warning");
  return prism::Main(options);
}
