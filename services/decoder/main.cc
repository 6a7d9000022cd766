// prism-decoder: token ids and embedding handles in, token ids out.
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <cstdlib>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "common/base/hash.h"
#include "common/base/ids.h"
#include "common/base/log.h"
#include "common/base/status.h"
#include "common/base/thread.h"
#include "common/checkpoint/checkpoint.h"
#include "common/metrics/build_info.h"
#include "common/metrics/gpu_metrics.h"
#include "common/metrics/metrics_server.h"
#include "common/rpc/flags.h"
#include "common/rpc/server.h"
#include "common/rpc/signals.h"
#include "common/text/tokenizer.h"
#include "kernels/backends/create_backend.h"
#include "kernels/comm/communicator.h"
#include "kernels/device/fault.h"
#include "services/decoder/decoder_service.h"
#include "services/decoder/decoder_sizes.h"
#include "services/decoder/embeddings/embedding_puller.h"
#include "services/decoder/engine/engine.h"
#include "services/decoder/engine/rank_group.h"
#include "services/decoder/engine/self_check.h"
#include "services/decoder/metrics.h"
#include "services/decoder/sampling/answer_grammar.h"
#include "services/decoder/sampling/token_vocabulary.h"

namespace prism {
namespace {

constexpr std::chrono::milliseconds kWatch{200};  // between looks at signals and liveness
constexpr int kPullThreads = 4;
// A step on a GPU takes milliseconds. With the watch's grace and the end of the process this stays below 10
// s.
constexpr int kRankTimeoutOnDevice = 6;
// What answers under way get to be told their end when the ranks are lost.
constexpr std::chrono::milliseconds kFarewell{500};

struct Flags {
  ServiceFlags service;
  std::string model;
  std::string served_model_name;
  std::string device = "auto";
  std::string load_format = "auto";
  uint64_t synthetic_seed = 0;
  double gpu_memory_utilization = 0.9;
  SizeFlags sizes;
  std::string moe_shard = "ids";
  int64_t max_waiting = 128;
  int64_t max_waiting_tokens = 0;
  int64_t max_waiting_embedding_bytes = 0;
  int objective_ms = 10000;
  int mixed_step_ms = 200;
  int64_t growth_tokens = 256;
  bool prefix_caching = true;
  int embedding_timeout_s = 30;
  int step_timeout_s = 60;
  int rank_timeout_s = 0;
};

void AddFlags(FlagSet& set, Flags& flags) {
  AddServiceFlags(&set, &flags.service);
  set.Add("--model", &flags.model, "Hugging Face folder of a Qwen3-VL checkpoint", {.required = true});
  set.Add("--served-model-name", &flags.served_model_name,
          "Name that clients ask for; the folder's name if empty");
  set.Add("--device", &flags.device, "Where to compute; auto takes the best there is",
          {.choices = DeviceNames()});
  set.Add("--gpu-memory-utilization", &flags.gpu_memory_utilization,
          "The part of a GPU's memory that may be in use, by whichever process, once KV pages are taken",
          {.min = 0.05, .max = 0.99});
  set.Add("--load-format", &flags.load_format,
          "Where the weights come from; synthetic makes them from a seed",
          {.choices = {"auto", "safetensors", "synthetic"}});
  set.Add("--synthetic-seed", &flags.synthetic_seed, "Seed of synthetic weights");
  set.Add("--tensor-parallel-size", &flags.sizes.tensor_parallel_size, "Ranks that share the model",
          {.unit = "ranks", .min = 1, .max = 4});
  set.Add("--moe-shard", &flags.moe_shard,
          "How ranks share the experts: whole ones, with the same answers on 1, 2 and 4 ranks, or a slice of "
          "each",
          {.choices = {"ids", "intermediate"}});
  set.Add("--max-model-len", &flags.sizes.max_model_len,
          "Longest prompt and answer together; 0: what the model and the KV memory allow",
          {.unit = "tokens", .min = 0, .max = 1 << 24});
  set.Add("--max-num-seqs", &flags.sizes.max_num_seqs, "Sequences computed at once",
          {.unit = "sequences", .min = 1, .max = 4096});
  set.Add("--max-num-batched-tokens", &flags.sizes.max_num_batched_tokens,
          "Tokens of a step, and so the largest chunk of a prompt",
          {.unit = "tokens", .min = 1, .max = 65536});
  set.Add("--kv-cache-bytes", &flags.sizes.kv_cache_bytes,
          "KV memory of each rank; 0: a whole context, within a quarter of the machine",
          {.unit = "bytes", .min = 0, .max = 1e15});
  set.Add("--kv-growth-tokens", &flags.growth_tokens,
          "Tokens beyond the prompt that a sequence is promised pages for at admission",
          {.unit = "tokens", .min = 0, .max = 1 << 24});
  set.Add("--enable-prefix-caching", &flags.prefix_caching,
          "Keep the KV pages of ended requests for those that begin alike");
  set.Add("--max-waiting", &flags.max_waiting, "Requests that may wait; more are refused",
          {.unit = "requests", .min = 1, .max = 65536});
  set.Add("--max-waiting-tokens", &flags.max_waiting_tokens,
          "Prompt tokens that may wait, of all requests; more are refused. 0: not bounded",
          {.unit = "tokens", .min = 0, .max = 1e12});
  set.Add("--max-waiting-embedding-bytes", &flags.max_waiting_embedding_bytes,
          "Bytes of embeddings that waiting requests may name; more are refused. 0: not bounded",
          {.unit = "bytes", .min = 0, .max = 1e15});
  set.Add("--mixed-step-ms", &flags.mixed_step_ms,
          "Prompts come in smaller chunks while others decode, so that a step takes so long",
          {.unit = "ms", .min = 1, .max = 60000});
  set.Add("--objective-ms", &flags.objective_ms,
          "Requests that do not say when they want their first token are due so long after they came",
          {.unit = "ms", .min = 1, .max = kObjectiveMsMax});
  set.Add("--threads", &flags.sizes.threads, "CPU threads that the ranks share; 0: one a CPU",
          {.unit = "threads", .min = 0, .max = 1024});
  set.Add("--embedding-cache-bytes", &flags.sizes.embedding_cache_bytes,
          "Memory for embeddings, in use and kept for later; 0: eight contexts of them, at most 1 GiB",
          {.unit = "bytes", .min = 0, .max = 1e15});
  set.Add("--embedding-timeout-s", &flags.embedding_timeout_s, "How long one embedding may take to arrive",
          {.unit = "s", .min = 1, .max = 600});
  set.Add("--step-timeout-s", &flags.step_timeout_s, "A step under way for longer makes /healthz fail",
          {.unit = "s", .min = 1, .max = 3600});
  set.Add("--rank-timeout-s", &flags.rank_timeout_s,
          "A rank whose step is under way for longer ends the program; 0: 6 on a GPU, no limit on a CPU",
          {.unit = "s", .min = 0, .max = 3600});
}

// Everything behind the RPCs, made by the loading thread.
struct Decoder {
  std::unique_ptr<Backend> backend;
  std::unique_ptr<GpuMetrics> gpu_metrics;
  std::unique_ptr<TokenVocabulary> vocabulary;
  std::unique_ptr<AnswerGrammars> grammars;  // null: the model has no tokenizer
  std::unique_ptr<Engine> engine;
  ModelLimits limits;
  v1::DescribeResponse description;
  DecoderMetrics metrics;
};

v1::DescribeResponse DescriptionOf(const Checkpoint& checkpoint, const Flags& flags, const Backend& backend,
                                   const DecoderSizes& sizes, MoeShard moe_shard, const std::string& digest,
                                   const std::string& name) {
  const ModelConfig& config = checkpoint.config();
  v1::DescribeResponse description;
  description.set_role("decoder");
  description.set_model(name);
  description.set_weights_digest(absl::HexStringToBytes(digest));
  description.set_numerics_id(absl::StrCat(
      config.model_type, "-", std::string(backend.numerics_id()),
      NumericsSuffix(config.text, moe_shard, static_cast<int>(flags.sizes.tensor_parallel_size))));
  description.set_device(std::string(backend.name()));
  description.set_tensor_parallel_size(static_cast<uint32_t>(flags.sizes.tensor_parallel_size));
  description.set_build(BuildName());
  description.set_api_version(1);
  description.set_incarnation(NewIdBytes());
  description.set_model_length_max(static_cast<uint64_t>(sizes.model_length_max));
  description.set_sequences_max(static_cast<uint64_t>(flags.sizes.max_num_seqs));
  description.set_hidden_size(static_cast<uint64_t>(config.text.hidden_size));
  description.set_num_deepstack(static_cast<uint64_t>(config.vision.num_deepstack()));
  return description;
}

ModelLimits LimitsOf(const ModelConfig& config, const DecoderSizes& sizes) {
  ModelLimits limits;
  limits.vocab_size = config.text.vocab_size;
  limits.model_length_max = sizes.model_length_max;
  limits.image_token_id = config.image_token_id;
  limits.video_token_id = config.video_token_id;
  for (const int64_t id : config.eos_token_ids) limits.end_token_ids.push_back(static_cast<int32_t>(id));
  limits.embeddings = {.hidden_size = config.text.hidden_size,
                       .num_deepstack = config.vision.num_deepstack(),
                       .num_tokens_max = sizes.model_length_max};
  return limits;
}

absl::StatusOr<std::unique_ptr<RankGroup>> LoadRanks(Backend& backend, int device_index,
                                                     const Checkpoint& checkpoint, const Flags& flags,
                                                     const DecoderSizes& sizes, MoeShard moe_shard) {
  const auto num_ranks = static_cast<int>(flags.sizes.tensor_parallel_size);
  std::vector<RankOptions> options;
  for (int rank = 0; rank < num_ranks; ++rank) {
    options.push_back({.stream = {.device_index = device_index + (backend.has_device_memory() ? rank : 0),
                                  .num_threads = sizes.threads_per_rank},
                       .kv_pages = sizes.kv_pages,
                       .kv_pages_max = sizes.kv_pages_max,
                       .memory_part = flags.gpu_memory_utilization,
                       .rows_max = flags.sizes.max_num_batched_tokens,
                       .sequences_max = flags.sizes.max_num_seqs,
                       .pages_max = PagesFor(sizes.model_length_max),
                       .logit_rows_max = sizes.logit_rows_max,
                       .moe_shard = moe_shard});
  }
  PRISM_ASSIGN_OR_RETURN(std::vector<std::unique_ptr<Communicator>> group,
                         CreateGroup(backend, device_index, num_ranks));
  RankWatchOptions watch{.step_max = std::chrono::seconds(flags.rank_timeout_s)};
  if (flags.rank_timeout_s == 0 && backend.has_device_memory()) {
    watch.step_max = std::chrono::seconds(kRankTimeoutOnDevice);
  }
  return RankGroup::Load(backend, checkpoint, std::move(group), options, std::move(watch));
}

// A checkpoint without a tokenizer can answer, but not in a given form.
absl::Status LoadGrammars(const Checkpoint& checkpoint, int threads, Decoder* decoder) {
  absl::StatusOr<std::unique_ptr<Tokenizer>> tokenizer =
      Tokenizer::Load(checkpoint.directory() + "/tokenizer.json");
  if (absl::IsNotFound(tokenizer.status())) {
    LogWarning("no grammar can be enforced: the model has no tokenizer.json");
    return absl::OkStatus();
  }
  PRISM_RETURN_IF_ERROR(tokenizer.status());
  decoder->vocabulary = std::make_unique<TokenVocabulary>(
      **tokenizer, static_cast<int32_t>(checkpoint.config().text.vocab_size));
  decoder->grammars =
      std::make_unique<AnswerGrammars>(decoder->vocabulary.get(), threads, decoder->metrics.grammar);
  return absl::OkStatus();
}

absl::StatusOr<std::unique_ptr<Decoder>> LoadDecoder(const Flags& flags, MetricRegistry* registry) {
  const SteadyTime began = Clock::Real().Now();
  auto decoder = std::make_unique<Decoder>();
  PRISM_ASSIGN_OR_RETURN(ChosenBackend chosen, CreateBackend(flags.device));
  decoder->backend = std::move(chosen.backend);

  GpuMetricsOptions gpus;
  for (int rank = 0; rank < flags.sizes.tensor_parallel_size; ++rank) {
    gpus.pci_bus_ids.push_back(decoder->backend->PciBusId(chosen.device_index + rank));
  }
  decoder->gpu_metrics = GpuMetrics::Start(registry, gpus);

  CheckpointOptions options{.part = CheckpointPart::kText, .synthetic_seed = flags.synthetic_seed};
  PRISM_ASSIGN_OR_RETURN(options.format, ParseLoadFormat(flags.load_format));
  PRISM_ASSIGN_OR_RETURN(const MoeShard moe_shard, ParseMoeShard(flags.moe_shard));
  PRISM_ASSIGN_OR_RETURN(const std::unique_ptr<Checkpoint> checkpoint,
                         Checkpoint::Open(flags.model, options));
  MachineSizes machine = ThisMachine();
  machine.device_memory = decoder->backend->has_device_memory();
  PRISM_ASSIGN_OR_RETURN(DecoderSizes sizes, SizeDecoder(checkpoint->config(), flags.sizes, machine,
                                                         decoder->backend->activation_dtype()));
  PRISM_ASSIGN_OR_RETURN(std::unique_ptr<RankGroup> ranks, LoadRanks(*decoder->backend, chosen.device_index,
                                                                     *checkpoint, flags, sizes, moe_shard));
  PRISM_RETURN_IF_ERROR(SetKvPages(flags.sizes, ranks->kv_pages(), &sizes));
  PRISM_RETURN_IF_ERROR(SelfCheck(*ranks, sizes.kv_pages, flags.sizes.max_num_batched_tokens));
  ParallelPool pool(sizes.threads_per_rank);
  PRISM_ASSIGN_OR_RETURN(const std::string digest, checkpoint->WeightsDigest(CheckpointPart::kText, &pool));

  const std::string name =
      flags.served_model_name.empty() ? ModelNameOf(flags.model) : flags.served_model_name;
  decoder->metrics = DecoderMetrics(
      registry, {.model_name = name, .model_length_max = sizes.model_length_max, .kv_pages = sizes.kv_pages});
  AddBuildInfo(registry, digest);
  decoder->limits = LimitsOf(checkpoint->config(), sizes);
  decoder->description = DescriptionOf(*checkpoint, flags, *decoder->backend, sizes, moe_shard, digest, name);
  PRISM_RETURN_IF_ERROR(LoadGrammars(*checkpoint, sizes.sampling_threads, decoder.get()));
  auto puller = std::make_unique<EmbeddingPuller>(
      EmbeddingPullerOptions{.memory_bytes = sizes.embedding_cache_bytes,
                             .num_threads = kPullThreads,
                             .timeout = std::chrono::seconds(flags.embedding_timeout_s),
                             .memory_used_bytes = decoder->metrics.embedding_memory_bytes});
  decoder->engine = std::make_unique<Engine>(
      EngineOptions{.scheduler = {.max_num_seqs = flags.sizes.max_num_seqs,
                                  .max_num_batched_tokens = flags.sizes.max_num_batched_tokens,
                                  .growth_tokens = flags.growth_tokens,
                                  .score_rows_max = sizes.score_rows_max},
                    .kv_pages = sizes.kv_pages,
                    .prefix_caching = flags.prefix_caching,
                    .numerics_id = decoder->description.numerics_id(),
                    .weights_digest = digest,
                    .max_waiting = flags.max_waiting,
                    .max_waiting_tokens = flags.max_waiting_tokens,
                    .max_waiting_embedding_bytes = flags.max_waiting_embedding_bytes,
                    .mixed_step = std::chrono::milliseconds(flags.mixed_step_ms),
                    .objective = std::chrono::milliseconds(flags.objective_ms),
                    .step_max = std::chrono::seconds(flags.step_timeout_s),
                    .sampling_threads = sizes.sampling_threads},
      std::move(ranks), std::move(puller), decoder->metrics);
  LogInfo("model loaded", {{"model", name},
                           {"weights", digest},
                           {"device", std::string(decoder->backend->name())},
                           {"tensor_parallel_size", flags.sizes.tensor_parallel_size},
                           {"threads_per_rank", sizes.threads_per_rank},
                           {"model_length_max", sizes.model_length_max},
                           {"kv_pages", sizes.kv_pages},
                           {"kv_page_bytes", sizes.kv_page_bytes},
                           {"seconds", SecondsBetween(began, Clock::Real().Now())}});
  return decoder;
}

int Fail(const absl::Status& status) {
  LogError("cannot start", {{"error", status.ToString()}});
  return 1;
}

// Loads on a thread of its own, so that a signal ends the process meanwhile. Null if one did.
absl::StatusOr<std::unique_ptr<Decoder>> LoadUnlessTerminated(const Flags& flags, MetricRegistry* registry) {
  absl::StatusOr<std::unique_ptr<Decoder>> result = absl::UnknownError("not loaded");
  std::atomic<bool> loaded{false};
  NamedThread loader("loader", [&] {
    result = LoadDecoder(flags, registry);
    loaded.store(true);
  });
  while (!loaded.load()) {
    if (WaitForTermination(kWatch / 10) == 0) continue;
    LogInfo("terminated while loading");
    std::_Exit(0);
  }
  loader.Join();
  return result;
}

int Run(const Flags& flags) {
  if (const absl::Status armed = ArmFaultFromEnvironment(); !armed.ok()) return Fail(armed);
  MetricRegistry registry;
  std::atomic<Engine*> engine{nullptr};
  const auto ready = [&engine]() -> absl::Status {
    Engine* const loaded = engine.load();
    return loaded == nullptr ? absl::UnavailableError("the model is not loaded") : loaded->Live();
  };
  const auto live = [&engine]() -> absl::Status {
    Engine* const loaded = engine.load();
    return loaded == nullptr ? absl::OkStatus() : loaded->Live();
  };
  // The ports come first: one that is taken is told before the weights are read.
  DecoderService service;
  absl::StatusOr<std::unique_ptr<RpcServer>> server =
      RpcServer::Start({.host = flags.service.host,
                        .port = flags.service.port,
                        .reflection = flags.service.reflection,
                        .health_names = {"prism.v1.Decoder", "liveness", "readiness"},
                        .metrics = &registry},
                       {&service});
  if (!server.ok()) return Fail(server.status());
  absl::StatusOr<std::unique_ptr<MetricsServer>> metrics = MetricsServer::Start(
      &registry,
      {.host = flags.service.metrics_host, .port = flags.service.metrics_port, .live = live, .ready = ready});
  if (!metrics.ok()) return Fail(metrics.status());

  absl::StatusOr<std::unique_ptr<Decoder>> decoder = LoadUnlessTerminated(flags, &registry);
  if (!decoder.ok()) {
    // No call is waiting for an engine, so this does not block.
    (*server)->Shutdown(std::chrono::milliseconds(0));
    return Fail(decoder.status());
  }
  engine.store((*decoder)->engine.get());
  service.Serve((*decoder)->engine.get(), (*decoder)->limits, (*decoder)->description, (*decoder)->metrics,
                (*decoder)->grammars.get());
  (*server)->SetServing(true);
  LogInfo("ready", {{"address", (*server)->address()}, {"metrics_port", (*metrics)->port()}});

  bool serving = true;
  while (WaitForTermination(kWatch) == 0) {
    if (const absl::Status healthy = (*decoder)->engine->Healthy(); !healthy.ok()) {
      LogError("the decoder ends: its ranks are lost", {{"error", healthy.message()}});
      service.Drain();
      (*server)->Shutdown(kFarewell);
      // Not by way of destructors: they would wait for a device that may never be done.
      std::_Exit(1);
    }
    const bool alive = (*decoder)->engine->Live().ok();
    if (alive != serving) {
      (*server)->SetServing(alive);
      LogWarning(alive ? "the engine is alive again" : "the engine makes no progress");
      serving = alive;
    }
  }
  LogInfo("draining", {{"running", (*decoder)->engine->Load().running}});
  (*decoder)->engine->Drain();
  service.Drain();
  const ExitAtNextSignal impatience;
  (*server)->Shutdown(std::chrono::seconds(flags.service.drain_timeout_s));
  if ((*decoder)->grammars != nullptr) (*decoder)->grammars->Stop();
  metrics->reset();  // asks the engine whether it lives
  LogInfo("stopped");
  return 0;
}

}  // namespace
}  // namespace prism

int main(int argc, char** argv) {
  prism::BlockTermination();
  prism::Flags flags;
  flags.service.port = 50071;
  flags.service.metrics_port = 9103;
  prism::FlagSet set("prism-decoder", "Computes answers: token ids and embedding handles in, token ids out.");
  prism::AddFlags(set, flags);
  if (const std::optional<int> exit_code = set.Parse(argc, argv)) return *exit_code;
  prism::InitLog("prism-decoder", flags.service.log_level);
  return prism::Run(flags);
}
