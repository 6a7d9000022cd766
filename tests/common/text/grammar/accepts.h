// Shared by the tests of grammars: which texts are in a grammar's language.
#pragma once

#include <memory>
#include <string>
#include <utility>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "common/text/grammar/automaton.h"
#include "common/text/grammar/grammar_spec.h"

namespace prism {

// Is `text` a whole text of the automaton's grammar? Markers are read where they are spelled.
inline bool Accepts(Automaton& automaton, absl::string_view text) {
  const Automaton::State* state = automaton.start();
  while (state != nullptr && !text.empty()) {
    int32_t symbol = automaton.grammar().symbol_of_byte(static_cast<uint8_t>(text[0]));
    size_t size = 1;
    for (size_t i = 0; i < automaton.markers().size(); ++i) {
      const std::string& marker = automaton.markers()[i];
      if (text.substr(0, marker.size()) != marker) continue;
      symbol = automaton.grammar().symbol_of_marker(static_cast<int32_t>(i));
      size = marker.size();
    }
    state = automaton.Next(state, symbol);
    text.remove_prefix(size);
  }
  return state != nullptr && state->accepting();
}

inline absl::StatusOr<std::shared_ptr<Automaton>> Compiled(const GrammarSpec& spec) {
  absl::StatusOr<CompiledGrammar> compiled = CompileGrammar(spec);
  if (!compiled.ok()) return compiled.status();
  return std::make_shared<Automaton>(std::make_shared<const CompiledGrammar>(*std::move(compiled)));
}

inline absl::StatusOr<std::shared_ptr<Automaton>> SchemaAutomaton(const std::string& schema) {
  return Compiled({.kind = GrammarSpec::Kind::kJsonSchema, .text = schema, .choices = {}, .tools = {}});
}

}  // namespace prism
