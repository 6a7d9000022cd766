// bench_replay: the class of classroom.py asked of the engine itself, in this process: no network, no
// router, no encoder. What the services reach beside it is what they cost.
//
//   bench_replay --model DIR --device cuda [--users 50] [--within-s 10] [--tokens 200]
//                [--text-tokens 64] [--picture-tokens 768] [--rounds 3]
//
// Every user's prompt is random ids around a picture whose embedding is random and in host memory already; it
// is submitted at its moment of the first --within-s seconds. Temperature 1, no id ends an answer.
#include <algorithm>
#include <atomic>
#include <cstdio>
#include <memory>
#include <random>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "common/base/mutex.h"
#include "common/base/status.h"
#include "common/checkpoint/checkpoint.h"
#include "common/metrics/build_info.h"
#include "common/rpc/flags.h"
#include "kernels/backends/create_backend.h"
#include "services/decoder/decoder_sizes.h"
#include "services/decoder/engine/engine.h"
#include "services/decoder/engine/rank_group.h"
#include "services/decoder/kv/page.h"

namespace prism::bench {
namespace {

struct Flags {
  std::string model;
  std::string device = "auto";
  std::string load_format = "synthetic";
  int users = 50;
  double within_s = 10;
  int64_t tokens = 200;
  int64_t text_tokens = 64;
  int64_t picture_height = 48;
  int64_t picture_width = 64;
  int rounds = 3;
  SizeFlags sizes;
};

void AddFlags(FlagSet& set, Flags& flags) {
  set.Add("--model", &flags.model, "Folder with the model's config.json", {.required = true});
  set.Add("--device", &flags.device, "Where to compute", {.choices = DeviceNames()});
  set.Add("--load-format", &flags.load_format, "Where the weights come from",
          {.choices = {"auto", "safetensors", "synthetic"}});
  set.Add("--users", &flags.users, "Users, with one question each", {.min = 1, .max = 4096});
  set.Add("--within-s", &flags.within_s, "In which all of them ask", {.unit = "s", .min = 0, .max = 3600});
  set.Add("--tokens", &flags.tokens, "Of an answer", {.unit = "tokens", .min = 2, .max = 1 << 20});
  set.Add("--text-tokens", &flags.text_tokens, "Of a question", {.unit = "tokens", .min = 2, .max = 1 << 20});
  set.Add("--picture-height", &flags.picture_height, "Even", {.unit = "patches", .min = 2, .max = 1024});
  set.Add("--picture-width", &flags.picture_width, "Even", {.unit = "patches", .min = 2, .max = 1024});
  set.Add("--rounds", &flags.rounds, "Classes, one after another", {.min = 1, .max = 100});
  set.Add("--max-num-seqs", &flags.sizes.max_num_seqs, "Sequences computed at once",
          {.unit = "sequences", .min = 1, .max = 4096});
  set.Add("--max-num-batched-tokens", &flags.sizes.max_num_batched_tokens, "Tokens of a step",
          {.unit = "tokens", .min = 1, .max = 65536});
}

// One embedding for everybody, there from the start.
class ReadyEmbeddings final : public EmbeddingSource {
 public:
  ReadyEmbeddings(const Shape& shape, DType dtype) : embedding_{Tensor::Host(dtype, shape)} {
    std::mt19937 random(1);
    std::normal_distribution<float> normal(0, 0.05f);
    for (int64_t i = 0; i < shape.num_elements(); ++i) {
      const float value = normal(random);
      if (dtype == DType::kBF16) {
        embedding_.rows.data<BFloat16>()[i] = BFloat16(value);
      } else {
        embedding_.rows.data<float>()[i] = value;
      }
    }
  }
  absl::Status CheckFits(absl::Span<const EmbeddingRef>) const override { return absl::OkStatus(); }
  std::unique_ptr<EmbeddingPull> Start(absl::Span<const EmbeddingRef>, SteadyTime,
                                       std::function<void()>) override {
    return std::make_unique<Pull>(&embedding_);
  }

 private:
  class Pull final : public EmbeddingPull {
   public:
    explicit Pull(const PulledEmbedding* embedding) : embedding_(*embedding) {}
    bool done() const override { return true; }
    absl::Status status() const override { return absl::OkStatus(); }
    bool ready(size_t) const override { return true; }
    const PulledEmbedding& embedding(size_t) const override { return embedding_; }
    bool cached(size_t) const override { return false; }

   private:
    const PulledEmbedding& embedding_;
  };

