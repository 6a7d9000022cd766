// What the router costs: a real prism-router between echo backends, which stream tokens without computing
// any, and clients, which count them.
//
//   bench_router --hidden-size 384 --num-deepstack 3 [--streams 256] [--decoders 4] [--tokens 400]
//                [--interval-ms 25] [--model models/demo]
//
// 1. memory: of the router with all streams open, above what it was before the first.
// 2. added latency: every stream gets a token each interval, those of one decoder at once, the decoders one
//    after the other. A token's time runs from its Emit() in the
//    echo decoder to the client's callback; the yardstick is the same client at the decoder itself.
// 3. throughput: every stream's tokens are sent as fast as they are taken.
//
// Echo decoder and clients are threads of this process and share the machine's CPUs with the router, so the
// router's own CPU time is told besides: tokens a second of one busy core.
#include <fcntl.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cstdio>
#include <fstream>
#include <functional>
#include <memory>
#include <sstream>
#include <string>
#include <thread>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "common/base/check.h"
#include "common/base/clock.h"
#include "common/base/log.h"
#include "common/base/mutex.h"
#include "common/base/thread.h"
#include "common/rpc/channel.h"
#include "common/rpc/client_call.h"
#include "common/rpc/flags.h"
#include "common/rpc/server.h"
#include "common/rpc/unary_call.h"
#include "common/rpc/write_reactor.h"
#include "prism/v1/decoder.grpc.pb.h"
#include "prism/v1/router.grpc.pb.h"
#include "prism/v1/vision.grpc.pb.h"
#include "services/decoder/event_feed.h"

namespace prism {
namespace {

using std::chrono::microseconds;
using std::chrono::milliseconds;

struct Options {
  int streams = 256;
  int tokens = 400;
  int decoders = 4;
  int interval_ms = 25;
  std::string model = "models/demo";
  std::string router;  // the program; empty: beside this one
  int hidden_size = 0;
  int num_deepstack = 0;
};

int64_t NowNs() {
  return std::chrono::duration_cast<std::chrono::nanoseconds>(Clock::Real().Now().time_since_epoch()).count();
}

// When each token of each stream was sent; streams are named by their seed.
class SendTimes {
 public:
  SendTimes(int streams, int tokens) : tokens_(tokens), ns_(static_cast<size_t>(streams) * tokens) {}
  void Set(uint64_t stream, uint32_t index) { At(stream, index).store(NowNs(), std::memory_order_release); }
  double SecondsSince(uint64_t stream, uint32_t index) {
    return 1e-9 * static_cast<double>(NowNs() - At(stream, index).load(std::memory_order_acquire));
  }

 private:
  std::atomic<int64_t>& At(uint64_t stream, uint32_t index) { return ns_[stream * tokens_ + index]; }
  const size_t tokens_;
  std::vector<std::atomic<int64_t>> ns_;
};

class EchoDecoder final : public v1::Decoder::CallbackService {
 public:
  explicit EchoDecoder(const Options& options) : options_(options) {}
  void Use(SendTimes* times, bool paced) {
    MutexLock lock(&mutex_);
    times_ = times;
    paced_ = paced;
  }
  // Sends the next token of every stream that is open, those of a feed in one message.
  void Step() {
    std::vector<std::shared_ptr<Stream>> streams;
    {
      MutexLock lock(&mutex_);
      streams = streams_;
    }
    bool ended = false;
    for (const std::shared_ptr<Stream>& stream : streams) ended |= !stream->Next();
    for (const std::shared_ptr<Stream>& stream : streams) stream->Flush();
    if (!ended) return;
    MutexLock lock(&mutex_);
    std::erase_if(streams_, [](const std::shared_ptr<Stream>& stream) { return stream->over(); });
  }
  size_t num_open() {
    MutexLock lock(&mutex_);
    return streams_.size();
  }

