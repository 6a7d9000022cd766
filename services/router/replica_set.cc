#include "services/router/replica_set.h"

#include <algorithm>
#include <functional>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "common/base/check.h"
#include "common/base/hash.h"
#include "common/base/log.h"
#include "common/rpc/channel.h"
#include "common/rpc/client_call.h"
#include "common/wire/status_codec.h"

namespace prism {
namespace {

using DescribeCall = ClientUnary<v1::DescribeRequest, v1::DescribeResponse>;
using ReleaseCall = ClientUnary<v1::ReleaseRequest, v1::ReleaseResponse>;
using GetLoadCall = ClientUnary<v1::GetLoadRequest, v1::GetLoadResponse>;

// A replica that is only slow is given up after this many polls without an answer.
constexpr int kSlowPollsMax = 2;
constexpr int64_t kRetryMs = 1000;

}  // namespace

absl::string_view Name(ReplicaRole role) {
  return role == ReplicaRole::kVisionEncoder ? "vision-encoder" : "decoder";
}

struct ReplicaSet::Replica {
  std::string address;
  std::shared_ptr<grpc::Channel> channel;
  std::unique_ptr<v1::VisionEncoder::Stub> encoder;
  std::unique_ptr<v1::Decoder::Stub> decoder;

  bool ready = false;
  std::string why_not = "not asked yet";
  int64_t in_flight = 0;
  int slow_polls = 0;
  bool polling = false;
  std::function<void()> cancel_poll;
  v1::DescribeResponse description;
  v1::GetLoadResponse load;
};

ReplicaUse& ReplicaUse::operator=(ReplicaUse&& other) noexcept {
  if (this != &other) {
    End();
    set_ = std::exchange(other.set_, nullptr);
    index_ = other.index_;
  }
  return *this;
}

const std::string& ReplicaUse::address() const { return set_->replicas_[index_]->address; }

v1::VisionEncoder::StubInterface* ReplicaUse::encoder() const {
  PRISM_CHECK(set_->replicas_[index_]->encoder != nullptr);
  return set_->replicas_[index_]->encoder.get();
}

v1::Decoder::StubInterface* ReplicaUse::decoder() const {
  PRISM_CHECK(set_->replicas_[index_]->decoder != nullptr);
  return set_->replicas_[index_]->decoder.get();
}

void ReplicaUse::ReportGone(const absl::Status& why) {
  MutexLock lock(&set_->mutex_);
  set_->SetReadyLocked(set_->replicas_[index_].get(), Annotate(why, "a call broke"));
}

void ReplicaUse::End() {
  ReplicaSet* const set = std::exchange(set_, nullptr);
  if (set == nullptr) return;
  MutexLock lock(&set->mutex_);
  --set->replicas_[index_]->in_flight;
}

ReplicaSet::ReplicaSet(ReplicaSetOptions options)
    : options_(std::move(options)), ready_gauge_(options_.ready) {
  for (const std::string& address : options_.addresses) {
    auto replica = std::make_unique<Replica>();
    replica->address = address;
    replica->channel = NewChannel(address, {.follow_health = true});
    if (options_.role == ReplicaRole::kVisionEncoder) {
      replica->encoder = v1::VisionEncoder::NewStub(replica->channel);
    } else {
      replica->decoder = v1::Decoder::NewStub(replica->channel);
    }
    replicas_.push_back(std::move(replica));
  }
}

ReplicaSet::~ReplicaSet() { Stop(); }

void ReplicaSet::Start() {
  poller_ = NamedThread("poll-replicas", [this] { Poll(); });
}

void ReplicaSet::Stop() {
  std::vector<std::function<void()>> cancels;
  {
    MutexLock lock(&mutex_);
    stopping_ = true;
    for (const std::unique_ptr<Replica>& replica : replicas_) {
      if (replica->cancel_poll) cancels.push_back(replica->cancel_poll);
    }
    changed_.NotifyAll();
  }
  for (const std::function<void()>& cancel : cancels) cancel();
  poller_.Join();
  MutexLock lock(&mutex_);
  while (polls_under_way_ > 0) changed_.Wait(&mutex_);
}

void ReplicaSet::Poll() {
  while (true) {
    std::vector<size_t> idle;
    {
      MutexLock lock(&mutex_);
      if (stopping_) return;
      for (size_t i = 0; i < replicas_.size(); ++i) {
        if (replicas_[i]->polling) continue;
        replicas_[i]->polling = true;
        ++polls_under_way_;
        idle.push_back(i);
      }
    }
    for (const size_t index : idle) StartDescribe(index);
    const SteadyTime next = Clock::Real().Now() + options_.poll_interval;
    MutexLock lock(&mutex_);
    while (!stopping_ && Clock::Real().Now() < next) changed_.WaitUntil(&mutex_, next);
  }
}

void ReplicaSet::StartDescribe(size_t index) {
  Replica* const replica = replicas_[index].get();
  auto call = DescribeCall::Start(
      {}, Clock::Real().Now() + options_.poll_timeout,
      [replica](auto* context, auto* request, auto* response, auto done) {
        if (replica->encoder != nullptr) {
          replica->encoder->async()->Describe(context, request, response, std::move(done));
        } else {
          replica->decoder->async()->Describe(context, request, response, std::move(done));
        }
      },
      [this, index](absl::Status status, v1::DescribeResponse description) {
        if (status.ok()) {
          MutexLock lock(&mutex_);
          status = CheckLocked(*replicas_[index], description);
          replicas_[index]->description = std::move(description);
        }
        if (status.ok()) {
          StartGetLoad(index);
        } else {
          PollEnded(index, status);
        }
      });
  MutexLock lock(&mutex_);
  // The answer may have come already and the next call begun; that one then goes uncancelled at the
  // end, and runs into its short deadline.
  if (!replica->polling || replica->cancel_poll) return;
  replica->cancel_poll = [call] { call->Cancel(); };
}

void ReplicaSet::StartGetLoad(size_t index) {
  Replica* const replica = replicas_[index].get();
  GetLoadCall::Start(
      {}, Clock::Real().Now() + options_.poll_timeout,
      [replica](auto* context, auto* request, auto* response, auto done) {
        if (replica->encoder != nullptr) {
          replica->encoder->async()->GetLoad(context, request, response, std::move(done));
        } else {
          replica->decoder->async()->GetLoad(context, request, response, std::move(done));
        }
      },
      [this, index](const absl::Status& status, v1::GetLoadResponse load) {
        if (status.ok()) {
          MutexLock lock(&mutex_);
          replicas_[index]->load = std::move(load);
        }
        PollEnded(index, status);
      });
}

void ReplicaSet::PollEnded(size_t index, const absl::Status& status) {
  MutexLock lock(&mutex_);
  Replica* const replica = replicas_[index].get();
  replica->polling = false;
  replica->cancel_poll = nullptr;
  if (status.ok()) {
    replica->slow_polls = 0;
    SetReadyLocked(replica, status);
  } else if (!absl::IsDeadlineExceeded(status) || ++replica->slow_polls >= kSlowPollsMax) {
    SetReadyLocked(replica, status);
  }
  --polls_under_way_;
  changed_.NotifyAll();
}

absl::Status ReplicaSet::CheckLocked(const Replica& replica, const v1::DescribeResponse& description) const {
  if (description.role() != std::string(Name(options_.role))) {
    return absl::FailedPreconditionError(
        absl::StrCat("is a \"", description.role(), "\", want a \"", Name(options_.role), "\""));
  }
  if (description.hidden_size() != options_.hidden_size ||
      description.num_deepstack() != options_.num_deepstack) {
    return absl::FailedPreconditionError(absl::StrCat("embeddings have ", description.hidden_size(),
                                                      " columns and ", description.num_deepstack(),
                                                      " DeepStack levels, the checkpoint here says ",
                                                      options_.hidden_size, " and ", options_.num_deepstack));
  }
  for (const std::unique_ptr<Replica>& other : replicas_) {
    if (other.get() == &replica || !other->ready) continue;
    if (description.weights_digest() != other->description.weights_digest()) {
      return absl::FailedPreconditionError(absl::StrCat("holds weights ", Hex(description.weights_digest()),
                                                        ", but ", other->address, " holds ",
                                                        Hex(other->description.weights_digest())));
    }
    if (description.numerics_id() != other->description.numerics_id()) {
      return absl::FailedPreconditionError(absl::StrCat("computes as \"", description.numerics_id(),
                                                        "\", but ", other->address, " as \"",
                                                        other->description.numerics_id(), "\""));
    }
  }
  return absl::OkStatus();
}

void ReplicaSet::SetReadyLocked(Replica* replica, const absl::Status& status) {
  const bool changed = replica->ready != status.ok();
  replica->ready = status.ok();
  replica->why_not = std::string(status.message());
  if (!status.ok() && replica->why_not.empty()) replica->why_not = absl::StatusCodeToString(status.code());
  if (!changed) return;
  int ready = 0;
  for (const std::unique_ptr<Replica>& each : replicas_) ready += each->ready ? 1 : 0;
  ready_gauge_.Set(ready);
  if (status.ok()) {
    LogInfo("replica is ready", {{"role", Name(options_.role)}, {"address", replica->address}});
  } else {
    LogWarning("replica is not ready",
               {{"role", Name(options_.role)}, {"address", replica->address}, {"why", replica->why_not}});
  }
}

absl::Status ReplicaSet::NoneReadyLocked() const {
  std::vector<std::string> whys;
  for (const std::unique_ptr<Replica>& replica : replicas_) {
    whys.push_back(
        absl::StrCat(replica->address, " ", replica->ready ? "has just failed" : replica->why_not));
  }
  return RetryAfter(
      ErrorWithReason(absl::StatusCode::kUnavailable,
                      absl::StrCat("no ", Name(options_.role), " is ready: ",
                                   whys.empty() ? "none is configured" : absl::StrJoin(whys, "; ")),
                      kReasonNoReplica),
      kRetryMs);
}

absl::StatusOr<ReplicaUse> ReplicaSet::PickEncoder(absl::string_view sha256,
                                                   const std::vector<size_t>& excluded, bool only_others) {
  PRISM_CHECK(options_.role == ReplicaRole::kVisionEncoder);
  return Pick(excluded, only_others, sha256);
}

absl::StatusOr<ReplicaUse> ReplicaSet::PickDecoder(const std::vector<size_t>& excluded, bool only_others) {
  PRISM_CHECK(options_.role == ReplicaRole::kDecoder);
  return Pick(excluded, only_others, "");
}

absl::StatusOr<ReplicaUse> ReplicaSet::Pick(const std::vector<size_t>& excluded, bool only_others,
                                            absl::string_view sha256) {
  MutexLock lock(&mutex_);
  const auto candidates = [&](bool all) {
    std::vector<size_t> indices;
    for (size_t i = 0; i < replicas_.size(); ++i) {
      const bool left_out = std::find(excluded.begin(), excluded.end(), i) != excluded.end();
      if (replicas_[i]->ready && (all || !left_out)) indices.push_back(i);
    }
    return indices;
  };
  std::vector<size_t> indices = candidates(false);
  if (indices.empty() && !only_others) indices = candidates(true);
  if (indices.empty()) return NoneReadyLocked();
  std::vector<Candidate> known;
  for (const size_t i : indices) {
    const Replica& replica = *replicas_[i];
    const int64_t reported = int64_t{replica.load.running()} + replica.load.waiting();
    known.push_back({.address = replica.address,
                     .in_flight = replica.in_flight,
                     .others = std::max<int64_t>(0, reported - replica.in_flight)});
  }
  const size_t best =
      options_.role == ReplicaRole::kVisionEncoder
          ? RankEncoders(sha256, known).front()
          : prism::PickDecoder(known, 0, SplitMix64(++turn_ * 0x9E3779B97F4A7C15u), true).value();
  ++replicas_[indices[best]]->in_flight;
  return ReplicaUse(this, indices[best]);
}

void ReplicaSet::ReleaseHandles(size_t index, const std::vector<std::string>& handle_ids) {
  v1::VisionEncoder::Stub* const stub = replicas_[index]->encoder.get();
  PRISM_CHECK(stub != nullptr);
  v1::ReleaseRequest request;
  for (const std::string& id : handle_ids) request.add_handle_ids(id);
  // What is not given back runs out by itself, so nobody waits for the answer.
  ReleaseCall::Start(
      std::move(request), Clock::Real().Now() + options_.poll_timeout,
      [stub](auto* context, auto* message, auto* response, auto done) {
        stub->async()->Release(context, message, response, std::move(done));
      },
      [](const absl::Status&, const v1::ReleaseResponse&) {});
}

int ReplicaSet::num_ready() const {
  MutexLock lock(&mutex_);
  int ready = 0;
  for (const std::unique_ptr<Replica>& replica : replicas_) ready += replica->ready ? 1 : 0;
  return ready;
}

absl::Status ReplicaSet::ready() const {
  MutexLock lock(&mutex_);
  for (const std::unique_ptr<Replica>& replica : replicas_) {
    if (replica->ready) return absl::OkStatus();
  }
  return NoneReadyLocked();
}

std::optional<uint64_t> ReplicaSet::model_length_max() const {
  MutexLock lock(&mutex_);
  std::optional<uint64_t> least;
  for (const std::unique_ptr<Replica>& replica : replicas_) {
    const uint64_t length = replica->description.model_length_max();
    if (replica->ready && length > 0) least = std::min(least.value_or(length), length);
  }
  return least;
}

v1::DescribeResponse ReplicaSet::AnyDescription() const {
  MutexLock lock(&mutex_);
  for (const std::unique_ptr<Replica>& replica : replicas_) {
    if (replica->ready) return replica->description;
  }
  return {};
}

void ReplicaSet::AppendTo(v1::ListReplicasResponse* response) const {
  MutexLock lock(&mutex_);
  for (const std::unique_ptr<Replica>& replica : replicas_) {
    v1::ListReplicasResponse::Replica* listed = response->add_replicas();
    listed->set_address(replica->address);
    listed->set_role(std::string(Name(options_.role)));
    listed->set_ready(replica->ready);
    if (!replica->ready) listed->set_why_not(replica->why_not);
    listed->set_in_flight(static_cast<uint32_t>(replica->in_flight));
    *listed->mutable_load() = replica->load;
    *listed->mutable_description() = replica->description;
  }
}

}  // namespace prism
