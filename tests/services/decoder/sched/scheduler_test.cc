#include "services/decoder/sched/scheduler.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <chrono>
#include <map>
#include <random>
#include <set>
#include <string>
#include <utility>
#include <vector>

namespace prism {
namespace {

std::unique_ptr<Sequence> MakeSequence(SequenceId id, int64_t prompt, int64_t answer, int32_t priority = 0) {
  Sequence::Options options{
      .id = id, .prompt_length = prompt, .limit = prompt + answer, .priority = priority};
  for (int64_t i = 0; i < prompt; ++i) options.token_ids.push_back(static_cast<int32_t>(i));
  return std::make_unique<Sequence>(std::move(options));
}

// The ids of the plan's sequences, with how many rows each has.
std::map<SequenceId, int64_t> Counts(const StepPlan& plan) {
  std::map<SequenceId, int64_t> counts;
  for (const PlannedSequence& planned : plan.sequences) counts[planned.id] = planned.count;
  return counts;
}

// Runs one step as an engine does, with token `7` for every answer.
StepPlan Step(Scheduler& scheduler) {
  StepPlan plan = scheduler.Plan();
  if (plan.empty()) return plan;
  scheduler.Complete(plan);
  for (const PlannedSequence& planned : plan.sequences) {
    Sequence* sequence = scheduler.Find(planned.id);
    if (planned.num_logits == 0 || sequence->logits_until() == sequence->limit()) continue;
    sequence->Append(7);
    if (sequence->length() == sequence->limit()) scheduler.Remove(planned.id);
  }
  return plan;
}

TEST(SchedulerTest, HasNothingToPlanWhenIdle) {
  PagePool pool(4);
  Scheduler scheduler({}, &pool);
  EXPECT_TRUE(scheduler.Plan().empty());
  EXPECT_TRUE(scheduler.idle());
}

TEST(SchedulerTest, CutsAPromptIntoChunksAndAsksForLogitsAtItsEndOnly) {
  PagePool pool(8);
  Scheduler scheduler({.max_num_seqs = 2, .max_num_batched_tokens = 16}, &pool);
  ASSERT_TRUE(scheduler.Add(MakeSequence(1, 40, 3)).ok());
  std::vector<int64_t> counts, logits;
  for (int i = 0; i < 4; ++i) {
    const StepPlan plan = Step(scheduler);
    counts.push_back(plan.num_rows());
    logits.push_back(static_cast<int64_t>(plan.logit_rows.size()));
  }
  EXPECT_THAT(counts, testing::ElementsAre(16, 16, 8, 1));
  EXPECT_THAT(logits, testing::ElementsAre(0, 0, 1, 1));
}

TEST(SchedulerTest, WritesSlotsPositionsAndTablesOfAPlan) {
  PagePool pool(8);
  Scheduler scheduler({.max_num_seqs = 2, .max_num_batched_tokens = 128}, &pool);
  ASSERT_TRUE(scheduler.Add(MakeSequence(1, 66, 3)).ok());
  const StepPlan plan = scheduler.Plan();
  EXPECT_EQ(plan.step, 1u);
  EXPECT_THAT(plan.query_starts, testing::ElementsAre(0, 66));
  EXPECT_THAT(plan.context_lengths, testing::ElementsAre(66));
  ASSERT_EQ(plan.page_table_width, 2);
  EXPECT_EQ(plan.slots[0], plan.page_tables[0] * 64);
  EXPECT_EQ(plan.slots[65], plan.page_tables[1] * 64 + 1);
  EXPECT_EQ(plan.positions[66 + 65], 65);
  EXPECT_THAT(plan.logit_rows, testing::ElementsAre(65));
  scheduler.Complete(plan);
}

TEST(SchedulerTest, LetsDecodesRideWithEveryChunkOfALongPrompt) {
  PagePool pool(64);
  Scheduler scheduler({.max_num_seqs = 4, .max_num_batched_tokens = 10}, &pool);
  ASSERT_TRUE(scheduler.Add(MakeSequence(1, 3, 50)).ok());
  Step(scheduler);
  ASSERT_TRUE(scheduler.Add(MakeSequence(2, 100, 5)).ok());
  for (int i = 0; i < 10; ++i) {
    const auto counts = Counts(Step(scheduler));
    EXPECT_EQ(counts.at(1), 1);
    EXPECT_EQ(counts.at(2), 9);
  }
}

TEST(SchedulerTest, CutsPromptsSmallerWhileOthersDecode) {
  PagePool pool(64);
  Scheduler scheduler({.max_num_seqs = 4, .max_num_batched_tokens = 512}, &pool);
  const auto step = [&scheduler](int64_t mixed_rows_max) {
    const StepPlan plan = scheduler.Plan(mixed_rows_max);
    scheduler.Complete(plan);
    for (const PlannedSequence& planned : plan.sequences) {
      if (planned.num_logits > 0) scheduler.Find(planned.id)->Append(7);
    }
    return Counts(plan);
  };
  ASSERT_TRUE(scheduler.Add(MakeSequence(1, 300, 50)).ok());
  EXPECT_EQ(step(100).at(1), 300) << "nobody decodes";
  ASSERT_TRUE(scheduler.Add(MakeSequence(2, 1000, 50)).ok());
  EXPECT_EQ(step(100).at(2), 99);
  EXPECT_EQ(step(10).at(2), 64) << "a page of it may always come";
  EXPECT_EQ(step(1000).at(2), 511);
}

TEST(SchedulerTest, AdmitsByPriorityThenByArrival) {
  PagePool pool(64);
  Scheduler scheduler({.max_num_seqs = 1, .max_num_batched_tokens = 10}, &pool);
  ASSERT_TRUE(scheduler.Add(MakeSequence(1, 2, 1)).ok());
  ASSERT_TRUE(scheduler.Add(MakeSequence(2, 2, 1)).ok());
  ASSERT_TRUE(scheduler.Add(MakeSequence(3, 2, 1, /*priority=*/5)).ok());
  std::vector<SequenceId> order;
  while (!scheduler.idle()) order.push_back(Step(scheduler).sequences.at(0).id);
  EXPECT_THAT(order, testing::ElementsAre(3, 1, 2));
}

TEST(SchedulerTest, RefusesAtOnceWhatCanNeverFitAndSaysTheNumbers) {
  PagePool pool(2);
  Scheduler scheduler({}, &pool);
  const absl::Status status = scheduler.Add(MakeSequence(1, 100, 29));
  EXPECT_EQ(status.code(), absl::StatusCode::kResourceExhausted);
  EXPECT_EQ(status.message(),
            "prompt and answer of 129 tokens need 3 KV pages of 64 tokens, of which there are 2");
  EXPECT_TRUE(scheduler.Add(MakeSequence(2, 100, 28)).ok());
}

TEST(SchedulerTest, RefusesWhenTheWaitingQueueIsFull) {
  PagePool pool(8);
  Scheduler scheduler({.max_num_seqs = 1, .waiting_max = 2}, &pool);
  ASSERT_TRUE(scheduler.Add(MakeSequence(1, 2, 2)).ok());
  ASSERT_TRUE(scheduler.Add(MakeSequence(2, 2, 2)).ok());
  const absl::Status status = scheduler.Add(MakeSequence(3, 2, 2));
  EXPECT_EQ(status.code(), absl::StatusCode::kResourceExhausted);
  EXPECT_EQ(status.message(), "2 sequences are waiting, at most 2 may");
  Step(scheduler);
  EXPECT_TRUE(scheduler.Add(MakeSequence(3, 2, 2)).ok());
}

TEST(SchedulerTest, TakesThePagesOfTheYoungestAndComputesItsTokensAnew) {
  PagePool pool(4);
  Scheduler scheduler({.max_num_seqs = 4, .max_num_batched_tokens = 256, .growth_tokens = 0}, &pool);
  ASSERT_TRUE(scheduler.Add(MakeSequence(1, 120, 130)).ok());
  ASSERT_TRUE(scheduler.Add(MakeSequence(2, 120, 130)).ok());
  int64_t tokens_of_second = 0;
  bool saw_recompute = false;
  for (int i = 0; i < 400 && !scheduler.idle(); ++i) {
    if (const Sequence* second = scheduler.Find(2)) {
      EXPECT_GE(second->length(), tokens_of_second) << "lost a token";
      tokens_of_second = second->length();
    }
    const StepPlan plan = Step(scheduler);
    for (const PlannedSequence& planned : plan.sequences) {
      if (planned.id == 2 && planned.begin == 0 && planned.count > 120) saw_recompute = true;
      EXPECT_FALSE(planned.id == 1 && planned.begin == 0 && i > 0) << "preempted the oldest";
    }
  }
  EXPECT_TRUE(saw_recompute);
  EXPECT_TRUE(scheduler.idle());
  EXPECT_GE(scheduler.preemptions(), 1);
  EXPECT_EQ(pool.free(), pool.total());
}

TEST(SchedulerTest, AdmitsWhatIsDueFirstWithinAPriority) {
  PagePool pool(64);
  Scheduler scheduler({.max_num_seqs = 1, .max_num_batched_tokens = 10}, &pool);
  const auto add = [&scheduler](SequenceId id, int due_s, int32_t priority) {
    Sequence::Options options{.id = id,
                              .token_ids = {1, 2},
                              .prompt_length = 2,
                              .limit = 3,
                              .priority = priority,
                              .due = SteadyTime(std::chrono::seconds(due_s))};
    EXPECT_TRUE(scheduler.Add(std::make_unique<Sequence>(std::move(options))).ok());
  };
  add(1, 30, 0);
  add(2, 10, 0);
  add(3, 50, 1);
  add(4, 10, 0);
  std::vector<SequenceId> order;
  while (!scheduler.idle()) order.push_back(Step(scheduler).sequences.at(0).id);
  EXPECT_THAT(order, testing::ElementsAre(3, 2, 4, 1));
}

TEST(SchedulerTest, TakesPagesFromTheOneAdmittedLastWhateverItsPriority) {
  PagePool pool(4);
  Scheduler scheduler({.max_num_seqs = 4, .max_num_batched_tokens = 256, .growth_tokens = 0}, &pool);
  ASSERT_TRUE(scheduler.Add(MakeSequence(1, 120, 130)).ok());
  Step(scheduler);
  ASSERT_TRUE(scheduler.Add(MakeSequence(2, 120, 130, /*priority=*/9)).ok());
  while (scheduler.preemptions() == 0) Step(scheduler);
  EXPECT_EQ(scheduler.Find(1)->state(), SequenceState::kRunning);
  EXPECT_EQ(scheduler.Find(2)->state(), SequenceState::kWaiting);
}

// A sequence with a picture of 20 tokens at 10 and another at 60, whose embeddings come later.
std::unique_ptr<Sequence> WithTwoPictures(SequenceId id) {
  Sequence::Options options{
      .id = id,
      .prompt_length = 100,
      .limit = 110,
      .spans = {{.offset = 10, .num_tokens = 20, .grid_h = 8, .grid_w = 10},
                {.offset = 60, .num_tokens = 20, .grid_h = 8, .grid_w = 10, .embedding_index = 1}},
      .embedding_states = {EmbeddingState::kComing, EmbeddingState::kComing}};
  options.token_ids.assign(100, 3);
  return std::make_unique<Sequence>(std::move(options));
}

TEST(SchedulerTest, ComputesAPromptAsFarAsItsEmbeddingsAreHere) {
  PagePool pool(8);
  Scheduler scheduler({.max_num_seqs = 4, .max_num_batched_tokens = 64}, &pool);
  ASSERT_TRUE(scheduler.Add(WithTwoPictures(1)).ok());
  EXPECT_THAT(Counts(Step(scheduler)), testing::ElementsAre(testing::Pair(1, 10)));
  EXPECT_TRUE(Step(scheduler).empty()) << "nothing can be computed";
  ASSERT_TRUE(scheduler.Add(MakeSequence(2, 5, 3)).ok());
  EXPECT_THAT(Counts(Step(scheduler)), testing::ElementsAre(testing::Pair(2, 5))) << "others go on";
  scheduler.Find(1)->SetEmbedding(0, EmbeddingState::kHere);
  EXPECT_EQ(Counts(Step(scheduler)).at(1), 50);
  EXPECT_FALSE(Counts(Step(scheduler)).contains(1));
  scheduler.Find(1)->SetEmbedding(1, EmbeddingState::kHere);
  EXPECT_EQ(Counts(Step(scheduler)).at(1), 40);
}

TEST(SchedulerTest, AdmitsNoneThatNeedsAnEmbeddingNobodyPulls) {
  PagePool pool(8);
  Scheduler scheduler({.max_num_seqs = 4, .max_num_batched_tokens = 64}, &pool);
  ASSERT_TRUE(scheduler.Add(WithTwoPictures(1)).ok());
  scheduler.Find(1)->SetEmbedding(0, EmbeddingState::kHere);
  scheduler.Find(1)->SetEmbedding(1, EmbeddingState::kAbsent);
  EXPECT_TRUE(Step(scheduler).empty());
  EXPECT_THAT(scheduler.Find(1)->AbsentFrom(0), testing::ElementsAre(1));
  scheduler.Find(1)->SetEmbedding(1, EmbeddingState::kComing);
  EXPECT_EQ(Step(scheduler).num_rows(), 60);
}

// Choices 1 .. `count` of one prompt of 150 tokens, which all follow the first.
void AddChoices(SequenceId count, Scheduler* scheduler) {
  for (SequenceId id = 1; id <= count; ++id) {
    Sequence::Options options{.id = id,
                              .token_ids = std::vector<int32_t>(150, 4),
                              .prompt_length = 150,
                              .limit = 155,
                              .follows = id == 1 ? 0u : 1u,
                              .prefix_root = PrefixRoot("", "", "")};
    ASSERT_TRUE(scheduler->Add(std::make_unique<Sequence>(std::move(options))).ok());
  }
}

TEST(SchedulerTest, LetsAChoiceWaitForThePagesOfItsLeader) {
  PagePool pool(16);
  PrefixIndex index(&pool, /*keep_unused=*/true);
  Scheduler scheduler({.max_num_seqs = 4, .max_num_batched_tokens = 64}, &pool, &index);
  AddChoices(3, &scheduler);
  EXPECT_THAT(Counts(Step(scheduler)), testing::ElementsAre(testing::Pair(1, 64)));
  EXPECT_THAT(Counts(Step(scheduler)), testing::ElementsAre(testing::Pair(1, 64)));
  EXPECT_THAT(Counts(Step(scheduler)),
              testing::ElementsAre(testing::Pair(1, 22), testing::Pair(2, 22), testing::Pair(3, 20)));
  EXPECT_EQ(scheduler.Find(3)->cached(), 128);
  EXPECT_EQ(pool.used(), 2 + 3);
}

TEST(SchedulerTest, LetsAChoiceGoOnWhoseLeaderIsGone) {
  PagePool pool(16);
  PrefixIndex index(&pool, /*keep_unused=*/true);
  Scheduler scheduler({.max_num_seqs = 4, .max_num_batched_tokens = 64}, &pool, &index);
  AddChoices(2, &scheduler);
  Step(scheduler);
  scheduler.Remove(1);
  EXPECT_EQ(Counts(Step(scheduler)).at(2), 64);
  EXPECT_EQ(scheduler.Find(2)->cached(), 64) << "what the leader had computed is still known";
}

TEST(SchedulerTest, EvictsCachedPagesBeforeItPreempts) {
  PagePool pool(4);
  PrefixIndex index(&pool, /*keep_unused=*/true);
  Scheduler scheduler({.max_num_seqs = 4, .max_num_batched_tokens = 256, .growth_tokens = 0}, &pool, &index);
  const auto add = [&scheduler](SequenceId id, int32_t token, int64_t answer) {
    Sequence::Options options{.id = id,
                              .token_ids = std::vector<int32_t>(128, token),
                              .prompt_length = 128,
                              .limit = 128 + answer,
                              .prefix_root = PrefixRoot("", "", "")};
    EXPECT_TRUE(scheduler.Add(std::make_unique<Sequence>(std::move(options))).ok());
  };
  add(1, 4, 1);
  Step(scheduler);
  EXPECT_TRUE(scheduler.idle());
  EXPECT_EQ(pool.cached(), 2);
  add(2, 5, 100);
  while (!scheduler.idle()) Step(scheduler);
  EXPECT_EQ(scheduler.preemptions(), 0);
  EXPECT_EQ(index.evictions(), 2) << "four pages hold the second";
}

TEST(SchedulerTest, GivesEveryRowOfAScoreItsLogitsWithinTheBound) {
  PagePool pool(8);
  Scheduler scheduler({.max_num_seqs = 2, .max_num_batched_tokens = 64, .score_rows_max = 10}, &pool);
  Sequence::Options options{.id = 1, .prompt_length = 25, .limit = 25, .logits_until = 25};
  options.token_ids.assign(25, 3);
  ASSERT_TRUE(scheduler.Add(std::make_unique<Sequence>(std::move(options))).ok());
  ASSERT_TRUE(scheduler.Add(MakeSequence(2, 30, 9)).ok());
  std::vector<int64_t> logits;
  for (int i = 0; i < 3; ++i) {
    const StepPlan plan = Step(scheduler);
    logits.push_back(plan.sequences.back().id == 1 ? plan.sequences.back().num_logits
                                                   : plan.sequences.front().num_logits);
    EXPECT_LE(plan.logit_rows.size(), 12u);
  }
  EXPECT_THAT(logits, testing::ElementsAre(10, 10, 5));
}

TEST(SchedulerTest, SlicesAPictureByTheTokensOfEachChunk) {
  PagePool pool(8);
  Scheduler scheduler({.max_num_seqs = 1, .max_num_batched_tokens = 4}, &pool);
  Sequence::Options options{
      .id = 1,
      .prompt_length = 10,
      .limit = 12,
      .spans = {
          {.offset = 2, .num_tokens = 6, .grid_h = 4, .grid_w = 6, .embedding_index = 3, .first_row = 100}}};
  options.token_ids.assign(10, 3);
  ASSERT_TRUE(scheduler.Add(std::make_unique<Sequence>(std::move(options))).ok());
  StepPlan plan = Step(scheduler);
  EXPECT_THAT(plan.visual_runs, testing::ElementsAre(VisualRun{1, 3, /*first_embedding_row=*/100,
                                                               /*first_row=*/2, /*count=*/2}));
  plan = Step(scheduler);
  EXPECT_THAT(plan.visual_runs, testing::ElementsAre(VisualRun{1, 3, 102, 0, 4}));
  plan = Step(scheduler);
  EXPECT_TRUE(plan.visual_runs.empty());
  EXPECT_EQ(plan.num_visual_rows, 0);
}

// One run of the property test: random arrivals, cancels and answers against a model of what was
// computed of each sequence and of what each page holds.
class Simulation {
 public:
  explicit Simulation(uint32_t seed)
      : random_(seed),
        limits_{.max_num_seqs = Draw(1, 6),
                .max_num_batched_tokens = Draw(6, 90),
                .waiting_max = Draw(1, 10),
                .growth_tokens = Draw(0, 2) * 64,
                .score_rows_max = Draw(1, 20)},
        pool_(Draw(3, 14)),
        index_(&pool_, /*keep_unused=*/Draw(0, 1) == 0),
        scheduler_(limits_, &pool_, &index_) {}

