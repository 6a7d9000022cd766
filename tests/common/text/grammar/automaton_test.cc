#include "common/text/grammar/automaton.h"

#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "common/base/thread.h"
#include "tests/common/text/grammar/accepts.h"

namespace prism {
namespace {

TEST(AutomatonTest, OneTextHasOneState) {
  const auto automaton = SchemaAutomaton(R"({"type": "array", "items": {"type": "integer"}})").value();
  const auto* state = automaton->Read(automaton->start(), "[12,");
  EXPECT_EQ(automaton->Read(automaton->start(), "[12,"), state);
  EXPECT_EQ(automaton->Read(automaton->start(), "[12,3,45,"), state);  // nothing tells them apart
  EXPECT_FALSE(state->accepting());
  EXPECT_FALSE(state->finished());
  const auto* end = automaton->Read(state, "1]");
  EXPECT_TRUE(end->accepting());
  EXPECT_TRUE(end->finished());
  EXPECT_EQ(automaton->Read(end, " "), automaton->dead());
  EXPECT_EQ(automaton->Read(automaton->dead(), "x"), automaton->dead());
  EXPECT_FALSE(automaton->dead()->accepting());
}

TEST(AutomatonTest, TooDeepIsADeadEndAndNoCrash) {
  const auto automaton = Compiled({.text = "", .choices = {}, .tools = {}}).value();
  std::string deep = "{\"a\":";
  const auto* state = automaton->Read(automaton->start(), deep);
  int depth = 0;
  while (state != automaton->dead() && depth < 2 * kStackDepthMax) {
    state = automaton->Read(state, "[");
    ++depth;
  }
  EXPECT_GT(depth, 64);
  EXPECT_LE(depth, kStackDepthMax + 1);
  // One less can still be closed.
  std::string text = deep + std::string(depth - 1, '[') + std::string(depth - 1, ']') + "}";
  EXPECT_TRUE(Accepts(*automaton, text));
}

TEST(AutomatonTest, AFullOneSaysSoAndAFreshOneGoesOn) {
  // Each length of the string is a state, and each way to nest is.
  const auto automaton =
      SchemaAutomaton(R"({"type": "array", "items": {"type": "string", "maxLength": 500000}})").value();
  const auto* state = automaton->Read(automaton->start(), "[\"");
  int64_t read = 0;
  while (state != nullptr && read < 500000) {
    state = automaton->Read(state, "a");
    ++read;
  }
  ASSERT_EQ(state, nullptr) << "all lengths fit";
  EXPECT_TRUE(automaton->full());
  EXPECT_LE(automaton->size_bytes(), automaton->grammar().size_bytes() + kAutomatonBytesMax);
  const auto fresh = automaton->Fresh();
  EXPECT_FALSE(fresh->full());
  EXPECT_TRUE(Accepts(*fresh, "[\"a\"]"));
}

TEST(AutomatonTest, ReadingsThatMultiplyEndInAnError) {
  // Every '[' may be either branch.
  const auto automaton =
      SchemaAutomaton(
          R"({"anyOf": [{"type": "array", "items": {"$ref": "#"}}, {"type": "array", "items": {"$ref": "#"}, "minItems": 0, "maxItems": 3}]})")
          .value();
  const auto* state = automaton->start();
  int depth = 0;
  while (state != nullptr && state != automaton->dead() && depth < 64) {
    state = automaton->Read(state, "[");
    ++depth;
  }
  EXPECT_EQ(state, nullptr);
  EXPECT_LT(depth, 20);
  EXPECT_TRUE(automaton->full());
}

TEST(AutomatonTest, ThreadsShareTheStates) {
  const auto automaton = SchemaAutomaton(R"({"type": "object"})").value();
  const std::string text = R"({"a":[1,2.5,{"b":null,"c":"x\ny"}],"d":{"e":[true,false,[[]]]}})";
  std::vector<const Automaton::State*> ends(4);
  {
    std::vector<NamedThread> threads;
    for (size_t i = 0; i < ends.size(); ++i) {
      threads.emplace_back(absl::StrCat("reader ", i), [&, i] {
        for (int round = 0; round < 50; ++round) ends[i] = automaton->Read(automaton->start(), text);
      });
    }
  }
  for (const auto* end : ends) {
    EXPECT_EQ(end, ends[0]);
    EXPECT_TRUE(end->accepting());
  }
}

}  // namespace
}  // namespace prism
