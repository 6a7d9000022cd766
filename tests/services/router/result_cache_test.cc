#include "services/router/result_cache.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <map>
#include <set>

namespace prism {
namespace {

using testing::ElementsAre;
using Lookup = ResultStore::Lookup;

class FakeStore final : public ResultStore {
 public:
  void Get(const std::string& key, DoneFn done) override {
    ++num_gets;
    if (hold) {
      held.push_back([this, key, done] { done(Answer(key)); });
    } else {
      done(Answer(key));
    }
  }
  void Put(const std::string& key, std::string value) override { values[key] = std::move(value); }

  Found Answer(const std::string& key) const {
    if (lookup != Lookup::kHit) return {.lookup = lookup};
    const auto value = values.find(key);
    if (value == values.end()) return {};
    return {.lookup = Lookup::kHit, .value = value->second};
  }
  std::map<std::string, std::string> values;
  Lookup lookup = Lookup::kHit;  // unless it has none
  bool hold = false;
  int num_gets = 0;
  std::vector<std::function<void()>> held;
};

v1::GenerateEvent Token(uint32_t id) {
  v1::GenerateEvent event;
  event.mutable_token()->set_token_id(id);
  return event;
}

v1::CachedResult Result(const std::vector<uint32_t>& ids) {
  v1::CachedResult result;
  for (const uint32_t id : ids) *result.add_events() = Token(id);
  return result;
}

struct Sink final : EventSink<v1::GenerateEvent> {
  absl::Status Emit(v1::GenerateEvent event) override {
    ids.push_back(event.token().token_id());
    return absl::OkStatus();
  }
  void Done(absl::Status status) override { end = std::move(status); }
  std::vector<uint32_t> ids;
  std::optional<absl::Status> end;
};

class ResultCacheTest : public testing::Test {
 protected:
  std::optional<ResultCache::Turn> Begin(const std::string& key = "key") {
    auto turn = std::make_shared<std::optional<ResultCache::Turn>>();
    cache_.Begin(key, [turn](ResultCache::Turn got) { *turn = std::move(got); });
    return std::move(*turn);
  }
  static std::vector<uint32_t> Ids(const v1::CachedResult& result) {
    std::vector<uint32_t> ids;
    for (const v1::GenerateEvent& event : result.events()) ids.push_back(event.token().token_id());
    return ids;
  }
  static void Read(const std::shared_ptr<GenerateLog>& log, Sink* sink) { (*log->Attach(sink, 0))->Pump(); }