  grpc::ServerWriteReactor<v1::GenerateEvent>* Generate(grpc::CallbackServerContext* context,
                                                        const v1::GenerateRequest* request) override {
    MutexLock lock(&mutex_);
    std::shared_ptr<FeedWriter> writer;
    if (!request->feed_id().empty()) {
      auto feed = feeds_.Find(request->feed_id());
      PRISM_CHECK(feed.ok());
      writer = std::make_shared<FeedWriter>(*std::move(feed), request->feed_number());
    }
    auto stream = std::make_shared<Stream>(new Reactor(context), std::move(writer), *request, times_);
    stream->Begin();
    if (paced_) {
      streams_.push_back(stream);
    } else {
      while (stream->Next()) {
      }
    }
    return stream->reactor();
  }
  grpc::ServerWriteReactor<v1::FeedEvents>* Feed(grpc::CallbackServerContext* context,
                                                 const v1::FeedRequest* request) override {
    auto feed = feeds_.Find(request->feed_id());
    PRISM_CHECK(feed.ok());
    auto carrier = (*feed)->Carry(context);
    PRISM_CHECK(carrier.ok());
    return *carrier;
  }
  grpc::ServerUnaryReactor* Describe(grpc::CallbackServerContext* context, const v1::DescribeRequest*,
                                     v1::DescribeResponse* response) override {
    response->set_role("decoder");
    response->set_hidden_size(static_cast<uint64_t>(options_.hidden_size));
    response->set_num_deepstack(static_cast<uint64_t>(options_.num_deepstack));
    response->set_model_length_max(1 << 20);
    response->set_sequences_max(4096);
    return FinishNow(context, absl::OkStatus());
  }
  grpc::ServerUnaryReactor* GetLoad(grpc::CallbackServerContext* context, const v1::GetLoadRequest*,
                                    v1::GetLoadResponse*) override {
    return FinishNow(context, absl::OkStatus());
  }

 private:
  class Reactor final : public WriteReactor<v1::GenerateEvent> {
   public:
    explicit Reactor(grpc::CallbackServerContext* context) : WriteReactor(context, 1 << 20) {}
  };
  class Stream {
   public:
    Stream(Reactor* reactor, std::shared_ptr<FeedWriter> writer, const v1::GenerateRequest& request,
           SendTimes* times)
        : reactor_(reactor),
          writer_(std::move(writer)),
          number_(request.sampling().seed()),
          tokens_(request.sampling().max_tokens()),
          times_(times) {}
    Reactor* reactor() { return reactor_; }
    bool over() const { return next_ > tokens_; }
    void Begin() {
      v1::GenerateEvent event;
      if (writer_ != nullptr) {
        event.mutable_fed();
        reactor_->Emit(event).IgnoreError();
      }
      event.mutable_started();
      Tell(std::move(event));
      Flush();
    }
    void Flush() {
      if (writer_ != nullptr) writer_->Flush();
    }
    // False when this was the end.
    bool Next() {
      if (over()) return false;
      v1::GenerateEvent event;
      if (next_ == tokens_) {
        ++next_;
        event.mutable_choice_finished()->set_reason(v1::GenerateEvent::FINISH_REASON_LENGTH);
        Tell(std::move(event));
        v1::GenerateEvent finished;
        finished.mutable_finished();
        Tell(std::move(finished));
        if (writer_ != nullptr) writer_->End();
        reactor_->Done(absl::OkStatus());
        return false;
      }
      event.mutable_token()->set_index(next_);
      event.mutable_token()->set_token_id(32 + next_ % 64);
      times_->Set(number_, next_++);
      Tell(std::move(event));
      return true;
    }

   private:
    void Tell(v1::GenerateEvent event) {
      (writer_ != nullptr ? writer_->Emit(std::move(event)) : reactor_->Emit(std::move(event))).IgnoreError();
    }

    Reactor* const reactor_;
    const std::shared_ptr<FeedWriter> writer_;  // null: the call carries the events
    const uint64_t number_;
    const uint32_t tokens_;
    SendTimes* const times_;
    uint32_t next_ = 0;
  };

  const Options options_;
  FeedRegistry feeds_;
  Mutex mutex_;
  SendTimes* times_ ABSL_GUARDED_BY(mutex_) = nullptr;
  bool paced_ ABSL_GUARDED_BY(mutex_) = false;
  std::vector<std::shared_ptr<Stream>> streams_ ABSL_GUARDED_BY(mutex_);
};

class EchoEncoder final : public v1::VisionEncoder::CallbackService {
 public:
  explicit EchoEncoder(const Options& options) : options_(options) {}
  grpc::ServerUnaryReactor* Describe(grpc::CallbackServerContext* context, const v1::DescribeRequest*,
                                     v1::DescribeResponse* response) override {
    response->set_role("vision-encoder");
    response->set_hidden_size(static_cast<uint64_t>(options_.hidden_size));
    response->set_num_deepstack(static_cast<uint64_t>(options_.num_deepstack));
    return FinishNow(context, absl::OkStatus());
  }
  grpc::ServerUnaryReactor* GetLoad(grpc::CallbackServerContext* context, const v1::GetLoadRequest*,
                                    v1::GetLoadResponse*) override {
    return FinishNow(context, absl::OkStatus());
  }

