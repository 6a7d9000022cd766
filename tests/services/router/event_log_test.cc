#include "services/router/event_log.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <string>
#include <thread>

#include "common/base/thread.h"
#include "prism/v1/router.pb.h"
#include "tests/common/base/manual_clock.h"

namespace prism {
namespace {

using testing::ElementsAre;
using testing::IsEmpty;
using Log = EventLog<v1::ChatEvent>;
using Reader = EventReader<v1::ChatEvent>;

v1::ChatEvent Event(uint64_t number, const std::string& text = "x") {
  v1::ChatEvent event;
  event.set_number(number);
  event.mutable_delta()->set_text(text);
  return event;
}

class Sink final : public EventSink<v1::ChatEvent> {
 public:
  bool Ready() override { return numbers.size() < room; }
  absl::Status Emit(v1::ChatEvent event) override {
    if (numbers.size() >= refuse_after) return absl::ResourceExhaustedError("too slow");
    numbers.push_back(event.number());
    return absl::OkStatus();
  }
  void Done(absl::Status status) override {
    EXPECT_FALSE(end.has_value()) << "the end comes once";
    end = std::move(status);
  }
  std::vector<uint64_t> numbers;
  std::optional<absl::Status> end;
  size_t refuse_after = SIZE_MAX;
  size_t room = SIZE_MAX;
};

class EventLogTest : public testing::Test {
 protected:
  std::shared_ptr<Log> Make(bool kept) {
    return std::make_shared<Log>(Log::Options{.budget = kept ? budget_ : nullptr,
                                              .clock = &clock_,
                                              .on_deserted = [this](const auto& why) { deserted_ = why; }});
  }
  std::shared_ptr<Reader> Read(Log& log, Sink* sink, uint64_t from = 0) {
    auto reader = log.Attach(sink, from);
    EXPECT_TRUE(reader.ok()) << reader.status();
    (*reader)->Pump();
    return *reader;
  }
  ManualClock clock_;
  std::shared_ptr<JournalBudget> budget_ = std::make_shared<JournalBudget>(10000, Gauge());
  std::optional<absl::Status> deserted_;
};

TEST(JournalBudgetTest, ItsGaugeShowsWhatIsTakenWhoeverWasLast) {
  MetricRegistry registry;
  const Gauge gauge = registry.AddGauge("prism_test_bytes", "Bytes.");
  JournalBudget budget(1000, gauge);
  // Two logs go at the same time.
  for (int round = 0; round < 1000; ++round) {
    std::atomic<int> num_here{0};
    const auto give_back = [&] {
      ++num_here;
      while (num_here < 2) std::this_thread::yield();
      budget.Give(100);
    };
    ASSERT_TRUE(budget.Take(200));
    NamedThread other("journal", give_back);
    give_back();
    other.Join();
    ASSERT_EQ(gauge.value(), 0) << "round " << round;
  }
  EXPECT_EQ(budget.bytes(), 0);
}

TEST_F(EventLogTest, AReaderHearsAllInOrderAndTheEnd) {
  for (const bool kept : {false, true}) {
    const auto log = Make(kept);
    Sink sink;
    Read(*log, &sink);
    ASSERT_TRUE(log->Append(Event(0)).ok());
    EXPECT_THAT(sink.numbers, ElementsAre(0));
    ASSERT_TRUE(log->Append(Event(1)).ok());
    log->Close(absl::UnavailableError("gone"));
    EXPECT_THAT(sink.numbers, ElementsAre(0, 1));
    EXPECT_EQ(sink.end, absl::UnavailableError("gone"));
    EXPECT_FALSE(deserted_.has_value()) << "it read to the end";
  }
}

TEST_F(EventLogTest, AKeptLogIsReadAgainFromAnyEvent) {
  const auto log = Make(true);
  for (uint64_t i = 0; i < 4; ++i) ASSERT_TRUE(log->Append(Event(i)).ok());
  Sink first, second, third;
  Read(*log, &first, 1);
  Read(*log, &second, 4);
  EXPECT_THAT(first.numbers, ElementsAre(1, 2, 3));
  EXPECT_THAT(second.numbers, IsEmpty());
  ASSERT_TRUE(log->Append(Event(4)).ok());
  log->Close(absl::OkStatus());
  EXPECT_THAT(first.numbers, ElementsAre(1, 2, 3, 4));
  EXPECT_THAT(second.numbers, ElementsAre(4));
  Read(*log, &third, 5);
  EXPECT_THAT(third.numbers, IsEmpty());
  EXPECT_EQ(third.end, absl::OkStatus());
}

TEST_F(EventLogTest, WhatWillNotBeNextCannotBeAskedFor) {
  const auto log = Make(true);
  ASSERT_TRUE(log->Append(Event(0)).ok());
  Sink sink;
  EXPECT_EQ(log->Attach(&sink, 2).status(),
            absl::OutOfRangeError("event 2 is asked for, the next one will be 1"));
}

TEST_F(EventLogTest, ALogThatIsNotKeptIsDesertedByItsOnlyReader) {
  const auto log = Make(false);
  Sink sink;
  const auto reader = Read(*log, &sink);
  ASSERT_TRUE(log->Append(Event(0)).ok());
  reader->Stop(absl::CancelledError("the caller is gone"));
  EXPECT_EQ(sink.end, absl::CancelledError("the caller is gone"));
  EXPECT_EQ(deserted_, absl::CancelledError("the caller is gone"));
  EXPECT_TRUE(log->Append(Event(1)).ok()) << "the producer learns of it otherwise";
  log->Close(absl::OkStatus());
  EXPECT_THAT(sink.numbers, ElementsAre(0));
}

TEST_F(EventLogTest, ASlowReaderIsLetGoWithItsError) {
  const auto log = Make(true);
  Sink slow, good;
  slow.refuse_after = 1;
  Read(*log, &slow);
  Read(*log, &good);
  for (uint64_t i = 0; i < 3; ++i) ASSERT_TRUE(log->Append(Event(i)).ok());
  EXPECT_EQ(slow.end, absl::ResourceExhaustedError("too slow"));
  EXPECT_THAT(good.numbers, ElementsAre(0, 1, 2));
  EXPECT_FALSE(deserted_.has_value());
  log->Close(absl::OkStatus());
  EXPECT_EQ(good.end, absl::OkStatus());
}

TEST_F(EventLogTest, ReadersThatAreDroppedTouchTheirSinksNoMore) {
  const std::weak_ptr<Log> gone = [&] {
    const auto log = Make(true);
    Sink sink;
    const auto reader = Read(*log, &sink);
    EXPECT_TRUE(log->Append(Event(0)).ok());
    log->DropReaders();
    EXPECT_TRUE(log->Append(Event(1)).ok());
    reader->Pump();
    reader->Stop(absl::CancelledError("gone"));
    EXPECT_THAT(sink.numbers, ElementsAre(0));
    EXPECT_FALSE(sink.end.has_value());
    return log;
  }();
  EXPECT_TRUE(gone.expired());
}

TEST_F(EventLogTest, ASinkWithoutRoomIsGivenTheRestWhenItPumps) {
  for (const bool kept : {false, true}) {
    const auto log = Make(kept);
    Sink sink;
    sink.room = 2;
    const auto reader = Read(*log, &sink);
    for (uint64_t i = 0; i < 4; ++i) ASSERT_TRUE(log->Append(Event(i)).ok());
    log->Close(absl::OkStatus());
    EXPECT_THAT(sink.numbers, ElementsAre(0, 1));
    EXPECT_FALSE(sink.end.has_value());
    sink.room = 10;
    reader->Pump();
    EXPECT_THAT(sink.numbers, ElementsAre(0, 1, 2, 3));
    EXPECT_EQ(sink.end, absl::OkStatus());
  }
}

TEST_F(EventLogTest, WhatIsNotKeptWaitsForNobodyBeyondItsBound) {
  const auto log = Make(false);
  Sink sink;
  sink.room = 0;
  Read(*log, &sink);
  for (uint64_t i = 0; i < Log::kUnreadMax; ++i) ASSERT_TRUE(log->Append(Event(i)).ok());
  EXPECT_FALSE(sink.end.has_value());
  ASSERT_TRUE(log->Append(Event(Log::kUnreadMax)).ok());
  ASSERT_TRUE(sink.end.has_value());
  EXPECT_EQ(sink.end->code(), absl::StatusCode::kResourceExhausted);
  EXPECT_EQ(deserted_->code(), absl::StatusCode::kResourceExhausted);
}

TEST_F(EventLogTest, ItKnowsSinceWhenNobodyReads) {
  const auto log = Make(true);
  EXPECT_EQ(log->idle_since(), clock_.Now());
  Sink one, two;
  const auto first = Read(*log, &one);
  const auto second = Read(*log, &two);
  EXPECT_EQ(log->idle_since(), std::nullopt);
  first->Stop(absl::CancelledError("gone"));
  EXPECT_EQ(log->idle_since(), std::nullopt);
  clock_.Advance(std::chrono::seconds(5));
  second->Stop(absl::CancelledError("gone"));
  EXPECT_EQ(log->idle_since(), clock_.Now());
  EXPECT_TRUE(deserted_.has_value());
}

TEST_F(EventLogTest, KeptEventsAreBounded) {
  auto log = Make(true);
  const int64_t each = static_cast<int64_t>(Event(0).ByteSizeLong()) + Log::kEventBytes;
  int appended = 0;
  while (log->Append(Event(0)).ok()) ++appended;
  EXPECT_EQ(appended, 20000 / each) << "what runs may fill as much again as new work is refused at";
  EXPECT_TRUE(budget_->full());
  EXPECT_EQ(budget_->bytes(), appended * each);
  log.reset();
  EXPECT_EQ(budget_->bytes(), 0);
  EXPECT_FALSE(budget_->full());
}

TEST_F(EventLogTest, ReadersThatComeAndGoWhileItGrowsMissNothing) {
  budget_ = std::make_shared<JournalBudget>(int64_t{1} << 30, Gauge());
  const auto log = Make(true);
  constexpr uint64_t kEvents = 20000;
  std::vector<std::unique_ptr<Sink>> sinks;
  std::vector<std::shared_ptr<Reader>> readers;
  std::thread producer([&] {
    for (uint64_t i = 0; i < kEvents; ++i) ASSERT_TRUE(log->Append(Event(i)).ok());
    log->Close(absl::OkStatus());
  });
  for (int i = 0; i < 50; ++i) {
    sinks.push_back(std::make_unique<Sink>());
    readers.push_back(Read(*log, sinks.back().get(), log->size() / 2));
    if (i % 2 == 0) readers.back()->Stop(absl::CancelledError("gone"));
  }
  producer.join();
  for (const auto& reader : readers) reader->Pump();
  for (size_t i = 0; i < sinks.size(); ++i) {
    const Sink& sink = *sinks[i];
    for (size_t k = 1; k < sink.numbers.size(); ++k) ASSERT_EQ(sink.numbers[k], sink.numbers[0] + k);
    ASSERT_TRUE(sink.end.has_value());
    if (i % 2 == 1) {
      ASSERT_EQ(sink.numbers.back(), kEvents - 1);
    }
  }
}

}  // namespace
}  // namespace prism