  void Run(int num_requests) {
    int steps_without_work = 0;
    while (num_requests > 0 || !scheduler_.idle()) {
      if (num_requests > 0 && Draw(0, 2) == 0) {
        Arrive();
        --num_requests;
      }
      if (!live_.empty() && Draw(0, 30) == 0) Cancel();
      if (!StepOnce()) {
        ASSERT_TRUE(scheduler_.idle()) << "there are sequences and nothing is planned";
        ASSERT_LT(++steps_without_work, 10000);
      }
      if (testing::Test::HasFatalFailure()) return;
    }
    EXPECT_EQ(pool_.free() + pool_.cached(), pool_.total()) << "pages are used while idle";
    index_.Evict(pool_.total());
    EXPECT_EQ(pool_.free(), pool_.total()) << "a cached page could not be evicted";
    EXPECT_EQ(finished_ + cancelled_ + refused_, arrived_);
  }

  int64_t preemptions() const { return scheduler_.preemptions(); }
  int64_t cached_tokens() const { return cached_tokens_; }
  int64_t shared_pages() const { return shared_pages_; }

 private:
  struct Model {
    int64_t computed = 0;
    int64_t logits = 0;
    bool score = false;
    bool running = false;
    std::vector<std::string> pictures;  // by embedding index
  };