  MetricRegistry registry_;
  RouterMetrics metrics_{&registry_};
  FakeStore* const store_ = new FakeStore;  // the cache's
  ResultCache cache_{std::unique_ptr<ResultStore>(store_), 10000, &Clock::Real(), &metrics_};
};

TEST_F(ResultCacheTest, WhatIsFinishedIsThereNextTime) {
  auto turn = Begin();
  ASSERT_NE(turn->lead, nullptr);
  EXPECT_FALSE(turn->result.has_value());
  turn->lead->Finish(Result({1, 2, 3}));
  auto next = Begin();
  ASSERT_NE(next->lead, nullptr);
  ASSERT_TRUE(next->result.has_value());
  EXPECT_THAT(Ids(*next->result), ElementsAre(1, 2, 3));
  EXPECT_FALSE(Begin("other")->result.has_value());
  EXPECT_EQ(metrics_.result_cache_hit.value(), 1);
  EXPECT_EQ(metrics_.result_cache_miss.value(), 2);
}

TEST_F(ResultCacheTest, OthersFollowWhoLeadsAlsoWhileTheStoreIsAsked) {
  store_->hold = true;
  auto lead = std::make_shared<std::optional<ResultCache::Turn>>();
  cache_.Begin("key", [lead](ResultCache::Turn got) { *lead = std::move(got); });
  EXPECT_FALSE(lead->has_value());
  const auto follower = Begin();
  ASSERT_TRUE(follower.has_value());
  EXPECT_EQ(follower->lead, nullptr);
  Sink sink;
  Read(follower->follow, &sink);
  store_->held.at(0)();
  ASSERT_TRUE((*lead)->lead->Append(Token(7)).ok());
  Sink late;
  Read(Begin()->follow, &late);
  ASSERT_TRUE((*lead)->lead->Append(Token(8)).ok());
  (*lead)->lead->Finish(std::nullopt);
  EXPECT_THAT(sink.ids, ElementsAre(7, 8));
  EXPECT_THAT(late.ids, ElementsAre(7, 8));
  EXPECT_EQ(sink.end, absl::OkStatus());
  EXPECT_EQ(store_->num_gets, 1);
  EXPECT_TRUE(store_->values.empty());
}

TEST_F(ResultCacheTest, ALeaderThatGoesLeavesItsPlaceToAnother) {
  auto lead = Begin();
  Sink sink;
  Read(Begin()->follow, &sink);
  lead->lead->Abandon(absl::CancelledError("the client is gone"));
  EXPECT_EQ(sink.end, absl::CancelledError("the client is gone"));
  auto next = Begin();
  EXPECT_NE(next->lead, nullptr) << "whoever comes first leads now";
  Sink second;
  Read(Begin()->follow, &second);
  next->lead.reset();
  EXPECT_EQ(second.end->code(), absl::StatusCode::kAborted);
  EXPECT_TRUE(store_->values.empty()) << "no error is kept";
}

TEST_F(ResultCacheTest, GarbageInTheStoreIsAMiss) {
  Begin()->lead->Finish(Result({1, 2}));
  const std::string good = store_->values.at("key");
  std::string flipped = good;
  flipped.back() ^= 1;
  for (const std::string& bad : {std::string(), std::string("garbage"), good.substr(0, good.size() - 1),
                                 flipped, good + "x", std::string(1 << 20, '\0')}) {
    store_->values["key"] = bad;
    EXPECT_FALSE(Begin()->result.has_value());
  }
  store_->values["other"] = good;
  EXPECT_FALSE(Begin("other")->result.has_value()) << "another request's answer";
  store_->values["key"] = good;
  EXPECT_TRUE(Begin()->result.has_value());
}

TEST_F(ResultCacheTest, AStoreThatFailsIsComputedWithout) {
  store_->lookup = Lookup::kError;
  EXPECT_NE(Begin()->lead, nullptr);
  store_->lookup = Lookup::kBypass;
  EXPECT_NE(Begin()->lead, nullptr);
  EXPECT_EQ(metrics_.result_cache_error.value(), 1);
  EXPECT_EQ(metrics_.result_cache_bypass.value(), 1);
}

TEST_F(ResultCacheTest, LongAnswersAreNotKept) {
  Begin()->lead->Finish(Result(std::vector<uint32_t>(ResultCache::kTokensMax + 1, 5)));
  EXPECT_TRUE(store_->values.empty());
  v1::CachedResult large = Result({1});
  large.mutable_events(0)->mutable_started()->add_receipts()->set_digest(
      std::string(ResultCache::kValueBytesMax, 'x'));
  Begin()->lead->Finish(large);
  EXPECT_TRUE(store_->values.empty());
  Begin()->lead->Finish(Result(std::vector<uint32_t>(ResultCache::kTokensMax, 5)));
  EXPECT_EQ(store_->values.size(), 1u);
}

TEST_F(ResultCacheTest, WhatLeadersHaveSaidIsBounded) {
  auto lead = Begin();
  int said = 0;
  while (lead->lead->Append(Token(1)).ok()) ++said;
  EXPECT_LT(said, 20000 / static_cast<int>(GenerateLog::kEventBytes));
  EXPECT_GT(said, 50);
}

// Each way in which two requests may differ.
TEST(ResultKeyTest, AllThatDecidesTheAnswerDecidesTheKey) {
  ResultIdentity base{.cache_salt = "s", .weights_digest = "w", .numerics_id = "n", .template_id = "t"};
  for (const uint32_t id : {1, 2, 3}) base.prompt.add_token_ids(id);
  base.prompt.add_spans()->set_offset(1);
  base.prompt.add_handles()->set_content_key("picture");
  base.prompt.mutable_sampling()->set_seed(1);
  base.prompt.mutable_sampling()->set_temperature(0.5);
  (*base.prompt.mutable_sampling()->mutable_logit_bias())[7] = 1;
  (*base.prompt.mutable_sampling()->mutable_logit_bias())[8] = 2;
  base.prompt.set_num_choices(2);
  base.stop = {"a", "b"};
  const std::string key = ResultKey(base);
  EXPECT_EQ(key.size(), 32u);
  const std::vector<std::function<void(ResultIdentity*)>> changes = {
      [](auto* r) { r->cache_salt = "other"; },
      [](auto* r) { r->weights_digest = "other"; },
      [](auto* r) { r->numerics_id = "other"; },
      [](auto* r) { r->template_id = "other"; },
      [](auto* r) { r->prompt.set_token_ids(0, 9); },
      [](auto* r) { r->prompt.add_token_ids(4); },
      [](auto* r) { r->prompt.mutable_spans(0)->set_offset(2); },
      [](auto* r) { r->prompt.mutable_handles(0)->set_content_key("another"); },
      [](auto* r) { r->prompt.add_handles()->set_content_key("picture"); },
      [](auto* r) { r->prompt.mutable_sampling()->set_seed(2); },
      [](auto* r) { r->prompt.mutable_sampling()->set_temperature(0.6); },
      [](auto* r) { r->prompt.mutable_sampling()->set_min_tokens(3); },
      [](auto* r) { (*r->prompt.mutable_sampling()->mutable_logit_bias())[8] = 3; },
      [](auto* r) { r->prompt.set_num_choices(1); },
      [](auto* r) { r->stop = {"a"}; },
      [](auto* r) { r->stop = {"ab"}; },
      [](auto* r) { r->cache_salt = "sw", r->weights_digest = ""; },
  };
  std::set<std::string> keys = {key};
  for (const auto& change : changes) {
    ResultIdentity other = base;
    change(&other);
    EXPECT_TRUE(keys.insert(ResultKey(other)).second) << "change " << keys.size();
  }
  // Who holds the picture now, and which attempt it is, decides nothing.
  ResultIdentity same = base;
  same.prompt.set_generation_id("id");
  same.prompt.set_attempt(3);
  same.prompt.mutable_handles(0)->set_handle_id("handle");
  same.prompt.mutable_handles(0)->set_address("there");
  EXPECT_EQ(ResultKey(same), key);
}

}  // namespace
}  // namespace prism
