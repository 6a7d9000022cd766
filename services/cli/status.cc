#include "services/cli/status.h"

#include <grpcpp/client_context.h>

#include <chrono>
#include <cstdio>
#include <fstream>
#include <iterator>
#include <nlohmann/json.hpp>

#include "absl/strings/str_cat.h"
#include "common/rpc/channel.h"
#include "common/wire/status_codec.h"
#include "prism/v1/router.grpc.pb.h"
#include "services/cli/ask.h"
#include "services/cli/http_client.h"

namespace prism {
namespace {

using nlohmann::json;

constexpr std::chrono::milliseconds kCallTimeout{5'000};

int Error(absl::string_view message) {
  std::fprintf(stderr, "prism status: %s\n", std::string(message).c_str());
  return 1;
}

absl::StatusOr<HttpReply> Get(const HttpUrl& url, const char* path, const std::string& api_key) {
  HttpCall call;
  call.path = path;
  call.api_key = api_key;
  call.idle_timeout = kCallTimeout;
  return SendHttp(url, call);
}

void PrintModels(const std::string& body) {
  const json models = json::parse(body, nullptr, /*allow_exceptions=*/false);
  if (!models.is_object() || !models.contains("data") || !models["data"].is_array()) return;
  for (const json& model : models["data"]) {
    if (!model.is_object()) continue;
    std::printf("model   %s  context %llu tokens\n", model.value("id", "").c_str(),
                static_cast<unsigned long long>(model.value("max_model_len", uint64_t{0})));
  }
}

absl::Status PrintReplicas(const std::string& router) {
  const auto stub = v1::Router::NewStub(NewChannel(router));
  grpc::ClientContext context;
  context.set_deadline(std::chrono::system_clock::now() + kCallTimeout);
  v1::ListReplicasResponse response;
  const grpc::Status status = stub->ListReplicas(&context, v1::ListReplicasRequest(), &response);
  if (!status.ok()) return Annotate(FromGrpc(status), absl::StrCat("router ", router));
  for (const v1::ListReplicasResponse::Replica& replica : response.replicas()) {
    std::printf("%-14s  %-21s  %s  in flight %u  running %u  waiting %u", replica.role().c_str(),
                replica.address().c_str(), replica.ready() ? "ready" : "not ready", replica.in_flight(),
                replica.load().running(), replica.load().waiting());
    if (replica.load().kv_pages_total() > 0) {
      std::printf("  KV pages %llu of %llu", static_cast<unsigned long long>(replica.load().kv_pages_used()),
                  static_cast<unsigned long long>(replica.load().kv_pages_total()));
    }
    std::printf("%s%s\n", replica.why_not().empty() ? "" : "  ", replica.why_not().c_str());
  }
  return absl::OkStatus();
}

}  // namespace

int PrintStatus(const StatusOptions& given) {
  StatusOptions options = given;
  if (!options.state_file.empty()) {
    std::ifstream file(options.state_file);
    const std::string text((std::istreambuf_iterator<char>(file)), std::istreambuf_iterator<char>());
    const json state = json::parse(text, nullptr, /*allow_exceptions=*/false);
    if (!state.is_object() || !state.contains("url") || !state["url"].is_string()) {
      return Error(absl::StrCat(options.state_file, ": is no state file of a running cluster"));
    }
    options.url = state["url"].get<std::string>();
    if (options.router.empty()) options.router = state.value("router", "");
    for (const json& program : state.value("programs", json::array())) {
      if (!program.is_object()) continue;
      std::printf("%-17s  pid %-7d  port %-5d  metrics port %-5d  starts %d\n",
                  program.value("name", "").c_str(), program.value("pid", 0), program.value("port", 0),
                  program.value("metrics_port", 0), program.value("starts", 0));
    }
  }
  const absl::StatusOr<HttpUrl> url = ParseHttpUrl(options.url);
  if (!url.ok()) return Error(url.status().message());
  const absl::StatusOr<HttpReply> ready = Get(*url, "/readyz", options.api_key);
  if (!ready.ok()) return Error(ready.status().message());
  std::printf(
      "gateway %s  %s\n", options.url.c_str(),
      ready->status == 200 ? "ready" : absl::StrCat("not ready: ", ErrorMessageOf(ready->body)).c_str());
  const absl::StatusOr<HttpReply> models = Get(*url, "/v1/models", options.api_key);
  if (models.ok() && models->status == 200) PrintModels(models->body);
  if (models.ok() && models->status == 401) std::printf("model   %s\n", ErrorMessageOf(models->body).c_str());
  if (!options.router.empty()) {
    const absl::Status replicas = PrintReplicas(options.router);
    if (!replicas.ok()) return Error(replicas.message());
  }
  return ready->status == 200 ? 0 : 1;
}

}  // namespace prism
