#include "services/router/replica_set.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>

#include "common/base/log.h"
#include "common/wire/status_codec.h"
#include "tests/common/base/eventually.h"
#include "tests/services/router/fakes.h"

namespace prism {
namespace {

using std::chrono::milliseconds;
using testing::HasSubstr;

class ReplicaSetTest : public testing::Test {
 protected:
  static void SetUpTestSuite() { InitLog("test", "error"); }

  std::unique_ptr<ReplicaSet> Watch(ReplicaRole role, std::vector<std::string> addresses,
                                    ResolveFn resolve = nullptr) {
    ReplicaSetOptions options{.role = role,
                              .addresses = std::move(addresses),
                              .hidden_size = kFakeHidden,
                              .num_deepstack = kFakeDeepstack,
                              .poll_interval = milliseconds(20),
                              .poll_timeout = milliseconds(1000),
                              .resolve_interval = milliseconds(20)};
    if (resolve) options.resolve = std::move(resolve);
    auto set = std::make_unique<ReplicaSet>(std::move(options));
    set->Start();
    return set;
  }
  static std::string WhyNot(const ReplicaSet& set, int index) {
    v1::ListReplicasResponse list;
    set.AppendTo(&list);
    return list.replicas(index).why_not();
  }
};

TEST_F(ReplicaSetTest, AReplicaIsReadyOnceItAnswersAndNotWhenItIsGone) {
  FakeDecoder decoder;
  const auto set = Watch(ReplicaRole::kDecoder, {decoder.address()});
  ASSERT_TRUE(Eventually([&] { return set->num_ready() == 1; }));
  EXPECT_TRUE(set->ready().ok());
  EXPECT_EQ(set->model_length_max(), 4096u);
  decoder.Kill();
  ASSERT_TRUE(Eventually([&] { return set->num_ready() == 0; }));
  const absl::Status none = set->ready();
  EXPECT_EQ(none.code(), absl::StatusCode::kUnavailable);
  EXPECT_EQ(ReasonOf(none), kReasonNoReplica);
  EXPECT_TRUE(RetryDelayMsOf(none).has_value());
  EXPECT_THAT(std::string(none.message()), HasSubstr(decoder.address()));
  decoder.Restart();
  EXPECT_TRUE(Eventually([&] { return set->num_ready() == 1; }));
}

TEST_F(ReplicaSetTest, AReplicaThatSaysNotServingGetsNoWork) {
  FakeDecoder decoder;
  const auto set = Watch(ReplicaRole::kDecoder, {decoder.address()});
  ASSERT_TRUE(Eventually([&] { return set->num_ready() == 1; }));
  decoder.SetServing(false);
  EXPECT_TRUE(Eventually([&] { return set->num_ready() == 0; }));
}

TEST_F(ReplicaSetTest, AnotherRoleIsRefused) {
  FakeEncoder encoder;
  {
    MutexLock lock(&encoder.mutex);
    encoder.description.set_role("decoder");
  }
  const auto set = Watch(ReplicaRole::kVisionEncoder, {encoder.address()});
  EXPECT_TRUE(Eventually([&] { return WhyNot(*set, 0) == "is a \"decoder\", want a \"vision-encoder\""; }));
}

TEST_F(ReplicaSetTest, AnotherWidthIsRefusedWithTheNumbers) {
  FakeEncoder encoder;
  {
    MutexLock lock(&encoder.mutex);
    encoder.description.set_hidden_size(2048);
  }
  const auto set = Watch(ReplicaRole::kVisionEncoder, {encoder.address()});
  EXPECT_TRUE(Eventually([&] {
    return WhyNot(*set, 0) ==
           "embeddings have 2048 columns and 2 DeepStack levels, the checkpoint here says 128 and 2";
  })) << WhyNot(*set, 0);
}

TEST_F(ReplicaSetTest, DecodersMustAgreeOnWeightsAndNumerics) {
  FakeDecoder one, two;
  const auto set = Watch(ReplicaRole::kDecoder, {one.address(), two.address()});
  ASSERT_TRUE(Eventually([&] { return set->num_ready() == 2; }));
  {
    MutexLock lock(&two.mutex);
    two.description.set_weights_digest("other");
  }
  ASSERT_TRUE(Eventually([&] { return set->num_ready() == 1; }));
  EXPECT_THAT(WhyNot(*set, 1), HasSubstr("holds weights 6f74686572, but " + one.address()));
  {
    MutexLock lock(&two.mutex);
    two.description.set_weights_digest("text");
    two.description.set_numerics_id("fast-and-loose");
  }
  EXPECT_TRUE(Eventually([&] { return WhyNot(*set, 1).find("computes as \"fast-and-loose\"") == 0; }));
}

TEST_F(ReplicaSetTest, WorkInFlightIsCountedAndSpreads) {
  FakeDecoder one, two;
  const auto set = Watch(ReplicaRole::kDecoder, {one.address(), two.address()});
  ASSERT_TRUE(Eventually([&] { return set->num_ready() == 2; }));
  auto first = set->PickDecoder({}, false);
  auto second = set->PickDecoder({}, false);
  ASSERT_TRUE(first.ok() && second.ok());
  EXPECT_NE(first->index(), second->index());
  const size_t freed = first->index();
  first->End();
  EXPECT_EQ(set->PickDecoder({}, false)->index(), freed);
}

TEST_F(ReplicaSetTest, ExcludedReplicasAreTakenOnlyWithoutOthers) {
  FakeDecoder one, two;
  const auto set = Watch(ReplicaRole::kDecoder, {one.address(), two.address()});
  ASSERT_TRUE(Eventually([&] { return set->num_ready() == 2; }));
  EXPECT_EQ(set->PickDecoder({0}, true)->index(), 1u);
  EXPECT_TRUE(set->PickDecoder({0, 1}, false).ok());
  EXPECT_EQ(ReasonOf(set->PickDecoder({0, 1}, true).status()), kReasonNoReplica);
}

TEST_F(ReplicaSetTest, AReportedReplicaComesBackWithItsNextPoll) {
  FakeDecoder decoder;
  const auto set = Watch(ReplicaRole::kDecoder, {decoder.address()});
  ASSERT_TRUE(Eventually([&] { return set->num_ready() == 1; }));
  auto use = set->PickDecoder({}, false);
  ASSERT_TRUE(use.ok());
  use->ReportGone(absl::UnavailableError("Socket closed"));
  use->End();
  EXPECT_TRUE(Eventually([&] { return set->num_ready() == 1; }));
}

// A resolver whose answers the test decides.
class FakeNames {
 public:
  void Answer(absl::StatusOr<std::vector<std::string>> addresses) {
    MutexLock lock(&mutex_);
    addresses_ = std::move(addresses);
  }
  ResolveFn fn() {
    return [this](const std::string& name) {
      MutexLock lock(&mutex_);
      EXPECT_EQ(name, "decoders.local:50071");
      ++num_asked;
      return addresses_;
    };
  }
  std::atomic<int> num_asked{0};