  int64_t Draw(int64_t low, int64_t high) {
    return low + static_cast<int64_t>(random_() % static_cast<uint64_t>(high - low + 1));
  }

  void Arrive() {
    ++arrived_;
    const SequenceId id = ++next_id_;
    const bool score = Draw(0, 9) == 0;
    const int64_t prompt = Draw(1, 200);
    std::vector<std::string> pictures;
    const int64_t resumed = score ? 0 : Draw(0, 3) * 5;
    const bool follows = Draw(0, 3) == 0 && live_.contains(id - 1);
    Sequence::Options options{.id = id,
                              .prompt_length = prompt,
                              .limit = prompt + resumed + (score ? 0 : Draw(1, 150)),
                              .priority = static_cast<int32_t>(Draw(0, 2)),
                              .due = SteadyTime(std::chrono::seconds(Draw(0, 100))),
                              .follows = follows ? id - 1 : 0,
                              .logits_until = score ? prompt : 0,
                              .takes_hits = !score};
    if (Draw(0, 9) > 0) options.prefix_root = PrefixRoot("", "", Draw(0, 4) == 0 ? "tenant" : "");
    // Prompts that begin alike, up to some token.
    const int64_t alike = Draw(0, 220);
    for (int64_t i = 0; i < prompt + resumed; ++i) {
      options.token_ids.push_back(static_cast<int32_t>(i < alike ? i : id * 1000 + i));
    }
    if (prompt > 30) {
      options.spans = {
          {.offset = 5, .num_tokens = 20, .grid_h = 8, .grid_w = 10, .embedding_index = 0, .first_row = 40}};
      options.embedding_ids = {Draw(0, 1) == 0 ? "cat" : "dog"};
      pictures = options.embedding_ids;
    }
    const bool fits = PagesFor(options.limit) <= pool_.total();
    const absl::Status status = scheduler_.Add(std::make_unique<Sequence>(std::move(options)));
    if (status.ok()) {
      EXPECT_TRUE(fits);
      live_[id].score = score;
      live_[id].pictures = pictures;
    } else {
      EXPECT_EQ(status.code(), absl::StatusCode::kResourceExhausted);
      ++refused_;
    }
  }

