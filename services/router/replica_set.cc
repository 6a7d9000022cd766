#include "services/router/replica_set.h"

#include <netdb.h>
#include <netinet/in.h>
#include <sys/socket.h>

#include <algorithm>
#include <functional>
#include <map>
#include <set>
#include <utility>

#include "absl/strings/match.h"
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
constexpr absl::string_view kDnsScheme = "dns:///";
// Blocks of prompts that are remembered of one decoder.
constexpr uint64_t kBlocksMax = 1 << 16;

}  // namespace

absl::string_view Name(ReplicaRole role) {
  return role == ReplicaRole::kVisionEncoder ? "vision-encoder" : "decoder";
}

struct Replica {
  Replica() = default;
  ~Replica() {
    if (feed != nullptr) feed->Close();
  }
  Replica(const Replica&) = delete;
  Replica& operator=(const Replica&) = delete;

  std::string address;
  std::shared_ptr<grpc::Channel> channel;
  std::unique_ptr<v1::VisionEncoder::Stub> encoder;
  std::unique_ptr<v1::Decoder::Stub> decoder;

  bool listed = true;
  bool ready = false;
  std::string why_not = "not asked yet";
  int64_t in_flight = 0;      // slots of ours
  int64_t uses = 0;           // of any kind, until nothing refers to it
  double pending_tokens = 0;  // of prompts of ours that are not computed
  bool refused = false;       // the last call that was heard of found it full
  int slow_polls = 0;
  bool polling = false;
  std::function<void()> cancel_poll;
  v1::DescribeResponse description;
  v1::GetLoadResponse load;
  SteadyTime load_at;                   // when `load` came
  int64_t sent_since = 0;               // slots given to it since
  int64_t others = 0;                   // of `load`, calls that are not ours
  std::unique_ptr<PrefixMap> prefixes;  // decoders; of this incarnation
  std::shared_ptr<DecoderFeed> feed;    // decoders; null until one is used
};

absl::StatusOr<std::vector<std::string>> ResolveByDns(const std::string& name_and_port) {
  const size_t colon = name_and_port.rfind(':');
  if (colon == std::string::npos || colon == 0 || colon + 1 == name_and_port.size()) {
    return absl::InvalidArgumentError(absl::StrCat("\"", name_and_port, "\" is not NAME:PORT"));
  }
  const std::string name = name_and_port.substr(0, colon);
  addrinfo hints{};
  hints.ai_family = AF_UNSPEC;
  hints.ai_socktype = SOCK_STREAM;
  addrinfo* found = nullptr;
  const int error = getaddrinfo(name.c_str(), name_and_port.c_str() + colon + 1, &hints, &found);
  if (error != 0) return absl::UnavailableError(absl::StrCat(name, ": ", gai_strerror(error)));
  std::vector<std::string> addresses;
  for (const addrinfo* each = found; each != nullptr; each = each->ai_next) {
    char host[NI_MAXHOST];
    char port[NI_MAXSERV];
    if (getnameinfo(each->ai_addr, each->ai_addrlen, host, sizeof(host), port, sizeof(port),
                    NI_NUMERICHOST | NI_NUMERICSERV) != 0) {
      continue;
    }
    const bool six = each->ai_family == AF_INET6;
    addresses.push_back(six ? absl::StrCat("[", host, "]:", port) : absl::StrCat(host, ":", port));
  }
  freeaddrinfo(found);
  return addresses;
}

ReplicaUse& ReplicaUse::operator=(ReplicaUse&& other) noexcept {
  if (this != &other) {
    End();
    set_ = std::exchange(other.set_, nullptr);
    replica_ = std::move(other.replica_);
    index_ = other.index_;
    slots_ = other.slots_;
    pending_tokens_ = other.pending_tokens_;
    full_ = other.full_;
  }
  return *this;
}

const std::string& ReplicaUse::address() const { return replica_->address; }

v1::VisionEncoder::StubInterface* ReplicaUse::encoder() const {
  PRISM_CHECK(replica_->encoder != nullptr);
  return replica_->encoder.get();
}

std::shared_ptr<DecoderFeed> ReplicaUse::feed() const {
  PRISM_CHECK(replica_->decoder != nullptr);
  MutexLock lock(&set_->mutex_);
  std::shared_ptr<DecoderFeed>& feed = replica_->feed;
  if (feed == nullptr || feed->lost()) feed = std::make_shared<DecoderFeed>(replica_->decoder.get());
  return feed;
}

