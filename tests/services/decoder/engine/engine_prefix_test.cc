// Pages shared between requests, as the engine's callers see it.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "services/decoder/engine/engine.h"
#include "tests/services/decoder/engine/engine_rig.h"

namespace prism {
namespace {

TEST(EnginePrefixTest, TakesTheFullPagesOfAnEarlierPromptAndSaysSo) {
  Rig rig;
  const GenerationRequest request = Prompt(150, 5);
  EXPECT_EQ(RunOn(rig, request).cached_tokens, 0);
  const int64_t rows = rig.executor().rows_total();
  EXPECT_EQ(RunOn(rig, request).cached_tokens, 128);
  EXPECT_EQ(rig.executor().rows_total() - rows, 22 + 4);
  // At least the last token is computed: its logits are wanted.
  EXPECT_EQ(RunOn(rig, Prompt(128, 5)).cached_tokens, 64);
  EXPECT_TRUE(rig.AwaitMetric("vllm:prefix_cache_queries_total{engine=\"0\",model_name=\"fake\"} 428\n"));
  EXPECT_TRUE(rig.AwaitMetric("vllm:prefix_cache_hits_total{engine=\"0\",model_name=\"fake\"} 192\n"));
  EXPECT_TRUE(rig.AwaitMetric("prism_kv_pages{state=\"used\"} 0\n"));
  EXPECT_TRUE(rig.AwaitMetric("prism_kv_pages{state=\"cached\"} 2\n"));
}

TEST(EnginePrefixTest, FindsAnAnswerAgainInTheNextTurnsPrompt) {
  Rig rig;
  GenerationRequest first = Prompt(40, 100);
  Call call(first);
  ASSERT_TRUE(call.Submit(rig).ok());
  ASSERT_TRUE(call.sink.Wait().ok());
  GenerationRequest next = first;
  for (const int32_t id : call.sink.Tokens()) next.token_ids.push_back(id);
  next.token_ids.push_back(3);
  next.max_tokens = 10;
  next.top_logprobs = 2;
  EXPECT_EQ(RunOn(rig, next).cached_tokens, 128);
  Rig fresh({.prefix_caching = false});
  EXPECT_EQ(RunOn(rig, next), RunOn(fresh, next));
}

TEST(EnginePrefixTest, KeepsNothingWhereItIsTurnedOff) {
  Rig rig({.prefix_caching = false});
  EXPECT_EQ(RunOn(rig, Prompt(150, 5)).cached_tokens, 0);
  EXPECT_EQ(RunOn(rig, Prompt(150, 5)).cached_tokens, 0);
  EXPECT_TRUE(rig.AwaitMetric("prism_kv_pages{state=\"free\"} 64\n"));
}

// A prompt of text, a picture and text; `content` is what the picture's bytes depend on.
GenerationRequest PictureBetween(char content, int64_t before = 70, int64_t after = 90) {
  GenerationRequest request = Prompt(before + 24 + after, 8);
  request.top_logprobs = 1;
  request.spans = {{.offset = before, .num_tokens = 24, .grid_h = 8, .grid_w = 12}};
  request.embeddings = {{.handle_id = std::string(16, content),
                         .content_key = std::string(32, content),
                         .address = "enc:1",
                         .digest = std::string(32, content),
                         .num_tokens = 24}};
  return request;
}

TEST(EnginePrefixTest, NeverTakesPagesOfAnotherPictureOfTheSameSize) {
  Rig rig;
  const Outcome first = RunOn(rig, PictureBetween('a'));
  const Outcome other = RunOn(rig, PictureBetween('b'));
  EXPECT_EQ(other.cached_tokens, 64) << "only the text before it";
  EXPECT_FALSE(other == first);
  EXPECT_EQ(RunOn(rig, PictureBetween('a')).cached_tokens, 128);
  EXPECT_EQ(RunOn(rig, PictureBetween('a')), first);
  Rig fresh({.prefix_caching = false});
  EXPECT_EQ(RunOn(fresh, PictureBetween('b')), other);
  // The same content with other bytes (an encoder of other numbers) is another picture, too.
  GenerationRequest other_bytes = PictureBetween('a');
  other_bytes.embeddings[0].digest = std::string(32, 'z');
  EXPECT_EQ(RunOn(rig, other_bytes).cached_tokens, 64);
}

TEST(EnginePrefixTest, NeverTakesPagesOfAnotherSalt) {
  Rig rig;
  GenerationRequest request = Prompt(150, 5);
  request.cache_salt = "tenant a";
  EXPECT_EQ(RunOn(rig, request).cached_tokens, 0);
  request.cache_salt = "tenant b";
  EXPECT_EQ(RunOn(rig, request).cached_tokens, 0);
  request.cache_salt = "";
  EXPECT_EQ(RunOn(rig, request).cached_tokens, 0);
  request.cache_salt = "tenant a";
  EXPECT_EQ(RunOn(rig, request).cached_tokens, 128);
}

TEST(EnginePrefixTest, AnswersTheSameBitsWithAndWithoutItUnderEvictionPreemptionAndResume) {
  std::vector<GenerationRequest> requests;
  std::vector<Outcome> alone;
  for (int32_t i = 0; i < 40; ++i) {
    GenerationRequest request = i % 3 == 0
                                    ? PictureBetween(static_cast<char>('a' + i % 4), 70, 40 + 20 * (i % 5))
                                    : Prompt(100 + 13 * (i % 7), 1, 1 + i % 2);
    request.max_tokens = 40 + 3 * i;
    request.sampling.temperature = i % 2 == 0 ? 0 : 0.9;
    request.sampling.seed = static_cast<uint64_t>(i);
    request.top_logprobs = 2;
    request.num_choices = i % 5 == 0 ? 3 : 1;
    request.cache_salt = i % 7 == 0 ? "isolated" : "";
    Rig rig({.prefix_caching = false});
    alone.push_back(RunOn(rig, request));
    if (i % 4 == 1) {
      // Goes on in the middle.
      std::vector<std::pair<int32_t, double>>& tokens = alone.back().choices[0];
      request.emitted.resize(1);
      for (int32_t t = 0; t < 20 + i; ++t) request.emitted[0].push_back(tokens[static_cast<size_t>(t)].first);
      tokens.erase(tokens.begin(), tokens.begin() + 20 + i);
    }
    requests.push_back(request);
  }
  for (const int64_t pages : {18, 60}) {
    Rig rig({.pages = pages, .max_num_seqs = 10, .max_num_batched_tokens = 90, .growth_tokens = 0});
    int64_t preemptions = 0, cached = 0;
    std::vector<std::unique_ptr<Call>> calls;
    for (const GenerationRequest& request : requests) {
      calls.push_back(std::make_unique<Call>(request));
      ASSERT_EQ(calls.back()->Submit(rig), absl::OkStatus());
    }
    for (size_t i = 0; i < calls.size(); ++i) {
      SCOPED_TRACE(i);
      const Outcome outcome = OutcomeOf(*calls[i]);
      EXPECT_EQ(outcome, alone[i]);
      cached += outcome.cached_tokens;
      preemptions += calls[i]->sink.Of<FinishedEvent>().at(0).report.preemptions;
    }
    EXPECT_GT(cached, 0);
    if (pages == 18) {
      EXPECT_GT(preemptions, 0);
    }
    EXPECT_TRUE(rig.AwaitMetric("prism_kv_pages{state=\"used\"} 0\n"));
    EXPECT_TRUE(rig.AwaitMetric("prism_kv_pages{state=\"reserved\"} 0\n"));
  }
}

TEST(EnginePrefixTest, ComputesThePromptOfSeveralChoicesOnce) {
  for (const bool prefix_caching : {true, false}) {
    GenerationRequest request = Prompt(200, 70);
    request.num_choices = 4;
    request.sampling.temperature = 1;
    request.top_logprobs = 1;
    Rig rig({.prefix_caching = prefix_caching});
    const Outcome together = RunOn(rig, request);
    // Three full pages are shared; each choice computes the last 8 tokens and its own answer.
    EXPECT_EQ(rig.executor().rows_total(), 192 + 4 * (8 + 69));
    EXPECT_EQ(together.cached_tokens, 0) << "nobody else had computed it";
    for (uint32_t choice = 0; choice < 4; ++choice) {
      // Alone: as a choice of that index whose brothers are complete already.
      GenerationRequest separate = request;
      separate.emitted.resize(4);
      for (uint32_t other = 0; other < 4; ++other) {
        if (other == choice) continue;
        for (const auto& [id, logprob] : together.choices[other]) separate.emitted[other].push_back(id);
      }
      Rig fresh({.prefix_caching = false});
      EXPECT_EQ(RunOn(fresh, separate).choices[choice], together.choices[choice]);
    }
  }
}

TEST(EnginePrefixTest, TakesNoPagesForAScoreAndGivesItsOwn) {
  Rig rig;
  GenerationRequest score = Prompt(150, 1);
  score.score = true;
  for (int i = 0; i < 2; ++i) {
    const int64_t rows = rig.executor().rows_total();
    Call call(score);
    ASSERT_TRUE(call.Submit(rig).ok());
    ASSERT_TRUE(call.sink.Wait().ok());
    EXPECT_EQ(call.sink.Of<ScoredEvent>().at(0).logprobs.size(), 149u);
    EXPECT_EQ(rig.executor().rows_total() - rows, 150);
  }
  EXPECT_EQ(RunOn(rig, Prompt(150, 2)).cached_tokens, 128);
}

TEST(EnginePrefixTest, PublishesNothingOfAFailedStep) {
  Rig rig({.max_num_batched_tokens = 512});
  rig.executor().FailNext(1);
  Call failing(Prompt(150, 5));
  ASSERT_TRUE(failing.Submit(rig).ok());
  EXPECT_EQ(failing.sink.Wait().code(), absl::StatusCode::kInternal);
  EXPECT_EQ(RunOn(rig, Prompt(150, 5)).cached_tokens, 0);
}

TEST(EnginePrefixTest, ForgetsThePagesOfAGenerationWhoseLogitsAreNotFinite) {
  Rig rig({.max_num_batched_tokens = 512});
  const GenerationRequest request = Prompt(150, 5, 300);
  rig.executor().Poison(request.token_ids[0]);
  Call bad(request);
  ASSERT_TRUE(bad.Submit(rig).ok());
  EXPECT_EQ(bad.sink.Wait().code(), absl::StatusCode::kInternal);
  rig.executor().Poison(-1);
  EXPECT_EQ(RunOn(rig, request).cached_tokens, 0);
}

}  // namespace
}  // namespace prism
