// bench_constrained: what answers in a given form cost.
//
//   bench_constrained [--tokenizer FILE] [--model DIR --load-format synthetic] [--batch 32] [--tokens 64]
//
// With a tokenizer: the time from a JSON Schema of 200 properties to its first mask, of masks in other
// states, and of sampling rows of its vocabulary with and without one, on one core. With a model (whose
// folder has its tokenizer): tokens a second of a batch with any text and in the form of a schema, in turn,
// through the whole engine without its network. Aims: the first mask within 50 ms, at most 3 % fewer tokens.
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <latch>
#include <memory>
#include <optional>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "common/base/check.h"
#include "common/base/status.h"
#include "common/base/thread.h"
#include "common/checkpoint/checkpoint.h"
#include "common/rpc/flags.h"
#include "common/text/grammar/grammar_spec.h"
#include "common/text/tokenizer.h"
#include "kernels/backends/create_backend.h"
#include "services/decoder/embeddings/embedding_puller.h"
#include "services/decoder/engine/engine.h"
#include "services/decoder/engine/rank_group.h"
#include "services/decoder/kv/page.h"
#include "services/decoder/sampling/answer_grammar.h"
#include "services/decoder/sampling/sampler.h"

namespace prism::bench {
namespace {

constexpr int kRounds = 5;
constexpr int64_t kPromptTokens = 64;

double Seconds() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

double Median(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  return values[values.size() / 2];
}

// 200 properties of eight kinds, half of them optional.
std::string WideSchema() {
  constexpr const char* kKinds[] = {R"({"type":"string"})",
                                    R"({"type":"integer","minimum":0,"maximum":1000})",
                                    R"({"type":"number"})",
                                    R"({"type":"boolean"})",
                                    R"({"type":"array","items":{"type":"string"}})",
                                    R"({"enum":["red","green","blue"]})",
                                    R"({"type":"string","maxLength":40})",
                                    R"({"type":["string","null"]})"};
  std::string properties, required;
  for (int i = 0; i < 200; ++i) {
    absl::StrAppend(&properties, i > 0 ? "," : "", "\"property_", i, "\":", kKinds[i % 8]);
    if (i % 2 == 0) absl::StrAppend(&required, i > 0 ? "," : "", "\"property_", i, "\"");
  }
  return absl::StrCat(R"({"type":"object","properties":{)", properties, R"(},"required":[)", required,
                      R"(],"additionalProperties":false})");
}

std::shared_ptr<Automaton> Compiled(const std::string& schema) {
  absl::StatusOr<CompiledGrammar> compiled =
      CompileGrammar({.kind = GrammarSpec::Kind::kJsonSchema, .text = schema, .choices = {}, .tools = {}});
  PRISM_CHECK(compiled.ok());
  return std::make_shared<Automaton>(std::make_shared<const CompiledGrammar>(*std::move(compiled)));
}

void MeasureMask(const char* what, const TokenVocabulary& vocabulary, const std::string& schema,
                 const std::string& text) {
  std::vector<double> first, again;
  for (int round = 0; round < kRounds; ++round) {
    const std::shared_ptr<Automaton> automaton = Compiled(schema);
    const Automaton::State* const state = automaton->Read(automaton->start(), text);
    PRISM_CHECK(state != nullptr && state != automaton->dead());
    for (std::vector<double>* times : {&first, &again}) {
      PendingMask mask(&vocabulary, automaton, state);
      const double begun = Seconds();
      mask.Run();
      times->push_back(Seconds() - begun);
    }
  }
  std::printf("  mask %-34s %8.2f ms, with its states made before %8.2f ms\n", what, Median(first) * 1e3,
              Median(again) * 1e3);
}

void MeasureMasks(const Tokenizer& tokenizer) {
  double begun = Seconds();
  const TokenVocabulary vocabulary(tokenizer, tokenizer.vocab_size());
  std::printf("vocabulary of %d ids, a tree of %zu nodes, made in %.0f ms\n", vocabulary.vocab_size(),
              vocabulary.trie().nodes().size(), (Seconds() - begun) * 1e3);
  std::vector<double> compile, whole;
  const std::string wide = WideSchema();
  for (int round = 0; round < kRounds; ++round) {
    begun = Seconds();
    const std::shared_ptr<Automaton> automaton = Compiled(wide);
    compile.push_back(Seconds() - begun);
    PendingMask mask(&vocabulary, automaton, automaton->start());
    mask.Run();
    whole.push_back(Seconds() - begun);
  }
  std::printf("  200 properties: compiled in %.2f ms, first mask after %.2f ms (aim 50)\n",
              Median(compile) * 1e3, Median(whole) * 1e3);
  MeasureMask("of 200 properties, a name", vocabulary, wide, "{\"property_0\":\"\",\"");
  MeasureMask("of 200 properties, in a string", vocabulary, wide, "{\"property_0\":\"");
  MeasureMask("in a string of at most 40", vocabulary, R"({"type":"string","maxLength":40})", "\"");
  MeasureMask("in a number", vocabulary, R"({"type":"number"})", "1");
  MeasureMask("of any JSON, in an array", vocabulary, R"({"type":"array"})", "[");

  // Rows as a model of this vocabulary gives them.
  std::mt19937 random(1);
  std::normal_distribution<float> normal(0, 3);
  std::vector<float> logits(static_cast<size_t>(vocabulary.vocab_size()));
  for (float& logit : logits) logit = normal(random);
  TokenMasks masks(&vocabulary, 1);
  SamplingScratch scratch;
  const auto sampling_ms = [&](const std::string& schema, const std::string& text) {
    Sampler sampler({.temperature = 1, .seed = 1}, 0, {});
    if (!schema.empty()) {
      sampler.SetConstraint(
          std::make_unique<TokenConstraint>(Compiled(schema), &masks, std::vector<int32_t>{}));
      const std::vector<int32_t> ids = tokenizer.Encode(text, SpecialTokens::kPlainText).value();
      for (const int32_t id : ids) sampler.Accept(id);
    }
    std::vector<double> times;
    for (int round = 0; round < 50; ++round) {
      const double start = Seconds();
      PRISM_CHECK(sampler.Sample(logits, scratch).ok());
      times.push_back(Seconds() - start);
    }
    return Median(times) * 1e3;
  };
  std::printf("  sampling a row: any text %.3f ms, in a string %.3f ms, in a number %.3f ms\n",
              sampling_ms("", ""), sampling_ms(R"({"type":"string"})", "\"a"),
              sampling_ms(R"({"type":"number"})", "1"));
}

class CountingSink final : public GenerationSink {
 public:
  explicit CountingSink(std::latch* left) : left_(*left) {}
  absl::Status OnEvent(GenerationEvent) override { return absl::OkStatus(); }
  void OnEnd(const absl::Status& status, const GenerationReport&) override {
    if (!status.ok()) std::fprintf(stderr, "%s\n", status.ToString().c_str());
    PRISM_CHECK(status.ok());
    left_.count_down();
  }