void ReplicaUse::ReportGone(const absl::Status& why) {
  MutexLock lock(&set_->mutex_);
  set_->SetReadyLocked(replica_.get(), Annotate(why, "a call broke"));
}

void ReplicaUse::ReportFull() {
  full_ = true;
  MutexLock lock(&set_->mutex_);
  replica_->refused = true;
}

void ReplicaUse::Prefilled() {
  if (set_ == nullptr || pending_tokens_ == 0) return;
  MutexLock lock(&set_->mutex_);
  replica_->pending_tokens -= std::exchange(pending_tokens_, 0);
}

void ReplicaUse::End() {
  ReplicaSet* const set = std::exchange(set_, nullptr);
  if (set == nullptr) return;
  std::shared_ptr<Replica> replica = std::move(replica_);
  {
    MutexLock lock(&set->mutex_);
    replica->in_flight -= slots_;
    replica->pending_tokens -= pending_tokens_;
    --replica->uses;
    // One that was not refused has left room.
    if (!full_) replica->refused = false;
  }
  set->Room();
  // The set may be gone once nothing is counted.
  MutexLock lock(&set->mutex_);
  if (--set->uses_ == 0) set->changed_.NotifyAll();
}

ReplicaSet::ReplicaSet(ReplicaSetOptions options)
    : options_(std::move(options)), ready_gauge_(options_.ready) {
  std::vector<std::string> addresses;
  for (const std::string& address : options_.addresses) {
    if (!absl::StartsWith(address, kDnsScheme)) addresses.push_back(address);
  }
  SetAddresses(addresses);
}

ReplicaSet::~ReplicaSet() {
  Stop();
  WaitUnused();
  std::vector<std::shared_ptr<DecoderFeed>> feeds;
  {
    MutexLock lock(&mutex_);
    for (const ReplicaPtr& replica : replicas_) {
      if (replica->feed != nullptr) feeds.push_back(replica->feed);
    }
  }
  for (const std::shared_ptr<DecoderFeed>& feed : feeds) feed->Close();
  for (const std::shared_ptr<DecoderFeed>& feed : feeds) feed->WaitClosed();
}

void ReplicaSet::WaitUnused() {
  MutexLock lock(&mutex_);
  while (uses_ > 0) changed_.Wait(&mutex_);
}

ReplicaSet::ReplicaPtr ReplicaSet::NewReplica(const std::string& address) const {
  auto replica = std::make_shared<Replica>();
  replica->address = address;
  replica->channel = NewChannel(address, {.follow_health = true});
  if (options_.role == ReplicaRole::kVisionEncoder) {
    replica->encoder = v1::VisionEncoder::NewStub(replica->channel);
  } else {
    replica->decoder = v1::Decoder::NewStub(replica->channel);
  }
  return replica;
}

void ReplicaSet::SetAddresses(const std::vector<std::string>& addresses) {
  std::set<std::string> wanted(addresses.begin(), addresses.end());
  std::vector<ReplicaPtr> dropped;  // their channels close outside of the lock
  MutexLock lock(&mutex_);
  std::vector<size_t> vacant;
  for (size_t i = 0; i < replicas_.size(); ++i) {
    Replica& replica = *replicas_[i];
    const bool listed = wanted.erase(replica.address) > 0;
    if (listed != replica.listed) {
      LogInfo(listed ? "replica is listed again" : "replica is not listed any more",
              {{"role", Name(options_.role)}, {"address", replica.address}});
      replica.listed = listed;
      if (!listed) SetReadyLocked(&replica, absl::UnavailableError("not listed any more"));
    }
    if (!listed && replica.uses == 0 && !replica.polling) vacant.push_back(i);
  }
  for (const std::string& address : addresses) {
    if (wanted.erase(address) == 0) continue;
    ReplicaPtr replica = NewReplica(address);
    if (!vacant.empty()) {
      dropped.push_back(std::exchange(replicas_[vacant.back()], std::move(replica)));
      vacant.pop_back();
    } else if (replicas_.size() < kReplicasMax) {
      replicas_.push_back(std::move(replica));
    } else {
      LogWarning("replica is left out: there are too many",
                 {{"role", Name(options_.role)}, {"address", address}, {"limit", kReplicasMax}});
    }
  }
}

void ReplicaSet::Start() {
  poller_ = NamedThread("poll-replicas", [this] { Poll(); });
  const bool names = std::any_of(options_.addresses.begin(), options_.addresses.end(),
                                 [](const std::string& each) { return absl::StartsWith(each, kDnsScheme); });
  if (names) resolver_ = NamedThread("resolve-names", [this] { Resolve(); });
}