 private:
  const Options options_;
};

// What all streams of a run heard.
class Heard {
 public:
  explicit Heard(int streams) : missing_(streams) {}
  void Token(double seconds) {
    MutexLock lock(&mutex_);
    seconds_.push_back(seconds);
  }
  void Done(const absl::Status& status) {
    PRISM_CHECK(status.ok());
    MutexLock lock(&mutex_);
    if (--missing_ == 0) changed_.NotifyAll();
  }
  std::vector<double> Wait() {
    MutexLock lock(&mutex_);
    while (missing_ > 0) changed_.Wait(&mutex_);
    std::sort(seconds_.begin(), seconds_.end());
    return seconds_;
  }

 private:
  Mutex mutex_;
  CondVar changed_;
  int missing_ ABSL_GUARDED_BY(mutex_);
  std::vector<double> seconds_ ABSL_GUARDED_BY(mutex_);
};

using ChatCall = ClientStream<v1::ChatRequest, v1::ChatEvent>;
using GenerateCall = ClientStream<v1::GenerateRequest, v1::GenerateEvent>;

void StartChat(v1::Router::Stub* router, const Options& options, int number, SendTimes* times, Heard* heard) {
  v1::ChatRequest request;
  v1::ChatMessage* message = request.add_messages();
  message->set_role("user");
  message->add_content()->set_text("Count.");
  request.mutable_sampling()->set_max_tokens(static_cast<uint32_t>(options.tokens));
  request.mutable_sampling()->set_seed(static_cast<uint64_t>(number));
  request.set_return_token_ids(true);
  ChatCall::Start(
      std::move(request), Clock::Real().Now() + std::chrono::seconds(120),
      [router](auto* context, auto* message_out, auto* reactor) {
        router->async()->Chat(context, message_out, reactor);
      },
      [number, times, heard, next = uint32_t{0}](const v1::ChatEvent& event) mutable {
        for (int i = 0; i < event.delta().token_ids_size(); ++i) {
          heard->Token(times->SecondsSince(static_cast<uint64_t>(number), next++));
        }
        return StreamNext::kRead;
      },
      [heard](const absl::Status& status) { heard->Done(status); });
}

void StartGenerate(v1::Decoder::Stub* decoder, const Options& options, int number, SendTimes* times,
                   Heard* heard) {
  v1::GenerateRequest request;
  request.mutable_sampling()->set_max_tokens(static_cast<uint32_t>(options.tokens));
  request.mutable_sampling()->set_seed(static_cast<uint64_t>(number));
  GenerateCall::Start(
      std::move(request), Clock::Real().Now() + std::chrono::seconds(120),
      [decoder](auto* context, auto* message_out, auto* reactor) {
        decoder->async()->Generate(context, message_out, reactor);
      },
      [number, times, heard](const v1::GenerateEvent& event) {
        if (event.has_token()) {
          heard->Token(times->SecondsSince(static_cast<uint64_t>(number), event.token().index()));
        }
        return StreamNext::kRead;
      },
      [heard](const absl::Status& status) { heard->Done(status); });
}

// Another process's CPU seconds and proportional memory.
double CpuSeconds(pid_t pid) {
  std::ifstream file(absl::StrCat("/proc/", pid, "/stat"));
  std::string text((std::istreambuf_iterator<char>(file)), {});
  std::istringstream fields(text.substr(text.rfind(')') + 2));
  std::string skipped;
  for (int i = 3; i < 14; ++i) fields >> skipped;
  double user = 0, system = 0;
  fields >> user >> system;
  return (user + system) / static_cast<double>(sysconf(_SC_CLK_TCK));
}
double MemoryKib(pid_t pid) {
  std::ifstream file(absl::StrCat("/proc/", pid, "/smaps_rollup"));
  std::string line;
  while (std::getline(file, line)) {
    if (line.rfind("Pss_Anon:", 0) == 0) return std::stod(line.substr(9));
  }
  return 0;
}

double Quantile(const std::vector<double>& sorted, double q) {
  return sorted[std::min(sorted.size() - 1, static_cast<size_t>(q * static_cast<double>(sorted.size())))];
}

using Decoders = std::vector<std::unique_ptr<EchoDecoder>>;

// Starts all streams, lets them run to their end; the tokens' times. `at_peak` is called when all are open.
template <typename StartFn>
std::vector<double> RunStreams(const Decoders& decoders, const Options& options, bool paced,
                               const StartFn& start, const std::function<void()>& at_peak) {
  SendTimes times(options.streams, options.tokens);
  Heard heard(options.streams);
  for (const auto& decoder : decoders) decoder->Use(&times, paced);
  for (int i = 0; i < options.streams; ++i) start(i, &times, &heard);
  if (!paced) return heard.Wait();
  const auto num_open = [&] {
    size_t open = 0;
    for (const auto& decoder : decoders) open += decoder->num_open();
    return open;
  };
  while (num_open() < static_cast<size_t>(options.streams)) std::this_thread::sleep_for(milliseconds(1));
  SteadyTime next = Clock::Real().Now();
  const auto gap = microseconds(options.interval_ms * 1000 / options.decoders);
  for (int step = 0; num_open() > 0; ++step) {
    if (step == options.tokens / 2) at_peak();
    for (const auto& decoder : decoders) {
      std::this_thread::sleep_until(next += gap);
      decoder->Step();
    }
  }
  return heard.Wait();
}

int Main(const Options& options) {
  Decoders decoders;
  std::vector<std::unique_ptr<RpcServer>> servers;
  std::vector<std::string> addresses;
  const auto serve = [&](grpc::Service* service) {
    auto server = RpcServer::Start({.concurrent_streams_max = 8192}, {service});
    PRISM_CHECK(server.ok());
    (*server)->SetServing(true);
    servers.push_back(*std::move(server));
    return servers.back()->address();
  };
  for (int i = 0; i < options.decoders; ++i) {
    decoders.push_back(std::make_unique<EchoDecoder>(options));
    addresses.push_back(serve(decoders.back().get()));
  }
  EchoEncoder encoder(options);
  const std::string encoder_address = serve(&encoder);
  const std::string decoder_addresses = absl::StrJoin(addresses, ",");

  // The router takes a free port and says which in its log.
  int log[2];
  PRISM_CHECK(pipe(log) == 0);
  const pid_t pid = fork();
  if (pid == 0) {
    dup2(log[1], STDERR_FILENO);
    close(log[0]);
    execl(options.router.c_str(), "prism-router", "--model", options.model.c_str(), "--vision-encoders",
          encoder_address.c_str(), "--decoders", decoder_addresses.c_str(), "--port", "0", "--metrics-port",
          "0", "--max-waiting", "4096", nullptr);
    std::perror("cannot start the router");
    _exit(127);
  }
  close(log[1]);
  std::string said, address;
  char piece[4096];
  for (ssize_t size = 0; address.empty() && (size = read(log[0], piece, sizeof(piece))) > 0;) {
    said.append(piece, static_cast<size_t>(size));
    const size_t at = said.find("\"address\":\"", said.find("\"serving\""));
    if (said.find("\"serving\"") != std::string::npos && at != std::string::npos) {
      address = said.substr(at + 11, said.find('"', at + 11) - at - 11);
    }
  }
  if (address.empty()) {
    std::fprintf(stderr, "bench_router: the router did not start: %s\n", said.c_str());
    return 1;
  }
  // Nobody reads on, so the log must not fill the pipe.
  fcntl(log[0], F_SETPIPE_SZ, 1 << 20);

  std::vector<std::unique_ptr<v1::Router::Stub>> routers;
  std::vector<std::unique_ptr<v1::Decoder::Stub>> stubs;
  for (const std::string& decoder : addresses) {
    routers.push_back(v1::Router::NewStub(NewChannel(address)));
    stubs.push_back(v1::Decoder::NewStub(NewChannel(decoder)));
  }
  while (true) {
    grpc::ClientContext context;
    v1::ListReplicasResponse replicas;
    const bool listed = routers[0]->ListReplicas(&context, {}, &replicas).ok();
    bool ready = listed && replicas.replicas_size() == options.decoders + 1;
    for (const auto& replica : replicas.replicas()) {
      ready = ready && replica.ready();
      if (replica.why_not().find("want") != std::string::npos ||
          replica.why_not().find("says") != std::string::npos) {
        std::fprintf(stderr, "bench_router: %s\n", replica.why_not().c_str());
        return 1;
      }
    }
    if (ready) break;
    std::this_thread::sleep_for(milliseconds(20));
  }
  const auto through = [&](int i, SendTimes* times, Heard* heard) {
    StartChat(routers[static_cast<size_t>(i % options.decoders)].get(), options, i, times, heard);
  };
  const auto direct = [&](int i, SendTimes* times, Heard* heard) {
    StartGenerate(stubs[static_cast<size_t>(i % options.decoders)].get(), options, i, times, heard);
  };
  const auto nothing = [] {};
  const double tokens = static_cast<double>(options.streams) * options.tokens;
  std::printf("%d streams of %d tokens, %d CPUs shared by router, echo backends and clients\n",
              options.streams, options.tokens, AvailableCpus());

  // Memory first: what an allocator keeps of earlier streams would hide what these take.
  const double calm_kib = MemoryKib(pid);
  double peak_kib = 0;
  RunStreams(decoders, options, true, through, [&] { peak_kib = MemoryKib(pid); });
  std::printf("memory: %.0f KiB before, %.0f KiB with all streams open: %.1f KiB a stream\n", calm_kib,
              peak_kib, (peak_kib - calm_kib) / options.streams);

  const std::vector<double> yardstick = RunStreams(decoders, options, true, direct, nothing);
  double cpu = CpuSeconds(pid);
  SteadyTime begun = Clock::Real().Now();
  const std::vector<double> routed = RunStreams(decoders, options, true, through, nothing);
  const double paced_s = SecondsBetween(begun, Clock::Real().Now());
  const auto show = [](const char* name, const std::vector<double>& times) {
    std::printf("%s: p50 %.2f ms, p99 %.2f ms, worst %.2f ms\n", name, 1e3 * Quantile(times, .5),
                1e3 * Quantile(times, .99), 1e3 * times.back());
  };
  std::printf("a token each %d ms a stream, %.0f tokens/s, the router busy for %.0f %% of a core\n",
              options.interval_ms, tokens / paced_s, 100 * (CpuSeconds(pid) - cpu) / paced_s);
  show("  at the decoder", yardstick);
  show("  through the router", routed);
  std::printf("  added: p50 %.2f ms, p99 %.2f ms\n", 1e3 * (Quantile(routed, .5) - Quantile(yardstick, .5)),
              1e3 * (Quantile(routed, .99) - Quantile(yardstick, .99)));

  for (int turn = 0; turn < 3; ++turn) {
    cpu = CpuSeconds(pid);
    begun = Clock::Real().Now();
    RunStreams(decoders, options, false, through, nothing);
    const double seconds = SecondsBetween(begun, Clock::Real().Now());
    const double used = CpuSeconds(pid) - cpu;
    std::printf(
        "throughput: %.0f tokens/s; the router took %.2f CPU s of %.2f s: %.0f tokens/s of a busy core\n",
        tokens / seconds, used, seconds, tokens / used);
  }
  kill(pid, SIGTERM);
  waitpid(pid, nullptr, 0);
  for (const std::unique_ptr<RpcServer>& server : servers) server->Shutdown(milliseconds(1000));
  return 0;
}

}  // namespace
}  // namespace prism