  PulledEmbedding embedding_;
};

// When one user's tokens came.
struct Answer {
  SteadyTime asked;
  std::vector<SteadyTime> tokens;
  absl::Status status;
};

// Counts the answers that are over.
class Class {
 public:
  explicit Class(int users) : answers(static_cast<size_t>(users)) {}
  void OneIsOver() {
    MutexLock lock(&mutex_);
    ++over_;
    changed_.NotifyAll();
  }
  void AwaitAll() {
    MutexLock lock(&mutex_);
    while (over_ < answers.size()) changed_.Wait(&mutex_);
  }

  std::vector<Answer> answers;

 private:
  Mutex mutex_;
  CondVar changed_;
  size_t over_ ABSL_GUARDED_BY(mutex_) = 0;
};

class Listener final : public GenerationSink {
 public:
  Listener(Class* all, size_t user) : all_(*all), answer_(all->answers[user]) {}
  absl::Status OnEvent(GenerationEvent event) override {
    if (std::holds_alternative<TokenEvent>(event)) answer_.tokens.push_back(Clock::Real().Now());
    return absl::OkStatus();
  }
  void OnEnd(const absl::Status& status, const GenerationReport&) override {
    answer_.status = status;
    all_.OneIsOver();
  }

 private:
  Class& all_;
  Answer& answer_;
};

GenerationRequest Question(const Flags& flags, const ModelConfig& config, std::mt19937& random) {
  std::uniform_int_distribution<int32_t> any_id(0, 1000);
  const int64_t picture_tokens = flags.picture_height * flags.picture_width / 4;
  GenerationRequest request;
  const auto bytes = [&](size_t count) {
    std::string text(count, '\0');
    for (char& byte : text) byte = static_cast<char>(random());
    return text;
  };
  request.generation_id = bytes(16);
  const int64_t before = flags.text_tokens / 2;
  for (int64_t i = 0; i < before; ++i) request.token_ids.push_back(any_id(random));
  for (int64_t i = 0; i < picture_tokens; ++i) {
    request.token_ids.push_back(static_cast<int32_t>(config.image_token_id));
  }
  for (int64_t i = before; i < flags.text_tokens; ++i) request.token_ids.push_back(any_id(random));
  request.spans.push_back({.offset = before,
                           .num_tokens = picture_tokens,
                           .grid_h = static_cast<int32_t>(flags.picture_height),
                           .grid_w = static_cast<int32_t>(flags.picture_width)});
  request.embeddings.push_back({.handle_id = bytes(16),
                                .content_key = bytes(32),
                                .digest = bytes(32),
                                .grid_t = 1,
                                .grid_h = flags.picture_height,
                                .grid_w = flags.picture_width,
                                .num_tokens = picture_tokens,
                                .hidden_size = config.text.hidden_size,
                                .num_deepstack = config.vision.num_deepstack()});
  request.sampling.temperature = 1;
  request.sampling.seed = random();
  request.max_tokens = flags.tokens;
  return request;
}

double Part(std::vector<double> values, double share) {
  std::sort(values.begin(), values.end());
  return values[std::min(values.size() - 1, static_cast<size_t>(share * static_cast<double>(values.size())))];
}

absl::Status RunClass(const Flags& flags, const ModelConfig& config, Engine& engine, int round) {
  std::mt19937 random(static_cast<uint32_t>(round) + 1);
  Class all(flags.users);
  std::vector<std::shared_ptr<Generation>> generations;
  for (size_t user = 0; user < all.answers.size(); ++user) {
    generations.push_back(std::make_shared<Generation>(Question(flags, config, random),
                                                       std::make_unique<Listener>(&all, user)));
  }
  const SteadyTime began = Clock::Real().Now();
  for (size_t user = 0; user < all.answers.size(); ++user) {
    const double moment = flags.within_s * (static_cast<double>(user) + 0.5) / flags.users;
    std::this_thread::sleep_until(
        began + std::chrono::duration_cast<std::chrono::nanoseconds>(std::chrono::duration<double>(moment)));
    all.answers[user].asked = Clock::Real().Now();
    PRISM_RETURN_IF_ERROR(engine.Submit(generations[user]));
  }
  all.AwaitAll();
  std::vector<double> first, between;
  SteadyTime last = began;
  int64_t tokens = 0;
  for (const Answer& answer : all.answers) {
    PRISM_RETURN_IF_ERROR(answer.status);
    first.push_back(1e3 * SecondsBetween(answer.asked, answer.tokens.front()));
    for (size_t i = 1; i < answer.tokens.size(); ++i) {
      between.push_back(1e3 * SecondsBetween(answer.tokens[i - 1], answer.tokens[i]));
    }
    last = std::max(last, answer.tokens.back());
    tokens += static_cast<int64_t>(answer.tokens.size());
  }
  const double seconds = SecondsBetween(all.answers.front().asked, last);
  std::printf("class %d: %zu answers, %lld tokens after prompts of %lld, %.2f s, %.0f tok/s\n", round + 1,
              all.answers.size(), static_cast<long long>(tokens),
              static_cast<long long>(flags.text_tokens + flags.picture_height * flags.picture_width / 4),
              seconds, static_cast<double>(tokens) / seconds);
  std::printf("  first token: p50 %.0f ms, p95 %.0f ms, worst %.0f ms\n", Part(first, 0.5), Part(first, 0.95),
              Part(first, 1));
  std::printf("  between tokens: p50 %.2f ms, p95 %.2f ms, p99 %.2f ms, worst %.0f ms\n", Part(between, 0.5),
              Part(between, 0.95), Part(between, 0.99), Part(between, 1));
  std::fflush(stdout);
  return absl::OkStatus();
}

absl::Status Run(const Flags& flags) {
  PRISM_ASSIGN_OR_RETURN(const ChosenBackend chosen, CreateBackend(flags.device));
  Backend& backend = *chosen.backend;
  CheckpointOptions options{.part = CheckpointPart::kText};
  PRISM_ASSIGN_OR_RETURN(options.format, ParseLoadFormat(flags.load_format));
  PRISM_ASSIGN_OR_RETURN(const std::unique_ptr<Checkpoint> checkpoint,
                         Checkpoint::Open(flags.model, options));
  const ModelConfig& config = checkpoint->config();
  MachineSizes machine = ThisMachine();
  machine.device_memory = backend.has_device_memory();
  PRISM_ASSIGN_OR_RETURN(DecoderSizes sizes,
                         SizeDecoder(config, flags.sizes, machine, backend.activation_dtype()));
  PRISM_ASSIGN_OR_RETURN(std::vector<std::unique_ptr<Communicator>> group,
                         CreateGroup(backend, chosen.device_index, 1));
  const RankOptions rank = {
      .stream = {.device_index = chosen.device_index, .num_threads = sizes.threads_per_rank},
      .kv_pages = sizes.kv_pages,
      .kv_pages_max = sizes.kv_pages_max,
      .rows_max = flags.sizes.max_num_batched_tokens,
      .sequences_max = flags.sizes.max_num_seqs,
      .pages_max = PagesFor(sizes.model_length_max),
      .logit_rows_max = sizes.logit_rows_max};
  PRISM_ASSIGN_OR_RETURN(std::unique_ptr<RankGroup> ranks,
                         RankGroup::Load(backend, *checkpoint, std::move(group), {rank}));
  PRISM_RETURN_IF_ERROR(SetKvPages(flags.sizes, ranks->kv_pages(), &sizes));
  const Shape embedding = {1 + config.vision.num_deepstack(), flags.picture_height * flags.picture_width / 4,
                           config.text.hidden_size};
  const EngineOptions engine_options = {
      .scheduler = {.max_num_seqs = flags.sizes.max_num_seqs,
                    .max_num_batched_tokens = flags.sizes.max_num_batched_tokens,
                    .score_rows_max = sizes.score_rows_max},
      .kv_pages = sizes.kv_pages,
      .max_waiting = flags.users,
      .sampling_threads = sizes.sampling_threads};
  Engine engine(engine_options, std::move(ranks),
                std::make_unique<ReadyEmbeddings>(embedding, backend.activation_dtype()), DecoderMetrics());
  std::printf("%s, backend %s, %s, %d users within %g s\n", BuildName().c_str(),
              std::string(backend.name()).c_str(), flags.model.c_str(), flags.users, flags.within_s);
  for (int round = 0; round < flags.rounds; ++round)
    PRISM_RETURN_IF_ERROR(RunClass(flags, config, engine, round));
  return absl::OkStatus();
}

}  // namespace
}  // namespace prism::bench

int main(int argc, char** argv) {
  prism::bench::Flags flags;
  prism::FlagSet set("bench_replay", "Asks the engine what classroom.py asks the services.");
  prism::bench::AddFlags(set, flags);
  if (const std::optional<int> exit_code = set.Parse(argc, argv)) return *exit_code;
  const absl::Status status = prism::bench::Run(flags);
  if (!status.ok()) std::fprintf(stderr, "bench_replay: %s\n", status.ToString().c_str());
  return status.ok() ? 0 : 1;
}