 private:
  std::latch& left_;
};

// Tokens a second of `batch` answers of `tokens` each.
double Throughput(Engine& engine, AnswerGrammars& grammars, int32_t vocab_size, int batch, int64_t tokens,
                  const std::vector<int32_t>& ends, bool formed) {
  // Never complete before the answer has all its tokens.
  const GrammarSpec spec = {
      .kind = GrammarSpec::Kind::kJsonSchema,
      .text =
          R"({"type":"array","minItems":4000,"items":{"type":"object","properties":{"name":{"type":"string"},)"
          R"("size":{"type":"integer","minimum":0},"tags":{"type":"array","items":{"enum":["a","b"]}}},)"
          R"("required":["name","size"],"additionalProperties":false}})",
      .choices = {},
      .tools = {}};
  std::latch left(batch);
  std::mt19937 random(1);
  std::vector<std::shared_ptr<Generation>> generations;
  for (int i = 0; i < batch; ++i) {
    GenerationRequest request;
    request.generation_id = absl::StrCat(i);
    for (int64_t t = 0; t < kPromptTokens; ++t) {
      request.token_ids.push_back(static_cast<int32_t>(random() % static_cast<uint32_t>(vocab_size / 2)));
    }
    request.sampling.temperature = 1;
    request.sampling.seed = static_cast<uint64_t>(i);
    request.max_tokens = tokens;
    if (formed) {
      request.end_token_ids = ends;
      request.grammar = std::make_shared<AnswerGrammar>(spec);
      std::latch prepared(1);
      PRISM_CHECK(grammars
                      .Prepare(request.grammar, nullptr,
                               [&](const absl::Status& status) {
                                 PRISM_CHECK(status.ok());
                                 prepared.count_down();
                               })
                      .ok());
      prepared.wait();
    }
    generations.push_back(
        std::make_shared<Generation>(std::move(request), std::make_unique<CountingSink>(&left)));
  }
  const double begun = Seconds();
  for (const std::shared_ptr<Generation>& generation : generations)
    PRISM_CHECK(engine.Submit(generation).ok());
  left.wait();
  return static_cast<double>(batch) * static_cast<double>(tokens) / (Seconds() - begun);
}

struct Flags {
  std::string model, tokenizer, device = "cpu", load_format = "auto";
  int batch = 32;
  int64_t tokens = 64;
  int threads = 0;
};

absl::Status MeasureEngine(const Flags& flags) {
  PRISM_ASSIGN_OR_RETURN(
      const std::unique_ptr<Tokenizer> tokenizer,
      Tokenizer::Load(flags.tokenizer.empty() ? flags.model + "/tokenizer.json" : flags.tokenizer));
  PRISM_ASSIGN_OR_RETURN(ChosenBackend chosen, CreateBackend(flags.device));
  CheckpointOptions options{.part = CheckpointPart::kText};
  PRISM_ASSIGN_OR_RETURN(options.format, ParseLoadFormat(flags.load_format));
  PRISM_ASSIGN_OR_RETURN(const std::unique_ptr<Checkpoint> checkpoint,
                         Checkpoint::Open(flags.model, options));
  const auto vocab_size = static_cast<int32_t>(checkpoint->config().text.vocab_size);
  const int threads = flags.threads > 0 ? flags.threads : AvailableCpus();
  const int64_t pages = flags.batch * (PagesFor(kPromptTokens + flags.tokens) + 1);
  const SchedulerLimits scheduler{.max_num_seqs = flags.batch, .max_num_batched_tokens = 2048};
  PRISM_ASSIGN_OR_RETURN(std::vector<std::unique_ptr<Communicator>> group,
                         CreateGroup(*chosen.backend, chosen.device_index, 1));
  const std::vector<RankOptions> ranks = {
      {.stream = {.device_index = chosen.device_index, .num_threads = threads},
       .kv_pages = pages,
       .rows_max = scheduler.max_num_batched_tokens,
       .sequences_max = flags.batch,
       .pages_max = PagesFor(kPromptTokens + flags.tokens) + 1,
       .logit_rows_max = flags.batch + scheduler.score_rows_max}};
  PRISM_ASSIGN_OR_RETURN(std::unique_ptr<RankGroup> executor,
                         RankGroup::Load(*chosen.backend, *checkpoint, std::move(group), ranks));
  const TokenVocabulary vocabulary(*tokenizer, vocab_size);
  AnswerGrammars grammars(&vocabulary, threads);
  std::vector<int32_t> ends;
  for (const int64_t id : checkpoint->config().eos_token_ids) ends.push_back(static_cast<int32_t>(id));
  Engine engine(
      {.scheduler = scheduler, .kv_pages = pages, .max_waiting = flags.batch, .sampling_threads = threads},
      std::move(executor), std::make_unique<EmbeddingPuller>(EmbeddingPullerOptions{}), DecoderMetrics());
  std::vector<double> any, formed;
  // Each goes first as often, so that what else the machine does falls on both.
  for (int round = 0; round <= 2 * kRounds; ++round) {
    for (const bool form : {round % 2 == 0, round % 2 != 0}) {
      const double speed = Throughput(engine, grammars, vocab_size, flags.batch, flags.tokens, ends, form);
      if (round > 0) (form ? formed : any).push_back(speed);  // the first warms up
    }
  }
  std::printf(
      "%s, %d ids, %d answers of %lld tokens together, %d threads: any text %.0f tokens/s, in the form of a "
      "schema %.0f (%+.1f %%, aim -3); masks found %lld, made %lld\n",
      flags.model.c_str(), vocab_size, flags.batch, static_cast<long long>(flags.tokens), threads,
      Median(any), Median(formed), (Median(formed) / Median(any) - 1) * 100,
      static_cast<long long>(grammars.masks().hits()), static_cast<long long>(grammars.masks().misses()));
  return absl::OkStatus();
}

int Run(const Flags& flags) {
  if (!flags.tokenizer.empty()) {
    const auto tokenizer = Tokenizer::Load(flags.tokenizer);
    if (!tokenizer.ok()) {
      std::fprintf(stderr, "%s\n", tokenizer.status().ToString().c_str());
      return 1;
    }
    MeasureMasks(**tokenizer);
  }
  if (flags.model.empty()) return 0;
  const absl::Status status = MeasureEngine(flags);
  if (!status.ok()) std::fprintf(stderr, "%s\n", status.ToString().c_str());
  return status.ok() ? 0 : 1;
}

}  // namespace
}  // namespace prism::bench

int main(int argc, char** argv) {
  prism::bench::Flags flags;
  prism::FlagSet set("bench_constrained", "Times masks of grammars and answers in a given form.");
  set.Add("--tokenizer", &flags.tokenizer,
          "A tokenizer.json: masks are timed, and the model's is not needed");
  set.Add("--model", &flags.model, "Folder of a model: whole answers are timed");
  set.Add("--load-format", &flags.load_format, "Where the weights come from",
          {.choices = {"auto", "safetensors", "synthetic"}});
  set.Add("--device", &flags.device, "Where to compute: auto, cpu, cuda or cuda:N");
  set.Add("--batch", &flags.batch, "Answers at once", {.min = 1, .max = 256});
  set.Add("--tokens", &flags.tokens, "Tokens of an answer", {.unit = "tokens", .min = 1, .max = 4096});
  set.Add("--threads", &flags.threads, "CPU threads; 0: one a CPU",
          {.unit = "threads", .min = 0, .max = 1024});
  if (const std::optional<int> exit_code = set.Parse(argc, argv)) return *exit_code;
  return prism::bench::Run(flags);
}