  void Cancel() {
    auto victim = live_.begin();
    std::advance(victim, Draw(0, static_cast<int64_t>(live_.size()) - 1));
    scheduler_.Remove(victim->first);
    gone_.insert(victim->first);
    live_.erase(victim);
    ++cancelled_;
  }

  bool StepOnce() {
    const int64_t preemptions = scheduler_.preemptions();
    FindTheFirst();
    const StepPlan plan = scheduler_.Plan();
    EXPECT_EQ(pool_.used() + pool_.free() + pool_.reserved() + pool_.cached(), pool_.total());
    for (auto& [id, model] : live_) {
      const Sequence& sequence = *scheduler_.Find(id);
      if (sequence.state() == SequenceState::kWaiting) {
        model.running = false;
        model.computed = 0;
      } else if (!std::exchange(model.running, true)) {
        // Admitted, with pages that others had computed.
        EXPECT_LT(sequence.cached(), sequence.length());
        EXPECT_TRUE(sequence.cached() == 0 || !model.score);
        model.computed = sequence.cached();
        cached_tokens_ += sequence.cached();
      }
    }
    if (scheduler_.preemptions() > preemptions) CheckTheFirstKeptItsPages();
    if (plan.empty()) return false;
    CheckPlan(plan);
    scheduler_.Complete(plan);
    for (const PlannedSequence& planned : plan.sequences) Answer(planned);
    return true;
  }

