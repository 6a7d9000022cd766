// prism-gateway: the OpenAI API over HTTP, in front of a router.
#include <algorithm>
#include <cstdio>
#include <thread>

#include "common/base/log.h"
#include "common/base/thread.h"
#include "common/metrics/build_info.h"
#include "common/metrics/metrics_server.h"
#include "common/rpc/channel.h"
#include "common/rpc/flags.h"
#include "common/rpc/signals.h"
#include "services/gateway/gateway.h"

namespace prism {
namespace {

struct Flags {
  ServiceFlags service;
  std::string router = "127.0.0.1:50051";
  int threads = 0;
  int request_timeout_s = 300;
  uint64_t limit_body_bytes = 48u << 20;
  uint64_t limit_media_bytes = 32u << 20;
  int max_connections = 1024;
  bool require_api_key = false;
  std::string api_keys;
};

int Run(const Flags& flags) {
  // A file that nobody looks at, or keys that nobody can have, is a mistake to be told at once.
  if (flags.require_api_key == flags.api_keys.empty()) {
    LogError("cannot start", {{"error", flags.require_api_key ? "--require-api-key needs --api-keys"
                                                              : "--api-keys needs --require-api-key"}});
    return 1;
  }
  MetricRegistry registry;
  AddBuildInfo(&registry);
  GatewayOptions options;
  options.host = flags.service.host;
  options.port = flags.service.port;
  options.num_threads = flags.threads > 0 ? flags.threads : std::max(2, AvailableCpus());
  options.body_bytes_max = flags.limit_body_bytes;
  options.media_bytes_max = flags.limit_media_bytes;
  options.connections_max = static_cast<size_t>(flags.max_connections);
  options.request_timeout = std::chrono::seconds(flags.request_timeout_s);
  options.api_key_file = flags.api_keys;
  auto gateway = Gateway::Start(options, NewChannel(flags.router), &registry);
  if (!gateway.ok()) {
    LogError("cannot start", {{"error", gateway.status().message()}});
    return 1;
  }
  MetricsServerOptions metrics;
  metrics.host = flags.service.metrics_host;
  metrics.port = flags.service.metrics_port;
  metrics.ready = [&gateway] { return (*gateway)->Ready(); };
  auto metrics_server = MetricsServer::Start(&registry, metrics);
  if (!metrics_server.ok()) {
    LogError("cannot start", {{"error", metrics_server.status().message()}});
    return 1;
  }
  LogInfo("listening", {{"host", flags.service.host},
                        {"port", (*gateway)->port()},
                        {"metrics_port", (*metrics_server)->port()},
                        {"router", flags.router}});
  WaitForTermination();
  LogInfo("draining", {{"timeout_s", flags.service.drain_timeout_s}});
  const ExitAtNextSignal impatience;
  (*gateway)->Drain(std::chrono::seconds(flags.service.drain_timeout_s));
  LogInfo("stopped");
  return 0;
}

}  // namespace
}  // namespace prism

int main(int argc, char** argv) {
  prism::BlockTermination();
  prism::Flags flags;
  flags.service.port = 8000;
  flags.service.metrics_port = 9100;
  flags.service.drain_timeout_s = 15;
  prism::FlagSet set("prism-gateway", "Serves the OpenAI API over HTTP and sends chats to a router.");
  prism::AddServiceFlags(&set, &flags.service, "HTTP");
  set.Add("--router", &flags.router, "The router's address, as host:port");
  set.Add("--threads", &flags.threads, "HTTP threads; 0 takes one per CPU, and two at least",
          {.unit = "threads", .min = 0, .max = 256});
  set.Add("--request-timeout-s", &flags.request_timeout_s,
          "How long a chat may take from its arrival to its last token",
          {.unit = "s", .min = 1, .max = 86400});
  set.Add("--limit-body-bytes", &flags.limit_body_bytes,
          "The largest body of an HTTP request; pictures in it take a third more than their files",
          {.unit = "bytes", .min = 1024, .max = 1 << 30});
  set.Add("--limit-media-bytes", &flags.limit_media_bytes, "The largest file of one picture",
          {.unit = "bytes", .min = 1, .max = 1 << 30});
  set.Add("--max-connections", &flags.max_connections, "Connections open at a time; more are refused",
          {.unit = "connections", .min = 1, .max = 1 << 20});
  set.Add("--require-api-key", &flags.require_api_key,
          "Answer nobody without one of the keys of --api-keys, but for /healthz and /readyz");
  set.Add("--api-keys", &flags.api_keys,
          "A JSON file of the SHA-256 of each tenant's API keys, read again when it changes; it may be the "
          "router's --limits");
  if (const auto exit_code = set.Parse(argc, argv)) return *exit_code;
  prism::InitLog("prism-gateway", flags.service.log_level);
  return prism::Run(flags);
}