 private:
  Mutex mutex_;
  absl::StatusOr<std::vector<std::string>> addresses_ ABSL_GUARDED_BY(mutex_) = std::vector<std::string>();
};

TEST_F(ReplicaSetTest, ANameStandsForAllItsAddressesAndTheyComeAndGo) {
  FakeDecoder one, two;
  FakeNames names;
  names.Answer(std::vector<std::string>{one.address()});
  const auto set = Watch(ReplicaRole::kDecoder, {"dns:///decoders.local:50071"}, names.fn());
  ASSERT_TRUE(Eventually([&] { return set->num_ready() == 1; }));
  names.Answer(std::vector<std::string>{two.address(), one.address()});
  ASSERT_TRUE(Eventually([&] { return set->num_ready() == 2; }));
  // A use of one that is gone from the list goes on, but nothing new is sent there.
  auto use = set->PickDecoder({}, false);
  ASSERT_TRUE(use.ok());
  FakeDecoder& used = use->address() == one.address() ? one : two;
  FakeDecoder& other = use->address() == one.address() ? two : one;
  names.Answer(std::vector<std::string>{other.address()});
  ASSERT_TRUE(Eventually([&] { return set->num_ready() == 1; }));
  EXPECT_EQ(use->address(), used.address());
  EXPECT_EQ(set->PickDecoder({}, false)->address(), other.address());
  use->End();
  // It comes back.
  names.Answer(std::vector<std::string>{one.address(), two.address()});
  EXPECT_TRUE(Eventually([&] { return set->num_ready() == 2; }));
}

TEST_F(ReplicaSetTest, ANameWithoutAnAnswerKeepsItsLastAddresses) {
  FakeDecoder one;
  FakeNames names;
  names.Answer(std::vector<std::string>{one.address()});
  const auto set = Watch(ReplicaRole::kDecoder, {"dns:///decoders.local:50071"}, names.fn());
  ASSERT_TRUE(Eventually([&] { return set->num_ready() == 1; }));
  for (const absl::StatusOr<std::vector<std::string>>& answer :
       {absl::StatusOr<std::vector<std::string>>(absl::UnavailableError("no server")),
        absl::StatusOr<std::vector<std::string>>(std::vector<std::string>())}) {
    names.Answer(answer);
    const int asked = names.num_asked;
    ASSERT_TRUE(Eventually([&] { return names.num_asked >= asked + 3; }));
    EXPECT_EQ(set->num_ready(), 1);
  }
}

TEST(ResolveByDnsTest, LoopbackHasAnAddressAndNonsenseIsRefused) {
  const auto found = ResolveByDns("127.0.0.1:50071");
  ASSERT_TRUE(found.ok()) << found.status();
  EXPECT_EQ(*found, std::vector<std::string>{"127.0.0.1:50071"});
  EXPECT_EQ(ResolveByDns("50071").status().message(), "\"50071\" is not NAME:PORT");
  EXPECT_EQ(ResolveByDns("name:").status().message(), "\"name:\" is not NAME:PORT");
}

TEST_F(ReplicaSetTest, ADecoderIsGivenItsSequencesAndAQuarterMore) {
  FakeDecoder decoder;
  {
    MutexLock lock(&decoder.mutex);
    decoder.description.set_sequences_max(16);
  }
  const auto set = Watch(ReplicaRole::kDecoder, {decoder.address()});
  ASSERT_TRUE(Eventually([&] { return set->num_ready() == 1; }));
  std::vector<ReplicaUse> uses;
  while (true) {
    auto use = set->TryDecoder({.prompt_tokens = 10, .choices = 2});
    if (!use.ok()) {
      EXPECT_TRUE(absl::IsResourceExhausted(use.status()));
      break;
    }
    uses.push_back(*std::move(use));
  }
  EXPECT_EQ(uses.size(), 10u);  // of two choices each
  EXPECT_TRUE(set->PickDecoder({}, false).ok()) << "who goes on is not refused";
}

TEST_F(ReplicaSetTest, OneThatSaidItIsFullGetsNothingUntilItsNextAnswer) {
  FakeEncoder one, two;
  const auto set = Watch(ReplicaRole::kVisionEncoder, {one.address(), two.address()});
  ASSERT_TRUE(Eventually([&] { return set->num_ready() == 2; }));
  auto use = set->TryEncoder({.sha256 = "picture"});
  ASSERT_TRUE(use.ok());
  const size_t favourite = use->index();
  use->ReportFull();
  use->End();
  EXPECT_TRUE(Eventually([&] { return set->TryEncoder({.sha256 = "picture"})->index() == favourite; }));
}

TEST_F(ReplicaSetTest, NoAddressesIsSaid) {
  const auto set = Watch(ReplicaRole::kVisionEncoder, {});
  EXPECT_EQ(set->ready().message(), "no vision-encoder is ready: none is configured");
}

}  // namespace
}  // namespace prism