int main(int argc, char** argv) {
  prism::Options options;
  prism::FlagSet flags("bench_router", "What the router costs, between echo backends.");
  flags.Add("--streams", &options.streams, "Chats at once", {.min = 1, .max = 4096});
  flags.Add("--decoders", &options.decoders, "Echo decoders, and connections of clients",
            {.min = 1, .max = 64});
  flags.Add("--tokens", &options.tokens, "Tokens of each", {.min = 1, .max = 100000});
  flags.Add("--interval-ms", &options.interval_ms, "Between two tokens of a stream, for the latency",
            {.unit = "ms", .min = 1, .max = 10000});
  flags.Add("--model", &options.model, "The folder whose tokenizer the router uses");
  flags.Add("--router", &options.router, "The router's program; empty: beside this one");
  flags.Add("--hidden-size", &options.hidden_size, "Of the folder's model", {.required = true});
  flags.Add("--num-deepstack", &options.num_deepstack, "Of the folder's model", {.required = true});
  if (const auto exit_code = flags.Parse(argc, argv)) return *exit_code;
  if (options.router.empty()) {
    const std::string self = argv[0];
    options.router = self.substr(0, self.rfind('/') + 1) + "prism-router";
  }
  prism::InitLog("bench_router", "warning");
  return prism::Main(options);
}
