// Forms of answers: whatever the bytes, a grammar within its bounds or an error of the three kinds, never
// anything else; and reading what came in as a text of the grammar ends in a state.
#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>

#include "common/base/check.h"
#include "common/text/grammar/automaton.h"
#include "common/text/grammar/grammar_spec.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using Kind = prism::GrammarSpec::Kind;
  if (size == 0) return 0;
  const std::string text(reinterpret_cast<const char*>(data) + 1, size - 1);
  prism::GrammarSpec spec;
  spec.after_reasoning = (data[0] & 8) != 0;
  switch (data[0] % 4) {
    case 0:
    case 1:
      spec.kind = Kind::kJsonSchema;
      spec.text = text;
      break;
    case 2:
      spec.kind = Kind::kRegex;
      spec.text = text;
      break;
    default:
      spec.kind = Kind::kToolCalls;
      spec.tools = {{.name = "f", .parameters_json = text, .strict = (data[0] & 16) != 0}};
      spec.text_first = (data[0] & 32) != 0;
      spec.parallel = (data[0] & 64) != 0;
  }
  PRISM_CHECK(spec.Key() == prism::GrammarSpec(spec).Key());
  auto compiled = prism::CompileGrammar(spec);
  if (!compiled.ok()) {
    PRISM_CHECK(absl::IsInvalidArgument(compiled.status()) || absl::IsResourceExhausted(compiled.status()));
    return 0;
  }
  prism::Automaton automaton(std::make_shared<const prism::CompiledGrammar>(*std::move(compiled)));
  const prism::Automaton::State* state = automaton.start();
  for (const char c : text) {
    if (state == nullptr || state == automaton.dead()) break;
    // No state but the dead one is an end without being one.
    PRISM_CHECK(!state->finished() || state->accepting());
    state = automaton.Next(state, automaton.grammar().symbol_of_byte(static_cast<uint8_t>(c)));
  }
  return 0;
}
