// Embeddings as the engine's callers see them: pulled while queued, not pulled where their rows are in
// cached pages, let go after the prompt, and pulled again when they are needed again.
#include "services/decoder/engine/generation_embeddings.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <thread>

#include "common/wire/status_codec.h"
#include "tests/common/base/eventually.h"
#include "tests/services/decoder/engine/engine_rig.h"

namespace prism {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;
using testing::ElementsAre;

// Text, one picture of 24 tokens for each name, each followed by 30 tokens of text, and 40 more.
GenerationRequest WithPictures(const std::string& names, int64_t before = 70) {
  GenerationRequest request = Prompt(before + 54 * static_cast<int64_t>(names.size()) + 40, 6);
  request.top_logprobs = 1;
  int64_t offset = before;
  for (const char name : names) {
    request.spans.push_back({.offset = offset,
                             .num_tokens = 24,
                             .grid_h = 8,
                             .grid_w = 12,
                             .embedding_index = static_cast<int32_t>(request.embeddings.size())});
    request.embeddings.push_back({.handle_id = std::string(16, name),
                                  .content_key = std::string(32, name),
                                  .address = "enc:1",
                                  .digest = std::string(32, name),
                                  .num_tokens = 24});
    offset += 54;
  }
  return request;
}

std::vector<std::string> PullsOf(Rig& rig) {
  MutexLock lock(&rig.embeddings().mutex);
  return rig.embeddings().pulls;
}

void LoseAll(Rig& rig) {
  MutexLock lock(&rig.embeddings().mutex);
  rig.embeddings().result =
      ErrorWithReason(absl::StatusCode::kFailedPrecondition, "gone", kReasonEmbeddingLost);
}

bool AwaitRows(Rig& rig, int64_t rows) {
  return Eventually([&] { return rig.executor().rows_total() >= rows; });
}

TEST(GenerationEmbeddingsTest, BeginsAPromptBeforeItsLaterPicturesAreHere) {
  const GenerationRequest request = WithPictures("ab");
  Rig whole;
  const Outcome expected = RunOn(whole, request);
  Rig rig;
  rig.embeddings().held_names = {'b'};
  Call call(request);
  ASSERT_TRUE(call.Submit(rig).ok());
  EXPECT_TRUE(AwaitRows(rig, request.spans[1].offset));
  EXPECT_EQ(rig.executor().rows_total(), request.spans[1].offset);
  EXPECT_EQ(call.sink.Of<StartedEvent>().size(), 0u) << "no receipt for a picture that is not here";
  {
    MutexLock lock(&rig.embeddings().mutex);
    rig.embeddings().held_names.clear();
  }
  rig.WakeAfterPulls();
  EXPECT_EQ(OutcomeOf(call), expected);
  EXPECT_EQ(call.sink.Of<StartedEvent>().at(0).receipts.size(), 2u);
}

TEST(GenerationEmbeddingsTest, PullsNoPictureWhoseRowsAreInCachedPages) {
  Rig rig;
  const Outcome first = RunOn(rig, WithPictures("ab"));
  EXPECT_THAT(PullsOf(rig), ElementsAre("ab"));
  LoseAll(rig);  // nobody could bring it
  GenerationRequest again = WithPictures("ab");
  Call call(again);
  ASSERT_TRUE(call.Submit(rig).ok());
  EXPECT_EQ(OutcomeOf(call), first);
  EXPECT_THAT(PullsOf(rig), ElementsAre("ab"));
  const StartedEvent started = call.sink.Of<StartedEvent>().at(0);
  ASSERT_EQ(started.receipts.size(), 2u);
  for (const EmbeddingReceipt& receipt : started.receipts) {
    EXPECT_TRUE(receipt.cached);
    EXPECT_EQ(receipt.digest, std::string(32, receipt.content_key[0]));
  }
  EXPECT_FALSE(RunOn(rig, Prompt(10, 2)).choices.empty());
}

TEST(GenerationEmbeddingsTest, PullsOnlyThosePicturesThatCachedPagesDoNotHold) {
  Rig rig;
  RunOn(rig, WithPictures("ab", 40));
  const Outcome mixed = RunOn(rig, WithPictures("ac", 40));
  EXPECT_THAT(PullsOf(rig), ElementsAre("ab", "c"));
  Rig fresh({.prefix_caching = false});
  EXPECT_EQ(RunOn(fresh, WithPictures("ac", 40)), mixed);
}

TEST(GenerationEmbeddingsTest, PullsAgainWhatWasEvicted) {
  Rig rig({.pages = 8, .max_num_batched_tokens = 256});
  const Outcome first = RunOn(rig, WithPictures("a"));
  RunOn(rig, Prompt(440, 2, 200));
  EXPECT_EQ(RunOn(rig, WithPictures("a")), first);
  EXPECT_THAT(PullsOf(rig), ElementsAre("a", "a"));
  RunOn(rig, Prompt(440, 2, 200));
  LoseAll(rig);
  Call call(WithPictures("a"));
  ASSERT_TRUE(call.Submit(rig).ok());
  EXPECT_EQ(ReasonOf(call.sink.Wait()), kReasonEmbeddingLost);
}

TEST(GenerationEmbeddingsTest, LetsGoOfTheMemoryWhenThePromptIsComputed) {
  Rig rig;
  GenerationRequest request = WithPictures("a");
  request.max_tokens = 3800;
  Call call(request);
  ASSERT_TRUE(call.Submit(rig).ok());
  EXPECT_TRUE(rig.embeddings().WaitForNoneAlive());
  ASSERT_TRUE(call.sink.WaitFor<TokenEvent>(1));
  rig.Stop();
}

// An older text generation grows until the picture's loses its pages, and their contents.
void Preempt(bool lose, Outcome* outcome, std::vector<std::string>* pulls, absl::Status* status) {
  Rig rig({.pages = 6, .max_num_batched_tokens = 256, .growth_tokens = 0});
  Call older(Prompt(100, 260, 200));
  GenerationRequest request = WithPictures("a", 10);  // 104 tokens
  request.max_tokens = 200;
  Call picture(request);
  if (lose) rig.embeddings().good_pulls = 1;
  rig.executor().Hold(true);
  ASSERT_TRUE(older.Submit(rig).ok());
  ASSERT_TRUE(picture.Submit(rig).ok());
  rig.executor().Hold(false);
  *status = picture.sink.Wait();
  if (status->ok()) {
    *outcome = OutcomeOf(picture);
    EXPECT_GT(picture.sink.Of<FinishedEvent>().at(0).report.preemptions, 0);
  }
  EXPECT_TRUE(older.sink.Wait().ok());
  *pulls = PullsOf(rig);
}

TEST(GenerationEmbeddingsTest, PullsAgainAfterAPreemptionAndGivesTheSameBits) {
  GenerationRequest request = WithPictures("a", 10);
  request.max_tokens = 200;
  Rig fresh;
  const Outcome expected = RunOn(fresh, request);
  Outcome outcome;
  std::vector<std::string> pulls;
  absl::Status status;
  Preempt(/*lose=*/false, &outcome, &pulls, &status);
  EXPECT_TRUE(status.ok()) << status;
  EXPECT_EQ(outcome, expected);
  EXPECT_GE(pulls.size(), 2u);
}

TEST(GenerationEmbeddingsTest, EndsAPreemptedGenerationWhosePictureIsGoneSoThatItIsEncodedAgain) {
  Outcome outcome;
  std::vector<std::string> pulls;
  absl::Status status;
  Preempt(/*lose=*/true, &outcome, &pulls, &status);
  EXPECT_EQ(status.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_EQ(ReasonOf(status), kReasonEmbeddingLost);
}

TEST(GenerationEmbeddingsTest, GivesMemoryToWhatIsDueFirst) {
  Rig rig;
  rig.embeddings().alive_max = 1;
  rig.embeddings().hold = true;
  GenerationRequest late = WithPictures("l"), soon = WithPictures("s"), urgent = WithPictures("u");
  late.objective = seconds(100);
  soon.objective = seconds(50);
  urgent.objective = seconds(70);
  urgent.priority = 1;
  Call first(WithPictures("f")), second(late), third(soon), fourth(urgent);
  for (Call* call : {&first, &second, &third, &fourth}) {
    ASSERT_TRUE(call->Submit(rig).ok());
    // One after the other into the engine.
    while (rig.engine().Load().pending_tokens == 0) std::this_thread::yield();
  }
  EXPECT_TRUE(AwaitRows(rig, 70));
  rig.WakeAfterPulls();
  for (Call* call : {&first, &second, &third, &fourth}) EXPECT_TRUE(call->sink.Wait().ok());
  EXPECT_THAT(PullsOf(rig), ElementsAre("f", "u", "s", "l"));
}

// Few pages, memory for two pulls, callers that leave: everybody else ends with the bits it has alone.
TEST(GenerationEmbeddingsTest, AnswersTheSameBitsWhereMemoryPagesAndCallersComeAndGo) {
  const std::vector<std::string> names = {"", "a", "ab", "c", "ca", "b"};
  std::vector<GenerationRequest> requests;
  std::vector<Outcome> alone;
  for (size_t i = 0; i < 36; ++i) {
    GenerationRequest request = WithPictures(names[i % names.size()], 20 + static_cast<int64_t>(i % 4) * 30);
    request.max_tokens = 20 + static_cast<int64_t>(i * 7 % 90);
    request.sampling.temperature = 0.9;
    request.sampling.seed = i;
    request.num_choices = i % 4 == 0 ? 2 : 1;
    request.priority = static_cast<int32_t>(i % 3);
    request.objective = milliseconds(1 + 1000 * (i * 5 % 7));
    if (i % 9 == 2) request.prompt_logprobs = 0;
    Rig fresh({.prefix_caching = false});
    alone.push_back(RunOn(fresh, request));
    requests.push_back(request);
  }
  for (const bool prefix_caching : {true, false}) {
    Rig rig({.pages = 12,
             .max_num_seqs = 6,
             .max_num_batched_tokens = 50,
             .growth_tokens = 0,
             .prefix_caching = prefix_caching});
    rig.embeddings().alive_max = 2;
    std::vector<std::unique_ptr<Call>> calls;
    for (const GenerationRequest& request : requests) {
      calls.push_back(std::make_unique<Call>(request));
      ASSERT_EQ(calls.back()->Submit(rig), absl::OkStatus());
    }
    for (size_t i = 0; i < calls.size(); i += 5) rig.engine().Cancel(*calls[i]->generation);
    int64_t preemptions = 0;
    for (size_t i = 0; i < calls.size(); ++i) {
      SCOPED_TRACE(i);
      const absl::Status status = calls[i]->sink.Wait();
      if (i % 5 == 0 && absl::IsCancelled(status)) continue;
      EXPECT_EQ(OutcomeOf(*calls[i]), alone[i]);
      preemptions += calls[i]->sink.Of<FinishedEvent>().at(0).report.preemptions;
    }
    EXPECT_GT(preemptions, 0);
    EXPECT_TRUE(rig.embeddings().WaitForNoneAlive());
    EXPECT_TRUE(rig.AwaitMetric("prism_kv_pages{state=\"used\"} 0\n"));
    EXPECT_TRUE(rig.AwaitMetric("prism_kv_pages{state=\"reserved\"} 0\n"));
  }
}

TEST(GenerationEmbeddingsTest, SaysStartedOfAResumeThatWasCompleteOnlyWithItsPicturesSeen) {
  Rig rig;
  rig.embeddings().hold = true;
  GenerationRequest request = WithPictures("a");
  request.max_tokens = 2;
  request.emitted = {{5, 6}};
  Call call(request);
  ASSERT_TRUE(call.Submit(rig).ok());
  Call text(Prompt(4, 2));
  ASSERT_TRUE(text.Submit(rig).ok());
  EXPECT_TRUE(text.sink.Wait().ok());
  EXPECT_EQ(call.sink.Of<StartedEvent>().size(), 0u);
  rig.WakeAfterPulls();
  EXPECT_TRUE(call.sink.Wait().ok());
  EXPECT_EQ(call.sink.Of<StartedEvent>().at(0).receipts.size(), 1u);
  EXPECT_EQ(call.sink.Of<ChoiceFinishedEvent>().size(), 1u);
}

}  // namespace
}  // namespace prism
