// bench_engine: one table of speeds of a model on a device: decode, prompts, pictures, each beside
// its floor.
//
//   bench_engine --model DIR --load-format synthetic [--device cpu] [--batches 1,8,32,128]
//                [--context 1024] [--prompts 1024,8192] [--pictures 1024x768,3840x2160]
//   bench_engine --model DIR --write-checkpoint DIR        synthetic weights as files, nothing timed
//
// The commands for the committed figures stand in docs/kernels/README.md.
#include <cstdio>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_split.h"
#include "benchmarks/engine/engine_bench.h"
#include "benchmarks/engine/floors.h"
#include "common/base/status.h"
#include "common/base/thread.h"
#include "common/checkpoint/checkpoint.h"
#include "common/checkpoint/write_checkpoint.h"
#include "common/metrics/build_info.h"
#include "common/rpc/flags.h"
#include "kernels/backends/create_backend.h"
#include "services/decoder/kv/page.h"

namespace prism::bench {
namespace {

struct Flags {
  std::string model;
  std::string device = "auto";
  std::string load_format = "synthetic";
  uint64_t synthetic_seed = 0;
  std::vector<std::string> batches = {"1", "8", "32", "128"};
  int64_t context = 1024;
  std::vector<std::string> prompts = {"1024", "8192"};
  int64_t chunk = 8192;
  std::vector<std::string> pictures = {"1024x768", "3840x2160"};
  int rounds = 5;
  int threads = 0;
  int tensor_parallel_size = 1;
  std::string moe_shard = "ids";
  bool record = true;
  std::string write_checkpoint;
  double bandwidth_gbs = 0;
  double peak_tflops = 0;
  double attention_tflops = 0;
};

void AddFlags(FlagSet& set, Flags& flags) {
  set.Add("--model", &flags.model, "Folder with the model's config.json", {.required = true});
  set.Add("--device", &flags.device, "Where to compute: auto, cpu, cuda or cuda:N");
  set.Add("--load-format", &flags.load_format, "Where the weights come from",
          {.choices = {"auto", "safetensors", "synthetic"}});
  set.Add("--synthetic-seed", &flags.synthetic_seed, "Seed of synthetic weights");
  set.Add("--batches", &flags.batches, "Sequences that each get a token in a step; \"none\": no such rows");
  set.Add("--context", &flags.context, "Tokens before the generated one",
          {.unit = "tokens", .min = 1, .max = 1 << 20});
  set.Add("--prompts", &flags.prompts, "Lengths of prompts; \"none\": no such rows");
  set.Add("--chunk", &flags.chunk, "Most tokens of a prompt in one step",
          {.unit = "tokens", .min = 1, .max = 1 << 20});
  set.Add("--pictures", &flags.pictures, "Sizes of pictures, as 1024x768; \"none\": no such rows");
  set.Add("--rounds", &flags.rounds, "Rounds that the medians are of", {.min = 1, .max = 1000});
  set.Add("--threads", &flags.threads, "CPU threads of the stream; 0: one a CPU", {.min = 0, .max = 1024});
  set.Add("--tensor-parallel-size", &flags.tensor_parallel_size, "Ranks that share the language model",
          {.unit = "ranks", .min = 1, .max = 4});
  set.Add("--moe-shard", &flags.moe_shard, "How ranks share the experts",
          {.choices = {"ids", "intermediate"}});
  set.Add("--record", &flags.record, "Queue generated rows as one recording where that pays (CUDA graphs)");
  set.Add("--write-checkpoint", &flags.write_checkpoint,
          "Write the synthetic weights to this folder as safetensors files, and time nothing");
  set.Add("--bandwidth-gbs", &flags.bandwidth_gbs, "The device's bandwidth, for floors; 0: an H200's on cuda",
          {.unit = "GB/s", .min = 0});
  set.Add("--peak-tflops", &flags.peak_tflops, "The device's peak of matrix products, for floors",
          {.unit = "TFLOP/s", .min = 0});
  set.Add("--attention-tflops", &flags.attention_tflops, "The device's peak of attention, for floors",
          {.unit = "TFLOP/s", .min = 0});
}

absl::StatusOr<std::vector<int64_t>> Numbers(absl::string_view flag, const std::vector<std::string>& texts) {
  std::vector<int64_t> numbers;
  if (texts == std::vector<std::string>{"none"}) return numbers;
  for (const std::string& text : texts) {
    int64_t number = 0;
    if (!absl::SimpleAtoi(text, &number) || number < 1) {
      return absl::InvalidArgumentError(absl::StrCat(flag, ": ", text, " is not a number of at least 1"));
    }
    numbers.push_back(number);
  }
  return numbers;
}

// Patches along both sides of a picture as the encoder would resize it: sides of whole, even patches.
struct PictureSize {
  std::string name;
  int32_t height = 0;
  int32_t width = 0;
};

absl::StatusOr<std::vector<PictureSize>> Pictures(const std::vector<std::string>& texts, int64_t patch) {
  std::vector<PictureSize> sizes;
  if (texts == std::vector<std::string>{"none"}) return sizes;
  for (const std::string& text : texts) {
    const std::vector<std::string> sides = absl::StrSplit(text, 'x');
    int64_t width = 0, height = 0;
    if (sides.size() != 2 || !absl::SimpleAtoi(sides[0], &width) || !absl::SimpleAtoi(sides[1], &height) ||
        width < 2 * patch || height < 2 * patch) {
      return absl::InvalidArgumentError(
          absl::StrCat("--pictures: ", text, " is not WIDTHxHEIGHT of at least ", 2 * patch));
    }
    sizes.push_back({.name = text,
                     .height = static_cast<int32_t>((height + patch) / (2 * patch) * 2),
                     .width = static_cast<int32_t>((width + patch) / (2 * patch) * 2)});
  }
  return sizes;
}

void PrintHead() {
  std::printf(
      "| workload | median ms | least ms | value | floor | floor ratio | experts a layer (uniform) |\n");
  std::printf("|---|---|---|---|---|---|---|\n");
}

// One row: `per_second` what a round does (tokens, pictures), `floor` seconds or 0.
void PrintRow(const std::string& name, const Measurement& m, double per_round, const char* unit, double floor,
              double uniform_experts) {
  const std::string experts =
      m.distinct_experts > 0 ? absl::StrFormat("%.1f (%.1f)", m.distinct_experts, uniform_experts) : "-";
  const std::string bound = floor > 0 ? absl::StrFormat("%.1f %s", per_round / floor, unit) : "-";
  const std::string ratio = floor > 0 ? absl::StrFormat("%.3f", floor / m.median()) : "-";
  std::printf("| %s | %.3f | %.3f | %.1f %s | %s | %s | %s |\n", name.c_str(), 1e3 * m.median(),
              1e3 * m.least(), per_round / m.median(), unit, bound.c_str(), ratio.c_str(), experts.c_str());
  std::fflush(stdout);
}

// What one rank does; the first prints.
absl::Status RunRank(Backend& backend, const Checkpoint& checkpoint, Communicator& comm, const Flags& flags,
                     const TextBenchLimits& limits, const Ceilings& device, const Rounds& rounds) {
  const TextConfig& text = checkpoint.config().text;
  PRISM_ASSIGN_OR_RETURN(const std::vector<int64_t> batches, Numbers("--batches", flags.batches));
  PRISM_ASSIGN_OR_RETURN(const std::vector<int64_t> prompts, Numbers("--prompts", flags.prompts));
  const bool prints = comm.rank() == 0;
  const SteadyTime began = Clock::Real().Now();
  PRISM_ASSIGN_OR_RETURN(const std::unique_ptr<TextBench> bench,
                         TextBench::Create(backend, checkpoint, comm, limits));
  if (prints) {
    std::printf("language model loaded in %.1f s\n\n", SecondsBetween(began, Clock::Real().Now()));
    PrintHead();
  }
  for (const int64_t batch : batches) {
    PRISM_ASSIGN_OR_RETURN(const Measurement m, bench->Decode(batch, flags.context, rounds));
    if (!prints) continue;
    PrintRow(absl::StrCat("decode ", batch, " x ", flags.context), m, static_cast<double>(batch), "tok/s",
             DecodeFloor(text, device, batch, flags.context), ExpectedExperts(text, batch));
  }
  for (const int64_t prompt : prompts) {
    PRISM_ASSIGN_OR_RETURN(const Measurement m, bench->Prefill(prompt, rounds));
    if (!prints) continue;
    PrintRow(absl::StrCat("prompt ", prompt), m, static_cast<double>(prompt), "tok/s",
             PrefillFloor(text, device, prompt), ExpectedExperts(text, std::min(prompt, flags.chunk)));
  }
  if (!prints) return absl::OkStatus();
  PRISM_ASSIGN_OR_RETURN(const std::string digest, bench->LogitsDigest());
  std::printf("\nsha256 of the last step's logits: %s\n\n", digest.c_str());
  return absl::OkStatus();
}

absl::Status WriteWeights(const Flags& flags) {
  PRISM_ASSIGN_OR_RETURN(const std::unique_ptr<Checkpoint> checkpoint,
                         Checkpoint::Open(flags.model, {.format = LoadFormat::kSynthetic,
                                                        .synthetic_seed = flags.synthetic_seed}));
  const SteadyTime began = Clock::Real().Now();
  PRISM_RETURN_IF_ERROR(
      WriteCheckpoint(*checkpoint, flags.write_checkpoint,
                      {.num_threads = flags.threads > 0 ? flags.threads : AvailableCpus()}));
  std::printf("%.2f GB written to %s in %.1f s\n",
              2e-9 * static_cast<double>(CountParameters(checkpoint->weights())),
              flags.write_checkpoint.c_str(), SecondsBetween(began, Clock::Real().Now()));
  return absl::OkStatus();
}

absl::Status RunText(Backend& backend, const Checkpoint& checkpoint, const Flags& flags,
                     const StreamOptions& where, const Ceilings& device, const Rounds& rounds) {
  PRISM_ASSIGN_OR_RETURN(const std::vector<int64_t> batches, Numbers("--batches", flags.batches));
  PRISM_ASSIGN_OR_RETURN(const std::vector<int64_t> prompts, Numbers("--prompts", flags.prompts));
  if (batches.empty() && prompts.empty()) return absl::OkStatus();
  TextBenchLimits limits = {.stream = where, .record = flags.record};
  for (const int64_t batch : batches) {
    limits.rows_max = std::max(limits.rows_max, batch);
    limits.sequences_max = std::max(limits.sequences_max, batch);
    limits.context_max = flags.context + 1;
    limits.pages_max = std::max(limits.pages_max, batch * PagesFor(flags.context + 1));
  }
  for (const int64_t prompt : prompts) {
    limits.rows_max = std::max(limits.rows_max, std::min(prompt, flags.chunk));
    limits.context_max = std::max(limits.context_max, prompt);
    limits.pages_max = std::max(limits.pages_max, PagesFor(prompt));
  }
  PRISM_ASSIGN_OR_RETURN(limits.moe_shard, ParseMoeShard(flags.moe_shard));
  const int num_ranks = flags.tensor_parallel_size;
  PRISM_ASSIGN_OR_RETURN(const std::vector<std::unique_ptr<Communicator>> comms,
                         CreateGroup(backend, where.device_index, num_ranks));
  // A floor of n devices that share all bytes and operations.
  Ceilings together = device;
  for (double* ceiling : {&together.bytes_per_s, &together.matrix_flops, &together.attention_flops}) {
    *ceiling *= num_ranks;
  }
  std::vector<absl::Status> statuses(static_cast<size_t>(num_ranks));
  {
    std::vector<NamedThread> threads;
    for (int rank = 0; rank < num_ranks; ++rank) {
      TextBenchLimits of_rank = limits;
      if (backend.has_device_memory()) of_rank.stream.device_index += rank;
      threads.emplace_back(absl::StrCat("rank", rank), [&, rank, of_rank] {
        const auto place = static_cast<size_t>(rank);
        statuses[place] = RunRank(backend, checkpoint, *comms[place], flags, of_rank, together, rounds);
        if (!statuses[place].ok()) comms[place]->Abort();
      });
    }
  }
  // Those that were waiting for the failed one only say that they were.
  absl::Status status;
  for (const absl::Status& of_rank : statuses) {
    if (!of_rank.ok() && (status.ok() || absl::IsAborted(status))) status = of_rank;
  }
  return status;
}

absl::Status RunTower(Backend& backend, const Checkpoint& checkpoint, const Flags& flags,
                      const StreamOptions& where, const Ceilings& device, const Rounds& rounds) {
  const VisionConfig& vision = checkpoint.config().vision;
  PRISM_ASSIGN_OR_RETURN(const std::vector<PictureSize> pictures,
                         Pictures(flags.pictures, vision.patch_size));
  if (pictures.empty()) return absl::OkStatus();
  PrintHead();
  for (const PictureSize& picture : pictures) {
    PRISM_ASSIGN_OR_RETURN(const Measurement m,
                           MeasureTower(backend, checkpoint, where, picture.height, picture.width, rounds));
    PrintRow(absl::StrCat("picture ", picture.name), m, 1, "pictures/s",
             TowerFloor(vision, device, int64_t{picture.height} * picture.width), 0);
  }
  return absl::OkStatus();
}

absl::Status Run(const Flags& flags) {
  if (!flags.write_checkpoint.empty()) return WriteWeights(flags);
  PRISM_ASSIGN_OR_RETURN(const ChosenBackend chosen, CreateBackend(flags.device));
  Backend* const backend = chosen.backend.get();
  const StreamOptions where = {.device_index = chosen.device_index,
                               .num_threads = flags.threads > 0 ? flags.threads : AvailableCpus()};
  CheckpointOptions options{.part = CheckpointPart::kWhole, .synthetic_seed = flags.synthetic_seed};
  PRISM_ASSIGN_OR_RETURN(options.format, ParseLoadFormat(flags.load_format));
  PRISM_ASSIGN_OR_RETURN(const std::unique_ptr<Checkpoint> checkpoint,
                         Checkpoint::Open(flags.model, options));
  Ceilings device = backend->name() == "cuda" ? kH200 : Ceilings{};
  if (flags.bandwidth_gbs > 0) device.bytes_per_s = 1e9 * flags.bandwidth_gbs;
  if (flags.peak_tflops > 0) device.matrix_flops = 1e12 * flags.peak_tflops;
  if (flags.attention_tflops > 0) device.attention_flops = 1e12 * flags.attention_tflops;
  const Rounds rounds = {.timed = flags.rounds};
  std::printf("%s, backend %s, %s, %s weights\n", BuildName().c_str(), std::string(backend->name()).c_str(),
              flags.model.c_str(), flags.load_format.c_str());
  PRISM_RETURN_IF_ERROR(RunText(*backend, *checkpoint, flags, where, device, rounds));
  return RunTower(*backend, *checkpoint, flags, where, device, rounds);
}

}  // namespace
}  // namespace prism::bench

int main(int argc, char** argv) {
  prism::bench::Flags flags;
  prism::FlagSet set("bench_engine", "Times a model's steps, prompts and pictures beside their floors.");
  prism::bench::AddFlags(set, flags);
  if (const std::optional<int> exit_code = set.Parse(argc, argv)) return *exit_code;
  const absl::Status status = prism::bench::Run(flags);
  if (!status.ok()) std::fprintf(stderr, "bench_engine: %s\n", status.ToString().c_str());
  return status.ok() ? 0 : 1;
}
