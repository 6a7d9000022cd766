#include "services/cli/up.h"

#include <poll.h>
#include <signal.h>
#include <sys/eventfd.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <deque>
#include <fstream>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>
#include <utility>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "common/base/ids.h"
#include "common/base/log.h"
#include "common/base/status.h"
#include "common/base/thread.h"
#include "common/base/try_listen.h"
#include "services/cli/child.h"
#include "services/cli/http_client.h"

namespace prism {
namespace {

using std::chrono::milliseconds;

constexpr char kLoopback[] = "127.0.0.1";
// Another process may take a port between our look at it and our program's; then all start anew.
constexpr int kStartAttempts = 3;
constexpr milliseconds kReadyPoll{50};
constexpr milliseconds kReadyCallTimeout{3'000};
// Between the end of a program and its next start: the first, doubling up to the second.
constexpr milliseconds kBackoffMin{1'000};
constexpr milliseconds kBackoffMax{30'000};
// A program that ran so long before it died starts with the shortest backoff again.
constexpr milliseconds kStable{60'000};

// When each stage must be over, from the first signal: gateway, router, decoders, encoders. The
// gateway's is the long one, because answers under way are completed there; behind it nothing is left.
constexpr milliseconds kStageDeadlines[] = {milliseconds(14'500), milliseconds(16'000), milliseconds(17'500),
                                            milliseconds(18'500)};
constexpr int kGatewayDrainSeconds = 12;
constexpr int kInnerDrainSeconds = 1;

enum Stage { kGateway = 0, kRouter = 1, kDecoder = 2, kVisionEncoder = 3 };

// ---- Ports ---------------------------------------------------------------------------------------------

// Free ports on loopback, below the range from which the kernel takes ports for outgoing connections:
// of those, one could be taken while a program restarts, even by the very peer that tries to reach it.
absl::StatusOr<std::vector<int>> PickPorts(int count) {
  int low = 32768;
  std::ifstream("/proc/sys/net/ipv4/ip_local_port_range") >> low;
  const int first = 10'000;
  const int end = low > first + 1'000 ? low : 65'536;
  std::vector<int> ports;
  int port = first + static_cast<int>(RandomBits64() % static_cast<uint64_t>(end - first));
  for (int tried = 0; tried < end - first && static_cast<int>(ports.size()) < count; ++tried) {
    if (TryListen(kLoopback, port).ok()) ports.push_back(port);
    if (++port == end) port = first;
  }
  if (static_cast<int>(ports.size()) < count) {
    return absl::ResourceExhaustedError(absl::StrCat("fewer than ", count, " free ports on ", kLoopback));
  }
  return ports;
}

// ---- Waiting for readiness -------------------------------------------------------------------------------

// Asks /readyz of every address until all have said 200, then writes to `event`.
class ReadyProbe {
 public:
  ReadyProbe(std::vector<HttpUrl> urls, int event)
      : urls_(std::move(urls)), event_(event), thread_("ready-probe", [this] { Run(); }) {}
  ~ReadyProbe() {
    stop_ = true;
    thread_.Join();
  }
  ReadyProbe(const ReadyProbe&) = delete;

 private:
  void Run() {
    size_t num_ready = 0;
    while (!stop_ && num_ready < urls_.size()) {
      HttpCall call;
      call.path = "/readyz";
      call.idle_timeout = kReadyCallTimeout;
      const absl::StatusOr<HttpReply> reply = SendHttp(urls_[num_ready], call);
      if (reply.ok() && reply->status == 200) {
        ++num_ready;
      } else {
        std::this_thread::sleep_for(kReadyPoll);
      }
    }
    const uint64_t one = 1;
    if (num_ready == urls_.size() && write(event_, &one, sizeof(one)) < 0) LogError("cannot wake up");
  }

  const std::vector<HttpUrl> urls_;
  const int event_;
  std::atomic<bool> stop_{false};
  NamedThread thread_;
};

// ---- The cluster ---------------------------------------------------------------------------------------

struct Member {
  Stage stage;
  int port = 0;
  int metrics_port = 0;
  std::unique_ptr<Child> child;
  std::FILE* log = nullptr;  // its own file, or null
  milliseconds backoff = kBackoffMin;
  std::optional<SteadyTime> restart_at;
};

enum class Outcome { kStopped, kFailed, kPortTaken };

class Cluster {
 public:
  Cluster(const UpOptions& options, std::string bin_dir, int signals)
      : options_(options),
        bin_dir_(std::move(bin_dir)),
        signals_(signals),
        ready_event_(eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)) {}
  ~Cluster() {
    probe_ = nullptr;
    for (Member& member : members_) {
      member.child = nullptr;
      if (member.log != nullptr) std::fclose(member.log);
    }
    close(ready_event_);
    if (!options_.state_file.empty()) unlink(options_.state_file.c_str());
  }
  Cluster(const Cluster&) = delete;

  Outcome Run() {
    const absl::Status started = StartAll();
    if (!started.ok()) return Fail(started.message());
    const SteadyTime start = Clock::Real().Now();
    const SteadyTime start_deadline = start + std::chrono::seconds(options_.start_timeout_s);
    while (true) {
      Poll(std::min(NextRestart(), ready_ ? SteadyTime::max() : start_deadline));
      if (signalled_) return Stop() ? Outcome::kStopped : Outcome::kFailed;
      if (!ready_ && probed_ready_) {
        ready_ = true;
        probe_ = nullptr;
        WriteState();
        std::printf("ready http://%s:%d\n", options_.host.c_str(), gateway_port_);
        std::fflush(stdout);
        LogInfo("ready", {{"seconds", SecondsBetween(start, Clock::Real().Now())}});
      }
      for (Member& member : members_) {
        if (!member.child->Reap()) continue;
        if (!ready_) {
          const std::string words = member.child->LastWords();
          const bool chosen = member.stage != kGateway || options_.port == 0;
          const bool port_taken = chosen && absl::StrContains(words, "ddress already in use");
          if (port_taken) return Outcome::kPortTaken;
          const std::string how = member.child->HowItEnded();
          return Fail(absl::StrCat(member.child->name(), " ended with ", how,
                                   words == how ? "" : absl::StrCat(": ", words)));
        }
        LogError("program ended", {{"name", member.child->name()},
                                   {"how", member.child->HowItEnded()},
                                   {"error", member.child->LastWords()}});
        if (options_.restart) {
          PlanRestart(&member);
        } else if (member.stage == kGateway || member.stage == kRouter) {
          // Nothing can reach what is left.
          return Fail(absl::StrCat(member.child->name(), " ended with ", member.child->HowItEnded()));
        }
        WriteState();
      }
      if (!ready_ && Clock::Real().Now() >= start_deadline) {
        return Fail(absl::StrCat("not ready after ", options_.start_timeout_s, " s"));
      }
      RestartDue();
    }
  }

 private:
  static std::string Address(int port) { return absl::StrCat(kLoopback, ":", port); }

  Outcome Fail(absl::string_view message) {
    std::fprintf(stderr, "prism up: %s\n", std::string(message).c_str());
    Stop();
    return Outcome::kFailed;
  }

  absl::Status StartAll() {
    const int num_members = options_.vision_encoders + options_.decoders + 2;
    PRISM_ASSIGN_OR_RETURN(const std::vector<int> ports, PickPorts(2 * num_members));
    size_t next_port = 0;
    std::vector<std::string> encoders, decoders;
    for (int i = 0; i < options_.vision_encoders; ++i) {
      Member& member = AddMember(kVisionEncoder, ports[next_port], ports[next_port + 1]);
      next_port += 2;
      encoders.push_back(Address(member.port));
      std::vector<std::string> arguments = ModelArguments("prism-vision-encoder", member);
      Pass("--alpha", options_.alpha, &arguments);
      PRISM_RETURN_IF_ERROR(StartMember(absl::StrCat("vision-encoder-", i), std::move(arguments), &member));
    }
    for (int i = 0; i < options_.decoders; ++i) {
      Member& member = AddMember(kDecoder, ports[next_port], ports[next_port + 1]);
      next_port += 2;
      decoders.push_back(Address(member.port));
      std::vector<std::string> arguments = ModelArguments("prism-decoder", member);
      Pass("--tensor-parallel-size", absl::StrCat(options_.tensor_parallel_size), &arguments);
      PassNumber("--max-model-len", options_.max_model_len, &arguments);
      PassNumber("--max-num-seqs", options_.max_num_seqs, &arguments);
      PassNumber("--max-num-batched-tokens", options_.max_num_batched_tokens, &arguments);
      PassNumber("--kv-cache-bytes", options_.kv_cache_bytes, &arguments);
      PRISM_RETURN_IF_ERROR(StartMember(absl::StrCat("decoder-", i), std::move(arguments), &member));
    }
    Member& router = AddMember(kRouter, ports[next_port], ports[next_port + 1]);
    const int router_port = router.port;
    next_port += 2;
    std::vector<std::string> arguments = Arguments("prism-router", kLoopback, router);
    Pass("--model", options_.model, &arguments);
    Pass("--served-model-name", options_.served_model_name, &arguments);
    Pass("--vision-encoders", absl::StrJoin(encoders, ","), &arguments);
    Pass("--decoders", absl::StrJoin(decoders, ","), &arguments);
    PassNumber("--limit-images", options_.limit_images, &arguments);
    Pass("--redis", options_.redis, &arguments);
    if (options_.result_cache_bytes >= 0) {
      Pass("--result-cache-bytes", absl::StrCat(options_.result_cache_bytes), &arguments);
    }
    PassNumber("--queue-wait-ms", options_.queue_wait_ms, &arguments);
    Pass("--limits", options_.limits, &arguments);
    PRISM_RETURN_IF_ERROR(StartMember("router", std::move(arguments), &router));

    gateway_port_ = options_.port != 0 ? options_.port : ports[next_port];
    Member& gateway = AddMember(kGateway, gateway_port_, ports[next_port + 1]);
    arguments = Arguments("prism-gateway", options_.host, gateway);
    Pass("--router", Address(router_port), &arguments);
    if (!options_.api_keys.empty()) arguments.push_back("--require-api-key");
    Pass("--api-keys", options_.api_keys, &arguments);
    PRISM_RETURN_IF_ERROR(StartMember("gateway", std::move(arguments), &gateway));

    // The gateway last: it is ready when the router is, which is when one of each is.
    std::vector<HttpUrl> urls;
    for (const Member& member : members_) {
      if (member.stage != kGateway) urls.push_back({kLoopback, member.metrics_port});
    }
    urls.push_back({options_.host == "0.0.0.0" ? kLoopback : options_.host, gateway_port_});
    WriteState();
    probe_ = std::make_unique<ReadyProbe>(std::move(urls), ready_event_);
    return absl::OkStatus();
  }

  Member& AddMember(Stage stage, int port, int metrics_port) {
    Member member;
    member.stage = stage;
    member.port = port;
    member.metrics_port = metrics_port;
    members_.push_back(std::move(member));
    return members_.back();
  }

  std::vector<std::string> Arguments(const char* program, const std::string& host,
                                     const Member& member) const {
    return {absl::StrCat(bin_dir_, "/", program),
            "--host",
            host,
            "--port",
            absl::StrCat(member.port),
            "--metrics-port",
            absl::StrCat(member.metrics_port),
            "--log-level",
            options_.log_level,
            "--drain-timeout-s",
            absl::StrCat(member.stage == kGateway ? kGatewayDrainSeconds : kInnerDrainSeconds)};
  }
  std::vector<std::string> ModelArguments(const char* program, const Member& member) const {
    std::vector<std::string> arguments = Arguments(program, kLoopback, member);
    Pass("--model", options_.model, &arguments);
    Pass("--device", options_.device, &arguments);
    Pass("--load-format", options_.load_format, &arguments);
    Pass("--synthetic-seed", options_.synthetic_seed, &arguments);
    PassNumber("--threads", options_.threads, &arguments);
    return arguments;
  }
  static void Pass(const char* flag, const std::string& value, std::vector<std::string>* arguments) {
    if (value.empty()) return;
    arguments->push_back(flag);
    arguments->push_back(value);
  }
  static void PassNumber(const char* flag, int64_t value, std::vector<std::string>* arguments) {
    if (value > 0) Pass(flag, absl::StrCat(value), arguments);
  }

  absl::Status StartMember(const std::string& name, std::vector<std::string> arguments, Member* member) {
    if (!options_.log_dir.empty()) {
      const std::string path = absl::StrCat(options_.log_dir, "/", name, ".log");
      member->log = std::fopen(path.c_str(), "ae");
      if (member->log == nullptr)
        return absl::NotFoundError(absl::StrCat("cannot write ", path, ": ", std::strerror(errno)));
    }
    member->child =
        std::make_unique<Child>(name, std::move(arguments), member->log != nullptr ? member->log : stderr);
    return member->child->Start();
  }

  // ---- Living ------------------------------------------------------------------------------------------
  // Waits for output, a signal, an ended child, readiness or `until`, and reads output.
  void Poll(SteadyTime until) {
    std::vector<pollfd> polled = {{signals_, POLLIN, 0}, {ready_event_, POLLIN, 0}};
    for (const Member& member : members_) {
      if (member.child != nullptr && member.child->output() >= 0)
        polled.push_back({member.child->output(), POLLIN, 0});
    }
    int timeout_ms = -1;
    if (until != SteadyTime::max()) {
      const auto left = std::chrono::ceil<milliseconds>(until - Clock::Real().Now());
      timeout_ms = static_cast<int>(std::clamp<int64_t>(left.count(), 0, 60'000));
    }
    if (poll(polled.data(), polled.size(), timeout_ms) < 0) return;
    signalfd_siginfo signal{};
    while (read(signals_, &signal, sizeof(signal)) == sizeof(signal)) {
      if (signal.ssi_signo == SIGCHLD) continue;
      killed_ = signalled_;
      signalled_ = true;
    }
    uint64_t count = 0;
    if (read(ready_event_, &count, sizeof(count)) == sizeof(count)) probed_ready_ = true;
    for (Member& member : members_) {
      if (member.child != nullptr) member.child->ReadOutput();
    }
  }

  SteadyTime NextRestart() const {
    SteadyTime next = SteadyTime::max();
    for (const Member& member : members_) {
      if (member.restart_at.has_value()) next = std::min(next, *member.restart_at);
    }
    return next;
  }

  static void PlanRestart(Member* member) {
    const SteadyTime now = Clock::Real().Now();
    if (now - member->child->started() > kStable) member->backoff = kBackoffMin;
    member->restart_at = now + member->backoff;
    LogInfo("will be started again",
            {{"name", member->child->name()}, {"after_ms", member->backoff.count()}});
    member->backoff = std::min(2 * member->backoff, kBackoffMax);
  }

  void RestartDue() {
    for (Member& member : members_) {
      if (!member.restart_at.has_value() || *member.restart_at > Clock::Real().Now()) continue;
      member.restart_at.reset();
      LogInfo("starting again", {{"name", member.child->name()}, {"starts", member.child->num_starts() + 1}});
      const absl::Status started = member.child->Start();
      if (!started.ok()) {
        LogError("cannot start again", {{"name", member.child->name()}, {"error", started.message()}});
        PlanRestart(&member);
      }
      WriteState();
    }
  }

  // Stops everything in order. False if something had to be killed.
  bool Stop() {
    probe_ = nullptr;
    const SteadyTime start = Clock::Real().Now();
    bool orderly = true;
    for (const Stage stage : {kGateway, kRouter, kDecoder, kVisionEncoder}) {
      const SteadyTime deadline = start + kStageDeadlines[stage];
      for (const Member& member : members_) {
        if (member.stage == stage && member.child != nullptr) member.child->Signal(SIGTERM);
      }
      while (true) {
        bool any = false;
        for (Member& member : members_) {
          if (member.child == nullptr) continue;
          member.child->Reap();
          if (member.stage == stage && member.child->running()) any = true;
        }
        if (!any) break;
        if (killed_ || Clock::Real().Now() >= deadline) {
          for (const Member& member : members_) {
            if (member.stage != stage || member.child == nullptr || !member.child->running()) continue;
            LogWarning("killed", {{"name", member.child->name()}});
            member.child->Signal(SIGKILL);
            orderly = false;
          }
          Poll(Clock::Real().Now() + milliseconds(1'000));
        } else {
          Poll(deadline);
        }
      }
    }
    return orderly;
  }

  void WriteState() const {
    if (options_.state_file.empty()) return;
    nlohmann::ordered_json state;
    state["url"] = absl::StrCat("http://", options_.host, ":", gateway_port_);
    state["ready"] = ready_;
    state["pid"] = getpid();
    state["programs"] = nlohmann::ordered_json::array();
    for (const Member& member : members_) {
      if (member.stage == kRouter) state["router"] = Address(member.port);
      state["programs"].push_back({{"name", member.child->name()},
                                   {"pid", member.child->pid()},
                                   {"port", member.port},
                                   {"metrics_port", member.metrics_port},
                                   {"starts", member.child->num_starts()}});
    }
    // Renamed into place, so that a reader never sees half of it.
    const std::string fresh = options_.state_file + ".new";
    std::ofstream file(fresh, std::ios::trunc);
    file << state.dump(1) << "\n";
    file.close();
    if (!file || std::rename(fresh.c_str(), options_.state_file.c_str()) != 0) {
      LogWarning("cannot write the state file",
                 {{"path", options_.state_file}, {"error", std::strerror(errno)}});
    }
  }

  const UpOptions options_;
  const std::string bin_dir_;
  const int signals_;
  const int ready_event_;
  int gateway_port_ = 0;
  std::deque<Member> members_;  // addresses of members stay
  std::unique_ptr<ReadyProbe> probe_;
  bool probed_ready_ = false;
  bool ready_ = false;
  bool signalled_ = false;
  bool killed_ = false;  // a second signal came
};

std::string OwnDirectory() {
  char path[4096];
  const ssize_t size = readlink("/proc/self/exe", path, sizeof(path));
  const std::string program(path, size > 0 ? static_cast<size_t>(size) : 0);
  return program.substr(0, program.rfind('/'));
}

int Error(absl::string_view message) {
  std::fprintf(stderr, "prism up: %s\n", std::string(message).c_str());
  return 1;
}

}  // namespace

absl::StatusOr<std::string> DemoModel(const std::string& bin_dir) {
  std::string folder = bin_dir;
  while (true) {
    for (const char* place : {"/models/demo", "/share/prism/models/demo"}) {
      struct stat config{};
      if (stat(absl::StrCat(folder, place, "/config.json").c_str(), &config) == 0)
        return absl::StrCat(folder, place);
    }
    if (folder.empty()) break;
    folder.resize(folder.rfind('/') == std::string::npos ? 0 : folder.rfind('/'));
  }
  return absl::NotFoundError(absl::StrCat("no --model was given, and neither ", bin_dir,
                                          " nor a folder above it has the demo model, models/demo"));
}

int Up(const UpOptions& given) {
  UpOptions options = given;
  if (options.model.empty()) {
    absl::StatusOr<std::string> demo = DemoModel(OwnDirectory());
    if (!demo.ok()) return Error(demo.status().message());
    options.model = *std::move(demo);
  }
  struct stat model{};
  if (stat(options.model.c_str(), &model) != 0 || !S_ISDIR(model.st_mode)) {
    return Error(absl::StrCat("--model ", options.model, ": there is no such folder"));
  }
  if (!options.log_dir.empty() && mkdir(options.log_dir.c_str(), 0777) != 0 && errno != EEXIST) {
    return Error(absl::StrCat("--log-dir ", options.log_dir, ": ", std::strerror(errno)));
  }
  const absl::Status free = TryListen(options.host, options.port);
  if (!free.ok()) return Error(free.message());

  sigset_t watched;
  sigemptyset(&watched);
  for (const int signal : {SIGTERM, SIGINT, SIGHUP, SIGCHLD}) sigaddset(&watched, signal);
  sigprocmask(SIG_BLOCK, &watched, nullptr);
  signal(SIGPIPE, SIG_IGN);
  const int signals = signalfd(-1, &watched, SFD_CLOEXEC | SFD_NONBLOCK);
  if (signals < 0) return Error(absl::StrCat("signalfd: ", std::strerror(errno)));

  Outcome outcome = Outcome::kPortTaken;
  for (int attempt = 0; attempt < kStartAttempts && outcome == Outcome::kPortTaken; ++attempt) {
    Cluster cluster(options, OwnDirectory(), signals);
    outcome = cluster.Run();
  }
  close(signals);
  if (outcome == Outcome::kPortTaken) return Error("every attempt to start met a port taken by others");
  return outcome == Outcome::kStopped ? 0 : 1;
}

}  // namespace prism