  void CheckPlan(const StepPlan& plan) {
    ASSERT_LE(plan.num_rows(), limits_.max_num_batched_tokens);
    ASSERT_LE(static_cast<int64_t>(plan.sequences.size()), limits_.max_num_seqs);
    ASSERT_EQ(plan.query_starts.size(), plan.sequences.size() + 1);
    ASSERT_EQ(plan.positions.size(), 3 * plan.token_ids.size());
    ASSERT_TRUE(std::is_sorted(plan.logit_rows.begin(), plan.logit_rows.end()));
    std::set<int32_t> slots, pages;
    int64_t visual_rows = 0, score_rows = 0;
    // Whoever decodes and kept its pages has a row in every step: its gap is one step.
    std::set<SequenceId> decoding;
    for (const auto& [id, model] : live_) {
      const Sequence& sequence = *scheduler_.Find(id);
      const bool decodes = sequence.pending() == 1 && sequence.computed() >= sequence.logits_until();
      if (sequence.state() == SequenceState::kRunning && decodes) decoding.insert(id);
    }
    std::set<int32_t> written;
    for (const int32_t slot : plan.slots) written.insert(slot / 64);
    for (size_t s = 0; s < plan.sequences.size(); ++s) {
      const PlannedSequence& planned = plan.sequences[s];
      ASSERT_FALSE(gone_.contains(planned.id)) << "planned after it was cancelled";
      ASSERT_TRUE(live_.contains(planned.id));
      const Sequence& sequence = *scheduler_.Find(planned.id);
      // Exactly once, in order, whatever the chunks.
      ASSERT_EQ(planned.begin, live_[planned.id].computed);
      ASSERT_GE(planned.count, 1);
      ASSERT_EQ(plan.query_starts[s], planned.first_row);
      ASSERT_EQ(plan.query_starts[s + 1] - plan.query_starts[s], planned.count);
      ASSERT_EQ(plan.context_lengths[s], planned.begin + planned.count);
      if (live_[planned.id].score) score_rows += planned.num_logits;
      const int32_t* table = plan.page_tables.data() + s * plan.page_table_width;
      for (int64_t p = 0; p < PagesFor(planned.begin + planned.count); ++p) {
        if (pages.insert(table[p]).second) continue;
        ++shared_pages_;
        ASSERT_FALSE(written.contains(table[p])) << "a page that two share is written";
      }
      for (int64_t i = 0; i < planned.count; ++i) {
        const int64_t row = planned.first_row + i;
        const int64_t index = planned.begin + i;
        ASSERT_EQ(plan.token_ids[row], sequence.token_ids()[index]);
        ASSERT_EQ(plan.slots[row], table[index / 64] * 64 + index % 64);
        ASSERT_TRUE(slots.insert(plan.slots[row]).second);
        contents_[plan.slots[row]] = ContentOf(sequence, index);
        for (size_t axis = 0; axis < 3; ++axis) {
          ASSERT_EQ(plan.positions[axis * plan.token_ids.size() + row], sequence.PositionOf(index)[axis]);
        }
      }
      // Whoever computed it, what the sequence sees is its own tokens, in order.
      for (int64_t i = 0; i < planned.begin; ++i) {
        ASSERT_EQ(contents_[table[i / 64] * 64 + i % 64], ContentOf(sequence, i)) << "token " << i;
      }
      decoding.erase(planned.id);
      visual_rows += CheckVisual(plan, planned, sequence);
    }
    ASSERT_TRUE(decoding.empty()) << "sequence " << *decoding.begin() << " decodes and has no row";
    ASSERT_EQ(plan.query_starts.back(), plan.num_rows());
    ASSERT_EQ(visual_rows, plan.num_visual_rows);
    ASSERT_LE(score_rows, limits_.score_rows_max);
  }