void ReplicaSet::Stop() {
  std::vector<std::function<void()>> cancels;
  {
    MutexLock lock(&mutex_);
    stopping_ = true;
    for (const ReplicaPtr& replica : replicas_) {
      if (replica->cancel_poll) cancels.push_back(replica->cancel_poll);
    }
    changed_.NotifyAll();
  }
  for (const std::function<void()>& cancel : cancels) cancel();
  poller_.Join();
  resolver_.Join();
  MutexLock lock(&mutex_);
  while (polls_under_way_ > 0) changed_.Wait(&mutex_);
}

void ReplicaSet::Resolve() {
  std::map<std::string, std::vector<std::string>> last_good;
  while (true) {
    std::vector<std::string> addresses;
    for (const std::string& each : options_.addresses) {
      if (!absl::StartsWith(each, kDnsScheme)) {
        addresses.push_back(each);
        continue;
      }
      absl::StatusOr<std::vector<std::string>> found = options_.resolve(each.substr(kDnsScheme.size()));
      if (found.ok() && !found->empty()) {
        last_good[each] = *std::move(found);
      } else {
        LogWarning("a name has no answer, its last addresses are kept",
                   {{"name", each},
                    {"kept", last_good[each].size()},
                    {"why", found.ok() ? "no addresses" : found.status().message()}});
      }
      addresses.insert(addresses.end(), last_good[each].begin(), last_good[each].end());
    }
    SetAddresses(addresses);
    {
      MutexLock lock(&mutex_);
      changed_.NotifyAll();  // the new ones are polled at once
      const SteadyTime next = Clock::Real().Now() + options_.resolve_interval;
      while (!stopping_ && Clock::Real().Now() < next) changed_.WaitUntil(&mutex_, next);
      if (stopping_) return;
    }
  }
}

void ReplicaSet::Poll() {
  while (true) {
    std::vector<ReplicaPtr> idle;
    size_t num_seen = 0;
    {
      MutexLock lock(&mutex_);
      if (stopping_) return;
      num_seen = replicas_.size();
      for (const ReplicaPtr& replica : replicas_) {
        if (replica->polling || !replica->listed) continue;
        replica->polling = true;
        ++polls_under_way_;
        idle.push_back(replica);
      }
    }
    for (const ReplicaPtr& replica : idle) StartDescribe(replica);
    const SteadyTime next = Clock::Real().Now() + options_.poll_interval;
    MutexLock lock(&mutex_);
    while (!stopping_ && replicas_.size() == num_seen && Clock::Real().Now() < next) {
      changed_.WaitUntil(&mutex_, next);
    }
  }
}

void ReplicaSet::StartDescribe(const ReplicaPtr& replica) {
  auto call = DescribeCall::Start(
      {}, Clock::Real().Now() + options_.poll_timeout,
      [replica](auto* context, auto* request, auto* response, auto done) {
        if (replica->encoder != nullptr) {
          replica->encoder->async()->Describe(context, request, response, std::move(done));
        } else {
          replica->decoder->async()->Describe(context, request, response, std::move(done));
        }
      },
      [this, replica](absl::Status status, v1::DescribeResponse description) {
        if (status.ok()) {
          MutexLock lock(&mutex_);
          status = CheckLocked(*replica, description);
          // Another process at the same address has none of what the last one had cached.
          if (description.incarnation() != replica->description.incarnation()) replica->prefixes = nullptr;
          replica->description = std::move(description);
        }
        if (status.ok()) {
          StartGetLoad(replica);
        } else {
          PollEnded(replica, status);
        }
      });
  MutexLock lock(&mutex_);
  // The answer may have come already and the next call begun; that one then goes uncancelled at the
  // end, and runs into its short deadline.
  if (!replica->polling || replica->cancel_poll) return;
  replica->cancel_poll = [call] { call->Cancel(); };
}

