// random_answers COUNT: answers in the form of random schemas, from random logits through the sampler and
// its masks. A line for each: {"schema": ..., "answer": "..."}; answers that were cut are left out.
// random_answers_test.py has them judged.
#include <cstdio>
#include <cstdlib>
#include <map>
#include <random>
#include <string>
#include <vector>

#include "common/text/grammar/json_document.h"
#include "services/decoder/sampling/sampler.h"
#include "tests/services/decoder/sampling/constrained.h"
#include "tests/services/decoder/sampling/random_schema.h"

namespace prism {
namespace {

constexpr int kTokensMax = 600;

// Likes to end what is open, so that most answers are short.
std::vector<float> Logits(std::mt19937& random) {
  std::normal_distribution<float> normal(0, 3);
  std::vector<float> logits(static_cast<size_t>(MicroVocabulary().vocab_size()));
  for (float& logit : logits) logit = normal(random);
  for (const char* closer : {"\"", "}", "]", "null"}) {
    const std::vector<int32_t> ids = MicroIds(closer);
    if (ids.size() == 1) logits[static_cast<size_t>(ids[0])] += 5;
  }
  return logits;
}

int Run(int count) {
  const int32_t end = MicroVocabulary().AddedId("<|im_end|>").value();
  TokenMasks masks(&MicroVocabulary(), 2);
  SamplingScratch scratch;
  int made = 0, cut = 0, unsatisfiable = 0;
  for (uint32_t seed = 1; made < count; ++seed) {
    const std::string schema = RandomSchema(seed).Document();
    absl::StatusOr<CompiledGrammar> compiled =
        CompileGrammar({.kind = GrammarSpec::Kind::kJsonSchema, .text = schema, .choices = {}, .tools = {}});
    if (!compiled.ok() && compiled.status().message() == "nothing satisfies it") {
      ++unsatisfiable;
      continue;
    }
    if (!compiled.ok()) {
      std::fprintf(stderr, "%s\n%s\n", std::string(compiled.status().message()).c_str(), schema.c_str());
      return 1;
    }
    Sampler sampler({.temperature = 1, .seed = seed, .end_token_ids = {end}}, 0, {});
    sampler.SetConstraint(std::make_unique<TokenConstraint>(
        std::make_shared<Automaton>(std::make_shared<const CompiledGrammar>(*std::move(compiled))), &masks,
        std::vector<int32_t>{end}));
    std::mt19937 random(seed);
    std::vector<int32_t> answer;
    while (static_cast<int>(answer.size()) < kTokensMax) {
      const absl::StatusOr<int32_t> id = sampler.Sample(Logits(random), scratch);
      if (!id.ok()) {
        std::fprintf(stderr, "%s\n%s\n", std::string(id.status().message()).c_str(), schema.c_str());
        return 1;
      }
      if (*id == end) break;
      sampler.Accept(*id);
      answer.push_back(*id);
    }
    if (static_cast<int>(answer.size()) == kTokensMax) {
      ++cut;
      continue;
    }
    std::string text;
    for (const int32_t id : answer) text += MicroVocabulary().text(id);
    std::printf("{\"schema\": %s, \"answer\": %s}\n", schema.c_str(), JsonQuoted(text).c_str());
    ++made;
  }
  std::fprintf(stderr, "%d answers; %d cut at %d tokens, %d schemas that nothing satisfies\n", made, cut,
               kTokensMax, unsatisfiable);
  return 0;
}

}  // namespace
}  // namespace prism

int main(int argc, char** argv) { return prism::Run(argc > 1 ? std::atoi(argv[1]) : 1000); }