  // What a slot must hold for this token: the token, its position and the picture that fills it.
  std::string ContentOf(const Sequence& sequence, int64_t index) {
    const Position position = sequence.PositionOf(index);
    std::string content = std::to_string(sequence.token_ids()[index]) + " " + std::to_string(position[0]) +
                          " " + std::to_string(position[1]) + " " + std::to_string(position[2]);
    for (const VisualSpan& span : sequence.spans()) {
      const int64_t in_span = index - span.offset;
      if (in_span < 0 || in_span >= span.num_tokens) continue;
      content += live_[sequence.id()].pictures[static_cast<size_t>(span.embedding_index)] +
                 std::to_string(span.first_row + in_span);
    }
    return content;
  }

  // The oldest of those that run is never the one that loses its pages.
  void CheckTheFirstKeptItsPages() {
    if (first_running_ == 0 || !live_.contains(first_running_)) return;
    EXPECT_EQ(scheduler_.Find(first_running_)->state(), SequenceState::kRunning);
  }
  void FindTheFirst() {
    first_running_ = 0;
    uint64_t admission = 0;
    for (const auto& [id, model] : live_) {
      const Sequence& sequence = *scheduler_.Find(id);
      if (sequence.state() != SequenceState::kRunning) continue;
      if (first_running_ == 0 || sequence.admission() < admission) {
        first_running_ = id;
        admission = sequence.admission();
      }
    }
  }

