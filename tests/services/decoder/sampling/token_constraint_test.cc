#include "services/decoder/sampling/token_constraint.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <random>
#include <string>
#include <vector>

#include "services/decoder/sampling/sampler.h"
#include "tests/services/decoder/sampling/constrained.h"

namespace prism {
namespace {

using testing::HasSubstr;

class TokenConstraintTest : public testing::Test {
 protected:
  std::unique_ptr<TokenConstraint> Constraint(const std::string& schema) {
    return std::make_unique<TokenConstraint>(AutomatonOfSchema(schema), &masks_, std::vector<int32_t>{end_});
  }
  std::vector<float> Masked(TokenConstraint& constraint) {
    std::vector<float> logits(static_cast<size_t>(MicroVocabulary().vocab_size()), 1.0f);
    EXPECT_TRUE(constraint.Apply(absl::MakeSpan(logits)).ok());
    return logits;
  }
  static std::vector<float> RandomLogits(uint32_t seed) {
    std::mt19937 random(seed);
    std::normal_distribution<float> normal(0, 3);
    std::vector<float> logits(static_cast<size_t>(MicroVocabulary().vocab_size()));
    for (float& logit : logits) logit = normal(random);
    return logits;
  }
  // An answer under random logits that like to close what is open; ends with the end id or at `max`.
  std::vector<int32_t> Generate(Sampler& sampler, std::vector<int32_t> answer, int max) {
    SamplingScratch scratch;
    for (const int32_t id : answer) sampler.Accept(id);
    while (static_cast<int>(answer.size()) < max && (answer.empty() || answer.back() != end_)) {
      std::vector<float> logits = RandomLogits(static_cast<uint32_t>(answer.size()) + 1);
      for (const char* closer : {"\"", "}", "]", "\"}", "\","}) {
        for (const int32_t id : MicroIds(closer)) logits[static_cast<size_t>(id)] += 6;
      }
      answer.push_back(sampler.Sample(logits, scratch).value());
      sampler.Accept(answer.back());
    }
    return answer;
  }

  const int32_t end_ = MicroVocabulary().AddedId("<|im_end|>").value();
  TokenMasks masks_{&MicroVocabulary(), 2};
};

TEST_F(TokenConstraintTest, TheEndComesOnlyWhereTheGrammarEnds) {
  const auto constraint = Constraint(R"({"enum": [12, 123]})");
  std::vector<float> logits = Masked(*constraint);
  EXPECT_TRUE(std::isinf(logits[end_]));
  for (const int32_t id : MicroIds("12")) {
    EXPECT_FALSE(std::isinf(Masked(*constraint)[id]));
    constraint->Accept(id);
  }
  logits = Masked(*constraint);
  EXPECT_EQ(logits[end_], 1);
  EXPECT_EQ(logits[MicroIds("3")[0]], 1);
  EXPECT_TRUE(std::isinf(logits[MicroIds("4")[0]]));
  constraint->Accept(MicroIds("3")[0]);
  logits = Masked(*constraint);
  EXPECT_EQ(std::count(logits.begin(), logits.end(), 1.0f), 1);
  EXPECT_EQ(logits[end_], 1);
}

TEST_F(TokenConstraintTest, NoTokenLeftIsAnError) {
  TokenConstraint constraint(AutomatonOfSchema(R"({"const": 1})"), &masks_, {});
  constraint.Accept(MicroIds("1")[0]);
  std::vector<float> logits(static_cast<size_t>(MicroVocabulary().vocab_size()), 1.0f);
  const absl::Status status = constraint.Apply(absl::MakeSpan(logits));
  EXPECT_EQ(status.code(), absl::StatusCode::kInternal);
  EXPECT_EQ(status.message(),
            "no token may follow answer token 0: the grammar's text is complete and no end id is allowed");
}

TEST_F(TokenConstraintTest, MinTokensThatTheGrammarCannotGiveIsAnError) {
  Sampler sampler({.temperature = 0, .min_tokens = 5, .end_token_ids = {end_}}, 0, {});
  sampler.SetConstraint(Constraint(R"({"const": 1})"));
  sampler.Accept(MicroIds("1")[0]);
  SamplingScratch scratch;
  const absl::Status status = sampler.Sample(RandomLogits(1), scratch).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kInternal);
  EXPECT_THAT(std::string(status.message()), HasSubstr("answer token 1: the grammar, min_tokens"));
}

TEST_F(TokenConstraintTest, ATokenThatDoesNotFitIsAnErrorOfTheNextOne) {
  const auto constraint = Constraint(R"({"type": "integer"})");
  constraint->Accept(MicroIds("x")[0]);
  std::vector<float> logits(static_cast<size_t>(MicroVocabulary().vocab_size()), 1.0f);
  EXPECT_THAT(std::string(constraint->Apply(absl::MakeSpan(logits)).message()),
              HasSubstr("answer token 0 (id "));
}

TEST_F(TokenConstraintTest, AnAnswerIsTheSameWhereverItIsResumed) {
  const std::string schema =
      R"({"type": "object", "properties": {"a": {"type": "string", "maxLength": 12},
          "b": {"type": "array", "items": {"type": "integer"}, "minItems": 2, "maxItems": 6}}, "required": ["a", "b"]})";
  const SamplingParameters parameters = {.temperature = 1, .seed = 7, .repetition_penalty = 1.1};
  Sampler sampler(parameters, 0, {});
  sampler.SetConstraint(Constraint(schema));
  const std::vector<int32_t> whole = Generate(sampler, {}, 200);
  ASSERT_EQ(whole.back(), end_);
  ASSERT_GT(whole.size(), 8u);
  for (size_t cut = 0; cut < whole.size(); ++cut) {
    Sampler resumed(parameters, 0, {});
    resumed.SetConstraint(Constraint(schema));  // with an automaton of its own
    EXPECT_EQ(Generate(resumed, {whole.begin(), whole.begin() + static_cast<int64_t>(cut)}, 200), whole)
        << cut;
  }
}

