#include "services/decoder/sampling/token_masks.h"

#include <gtest/gtest.h>

#include <limits>
#include <string>
#include <vector>

#include "tests/services/decoder/sampling/constrained.h"

namespace prism {
namespace {

TEST(TokenMaskTest, MasksAllOthers) {
  TokenMask mask(200);
  EXPECT_TRUE(mask.empty());
  mask.Set(3);
  mask.SetRange(64, 128);
  mask.Set(199);
  EXPECT_FALSE(mask.empty());
  std::vector<float> logits(200, 1);
  mask.Apply(absl::MakeSpan(logits));
  for (int32_t id = 0; id < 200; ++id) {
    const bool in = id == 3 || (id >= 64 && id < 128) || id == 199;
    EXPECT_EQ(mask.Has(id), in) << id;
    EXPECT_EQ(logits[static_cast<size_t>(id)], in ? 1 : -std::numeric_limits<float>::infinity()) << id;
  }
}

// Token by token, without the trie.
TokenMask Plainly(Automaton& automaton, const Automaton::State* state) {
  const TokenVocabulary& vocabulary = MicroVocabulary();
  TokenMask mask(vocabulary.vocab_size());
  for (int32_t id = 0; id < vocabulary.vocab_size(); ++id) {
    const std::string& text = vocabulary.text(id);
    if (!text.empty() && automaton.Read(state, text) != automaton.dead()) mask.Set(id);
  }
  for (size_t i = 0; i < automaton.markers().size(); ++i) {
    const auto symbol = automaton.grammar().symbol_of_marker(static_cast<int32_t>(i));
    if (automaton.Next(state, symbol) != automaton.dead()) {
      mask.Set(vocabulary.AddedId(automaton.markers()[i]).value());
    }
  }
  return mask;
}

TEST(TokenMasksTest, AMaskIsWhatMayFollow) {
  TokenMasks masks(&MicroVocabulary(), 2);
  const auto automaton = AutomatonOfSchema(
      R"({"type": "object", "properties": {"name": {"type": "string", "maxLength": 9},
          "sizes": {"type": "array", "items": {"type": "number", "minimum": 1}}}, "required": ["name"]})");
  for (const char* text :
       {"", "{", "{\"", "{\"na", "{\"name\": \"", "{\"name\": \"abcdefg", "{\"name\": \"ä\\",
        "{\"name\":\"a\",\"sizes\":[1.5, ", "{\"name\":\"a\",\"sizes\":[1.5, 2e"}) {
    const Automaton::State* state = automaton->Read(automaton->start(), text);
    ASSERT_NE(state, automaton->dead()) << text;
    const auto mask = masks.Ask(automaton, state);
    ASSERT_TRUE(mask->Get().ok());
    EXPECT_EQ(**mask->Get(), Plainly(*automaton, state)) << text;
    EXPECT_FALSE((*mask->Get())->empty()) << text;
  }
}

TEST(TokenMasksTest, AddedTokensAreOnlyThoseThatTheGrammarNames) {
  TokenMasks masks(&MicroVocabulary(), 1);
  const auto automaton = AutomatonOf({.kind = GrammarSpec::Kind::kToolCalls,
                                      .text = "",
                                      .choices = {},
                                      .tools = {{.name = "f", .parameters_json = ""}}});
  const int32_t begin = MicroVocabulary().AddedId("<tool_call>").value();
  const auto mask = masks.Ask(automaton, automaton->start());
  const TokenMask& allowed = **mask->Get();
  for (int32_t id = 0; id < MicroVocabulary().vocab_size(); ++id)
    EXPECT_EQ(allowed.Has(id), id == begin) << id;
  // A string may be anything, but no marker.
  const auto string = AutomatonOfSchema(R"({"type": "string"})");
  const auto inside = masks.Ask(string, string->Read(string->start(), "\""));
  int text = 0;
  for (int32_t id = 0; id < MicroVocabulary().vocab_size(); ++id) {
    if ((*inside->Get())->Has(id)) {
      EXPECT_FALSE(id >= MicroTokenizer().vocab_size() || MicroTokenizer().IsAdded(id)) << id;
      ++text;
    }
  }
  EXPECT_GT(text, 500);
}

TEST(TokenMasksTest, KeepsTheLatestWithinItsBytes) {
  const size_t one = TokenMask(MicroVocabulary().vocab_size()).size_bytes() + sizeof(PendingMask);
  TokenMasks masks(&MicroVocabulary(), 1, 10 * one);
  const auto automaton = AutomatonOfSchema(R"({"type": "string", "maxLength": 60})");
  std::string text = "\"";
  const auto first = masks.Ask(automaton, automaton->start());
  for (int i = 0; i < 50; ++i, text += "a") {
    masks.Ask(automaton, automaton->Read(automaton->start(), text));
    EXPECT_EQ(masks.Ask(automaton, automaton->start()), first) << "used all the time";
    EXPECT_LE(masks.size_bytes(), 10 * one);
  }
  EXPECT_EQ(masks.misses(), 51);
  EXPECT_EQ(masks.hits(), 50);
  masks.Ask(automaton, automaton->Read(automaton->start(), "\""));
  EXPECT_EQ(masks.misses(), 52) << "the oldest was forgotten";
}

TEST(TokenMasksTest, AFullAutomatonIsAnError) {
  TokenMasks masks(&MicroVocabulary(), 1);
  const auto automaton = AutomatonOfSchema(R"({"type": "string", "maxLength": 1000000})");
  const Automaton::State* state = automaton->Read(automaton->start(), "\"");
  const Automaton::State* last = state;
  while (state != nullptr) {
    last = state;
    state = automaton->Read(state, "a");
  }
  EXPECT_EQ(masks.Ask(automaton, last)->Get().status().code(), absl::StatusCode::kResourceExhausted);
}

}  // namespace
}  // namespace prism