  int64_t CheckVisual(const StepPlan& plan, const PlannedSequence& planned, const Sequence& sequence) {
    int64_t expected = 0, seen = 0;
    for (int64_t i = 0; i < planned.count; ++i) {
      for (const VisualSpan& span : sequence.spans()) {
        const int64_t in_span = planned.begin + i - span.offset;
        if (in_span < 0 || in_span >= span.num_tokens) continue;
        ++expected;
        for (const VisualRun& run : plan.visual_runs) {
          const int64_t in_run = planned.first_row + i - run.first_row;
          if (in_run < 0 || in_run >= run.count) continue;
          ++seen;
          EXPECT_EQ(run.sequence, planned.id);
          EXPECT_EQ(run.embedding_index, span.embedding_index);
          EXPECT_EQ(run.first_embedding_row + in_run, span.first_row + in_span);
        }
      }
    }
    EXPECT_EQ(seen, expected);
    return expected;
  }

  void Answer(const PlannedSequence& planned) {
    Model& model = live_[planned.id];
    model.computed += planned.count;
    model.logits += planned.num_logits;
    Sequence& sequence = *scheduler_.Find(planned.id);
    bool done = false;
    if (model.score) {
      done = model.computed == sequence.length();
    } else if (planned.num_logits > 0) {
      ASSERT_EQ(planned.num_logits, 1);
      sequence.Append(static_cast<int32_t>(Draw(0, 500)));
      done = sequence.length() == sequence.limit() || Draw(0, 60) == 0;
    }
    if (done) {
      scheduler_.Remove(planned.id);
      live_.erase(planned.id);
      ++finished_;
    }
  }

