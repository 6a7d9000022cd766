// Shared by the tests of constraints: a vocabulary and grammars in one line.
#pragma once

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "common/text/grammar/grammar_spec.h"
#include "services/decoder/sampling/token_constraint.h"
#include "services/decoder/sampling/token_masks.h"
#include "services/decoder/sampling/token_vocabulary.h"
#include "tests/common/text/text_test_files.h"

namespace prism {

// Of the micro checkpoints, with more rows than the tokenizer has ids.
inline const TokenVocabulary& MicroVocabulary() {
  static const auto* const vocabulary =
      new TokenVocabulary(MicroTokenizer(), MicroTokenizer().vocab_size() + 13);
  return *vocabulary;
}

inline std::shared_ptr<Automaton> AutomatonOf(const GrammarSpec& spec) {
  absl::StatusOr<CompiledGrammar> compiled = CompileGrammar(spec);
  EXPECT_TRUE(compiled.ok()) << compiled.status();
  return std::make_shared<Automaton>(std::make_shared<const CompiledGrammar>(*std::move(compiled)));
}

inline std::shared_ptr<Automaton> AutomatonOfSchema(const std::string& schema) {
  return AutomatonOf({.kind = GrammarSpec::Kind::kJsonSchema, .text = schema, .choices = {}, .tools = {}});
}

inline std::vector<int32_t> MicroIds(const std::string& text) {
  return MicroTokenizer().Encode(text, SpecialTokens::kMatchAdded).value();
}

}  // namespace prism