void ReplicaSet::StartGetLoad(const ReplicaPtr& replica) {
  int64_t in_flight = 0;
  {
    MutexLock lock(&mutex_);
    in_flight = replica->in_flight;
  }
  GetLoadCall::Start(
      {}, Clock::Real().Now() + options_.poll_timeout,
      [replica](auto* context, auto* request, auto* response, auto done) {
        if (replica->encoder != nullptr) {
          replica->encoder->async()->GetLoad(context, request, response, std::move(done));
        } else {
          replica->decoder->async()->GetLoad(context, request, response, std::move(done));
        }
      },
      [this, replica, in_flight](const absl::Status& status, v1::GetLoadResponse load) {
        if (status.ok()) {
          MutexLock lock(&mutex_);
          // Calls that came or went while it answered are ours.
          const int64_t ours = std::max(in_flight, replica->in_flight);
          replica->others = std::max<int64_t>(0, int64_t{load.running()} + load.waiting() - ours);
          replica->load = std::move(load);
          replica->load_at = Clock::Real().Now();
          replica->sent_since = 0;
          replica->refused = false;
        }
        PollEnded(replica, status);
      });
}

void ReplicaSet::PollEnded(const ReplicaPtr& replica, const absl::Status& status) {
  bool room = false;
  {
    MutexLock lock(&mutex_);
    replica->cancel_poll = nullptr;
    if (status.ok()) {
      replica->slow_polls = 0;
      if (replica->listed) SetReadyLocked(replica.get(), status);
      room = !stopping_;
    } else if (!absl::IsDeadlineExceeded(status) || ++replica->slow_polls >= kSlowPollsMax) {
      SetReadyLocked(replica.get(), status);
      room = !stopping_;  // what waits may have to be told that there is none
    }
  }
  if (room) Room();
  MutexLock lock(&mutex_);
  replica->polling = false;
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
  for (const ReplicaPtr& other : replicas_) {
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
  for (const ReplicaPtr& each : replicas_) ready += each->ready ? 1 : 0;
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
  for (const ReplicaPtr& replica : replicas_) {
    if (!replica->listed) continue;
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

std::vector<size_t> ReplicaSet::OpenLocked(const std::vector<size_t>& excluded, bool only_others) const {
  std::vector<size_t> open, others;
  for (size_t i = 0; i < replicas_.size(); ++i) {
    if (!replicas_[i]->ready) continue;
    open.push_back(i);
    if (std::find(excluded.begin(), excluded.end(), i) == excluded.end()) others.push_back(i);
  }
  return others.empty() && !only_others ? open : others;
}

Candidate ReplicaSet::CandidateLocked(const Replica& replica, SteadyTime now) const {
  Candidate candidate{.address = replica.address, .in_flight = replica.in_flight, .others = replica.others};
  if (options_.role == ReplicaRole::kVisionEncoder) {
    candidate.capacity = static_cast<int64_t>(replica.description.calls_max());
    candidate.item_s = replica.load.item_s();
    const double since_s = SecondsBetween(replica.load_at, now);
    candidate.drain_s = std::max(0.0, replica.load.queued_work_s() - since_s) +
                        static_cast<double>(replica.sent_since) * candidate.item_s;
  } else {
    const int64_t sequences = static_cast<int64_t>(replica.description.sequences_max());
    if (sequences > 0) candidate.capacity = sequences + std::max(kAheadSequencesMin, sequences / 4);
    candidate.pending_tokens = replica.pending_tokens;
  }
  // One that refuses is full whatever it said before.
  if (replica.refused) candidate.capacity = std::max<int64_t>(1, candidate.load());
  if (replica.refused && candidate.load() == 0) candidate.others = 1;
  return candidate;
}

ReplicaUse ReplicaSet::UseLocked(size_t index, int64_t slots, double tokens) {
  const ReplicaPtr& replica = replicas_[index];
  replica->in_flight += slots;
  replica->sent_since += slots;
  replica->pending_tokens += tokens;
  ++replica->uses;
  ++uses_;
  return ReplicaUse(this, replica, index, slots, tokens);
}

absl::StatusOr<ReplicaUse> ReplicaSet::TryEncoder(const EncoderWish& wish) {
  PRISM_CHECK(options_.role == ReplicaRole::kVisionEncoder);
  MutexLock lock(&mutex_);
  const std::vector<size_t> open = OpenLocked(wish.excluded, wish.only_others);
  if (open.empty()) return NoneReadyLocked();
  const SteadyTime now = Clock::Real().Now();
  std::vector<Candidate> known;
  for (const size_t i : open) known.push_back(CandidateLocked(*replicas_[i], now));
  const size_t best = RankEncoders(wish.sha256, known).front();
  if (known[best].full()) return absl::ResourceExhaustedError("every encoder has enough to do");
  return UseLocked(open[best], 1, 0);
}

absl::StatusOr<ReplicaUse> ReplicaSet::DecoderLocked(const std::vector<size_t>& open, const DecoderWish& wish,
                                                     bool also_full) {
  if (open.empty()) return NoneReadyLocked();
  const SteadyTime now = Clock::Real().Now();
  std::vector<Candidate> known;
  for (const size_t i : open) {
    known.push_back(CandidateLocked(*replicas_[i], now));
    if (replicas_[i]->prefixes != nullptr) {
      known.back().known_tokens =
          static_cast<int64_t>(replicas_[i]->prefixes->Match(wish.blocks)) * kPrefixBlockTokens;
    }
  }
  const uint64_t draw = SplitMix64(++turn_ * 0x9E3779B97F4A7C15u);
  const std::optional<size_t> best = prism::PickDecoder(known, wish.prompt_tokens, draw, also_full);
  if (!best.has_value()) return absl::ResourceExhaustedError("every decoder has enough to do");
  Replica& replica = *replicas_[open[*best]];
  if (!wish.blocks.empty()) {
    if (replica.prefixes == nullptr) {
      const uint64_t pages = replica.load.kv_pages_total();
      replica.prefixes =
          std::make_unique<PrefixMap>(pages > 0 ? std::min<uint64_t>(pages, kBlocksMax) : kBlocksMax);
    }
    replica.prefixes->Add(wish.blocks);
  }
  const int64_t rest = wish.prompt_tokens - std::min(known[*best].known_tokens, wish.prompt_tokens);
  return UseLocked(open[*best], wish.choices, static_cast<double>(rest));
}

absl::StatusOr<ReplicaUse> ReplicaSet::TryDecoder(const DecoderWish& wish) {
  PRISM_CHECK(options_.role == ReplicaRole::kDecoder);
  MutexLock lock(&mutex_);
  return DecoderLocked(OpenLocked({}, false), wish, false);
}

absl::StatusOr<ReplicaUse> ReplicaSet::PickDecoder(const std::vector<size_t>& excluded, bool only_others) {
  PRISM_CHECK(options_.role == ReplicaRole::kDecoder);
  MutexLock lock(&mutex_);
  return DecoderLocked(OpenLocked(excluded, only_others), {}, true);
}

void ReplicaSet::ReleaseHandles(size_t index, const std::vector<std::string>& handle_ids) {
  ReplicaPtr replica;
  {
    MutexLock lock(&mutex_);
    replica = replicas_[index];
  }
  PRISM_CHECK(replica->encoder != nullptr);
  v1::ReleaseRequest request;
  for (const std::string& id : handle_ids) request.add_handle_ids(id);
  // What is not given back runs out by itself, so nobody waits for the answer.
  ReleaseCall::Start(
      std::move(request), Clock::Real().Now() + options_.poll_timeout,
      [replica](auto* context, auto* message, auto* response, auto done) {
        replica->encoder->async()->Release(context, message, response, std::move(done));
      },
      [](const absl::Status&, const v1::ReleaseResponse&) {});
}

void ReplicaSet::RecordSeconds(double seconds) {
  MutexLock lock(&mutex_);
  hedge_.Record(seconds);
}

std::optional<std::chrono::milliseconds> ReplicaSet::HedgeDelay() const {
  MutexLock lock(&mutex_);
  return hedge_.Delay();
}

bool ReplicaSet::TakeHedge() {
  MutexLock lock(&mutex_);
  return hedge_.Take();
}

int ReplicaSet::num_ready() const {
  MutexLock lock(&mutex_);
  int ready = 0;
  for (const ReplicaPtr& replica : replicas_) ready += replica->ready ? 1 : 0;
  return ready;
}

absl::Status ReplicaSet::ready() const {
  MutexLock lock(&mutex_);
  for (const ReplicaPtr& replica : replicas_) {
    if (replica->ready) return absl::OkStatus();
  }
  return NoneReadyLocked();
}

std::optional<uint64_t> ReplicaSet::model_length_max() const {
  MutexLock lock(&mutex_);
  std::optional<uint64_t> least;
  for (const ReplicaPtr& replica : replicas_) {
    const uint64_t length = replica->description.model_length_max();
    if (replica->ready && length > 0) least = std::min(least.value_or(length), length);
  }
  return least;
}

v1::DescribeResponse ReplicaSet::AnyDescription() const {
  MutexLock lock(&mutex_);
  for (const ReplicaPtr& replica : replicas_) {
    if (replica->ready) return replica->description;
  }
  return {};
}

void ReplicaSet::AppendTo(v1::ListReplicasResponse* response) const {
  MutexLock lock(&mutex_);
  for (const ReplicaPtr& replica : replicas_) {
    if (!replica->listed) continue;
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