  std::mt19937_64 random_;
  const SchedulerLimits limits_;
  PagePool pool_;
  PrefixIndex index_;
  Scheduler scheduler_;
  std::map<SequenceId, Model> live_;
  std::map<int32_t, std::string> contents_;  // by slot, as last written
  SequenceId first_running_ = 0;
  int64_t cached_tokens_ = 0;
  int64_t shared_pages_ = 0;
  std::set<SequenceId> gone_;
  SequenceId next_id_ = 0;
  int64_t arrived_ = 0, finished_ = 0, cancelled_ = 0, refused_ = 0;
};

TEST(SchedulerPropertyTest, ComputesEachTokenOnceAndLosesNothingUnderRandomLoad) {
  int64_t preemptions = 0, cached_tokens = 0, shared_pages = 0;
  for (uint32_t seed = 1; seed <= 400; ++seed) {
    SCOPED_TRACE(seed);
    Simulation simulation(seed);
    simulation.Run(30);
    preemptions += simulation.preemptions();
    cached_tokens += simulation.cached_tokens();
    shared_pages += simulation.shared_pages();
    if (HasFatalFailure() || HasFailure()) return;
  }
  EXPECT_GT(cached_tokens, 1000) << "nothing was found computed";
  EXPECT_GT(shared_pages, 100) << "no page was shared";
  EXPECT_GT(preemptions, 20) << "the load never preempted";
}

TEST(SchedulerTest, MakesTheSamePlansFromTheSameEvents) {
  const auto run = [] {
    PagePool pool(9);
    Scheduler scheduler({.max_num_seqs = 3, .max_num_batched_tokens = 32}, &pool);
    std::vector<StepPlan> plans;
    for (SequenceId id = 1; id <= 5; ++id) {
      EXPECT_TRUE(scheduler.Add(MakeSequence(id, 20 * static_cast<int64_t>(id), 30)).ok());
    }
    while (!scheduler.idle()) plans.push_back(Step(scheduler));
    return plans;
  };
  EXPECT_EQ(run(), run());
}

}  // namespace
}  // namespace prism