TEST_F(TokenConstraintTest, FreeTextIsSampledOnTheDevice) {
  Sampler sampler({.temperature = 1, .seed = 3}, 0, {});
  sampler.SetConstraint(
      std::make_unique<TokenConstraint>(AutomatonOf({.kind = GrammarSpec::Kind::kToolCalls,
                                                     .text = "",
                                                     .choices = {},
                                                     .tools = {{.name = "f", .parameters_json = ""}},
                                                     .text_first = true}),
                                        &masks_, std::vector<int32_t>{end_}));
  EXPECT_TRUE(sampler.ForDevice().has_value());
  for (const int32_t id : MicroIds("some text<|vision_start|>")) sampler.Accept(id);
  EXPECT_TRUE(sampler.ForDevice().has_value());
  for (const int32_t id : MicroIds("<tool_call>\n{\"name\": \"f\"")) sampler.Accept(id);
  EXPECT_FALSE(sampler.ForDevice().has_value());
  for (const int32_t id : MicroIds(", \"arguments\": {}}\n</tool_call>")) sampler.Accept(id);
  SamplingScratch scratch;
  EXPECT_EQ(sampler.Sample(RandomLogits(5), scratch).value(), end_);
}

TEST_F(TokenConstraintTest, ReasoningIsAnyTextButNoEnd) {
  GrammarSpec spec = {.kind = GrammarSpec::Kind::kChoice, .text = "", .choices = {"yes"}, .tools = {}};
  spec.after_reasoning = true;
  if (!MicroVocabulary().AddedId("</think>").has_value()) GTEST_SKIP() << "the vocabulary has no </think>";
  TokenConstraint constraint(AutomatonOf(spec), &masks_, {end_});
  std::vector<float> logits = Masked(constraint);
  EXPECT_TRUE(std::isinf(logits[end_]));
  EXPECT_EQ(std::count(logits.begin(), logits.end(), 1.0f), MicroTokenizer().vocab_size() - 1);
  for (const int32_t id : MicroIds("because</think>\n\n")) constraint.Accept(id);
  logits = Masked(constraint);
  EXPECT_EQ(logits[MicroIds("y")[0]], 1);
  EXPECT_TRUE(std::isinf(logits[MicroIds("n")[0]]));
}

TEST_F(TokenConstraintTest, AFullAutomatonIsLeftForAFreshOne) {
  const auto shared =
      AutomatonOfSchema(R"({"type": "array", "items": {"type": "string", "maxLength": 1000000}})");
  TokenConstraint constraint(shared, &masks_, {end_});
  // Another reader takes all the room.
  const Automaton::State* state = shared->Read(shared->start(), "[\"");
  while (state != nullptr) state = shared->Read(state, "a");
  ASSERT_TRUE(shared->full());
  for (const int32_t id : MicroIds("[\"xyz\", \"")) constraint.Accept(id);
  const std::vector<float> logits = Masked(constraint);
  EXPECT_EQ(logits[MicroIds("\"")[0]], 1);
  EXPECT_TRUE(std::isinf(logits[end_]));
}

}  // namespace
}  // namespace prism
