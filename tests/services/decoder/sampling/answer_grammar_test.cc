#include "services/decoder/sampling/answer_grammar.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <future>

#include "tests/services/decoder/sampling/constrained.h"

namespace prism {
namespace {

using testing::HasSubstr;

GrammarSpec Schema(const std::string& schema) {
  return {.kind = GrammarSpec::Kind::kJsonSchema, .text = schema, .choices = {}, .tools = {}};
}

class AnswerGrammarTest : public testing::Test {
 protected:
  // The prepared grammar's end.
  absl::Status Prepare(const GrammarSpec& spec, std::shared_ptr<AnswerGrammar>* prepared = nullptr) {
    auto grammar = std::make_shared<AnswerGrammar>(spec);
    // Shared, because whoever sets it may still be at it when the value is here.
    const auto done = std::make_shared<std::promise<absl::Status>>();
    const absl::Status queued =
        grammars_.Prepare(grammar, nullptr, [done](const absl::Status& status) { done->set_value(status); });
    if (!queued.ok()) return queued;
    if (prepared != nullptr) *prepared = grammar;
    return done->get_future().get();
  }

  MetricRegistry registry_;
  GrammarMetrics metrics_{&registry_};
  AnswerGrammars grammars_{&MicroVocabulary(), 1, metrics_};
};

TEST_F(AnswerGrammarTest, CountsGrammarsByHowTheyWereComeBy) {
  EXPECT_EQ(Prepare(Schema(R"({"type": "integer"})")), absl::OkStatus());
  EXPECT_EQ(Prepare(Schema(R"({"type": "integer"})")), absl::OkStatus());
  EXPECT_EQ(Prepare(Schema(R"({"type": "boolean"})")), absl::OkStatus());
  EXPECT_EQ(Prepare(Schema(R"({"not": {}})")).code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(metrics_.compiled.value(), 2);
  EXPECT_EQ(metrics_.cached.value(), 1);
  EXPECT_EQ(metrics_.failed.value(), 1);
  EXPECT_THAT(registry_.Text(), HasSubstr("prism_grammar_compile_seconds_count 3\n"));
}

TEST_F(AnswerGrammarTest, CountsMasksThatAreComputedAndThoseThatAreKept) {
  std::shared_ptr<AnswerGrammar> grammar;
  ASSERT_EQ(Prepare(Schema(R"({"type": "boolean"})"), &grammar), absl::OkStatus());
  std::vector<float> logits(static_cast<size_t>(MicroVocabulary().vocab_size()), 1.0F);
  for (int answer = 0; answer < 3; ++answer) {
    const std::unique_ptr<TokenConstraint> constraint = grammar->MakeConstraint({0});
    ASSERT_EQ(constraint->Apply(absl::MakeSpan(logits)), absl::OkStatus());
  }
  // Preparing asked for the mask of the first state; each of the three answers found it.
  EXPECT_EQ(metrics_.masks_computed.value(), 1);
  EXPECT_EQ(metrics_.masks_cached.value(), 3);
  EXPECT_THAT(registry_.Text(), HasSubstr("prism_token_mask_seconds_count 1\n"));
}

}  // namespace
}  // namespace prism
