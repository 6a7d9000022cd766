#include "common/text/grammar/grammar.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <memory>

#include "tests/common/text/grammar/accepts.h"

namespace prism {
namespace {

std::shared_ptr<Automaton> Finished(GrammarBuilder& builder, GrammarBuilder::Node start) {
  auto compiled = std::make_shared<CompiledGrammar>();
  compiled->grammar = builder.Finish(start).value();
  return std::make_shared<Automaton>(compiled);
}

TEST(GrammarTest, CallsNest) {
  // S = "(" S ")" | "x"
  GrammarBuilder builder;
  const auto start = builder.Add();
  builder.LiteralTo(start, "x", builder.end());
  const auto behind = builder.Add();
  builder.Call(builder.Literal(start, "("), start, behind);
  builder.LiteralTo(behind, ")", builder.end());
  const auto automaton = Finished(builder, start);
  EXPECT_TRUE(Accepts(*automaton, "x"));
  EXPECT_TRUE(Accepts(*automaton, "(((x)))"));
  EXPECT_FALSE(Accepts(*automaton, "((x)"));
  EXPECT_FALSE(Accepts(*automaton, "(x))"));
  EXPECT_FALSE(Accepts(*automaton, "()"));
}

TEST(GrammarTest, RepetitionsCount) {
  for (const auto& [min, max] : {std::pair{0, 3}, {2, 4}, {3, 3}, {0, kUnbounded}, {3, kUnbounded}}) {
    GrammarBuilder builder;
    const auto rule = builder.Add();
    builder.LiteralTo(rule, "ab", builder.end());
    const auto start = builder.Add(), behind = builder.Add();
    builder.Repeat(start, rule, min, max, behind);
    builder.LiteralTo(behind, ".", builder.end());
    const auto automaton = Finished(builder, start);
    std::string text;
    for (int count = 0; count < 8; ++count, text += "ab") {
      EXPECT_EQ(Accepts(*automaton, text + "."), count >= min && count <= max)
          << count << " of " << min << " " << max;
      EXPECT_FALSE(Accepts(*automaton, text + "a."));
    }
  }
}

TEST(GrammarTest, DeadEndsAreCutOff) {
  GrammarBuilder builder;
  const auto never = builder.Add();
  builder.Call(builder.Literal(never, "n"), never, builder.end());  // has no end
  const auto start = builder.Add();
  builder.LiteralTo(start, "x", builder.end());
  builder.Call(builder.Literal(start, "y"), never, builder.end());
  builder.Repeat(builder.Literal(start, "z"), never, 0, 5, builder.end());
  const auto automaton = Finished(builder, start);
  EXPECT_TRUE(Accepts(*automaton, "x"));
  EXPECT_TRUE(Accepts(*automaton, "z"));
  EXPECT_EQ(automaton->Read(automaton->start(), "y"), automaton->dead());
  EXPECT_EQ(automaton->Read(automaton->start(), "zn"), automaton->dead());
}

TEST(GrammarTest, WhatHasNoTextIsRefused) {
  GrammarBuilder builder;
  const auto start = builder.Add();
  builder.Call(builder.Literal(start, "("), start, builder.end());
  EXPECT_EQ(builder.Finish(start).status().message(), "nothing satisfies it");
}

TEST(GrammarTest, HoldsItsLimits) {
  GrammarBuilder builder;
  const auto start = builder.Add();
  auto at = start;
  for (size_t i = 0; i < kGrammarNodesMax + 10; ++i) at = builder.Literal(at, "a");
  EXPECT_EQ(builder.num_nodes(), kGrammarNodesMax);
  EXPECT_EQ(builder.Finish(start).status().code(), absl::StatusCode::kResourceExhausted);
  EXPECT_THAT(builder.status().message(), testing::HasSubstr("131072 states"));

  GrammarBuilder edges;
  const auto from = edges.Add();
  for (size_t i = 0; i <= kGrammarEdgesMax; ++i) edges.Skip(from, edges.end());
  EXPECT_EQ(edges.status().code(), absl::StatusCode::kResourceExhausted);
}

TEST(GrammarTest, BytesThatAreAlikeShareASymbol) {
  GrammarBuilder builder;
  const auto start = builder.Add();
  builder.Bytes(start, 'a', 'f', builder.end());
  builder.Bytes(start, 'd', 'z', builder.end());
  const Grammar grammar = builder.Finish(start).value();
  EXPECT_EQ(grammar.num_byte_symbols(), 5);  // before a, a-c, d-f, g-z, behind
  EXPECT_EQ(grammar.symbol_of_byte('a'), grammar.symbol_of_byte('c'));
  EXPECT_NE(grammar.symbol_of_byte('c'), grammar.symbol_of_byte('d'));
  EXPECT_EQ(grammar.symbol_of_byte(grammar.byte_of_symbol(3)), 3);
}

}  // namespace
}  // namespace prism
