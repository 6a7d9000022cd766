// prism-router: takes chats and spreads them over vision encoders and decoders.
#include <atomic>
#include <fstream>
#include <memory>
#include <sstream>
#include <string>

#include "absl/strings/str_cat.h"
#include "common/base/hash.h"
#include "common/base/ids.h"
#include "common/base/log.h"
#include "common/base/status.h"
#include "common/metrics/build_info.h"
#include "common/metrics/metrics_server.h"
#include "common/rpc/flags.h"
#include "common/rpc/server.h"
#include "common/rpc/signals.h"
#include "services/router/answer_form.h"
#include "services/router/parts.h"
#include "services/router/redis_result_store.h"
#include "services/router/result_cache.h"
#include "services/router/router_service.h"
#include "services/router/tenant_file.h"

namespace prism {
namespace {

// What leaders of answers that are asked for several times at once may have said and not finished.
constexpr int64_t kResultsInFlightBytesMax = 64 << 20;

struct Flags {
  ServiceFlags service{.port = 50051, .metrics_port = 9101};
  std::string model;
  RouterOptions options;
  std::string limits;
  int64_t queue_wait_ms = 5000;
  int request_timeout_s = 300;
  int encode_timeout_s = 60;
  int64_t silence_timeout_ms = 5000;
  int64_t stuck_timeout_ms = 60000;
  int64_t resume_wait_ms = 15000;
  int journal_ttl_s = 120;
  int orphan_timeout_s = 60;
  int result_cache_ttl_s = 86400;
};

void AddFlags(FlagSet* set, Flags* flags) {
  RouterOptions& options = flags->options;
  set->Add("--model", &flags->model,
           "The Hugging Face folder; only its configuration, tokenizer and template are read",
           {.required = true});
  set->Add("--served-model-name", &options.served_model_name,
           "The name clients ask for; empty takes the folder's own name");
  set->Add("--vision-encoders", &options.vision_encoders,
           "The vision encoders, as host:port,host:port; dns:///name:port stands for all addresses of a name",
           {.required = true});
  set->Add("--decoders", &options.decoders, "The decoders, in the same way", {.required = true});
  AddServiceFlags(set, &flags->service);
  set->Add("--limit-images", &options.limit_images, "Pictures and clips a request may have",
           {.unit = "pictures", .min = 0, .max = 256});
  set->Add("--max-model-len", &options.max_model_len,
           "Tokens of prompt plus answer; 0 takes what checkpoint and decoders allow",
           {.unit = "tokens", .min = 0});
  set->Add("--max-waiting", &options.max_waiting, "Chats that may be without a decoder; more are refused",
           {.unit = "requests", .min = 1, .max = 65536});
  set->Add("--queue-wait-ms", &flags->queue_wait_ms,
           "Chats that would wait longer for a decoder, by the measured rate, are refused",
           {.unit = "ms", .min = 1, .max = 3600000});
  set->Add(
      "--limits", &flags->limits,
      "A JSON file of what each tenant may have: weight, concurrency, tokens_per_minute; none: no limits");
  set->Add("--limit-media-bytes", &options.limit_media_bytes, "The largest picture file",
           {.unit = "bytes", .min = 1, .max = 1 << 30});
  set->Add("--media-bytes", &options.media_bytes,
           "All picture files that are kept; requests beyond it are refused", {.unit = "bytes", .min = 1});
  set->Add("--threads", &options.threads, "Threads that tokenise and hash",
           {.unit = "threads", .min = 1, .max = 256});
  set->Add("--request-timeout-s", &flags->request_timeout_s,
           "The longest a request may take, whatever its caller says", {.unit = "s", .min = 1, .max = 86400});
  set->Add("--encode-timeout-s", &flags->encode_timeout_s, "The longest one encoder may take for one picture",
           {.unit = "s", .min = 1, .max = 86400});
  set->Add("--silence-timeout-ms", &flags->silence_timeout_ms,
           "A decoder that sends nothing for so long, not even a heartbeat, is given up",
           {.unit = "ms", .min = 100, .max = 3600000});
  set->Add("--stuck-timeout-ms", &flags->stuck_timeout_ms,
           "A decoder whose heartbeats say for so long that work is due and no step is done is given up",
           {.unit = "ms", .min = 100, .max = 3600000});
  set->Add(
      "--journal-bytes", &options.journal_bytes,
      "All events that are kept for clients that come back; new resumable requests beyond it are refused",
      {.unit = "bytes", .min = 1});
  set->Add("--journal-ttl-s", &flags->journal_ttl_s,
           "How long a resumable chat's events are kept after its end, or after its last client left",
           {.unit = "s", .min = 1, .max = 86400});
  set->Add("--orphan-timeout-s", &flags->orphan_timeout_s,
           "How long a resumable chat runs on without a client", {.unit = "s", .min = 1, .max = 86400});
  set->Add("--result-cache-bytes", &options.result_cache_bytes,
           "Answers kept for requests that are greedy or name their seed; 0 keeps none",
           {.unit = "bytes", .min = 0});
  set->Add("--result-cache-ttl-s", &flags->result_cache_ttl_s, "How long an answer is kept",
           {.unit = "s", .min = 1, .max = 31536000});
  set->Add("--redis", &options.redis,
           "Keeps these answers in a Redis server, HOST:PORT or unix:PATH, instead of memory");
}

// Null where no answers are kept.
absl::StatusOr<std::unique_ptr<ResultCache>> MakeResultCache(const RouterOptions& options,
                                                             RouterMetrics* metrics) {
  std::unique_ptr<ResultStore> store;
  if (!options.redis.empty()) {
    PRISM_ASSIGN_OR_RETURN(RedisAddress address, ParseRedisAddress(options.redis));
    store = std::make_unique<RedisResultStore>(
        RedisResultStore::Options{.address = std::move(address),
                                  .ttl = options.result_cache_ttl,
                                  .value_bytes_max = ResultCache::kValueBytesMax,
                                  .breaker_state = metrics->redis_breaker});
  } else if (options.result_cache_bytes > 0) {
    store = std::make_unique<MemoryResultStore>(options.result_cache_bytes, options.result_cache_ttl,
                                                &Clock::Real());
  } else {
    return std::unique_ptr<ResultCache>();
  }
  return std::make_unique<ResultCache>(std::move(store), kResultsInFlightBytesMax, &Clock::Real(), metrics);
}

// A digest of all that makes ids of a chat and text of ids.
std::string TemplateId(const std::string& folder) {
  std::string bytes;
  for (const char* name :
       {"tokenizer.json", "tokenizer_config.json", "chat_template.json", "chat_template.jinja"}) {
    std::ifstream file(absl::StrCat(folder, "/", name), std::ios::binary);
    std::ostringstream content;
    if (file) content << file.rdbuf();
    absl::StrAppend(&bytes, name, ":", content.str().size(), ":", content.str());
  }
  const Sha256Digest digest = Sha256Of(bytes.data(), bytes.size());
  return std::string(digest.begin(), digest.end());
}

absl::Status Serve(Flags flags) {
  RouterOptions& options = flags.options;
  options.queue_wait = std::chrono::milliseconds(flags.queue_wait_ms);
  options.request_timeout = std::chrono::seconds(flags.request_timeout_s);
  options.encode_timeout = std::chrono::seconds(flags.encode_timeout_s);
  options.silence_timeout = std::chrono::milliseconds(flags.silence_timeout_ms);
  options.journal_ttl = std::chrono::seconds(flags.journal_ttl_s);
  options.orphan_timeout = std::chrono::seconds(flags.orphan_timeout_s);
  options.result_cache_ttl = std::chrono::seconds(flags.result_cache_ttl_s);
  options.resume_wait = std::chrono::milliseconds(flags.resume_wait_ms);
  options.stuck_timeout = std::chrono::milliseconds(flags.stuck_timeout_ms);
  if (options.served_model_name.empty()) options.served_model_name = ModelNameOf(flags.model);
  PRISM_ASSIGN_OR_RETURN(const ModelConfig model, ReadModelConfig(flags.model));
  PRISM_ASSIGN_OR_RETURN(const std::unique_ptr<Tokenizer> tokenizer,
                         Tokenizer::Load(absl::StrCat(flags.model, "/tokenizer.json")));
  PRISM_ASSIGN_OR_RETURN(const std::unique_ptr<ChatFormat> format,
                         ChatFormat::FromFolder(flags.model, tokenizer.get()));

  MetricRegistry registry;
  AddBuildInfo(&registry);
  RouterMetrics metrics(&registry);
  MediaStore media(options.media_bytes, options.media_idle, &Clock::Real(), &metrics);
  ReplicaSetOptions replicas{.role = ReplicaRole::kVisionEncoder,
                             .addresses = options.vision_encoders,
                             .hidden_size = static_cast<uint64_t>(model.text.hidden_size),
                             .num_deepstack = static_cast<uint64_t>(model.vision.num_deepstack()),
                             .poll_interval = options.poll_interval,
                             .poll_timeout = options.poll_timeout,
                             .resolve_interval = options.resolve_interval,
                             .ready = metrics.encoders_ready};
  ReplicaSet encoders(replicas);
  replicas.role = ReplicaRole::kDecoder;
  replicas.addresses = options.decoders;
  replicas.ready = metrics.decoders_ready;
  ReplicaSet decoders(replicas);
  ReplicaQueue encode_queue(&encoders, metrics.encode_waiting);
  ReplicaQueue generate_queue(&decoders, metrics.generate_waiting);
  TenantTable tenants;
  if (!flags.limits.empty()) {
    PRISM_ASSIGN_OR_RETURN(tenants, ReadTenantFile(flags.limits));
  }
  AdmissionGate gate({.waiting_max = options.max_waiting, .wait_max = options.queue_wait}, std::move(tenants),
                     &Clock::Real(), &metrics);
  PRISM_ASSIGN_OR_RETURN(const std::unique_ptr<ResultCache> results, MakeResultCache(options, &metrics));
  TaskPool pool("prompt", options.threads, static_cast<size_t>(options.max_waiting) * 4 + 64);
  GrammarCache grammars(kGrammarCacheBytesMax, GrammarObserverOf(&metrics));
  // 53 bits, so that a seed survives a JSON number.
  const RouterParts parts{.options = &options,
                          .model = &model,
                          .tokenizer = tokenizer.get(),
                          .format = format.get(),
                          .encoders = &encoders,
                          .decoders = &decoders,
                          .encode_queue = &encode_queue,
                          .generate_queue = &generate_queue,
                          .gate = &gate,
                          .media = &media,
                          .grammars = &grammars,
                          .pool = &pool,
                          .results = results.get(),
                          .template_id = TemplateId(flags.model),
                          .metrics = &metrics,
                          .clock = &Clock::Real(),
                          .draw_seed = [] { return RandomBits64() >> 11; }};
  RouterService service(&parts);
  PRISM_ASSIGN_OR_RETURN(const std::unique_ptr<RpcServer> server,
                         RpcServer::Start({.host = flags.service.host,
                                           .port = flags.service.port,
                                           .concurrent_streams_max = 4096,
                                           .reflection = flags.service.reflection,
                                           .health_names = {"prism.v1.Router"},
                                           .metrics = &registry},
                                          {&service}));
  std::atomic<bool> draining = false;
  const auto ready = [&] { return draining ? absl::UnavailableError("draining") : service.Ready(); };
  PRISM_ASSIGN_OR_RETURN(const std::unique_ptr<MetricsServer> metrics_server,
                         MetricsServer::Start(&registry, {.host = flags.service.metrics_host,
                                                          .port = flags.service.metrics_port,
                                                          .live = nullptr,
                                                          .ready = ready}));
  encoders.Start();
  decoders.Start();
  LogInfo("serving", {{"address", server->address()},
                      {"metrics_port", metrics_server->port()},
                      {"model", options.served_model_name},
                      {"build", BuildName()}});

  bool serving = false;
  while (WaitForTermination(std::chrono::milliseconds(100)) == 0) {
    const bool now = service.Ready().ok();
    if (now != serving) server->SetServing(now);
    serving = now;
  }
  LogInfo("draining", {{"running", service.running()}, {"timeout_s", flags.service.drain_timeout_s}});
  draining = true;
  const ExitAtNextSignal impatience;
  server->Shutdown(std::chrono::seconds(flags.service.drain_timeout_s));
  encoders.Stop();
  decoders.Stop();
  LogInfo("ended");
  return absl::OkStatus();
}

}  // namespace
}  // namespace prism

int main(int argc, char** argv) {
  prism::BlockTermination();
  prism::Flags flags;
  prism::FlagSet set("prism-router", "Takes chats and spreads them over vision encoders and decoders.");
  prism::AddFlags(&set, &flags);
  if (const std::optional<int> exit_code = set.Parse(argc, argv)) return *exit_code;
  prism::InitLog("prism-router", flags.service.log_level);
  const absl::Status status = prism::Serve(std::move(flags));
  if (status.ok()) return 0;
  prism::LogError("cannot serve", {{"why", status.ToString()}});
  return 1;
}
