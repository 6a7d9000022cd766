#include "services/decoder/engine/engine.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <limits>
#include <map>

#include "common/wire/status_codec.h"
#include "services/decoder/engine/rate_meter.h"
#include "tests/services/decoder/engine/engine_rig.h"

namespace prism {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;

TEST(EngineTest, TellsAGenerationInOrderFromStartedToFinished) {
  Rig rig;
  Call call(Prompt(10, 3));
  ASSERT_TRUE(call.Submit(rig).ok());
  ASSERT_TRUE(call.sink.Wait().ok());
  const std::vector<GenerationEvent> events = call.sink.events();
  ASSERT_EQ(events.size(), 6u);
  EXPECT_EQ(std::get<StartedEvent>(events[0]).prompt_tokens, 10);
  for (int64_t i = 0; i < 3; ++i) {
    const auto& token = std::get<TokenEvent>(events[static_cast<size_t>(i + 1)]);
    EXPECT_EQ(token.index, i);
    EXPECT_FALSE(token.has_logprobs);
  }
  EXPECT_EQ(std::get<ChoiceFinishedEvent>(events[4]).reason, FinishReason::kLength);
  EXPECT_EQ(std::get<ChoiceFinishedEvent>(events[4]).completion_tokens, 3);
  EXPECT_TRUE(std::holds_alternative<FinishedEvent>(events[5]));
}

TEST(EngineTest, FlushesStartedBeforeItsStepAndEveryTokenAfterIts) {
  Rig rig;
  GenerationRequest request = Prompt(10, 4);
  request.num_choices = 2;
  Call call(request);
  ASSERT_TRUE(call.Submit(rig).ok());
  ASSERT_TRUE(call.sink.Wait().ok());
  const std::vector<GenerationEvent> events = call.sink.events();
  const std::vector<size_t> flushes = call.sink.flushes();
  const auto flushed_at = [&](size_t told) { return std::count(flushes.begin(), flushes.end(), told); };
  std::map<int64_t, size_t> last_of_step;  // by the token's index
  for (size_t i = 0; i < events.size(); ++i) {
    if (std::holds_alternative<StartedEvent>(events[i])) {
      EXPECT_EQ(flushed_at(i + 1), 1);
    }
    if (const auto* token = std::get_if<TokenEvent>(&events[i])) last_of_step[token->index] = i + 1;
  }
  ASSERT_EQ(last_of_step.size(), 4u);
  last_of_step.erase(3);  // followed by how its choices ended
  for (const auto& [index, told] : last_of_step) EXPECT_EQ(flushed_at(told), 1) << "step of token " << index;
  // None splits the tokens of a step.
  for (size_t i = 1; i < events.size(); ++i) {
    const auto* before = std::get_if<TokenEvent>(&events[i - 1]);
    const auto* token = std::get_if<TokenEvent>(&events[i]);
    if (before != nullptr && token != nullptr && before->index == token->index) {
      EXPECT_EQ(flushed_at(i), 0) << "step of token " << token->index;
    }
  }
}

TEST(EngineTest, GivesTheSameAnswerAloneInABatchAndUnderPreemption) {
  std::vector<GenerationRequest> requests;
  std::vector<std::vector<int32_t>> alone;
  for (int32_t i = 0; i < 24; ++i) {
    requests.push_back(Prompt(5 + 9 * i, 90 + i, i + 1));
    requests.back().sampling.temperature = i % 2 == 0 ? 0 : 0.8;
    requests.back().sampling.seed = 100 + static_cast<uint64_t>(i);
    alone.push_back(Answer(requests.back()));
    ASSERT_EQ(alone.back().size(), static_cast<size_t>(90 + i));
  }
  for (const int64_t chunk : {16, 64, 300}) {
    Rig rig({.pages = 24,
             .max_num_seqs = 12,
             .max_num_batched_tokens = chunk,
             .growth_tokens = 0,
             .sampling_threads = 2});
    std::vector<std::unique_ptr<Call>> calls;
    for (const GenerationRequest& request : requests) {
      calls.push_back(std::make_unique<Call>(request));
      ASSERT_TRUE(calls.back()->Submit(rig).ok());
    }
    int64_t preemptions = 0;
    for (size_t i = 0; i < calls.size(); ++i) {
      ASSERT_TRUE(calls[i]->sink.Wait().ok());
      EXPECT_EQ(calls[i]->sink.Tokens(), alone[i]) << "chunk " << chunk << " request " << i;
      preemptions += calls[i]->sink.Of<FinishedEvent>().at(0).report.preemptions;
    }
    EXPECT_GT(preemptions, 0);
    EXPECT_GT(rig.executor().sequences_max(), 1);
  }
}

TEST(EngineTest, StopsAtAnEndIdAndSendsItAsTheLastToken) {
  GenerationRequest request = Prompt(10, 50);
  const std::vector<int32_t> free = Answer(request);
  request.end_token_ids = {free[4]};
  Rig rig;
  Call call(request);
  ASSERT_TRUE(call.Submit(rig).ok());
  ASSERT_TRUE(call.sink.Wait().ok());
  const auto first = std::find(free.begin(), free.end(), free[4]);
  EXPECT_EQ(call.sink.Tokens(), std::vector<int32_t>(free.begin(), first + 1));
  EXPECT_EQ(call.sink.Of<ChoiceFinishedEvent>().at(0).reason, FinishReason::kStop);
}

TEST(EngineTest, GoesOnFromEmittedTokensAsIfNothingHadHappened) {
  GenerationRequest request = Prompt(20, 30);
  request.sampling.temperature = 1;
  request.sampling.seed = 9;
  const std::vector<int32_t> whole = Answer(request);
  request.emitted = {{whole.begin(), whole.begin() + 11}};
  Rig rig;
  Call call(request);
  ASSERT_TRUE(call.Submit(rig).ok());
  ASSERT_TRUE(call.sink.Wait().ok());
  EXPECT_EQ(call.sink.Tokens(), std::vector<int32_t>(whole.begin() + 11, whole.end()));
  EXPECT_EQ(call.sink.Of<TokenEvent>().at(0).index, 11);
  EXPECT_EQ(call.sink.Of<ChoiceFinishedEvent>().at(0).completion_tokens, 30);
}

TEST(EngineTest, EndsAResumedChoiceThatWasCompleteAlready) {
  GenerationRequest request = Prompt(20, 3);
  request.num_choices = 2;
  request.end_token_ids = {77};
  request.emitted = {{5, 77}, {5, 6, 7}};
  Rig rig;
  Call call(request);
  ASSERT_TRUE(call.Submit(rig).ok());
  ASSERT_TRUE(call.sink.Wait().ok());
  EXPECT_THAT(call.sink.Of<TokenEvent>(), IsEmpty());
  const auto finished = call.sink.Of<ChoiceFinishedEvent>();
  ASSERT_EQ(finished.size(), 2u);
  EXPECT_EQ(finished[0].reason, FinishReason::kStop);
  EXPECT_EQ(finished[0].completion_tokens, 2);
  EXPECT_EQ(finished[1].reason, FinishReason::kLength);
  EXPECT_EQ(call.sink.Of<StartedEvent>().size(), 1u);
}

TEST(EngineTest, DrawsEachChoiceByItsIndex) {
  GenerationRequest request = Prompt(12, 10);
  request.sampling.temperature = 1;
  request.num_choices = 3;
  const std::vector<int32_t> first = Answer(request, {}, 0);
  const std::vector<int32_t> second = Answer(request, {}, 1);
  EXPECT_NE(first, second);
  request.num_choices = 1;
  EXPECT_EQ(Answer(request), first);
}

TEST(EngineTest, FillsPicturesFromTheirEmbeddings) {
  GenerationRequest request = Prompt(40, 5);
  request.spans = {{.offset = 3, .num_tokens = 6, .grid_h = 4, .grid_w = 6},
                   {.offset = 20, .num_tokens = 6, .grid_h = 4, .grid_w = 6, .embedding_index = 1}};
  for (const char name : {'a', 'b'}) {
    request.embeddings.push_back({.handle_id = std::string(16, name),
                                  .content_key = std::string(32, name),
                                  .address = "enc:1",
                                  .digest = std::string(32, name),
                                  .num_tokens = 6});
  }
  const std::vector<int32_t> answer = Answer(request);
  EXPECT_EQ(Answer(request, {.max_num_seqs = 1, .max_num_batched_tokens = 5}), answer) << "in chunks";
  std::swap(request.embeddings[0], request.embeddings[1]);
  EXPECT_NE(Answer(request), answer) << "the pictures changed places";

  Rig rig;
  Call call(request);
  ASSERT_TRUE(call.Submit(rig).ok());
  ASSERT_TRUE(call.sink.Wait().ok());
  const auto receipts = call.sink.Of<StartedEvent>().at(0).receipts;
  ASSERT_EQ(receipts.size(), 2u);
  EXPECT_EQ(receipts[0].content_key, std::string(32, 'b'));
  EXPECT_EQ(receipts[0].encoder, "enc:1");
  EXPECT_EQ(call.sink.Of<FinishedEvent>().at(0).receipts.size(), 2u);
}

GenerationRequest OnePicture() {
  GenerationRequest request = Prompt(20, 2);
  request.spans = {{.offset = 3, .num_tokens = 4, .grid_h = 4, .grid_w = 4}};
  request.embeddings = {{.handle_id = std::string(16, 'a'), .num_tokens = 4}};
  return request;
}

TEST(EngineTest, EndsWithTheErrorOfAPullAndNeverAnswersBlind) {
  Rig rig;
  rig.embeddings().result =
      ErrorWithReason(absl::StatusCode::kFailedPrecondition, "gone", kReasonEmbeddingLost);
  Call call(OnePicture());
  ASSERT_TRUE(call.Submit(rig).ok());
  const absl::Status status = call.sink.Wait();
  EXPECT_EQ(status.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_EQ(ReasonOf(status), kReasonEmbeddingLost);
  EXPECT_THAT(call.sink.events(), IsEmpty());
  EXPECT_THAT(rig.MetricsText(), HasSubstr("prism_embedding_reject_total{reason=\"lost\"} 1"));
}

TEST(EngineTest, WaitsForEmbeddingMemoryInOrderAndLetsTextPass) {
  Rig rig;
  rig.embeddings().alive_max = 1;
  rig.embeddings().hold = true;
  Call first(OnePicture()), second(OnePicture()), text(Prompt(4, 2));
  ASSERT_TRUE(first.Submit(rig).ok());
  ASSERT_TRUE(second.Submit(rig).ok());
  ASSERT_TRUE(text.Submit(rig).ok());
  EXPECT_TRUE(text.sink.Wait().ok());
  EXPECT_THAT(second.sink.events(), IsEmpty());
  rig.WakeAfterPulls();
  EXPECT_TRUE(first.sink.Wait().ok());
  EXPECT_TRUE(second.sink.Wait().ok());
  EXPECT_TRUE(rig.embeddings().WaitForNoneAlive());
}

TEST(EngineTest, EndsACancelledGenerationWhereverItIs) {
  Rig rig({.max_num_seqs = 1});
  // Running, waiting for a seat, and waiting for its picture.
  rig.embeddings().hold = true;
  Call running(Prompt(10, 4000)), waiting(Prompt(10, 4000)), pulling(OnePicture());
  for (Call* call : {&running, &waiting, &pulling}) ASSERT_TRUE(call->Submit(rig).ok());
  ASSERT_TRUE(running.sink.WaitFor<TokenEvent>(3));
  for (Call* call : {&waiting, &pulling, &running}) {
    rig.engine().Cancel(*call->generation);
    EXPECT_EQ(call->sink.Wait().code(), absl::StatusCode::kCancelled);
  }
  EXPECT_THAT(waiting.sink.Of<TokenEvent>(), IsEmpty());
  Call next(Prompt(10, 2));
  ASSERT_TRUE(next.Submit(rig).ok());
  EXPECT_TRUE(next.sink.Wait().ok());
  EXPECT_TRUE(rig.AwaitMetric("prism_kv_pages{state=\"used\"} 0\n"));
  EXPECT_TRUE(rig.AwaitMetric("prism_kv_pages{state=\"reserved\"} 0\n"));
}

// Queued, pulling, in its prompt, decoding: by the next step it computes nothing more, its pages and its
// embeddings' memory are back, and the metric says who left.
TEST(EngineTest, StopsTheWorkOfACallerWhoLeavesInAnyStage) {
  struct Stage {
    const char* name;
    bool seat_is_taken, pull_is_held, stop_in_prompt;
  };
  for (const Stage& stage :
       {Stage{"queued", true, false, false}, Stage{"pulling", false, true, false},
        Stage{"in its prompt", false, false, true}, Stage{"decoding", false, false, false}}) {
    SCOPED_TRACE(stage.name);
    Rig rig({.max_num_seqs = 1, .max_num_batched_tokens = 32});
    GenerationRequest request = OnePicture();
    request.token_ids = Prompt(600, 1).token_ids;
    request.max_tokens = 3000;
    Call seat(Prompt(10, 4000, 7)), call(request);
    if (stage.seat_is_taken) {
      ASSERT_TRUE(seat.Submit(rig).ok());
      ASSERT_TRUE(seat.sink.WaitFor<TokenEvent>(1));
    }
    rig.embeddings().hold = stage.pull_is_held;
    if (stage.stop_in_prompt) rig.executor().Hold(true);
    ASSERT_TRUE(call.Submit(rig).ok());
    if (stage.stop_in_prompt) {
      ASSERT_TRUE(call.sink.WaitFor<StartedEvent>(1));
    }
    if (!stage.seat_is_taken && !stage.pull_is_held && !stage.stop_in_prompt) {
      ASSERT_TRUE(call.sink.WaitFor<TokenEvent>(2));
    }
    rig.engine().Cancel(*call.generation);
    rig.executor().Hold(false);
    EXPECT_EQ(call.sink.Wait().code(), absl::StatusCode::kCancelled);
    if (stage.stop_in_prompt) {
      EXPECT_EQ(rig.executor().rows_total(), 32) << "the step under way, and no other";
    }
    if (stage.seat_is_taken) {
      rig.engine().Cancel(*seat.generation);
      EXPECT_EQ(seat.sink.Wait().code(), absl::StatusCode::kCancelled);
    }
    EXPECT_TRUE(rig.embeddings().WaitForNoneAlive());
    EXPECT_TRUE(rig.AwaitMetric("prism_kv_pages{state=\"used\"} 0\n"));
    EXPECT_TRUE(rig.AwaitMetric("prism_kv_pages{state=\"reserved\"} 0\n"));
    EXPECT_THAT(rig.MetricsText(),
                HasSubstr(stage.seat_is_taken ? "prism_stream_abort_total{by=\"client\"} 2\n"
                                              : "prism_stream_abort_total{by=\"client\"} 1\n"));
  }
}

TEST(EngineTest, NeverSaysABadWordNotEvenAcrossAResume) {
  GenerationRequest request = Prompt(10, 40);
  request.sampling.temperature = 0.8;
  const std::vector<int32_t> free = Answer(request);
  // Two of the answer's own pairs, and one id of it.
  request.sampling.bad_words = {{free[4], free[5]}, {free[0]}};
  const std::vector<int32_t> whole = Answer(request);
  EXPECT_NE(whole, free);
  EXPECT_EQ(std::count(whole.begin(), whole.end(), free[0]), 0);
  for (size_t i = 1; i < whole.size(); ++i) EXPECT_FALSE(whole[i - 1] == free[4] && whole[i] == free[5]);
  for (const size_t emitted : {1, 5, 20}) {
    GenerationRequest resumed = request;
    resumed.emitted = {{whole.begin(), whole.begin() + static_cast<std::ptrdiff_t>(emitted)}};
    EXPECT_EQ(Answer(resumed),
              std::vector<int32_t>(whole.begin() + static_cast<std::ptrdiff_t>(emitted), whole.end()));
  }
}

TEST(EngineTest, SaysOnlyWhatIsAllowed) {
  GenerationRequest request = Prompt(10, 40);
  request.sampling.temperature = 1;
  request.sampling.allowed_token_ids = {9, 3, 400};
  for (const int32_t id : Answer(request)) EXPECT_TRUE(id == 9 || id == 3 || id == 400) << id;
}

TEST(EngineTest, GivesLogProbabilitiesOfThePromptWithoutChangingTheAnswer) {
  GenerationRequest request = Prompt(150, 20);
  request.num_choices = 2;
  request.sampling.temperature = 1;
  const Outcome plain = [&] {
    Rig rig;
    return RunOn(rig, request);
  }();
  GenerationRequest score = Prompt(150, 1);
  score.score = true;
  for (const bool executor_samples : {false, true}) {
    // Pages few enough that the choices lose them and compute the prompt again.
    for (const int64_t pages : {5, 64}) {
      Rig rig({.pages = pages, .growth_tokens = 0, .executor_samples = executor_samples});
      RunOn(rig, request);  // known pages give no hit
      Call scored(score);
      ASSERT_TRUE(scored.Submit(rig).ok());
      ASSERT_TRUE(scored.sink.Wait().ok());
      const std::vector<double> expected = scored.sink.Of<ScoredEvent>().at(0).logprobs;
      request.prompt_logprobs = 2;
      Call call(request);
      ASSERT_TRUE(call.Submit(rig).ok());
      const Outcome outcome = OutcomeOf(call);
      EXPECT_EQ(outcome, plain);
      EXPECT_EQ(outcome.cached_tokens, 0);
      ASSERT_EQ(call.sink.Of<PromptLogprobsEvent>().size(), 1u) << "told once";
      const std::vector<PromptLogprob> told = call.sink.Of<PromptLogprobsEvent>().at(0).tokens;
      ASSERT_EQ(told.size(), 149u);
      for (size_t i = 0; i < 149; ++i) {
        EXPECT_EQ(told[i].token_id, request.token_ids[i + 1]);
        EXPECT_EQ(told[i].logprob, expected[i]);
        ASSERT_EQ(told[i].top.size(), 2u);
        EXPECT_GE(told[i].top[0].logprob, told[i].top[1].logprob);
      }
      bool any_token = false;
      for (const GenerationEvent& event : call.sink.events()) {
        any_token = any_token || std::holds_alternative<TokenEvent>(event);
        EXPECT_FALSE(any_token && std::holds_alternative<PromptLogprobsEvent>(event)) << "behind a token";
      }
      request.prompt_logprobs.reset();
    }
  }
}

TEST(EngineTest, EmitsNothingMoreThanAStepAfterTheCancellation) {
  Rig rig;
  Call call(Prompt(10, 2000));
  ASSERT_TRUE(call.Submit(rig).ok());
  ASSERT_TRUE(call.sink.WaitFor<TokenEvent>(2));
  rig.executor().Hold(true);
  rig.engine().Cancel(*call.generation);
  const size_t tokens = call.sink.Of<TokenEvent>().size();
  rig.executor().Hold(false);
  EXPECT_EQ(call.sink.Wait().code(), absl::StatusCode::kCancelled);
  EXPECT_LE(call.sink.Of<TokenEvent>().size(), tokens + 1);
}

TEST(EngineTest, ReportsWhatBecameOfAGenerationWhicheverWayItEnded) {
  GenerationRequest request = Prompt(10, 50);
  request.end_token_ids = {Answer(request)[4]};
  Rig rig({.max_num_seqs = 1});
  Call answered(request);
  ASSERT_TRUE(answered.Submit(rig).ok());
  ASSERT_TRUE(answered.sink.Wait().ok());
  GenerationReport report = answered.sink.report();
  EXPECT_EQ(report.completion_tokens, static_cast<int64_t>(answered.sink.Tokens().size()));
  EXPECT_EQ(report.num_stopped, 1);
  EXPECT_GT(report.first_token_s, 0);
  EXPECT_GE(report.first_token_s, report.prefill_s);
  EXPECT_GE(report.decode_s, 0);

  Rig held({.max_num_seqs = 1});
  Call running(Prompt(10, 40)), queued(Prompt(10, 40, 9));
  held.executor().HoldAfter(3);
  ASSERT_TRUE(running.Submit(held).ok());
  ASSERT_TRUE(held.executor().AwaitStart(4));
  ASSERT_TRUE(queued.Submit(held).ok());
  held.engine().Cancel(*queued.generation);
  held.engine().Cancel(*running.generation);
  held.executor().Hold(false);
  ASSERT_EQ(queued.sink.Wait().code(), absl::StatusCode::kCancelled);
  report = queued.sink.report();
  EXPECT_EQ(report.completion_tokens, 0);
  EXPECT_GT(report.queue_s, 0);
  EXPECT_EQ(report.prefill_s, 0);
  EXPECT_EQ(report.first_token_s, 0);
  ASSERT_EQ(running.sink.Wait().code(), absl::StatusCode::kCancelled);
  report = running.sink.report();
  EXPECT_EQ(report.completion_tokens, 3);
  EXPECT_EQ(report.num_stopped, 0);
  EXPECT_GT(report.first_token_s, 0);
  EXPECT_GT(report.decode_s, 0);
}

TEST(EngineTest, EndsAGenerationAtItsDeadline) {
  Rig rig;
  GenerationRequest request = OnePicture();
  rig.embeddings().hold = true;
  request.deadline = In(milliseconds(500));
  Call call(request);
  ASSERT_TRUE(call.Submit(rig).ok());
  EXPECT_EQ(call.sink.Wait().code(), absl::StatusCode::kDeadlineExceeded);
  EXPECT_GE(std::chrono::steady_clock::now(), request.deadline);
  EXPECT_EQ(call.Submit(rig).code(), absl::StatusCode::kDeadlineExceeded) << "it has passed";
}

TEST(EngineTest, RefusesWhenTooManyWaitAndSaysWhenToComeBack) {
  // One has the only seat, so that the others wait whatever the engine does meanwhile.
  Rig rig({.max_num_seqs = 1, .max_waiting = 2});
  rig.executor().Hold(true);
  Call running(Prompt(10, 1)), first(Prompt(10, 1)), second(Prompt(10, 1)), third(Prompt(10, 1));
  ASSERT_TRUE(running.Submit(rig).ok());
  ASSERT_TRUE(running.sink.WaitFor<StartedEvent>(1));
  ASSERT_TRUE(first.Submit(rig).ok());
  ASSERT_TRUE(second.Submit(rig).ok());
  const absl::Status status = third.Submit(rig);
  EXPECT_EQ(status.code(), absl::StatusCode::kResourceExhausted);
  EXPECT_EQ(status.message(), "2 generations are waiting, at most 2 may");
  EXPECT_EQ(ReasonOf(status), kReasonQueueFull);
  EXPECT_GE(RetryDelayMsOf(status).value_or(0), 100);
  rig.executor().Hold(false);
  ASSERT_TRUE(first.sink.Wait().ok());
  ASSERT_TRUE(second.sink.Wait().ok());
  EXPECT_TRUE(third.Submit(rig).ok());
  EXPECT_TRUE(third.sink.Wait().ok());
}

TEST(EngineTest, RefusesWhatCannotMakeItsDeadlineAndSaysWhenToComeBack) {
  Rig rig;
  // A step of 64 rows takes 100 ms, as far as the engine knows.
  rig.executor().Hold(true);
  Call slow(Prompt(64, 1));
  ASSERT_TRUE(slow.Submit(rig).ok());
  ASSERT_TRUE(slow.sink.WaitFor<StartedEvent>(1));
  std::this_thread::sleep_for(milliseconds(100));
  rig.executor().Hold(false);
  ASSERT_TRUE(slow.sink.Wait().ok());

  GenerationRequest longer = Prompt(3000, 1, 2);
  longer.deadline = In(seconds(2));
  Call never(longer);
  EXPECT_EQ(never.Submit(rig).code(), absl::StatusCode::kDeadlineExceeded) << "not even alone";
  longer.deadline = SteadyTime::max();
  longer.objective = milliseconds(1);
  rig.executor().Hold(true);
  Call running(longer);
  ASSERT_TRUE(running.Submit(rig).ok());
  ASSERT_TRUE(running.sink.WaitFor<StartedEvent>(1));
  GenerationRequest behind = Prompt(64, 1, 3);
  behind.deadline = In(seconds(2));
  Call call(behind);
  const absl::Status status = call.Submit(rig);
  EXPECT_EQ(status.code(), absl::StatusCode::kResourceExhausted) << status;
  EXPECT_EQ(ReasonOf(status), kReasonQueueFull);
  EXPECT_GE(RetryDelayMsOf(status).value_or(0), 100);
  EXPECT_THAT(rig.MetricsText(), HasSubstr("prism_request_reject_total{reason=\"deadline\"} 2"));
  rig.executor().Hold(false);
  EXPECT_TRUE(running.sink.Wait().ok());
}

TEST(EngineTest, RefusesNoResumedGenerationBecauseOthersWait) {
  Rig rig({.max_num_seqs = 1, .max_waiting = 1});
  rig.executor().Hold(true);
  Call running(Prompt(10, 2)), first(Prompt(10, 2)), fresh(Prompt(10, 2));
  ASSERT_TRUE(running.Submit(rig).ok());
  ASSERT_TRUE(running.sink.WaitFor<StartedEvent>(1));
  ASSERT_TRUE(first.Submit(rig).ok());
  EXPECT_EQ(fresh.Submit(rig).code(), absl::StatusCode::kResourceExhausted);
  GenerationRequest request = Prompt(10, 2);
  request.emitted = {{5}};
  request.resumed = true;
  Call resumed(request);
  EXPECT_TRUE(resumed.Submit(rig).ok());
  EXPECT_EQ(fresh.Submit(rig).code(), absl::StatusCode::kResourceExhausted);
  rig.executor().Hold(false);
  EXPECT_TRUE(running.sink.Wait().ok());
  EXPECT_TRUE(first.sink.Wait().ok());
  EXPECT_TRUE(resumed.sink.Wait().ok());
}

TEST(EngineTest, TellsEveryGenerationOnceThatItDrains) {
  Rig rig({.heartbeat = milliseconds(20)});
  rig.embeddings().hold = true;
  Call waiting(OnePicture());
  ASSERT_TRUE(waiting.Submit(rig).ok());
  rig.engine().Drain();
  EXPECT_TRUE(waiting.sink.WaitFor<DrainingEvent>(1));
  EXPECT_TRUE(waiting.sink.WaitFor<HeartbeatEvent>(2));
  rig.WakeAfterPulls();
  EXPECT_TRUE(waiting.sink.Wait().ok()) << "and it is finished where it is";
  int told = 0;
  for (const GenerationEvent& event : waiting.sink.events()) {
    told += std::holds_alternative<DrainingEvent>(event) ? 1 : 0;
  }
  EXPECT_EQ(told, 1);
}

TEST(EngineTest, RefusesWhatCanNeverFit) {
  Rig rig({.pages = 2});
  Call call(Prompt(100, 29));
  const absl::Status status = call.Submit(rig);
  EXPECT_EQ(status.code(), absl::StatusCode::kResourceExhausted);
  EXPECT_THAT(std::string(status.message()), HasSubstr("129 tokens need 3 KV pages"));
  EXPECT_FALSE(RetryDelayMsOf(status).has_value());
}

TEST(EngineTest, EndsOnlyTheGenerationWhoseLogitsAreNotFinite) {
  Rig rig;
  GenerationRequest poisoned = Prompt(10, 5, 300);
  rig.executor().Poison(poisoned.token_ids[0]);
  Call bad(poisoned), good(Prompt(10, 5, 2));
  ASSERT_TRUE(bad.Submit(rig).ok());
  ASSERT_TRUE(good.Submit(rig).ok());
  const absl::Status status = bad.sink.Wait();
  EXPECT_EQ(status.code(), absl::StatusCode::kInternal);
  EXPECT_THAT(std::string(status.message()), HasSubstr(Hex(poisoned.generation_id)));
  EXPECT_TRUE(good.sink.Wait().ok());
}

TEST(EngineTest, EndsTheGenerationsOfAFailedStepAndLivesOn) {
  Rig rig;
  rig.executor().FailNext(1);
  Call first(Prompt(10, 5)), second(Prompt(10, 5));
  ASSERT_TRUE(first.Submit(rig).ok());
  const absl::Status status = first.sink.Wait();
  EXPECT_EQ(status.code(), absl::StatusCode::kInternal);
  EXPECT_THAT(std::string(status.message()), HasSubstr("a kernel failed"));
  ASSERT_TRUE(second.Submit(rig).ok());
  EXPECT_TRUE(second.sink.Wait().ok());
}

TEST(EngineTest, BeatsWhileAStepTakesLongAndWhileAPullDoes) {
  Rig rig({.heartbeat = milliseconds(20), .step_max = milliseconds(30)});
  rig.embeddings().hold = true;
  Call running(Prompt(10, 5)), pulling(OnePicture());
  ASSERT_TRUE(pulling.Submit(rig).ok());
  // What stands before its picture is computed; from now on it only waits.
  EXPECT_TRUE(pulling.sink.WaitFor<HeartbeatEvent>(1));
  rig.executor().Hold(true);
  ASSERT_TRUE(running.Submit(rig).ok());
  EXPECT_TRUE(running.sink.WaitFor<HeartbeatEvent>(3));
  EXPECT_TRUE(pulling.sink.WaitFor<HeartbeatEvent>(4));
  const auto waits = [](const Call& call) {
    const std::vector<GenerationEvent> events = call.sink.events();
    const auto last = std::find_if(events.rbegin(), events.rend(), [](const GenerationEvent& event) {
      return std::holds_alternative<HeartbeatEvent>(event);
    });
    return last != events.rend() && std::get<HeartbeatEvent>(*last).waiting;
  };
  EXPECT_FALSE(waits(running)) << "a step is due for it";
  EXPECT_TRUE(waits(pulling));
  EXPECT_EQ(rig.engine().Live().code(), absl::StatusCode::kUnavailable) << "the step is stuck";
  rig.executor().Hold(false);
  EXPECT_TRUE(running.sink.Wait().ok());
  EXPECT_TRUE(rig.engine().Live().ok());
  EXPECT_GE(rig.engine().steps(), 5u);
  rig.Stop();
}

TEST(EngineTest, TakesInAndBeatsForWhoComesWhileAStepIsUnderWay) {
  constexpr milliseconds kHeartbeat(20);
  Rig rig({.heartbeat = kHeartbeat});
  Call first(Prompt(10, 3)), second(Prompt(12, 2, 5));
  rig.executor().Hold(true);
  ASSERT_TRUE(first.Submit(rig).ok());
  ASSERT_TRUE(rig.executor().AwaitStart(1));
  ASSERT_TRUE(second.Submit(rig).ok());
  ASSERT_TRUE(second.sink.WaitFor<HeartbeatEvent>(3));
  // The load was published between two beats.
  const EngineLoad load = rig.engine().Load();
  EXPECT_EQ(load.running, 1);
  EXPECT_EQ(load.waiting, 1);
  EXPECT_EQ(load.pending_tokens, 10 + 12);
  EXPECT_EQ(rig.engine().steps(), 0u);
  rig.executor().Hold(false);
  ASSERT_TRUE(first.sink.Wait().ok());
  ASSERT_TRUE(second.sink.Wait().ok());
  // Beats say that work is due and how many steps have ended, so that a hung one is found.
  const std::vector<HeartbeatEvent> beats = second.sink.Of<HeartbeatEvent>();
  for (size_t i = 0; i < 3; ++i) {
    EXPECT_EQ(beats[i].engine_steps, 0u);
    EXPECT_FALSE(beats[i].waiting);
  }
  // It has waited since it was submitted, not since the step ended.
  EXPECT_GE(second.sink.Of<FinishedEvent>().at(0).report.queue_s,
            3 * std::chrono::duration<double>(kHeartbeat).count());
  EXPECT_EQ(second.sink.Tokens(), Answer(Prompt(12, 2, 5)));
  EXPECT_EQ(first.sink.Tokens(), Answer(Prompt(10, 3)));
}

TEST(EngineTest, TellsThatItDrainsWhileAStepIsUnderWay) {
  Rig rig({.heartbeat = milliseconds(20)});
  Call call(Prompt(10, 3)), late(Prompt(10, 3));
  rig.executor().Hold(true);
  ASSERT_TRUE(call.Submit(rig).ok());
  ASSERT_TRUE(rig.executor().AwaitStart(1));
  rig.engine().Drain();
  ASSERT_TRUE(call.sink.WaitFor<DrainingEvent>(1));
  EXPECT_EQ(late.Submit(rig).code(), absl::StatusCode::kUnavailable);
  rig.executor().Hold(false);
  ASSERT_TRUE(call.sink.Wait().ok());
  EXPECT_EQ(call.sink.Of<DrainingEvent>().size(), 1u);
}

TEST(EngineTest, EndsWhoComesAndLeavesWhileAStepIsUnderWay) {
  Rig rig({.heartbeat = milliseconds(20)});
  Call first(Prompt(10, 3)), second(Prompt(12, 2, 5));
  rig.executor().Hold(true);
  ASSERT_TRUE(first.Submit(rig).ok());
  ASSERT_TRUE(rig.executor().AwaitStart(1));
  ASSERT_TRUE(second.Submit(rig).ok());
  ASSERT_TRUE(second.sink.WaitFor<HeartbeatEvent>(1));
  rig.engine().Cancel(*second.generation);
  rig.executor().Hold(false);
  EXPECT_EQ(second.sink.Wait().code(), absl::StatusCode::kCancelled);
  EXPECT_THAT(second.sink.Of<StartedEvent>(), IsEmpty());
  ASSERT_TRUE(first.sink.Wait().ok());
  EXPECT_TRUE(rig.AwaitMetric("vllm:num_requests_waiting{engine=\"0\",model_name=\"fake\"} 0"));
}

TEST(EngineTest, EndsAGenerationWhoseCallerReadsTooSlowly) {
  Rig rig;
  Call call(Prompt(10, 50));
  call.sink.RefuseAfter(4);
  ASSERT_TRUE(call.Submit(rig).ok());
  EXPECT_EQ(call.sink.Wait().code(), absl::StatusCode::kResourceExhausted);
  EXPECT_EQ(call.sink.events().size(), 5u);
}

TEST(EngineTest, ScoresEachIdGivenThoseBeforeIt) {
  GenerationRequest request = Prompt(30, 10);
  request.top_logprobs = 0;
  Rig rig({.max_num_seqs = 4, .max_num_batched_tokens = 7});
  Call call(request);
  ASSERT_TRUE(call.Submit(rig).ok());
  ASSERT_TRUE(call.sink.Wait().ok());
  GenerationRequest score = Prompt(30, 1);
  for (const int32_t id : call.sink.Tokens()) score.token_ids.push_back(id);
  score.score = true;
  Call scored(score);
  ASSERT_TRUE(scored.Submit(rig).ok());
  ASSERT_TRUE(scored.sink.Wait().ok());
  const std::vector<double> logprobs = scored.sink.Of<ScoredEvent>().at(0).logprobs;
  ASSERT_EQ(logprobs.size(), 39u);
  const auto tokens = call.sink.Of<TokenEvent>();
  for (size_t i = 0; i < tokens.size(); ++i) EXPECT_EQ(logprobs[29 + i], tokens[i].logprob);
  for (const double logprob : logprobs) EXPECT_LT(logprob, 0);
}

TEST(EngineTest, GivesLogProbabilitiesWhereTheyWereAskedFor) {
  GenerationRequest request = Prompt(10, 4);
  request.top_logprobs = 3;
  Rig rig;
  Call call(request);
  ASSERT_TRUE(call.Submit(rig).ok());
  ASSERT_TRUE(call.sink.Wait().ok());
  for (const TokenEvent& token : call.sink.Of<TokenEvent>()) {
    ASSERT_EQ(token.top.size(), 3u);
    EXPECT_EQ(token.top[0].token_id, token.token_id) << "greedy";
    EXPECT_EQ(token.top[0].logprob, token.logprob);
    EXPECT_GE(token.top[1].logprob, token.top[2].logprob);
  }
}

TEST(EngineTest, AnswersTheSameWhetherRowsAreSampledHereOrWhereTheLogitsAre) {
  std::vector<GenerationRequest> requests;
  for (int32_t i = 0; i < 12; ++i) {
    GenerationRequest request = Prompt(7 + 5 * i, 20, i + 1);
    SamplingParameters& sampling = request.sampling;
    sampling.temperature = i % 4 == 0 ? 0 : 0.9;
    sampling.seed = 5 + static_cast<uint64_t>(i);
    if (i % 3 == 1) sampling.top_k = 20, sampling.top_p = 0.8;
    if (i % 5 == 2) sampling.repetition_penalty = 1.2;  // the host's: its logits must be changed
    if (i % 2 == 0) request.top_logprobs = i;
    request.num_choices = i % 3 == 0 ? 2 : 1;
    request.score = i == 11;
    requests.push_back(request);
  }
  const auto answer_all = [&](bool executor_samples) {
    Rig rig({.max_num_batched_tokens = 33, .executor_samples = executor_samples});
    std::vector<std::unique_ptr<Call>> calls;
    for (const GenerationRequest& request : requests) {
      calls.push_back(std::make_unique<Call>(request));
      EXPECT_TRUE(calls.back()->Submit(rig).ok());
    }
    std::vector<std::vector<double>> answers;
    for (const std::unique_ptr<Call>& call : calls) {
      EXPECT_EQ(call->sink.Wait(), absl::OkStatus());
      for (uint32_t choice = 0; choice < 2; ++choice) {
        std::vector<double> answer;
        for (const TokenEvent& token : call->sink.Of<TokenEvent>()) {
          if (token.choice != choice) continue;
          answer.insert(answer.end(), {static_cast<double>(token.token_id), token.logprob});
          for (const TokenProbability& top : token.top) {
            answer.insert(answer.end(), {static_cast<double>(top.token_id), top.logprob});
          }
        }
        answers.push_back(answer);
      }
      for (const ScoredEvent& scored : call->sink.Of<ScoredEvent>()) answers.push_back(scored.logprobs);
    }
    EXPECT_EQ(rig.executor().rows_sampled() > 0, executor_samples);
    return answers;
  };
  const std::vector<std::vector<double>> here = answer_all(false);
  EXPECT_GT(here.size(), requests.size());
  EXPECT_EQ(here, answer_all(true));
}

TEST(EngineTest, EndsTheGenerationWhoseRowWasSampledFromLogitsThatAreNotFinite) {
  std::string messages[2];
  for (const bool executor_samples : {false, true}) {
    Rig rig({.executor_samples = executor_samples});
    GenerationRequest poisoned = Prompt(10, 5, 300);
    rig.executor().Poison(poisoned.token_ids[0]);
    Call bad(poisoned), good(Prompt(10, 5, 2));
    ASSERT_TRUE(bad.Submit(rig).ok());
    ASSERT_TRUE(good.Submit(rig).ok());
    messages[executor_samples ? 1 : 0] = std::string(bad.sink.Wait().message());
    EXPECT_TRUE(good.sink.Wait().ok());
  }
  EXPECT_THAT(messages[0], HasSubstr("of answer token 0 is nan"));
  EXPECT_EQ(messages[0], messages[1]);
}

TEST(EngineTest, RefusesNewWorkWhileDrainingAndEndsTheOld) {
  Rig rig;
  Call old(Prompt(10, 50)), late(Prompt(10, 5));
  ASSERT_TRUE(old.Submit(rig).ok());
  rig.engine().Drain();
  const absl::Status status = late.Submit(rig);
  EXPECT_EQ(status.code(), absl::StatusCode::kUnavailable);
  EXPECT_EQ(ReasonOf(status), kReasonDraining);
  EXPECT_TRUE(old.sink.Wait().ok());
}

TEST(EngineTest, TellsEveryGenerationTheEndWhenItIsDestroyed) {
  Rig rig({.max_num_seqs = 1});
  std::vector<std::unique_ptr<Call>> calls;
  for (int i = 0; i < 5; ++i) {
    calls.push_back(std::make_unique<Call>(Prompt(10, 1000)));
    ASSERT_TRUE(calls.back()->Submit(rig).ok());
  }
  rig.Stop();
  for (const auto& call : calls) EXPECT_EQ(call->sink.Wait().code(), absl::StatusCode::kUnavailable);
}

TEST(EngineTest, ReportsItsLoad) {
  Rig rig({.max_num_seqs = 1});
  Call running(Prompt(10, 4000)), waiting(Prompt(10, 4000));
  rig.executor().HoldAfter(0);
  ASSERT_TRUE(running.Submit(rig).ok());
  ASSERT_TRUE(rig.executor().AwaitStart(1));
  ASSERT_TRUE(waiting.Submit(rig).ok());
  rig.executor().HoldAfter(50);
  ASSERT_TRUE(rig.executor().AwaitStart(51));
  const EngineLoad load = rig.engine().Load();
  EXPECT_EQ(load.running, 1);
  EXPECT_EQ(load.waiting, 1);
  EXPECT_GE(load.pending_tokens, 10);
  EXPECT_GT(load.queued_work_s, 0);
  EXPECT_EQ(load.kv_pages_total, 64);
  EXPECT_GE(load.kv_pages_used, 1);
  EXPECT_GT(load.tokens_per_s, 0);
  rig.executor().Hold(false);
  rig.Stop();  // before what it tells the end to
}

TEST(EngineTest, WantsAnotherReplicaWhileItsPagesAreAllTaken) {
  Rig rig({.pages = 4, .growth_tokens = 4 * 64});
  EXPECT_EQ(rig.engine().Load().desired_replicas, 1u);
  Call call(Prompt(10, 4 * 64 - 10));
  rig.executor().HoldAfter(1);
  ASSERT_TRUE(call.Submit(rig).ok());
  ASSERT_TRUE(rig.executor().AwaitStart(2));
  // As of the first step: all pages are used or promised, 0.7 of which is the aim.
  EXPECT_GE(rig.engine().Load().desired_replicas, 2u);
  EXPECT_THAT(rig.MetricsText(), HasSubstr("prism_decode_in_use 1\n"));
  rig.executor().Hold(false);
  ASSERT_TRUE(call.sink.Wait().ok());
}

TEST(RateMeterTest, ForgetsWhatIsTenSecondsOld) {
  const SteadyTime start{};
  RateMeter meter(start);
  meter.Add(start, 5);
  EXPECT_EQ(meter.PerSecond(start), 5);
  meter.Add(start + seconds(4), 15);
  EXPECT_EQ(meter.PerSecond(start + seconds(4)), 5);
  EXPECT_EQ(meter.PerSecond(start + seconds(12)), 1.5);
  EXPECT_EQ(meter.PerSecond(start + seconds(40)), 0);
}

}  // namespace
}  // namespace prism
