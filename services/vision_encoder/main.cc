// prism-vision-encoder: pictures in, embeddings by handle out.
#include <algorithm>
#include <chrono>
#include <future>
#include <memory>
#include <string>
#include <utility>

#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "common/base/clock.h"
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
#include "kernels/backends/create_backend.h"
#include "kernels/device/fault.h"
#include "services/vision_encoder/encoder_service.h"
#include "services/vision_encoder/model_tower.h"

namespace prism {
namespace {

struct Flags {
  ServiceFlags service{.port = 50061, .metrics_port = 9102, .drain_timeout_s = 10};
  std::string model;
  std::string device = "auto";
  std::string load_format = "auto";
  uint64_t synthetic_seed = 0;
  std::string alpha = "white";
  int64_t max_image_tokens = 4096;
  int64_t max_image_pixels = 50'000'000;
  int64_t limit_media_bytes = int64_t{32} << 20;
  int64_t media_store_bytes = int64_t{256} << 20;
  int64_t store_bytes = 0;
  int64_t max_batch_patches = 16384;
  int64_t max_queue = 64;
  int64_t lease_ms = 120'000;
  int threads = 0;
  int image_threads = 0;
  std::string advertise_address;
};

void Declare(FlagSet* set, Flags* flags) {
  set->Add("--model", &flags->model, "The Hugging Face folder of the model", {.required = true});
  set->Add("--device", &flags->device, "What the tower runs on; auto takes the best there is",
           {.choices = DeviceNames()});
  set->Add("--load-format", &flags->load_format,
           "Where weights come from; synthetic makes them up from the configuration",
           {.choices = {"auto", "safetensors", "synthetic"}});
  set->Add("--synthetic-seed", &flags->synthetic_seed, "The seed of synthetic weights");
  set->Add("--alpha", &flags->alpha,
           "What becomes of transparency where a request does not say: on white, or ignored",
           {.choices = {"white", "drop"}});
  set->Add("--max-image-tokens", &flags->max_image_tokens,
           "Visual tokens of one picture or clip; larger ones are scaled down",
           {.unit = "tokens", .min = 1, .max = 65536});
  set->Add("--max-image-pixels", &flags->max_image_pixels,
           "Pixels of a picture, or of a clip's frames together, as sent; more are refused",
           {.unit = "pixels", .min = 1, .max = 1e9});
  set->Add("--limit-media-bytes", &flags->limit_media_bytes,
           "Bytes of a picture file; larger ones are refused", {.unit = "bytes", .min = 1, .max = 1e9});
  set->Add("--media-store-bytes", &flags->media_store_bytes,
           "Memory for files that were sent ahead of their Encode", {.unit = "bytes", .min = 1, .max = 1e12});
  set->Add("--store-bytes", &flags->store_bytes,
           "Memory for embeddings; 0: --max-queue of the largest by the checkpoint's bounds, at most 1 GiB",
           {.unit = "bytes", .min = 0, .max = 1e13});
  set->Add("--max-batch-patches", &flags->max_batch_patches,
           "Patches of one pass through the tower; a token has four",
           {.unit = "patches", .min = 4, .max = 1 << 20});
  set->Add("--max-queue", &flags->max_queue, "Encode calls under way at once; more are refused",
           {.unit = "calls", .min = 1, .max = 65536});
  set->Add("--lease-ms", &flags->lease_ms, "How long an embedding is kept for its caller unless extended",
           {.unit = "ms", .min = 1, .max = kLeaseMsMax});
  set->Add("--threads", &flags->threads, "Threads of the tower on a CPU; 0 takes one per CPU",
           {.unit = "threads", .min = 0, .max = 1024});
  set->Add("--image-threads", &flags->image_threads,
           "Threads that decode and resize; 0 takes one per two CPUs",
           {.unit = "threads", .min = 0, .max = 1024});
  set->Add("--advertise-address", &flags->advertise_address,
           "host:port under which decoders reach this encoder; needed where --host is a wildcard; none: "
           "--host and the port");
  AddServiceFlags(set, &flags->service);
}

bool IsWildcard(const std::string& host) {
  return host == "0.0.0.0" || host == "::" || host == "[::]" || host.empty();
}

int64_t EmbeddingBytes(const ModelConfig& config, int64_t num_tokens) {
  return (1 + config.vision.num_deepstack()) * num_tokens * config.vision.out_hidden_size *
         static_cast<int64_t>(sizeof(float));
}

// Without --store-bytes every call under way finds room for the largest picture that a request without
// bounds of its own can make, and the largest that one with bounds can make finds room at all.
int64_t StoreBytes(const Flags& flags, const ModelConfig& config) {
  constexpr int64_t kDefaultMax = int64_t{1} << 30;
  if (flags.store_bytes != 0) return flags.store_bytes;
  const int64_t tokens =
      std::min(flags.max_image_tokens,
               std::max(config.image.max_pixels, config.video.max_pixels / kFramesPerPatch) / kBlockPixels);
  const int64_t usual = std::min(flags.max_queue * EmbeddingBytes(config, tokens), kDefaultMax);
  return std::max(usual, EmbeddingBytes(config, flags.max_image_tokens));
}

// Settings that contradict each other or the model.
absl::Status CheckFlags(const Flags& flags, const ModelConfig& config) {
  if (flags.max_batch_patches < 4 * flags.max_image_tokens) {
    return absl::InvalidArgumentError(absl::StrCat("--max-batch-patches is ", flags.max_batch_patches,
                                                   ", below the ", 4 * flags.max_image_tokens,
                                                   " patches of one picture of --max-image-tokens"));
  }
  const int64_t largest = EmbeddingBytes(config, flags.max_image_tokens);
  if (StoreBytes(flags, config) < largest) {
    return absl::InvalidArgumentError(absl::StrCat("--store-bytes is ", flags.store_bytes,
                                                   ", too few for one embedding of --max-image-tokens, ",
                                                   largest, " bytes"));
  }
  if (flags.media_store_bytes < flags.limit_media_bytes) {
    return absl::InvalidArgumentError(absl::StrCat("--media-store-bytes is ", flags.media_store_bytes,
                                                   ", below --limit-media-bytes, ", flags.limit_media_bytes));
  }
  if (config.vision.patch_size != kPatchSide || config.vision.spatial_merge_size != kMergeSide ||
      config.vision.temporal_patch_size != kFramesPerPatch || config.vision.in_channels != 3) {
    return absl::UnimplementedError("the model's patches are not of 3 x 2 x 16 x 16 merged 2 x 2");
  }
  if (flags.advertise_address.empty() && IsWildcard(flags.service.host)) {
    return absl::InvalidArgumentError(
        absl::StrCat("--advertise-address is needed with --host ", flags.service.host));
  }
  return absl::OkStatus();
}

absl::Status Run(const Flags& flags) {
  PRISM_RETURN_IF_ERROR(ArmFaultFromEnvironment());
  PRISM_ASSIGN_OR_RETURN(const LoadFormat format, ParseLoadFormat(flags.load_format));
  PRISM_ASSIGN_OR_RETURN(const std::unique_ptr<Checkpoint> checkpoint,
                         Checkpoint::Open(flags.model, {.format = format,
                                                        .part = CheckpointPart::kVision,
                                                        .synthetic_seed = flags.synthetic_seed}));
  const ModelConfig& config = checkpoint->config();
  PRISM_RETURN_IF_ERROR(CheckFlags(flags, config));
  const int cpus = AvailableCpus();
  const int threads = flags.threads != 0 ? flags.threads : cpus;
  std::string weights_digest;
  {
    ParallelPool pool(threads);
    PRISM_ASSIGN_OR_RETURN(const std::string hex, checkpoint->WeightsDigest(CheckpointPart::kVision, &pool));
    weights_digest = absl::HexStringToBytes(hex);
  }

  PRISM_ASSIGN_OR_RETURN(const ChosenBackend chosen, CreateBackend(flags.device));
  Backend* const backend = chosen.backend.get();
  MetricRegistry registry;
  AddBuildInfo(&registry, absl::BytesToHexString(weights_digest));
  EncoderMetrics metrics(&registry);
  const std::unique_ptr<GpuMetrics> gpu_metrics =
      GpuMetrics::Start(&registry, {.pci_bus_ids = {backend->PciBusId(chosen.device_index)}});
  MediaStore media({.bytes_max = flags.media_store_bytes, .file_bytes_max = flags.limit_media_bytes});

  EncoderOptions options{.weights_digest = weights_digest,
                         .numerics_id = std::string(backend->numerics_id())};
  options.limits.image_tokens_max = flags.max_image_tokens;
  options.limits.picture.file_bytes_max = flags.limit_media_bytes;
  options.limits.picture.pixels_max = flags.max_image_pixels;
  options.batch.batch_patches_max = flags.max_batch_patches;
  options.batch.pictures_max = flags.max_queue;
  options.store.bytes_max = StoreBytes(flags, config);
  options.image_threads = flags.image_threads != 0 ? flags.image_threads : std::max(1, cpus / 2);
  options.calls_max = flags.max_queue;
  options.lease = std::chrono::milliseconds(flags.lease_ms);

  // Weights are loaded once the ports are ours: a port in use is then told at once.
  std::promise<bool> listening;
  const std::shared_future<bool> is_listening = listening.get_future().share();
  const TowerFactory load = [&, is_listening]() -> absl::StatusOr<std::unique_ptr<Tower>> {
    if (!is_listening.get()) return absl::CancelledError("not listening");
    return LoadModelTower(*backend, {.device_index = chosen.device_index, .num_threads = threads},
                          *checkpoint, flags.max_batch_patches);
  };
  Encoder encoder(options, load, &Clock::Real(), &metrics);

  EncoderService service({.model = ModelNameOf(flags.model),
                          .device = std::string(backend->name()),
                          .alpha = flags.alpha == "drop" ? AlphaMode::kDrop : AlphaMode::kWhite,
                          .budget = {.checkpoint = config.image,
                                     .checkpoint_clip = config.video,
                                     .image_tokens_max = flags.max_image_tokens},
                          .incarnation = NewIdBytes()},
                         &encoder, &media, &metrics);
  const auto start = std::chrono::steady_clock::now();
  std::unique_ptr<MetricsServer> metrics_server;
  std::unique_ptr<RpcServer> server;
  const auto listen = [&]() -> absl::Status {
    PRISM_ASSIGN_OR_RETURN(
        metrics_server, MetricsServer::Start(&registry, {.host = flags.service.metrics_host,
                                                         .port = flags.service.metrics_port,
                                                         .live = [&encoder] { return encoder.Live(); },
                                                         .ready = [&encoder] { return encoder.Ready(); }}));
    PRISM_ASSIGN_OR_RETURN(server, RpcServer::Start({.host = flags.service.host,
                                                     .port = flags.service.port,
                                                     .reflection = flags.service.reflection,
                                                     .health_names = {"prism.v1.VisionEncoder"},
                                                     .metrics = &registry},
                                                    {&service}));
    service.set_address(flags.advertise_address.empty() ? server->address() : flags.advertise_address);
    return absl::OkStatus();
  };
  const absl::Status is_up = listen();
  listening.set_value(is_up.ok());
  PRISM_RETURN_IF_ERROR(is_up);

  LogInfo(
      "listening",
      {{"address", server->address()}, {"port", server->port()}, {"metrics_port", metrics_server->port()}});
  PRISM_RETURN_IF_ERROR(encoder.WaitUntilReady());
  server->SetServing(true);
  LogInfo("ready", {{"model", ModelNameOf(flags.model)},
                    {"device", backend->name()},
                    {"synthetic", checkpoint->synthetic()},
                    {"threads", threads},
                    {"image_threads", options.image_threads},
                    {"seconds", SecondsBetween(start, std::chrono::steady_clock::now())}});

  const int signal = WaitForTermination();
  LogInfo("draining", {{"signal", signal}, {"timeout_s", flags.service.drain_timeout_s}});
  const ExitAtNextSignal impatience;
  service.Drain();
  server->SetServing(false);
  server->Shutdown(std::chrono::seconds(flags.service.drain_timeout_s));
  LogInfo("stopped");
  return absl::OkStatus();
}

}  // namespace
}  // namespace prism

int main(int argc, char** argv) {
  prism::BlockTermination();
  prism::Flags flags;
  prism::FlagSet set("prism-vision-encoder", "Turns pictures into embeddings and keeps them for decoders.");
  prism::Declare(&set, &flags);
  if (const std::optional<int> exit_code = set.Parse(argc, argv)) return *exit_code;
  prism::InitLog("prism-vision-encoder", flags.service.log_level);
  const absl::Status status = prism::Run(flags);
  if (status.ok()) return 0;
  prism::LogError(status.message(), {{"code", absl::StatusCodeToString(status.code())}});
  return 1;
}
