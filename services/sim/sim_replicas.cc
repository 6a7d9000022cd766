#include "services/sim/sim_replicas.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"

namespace prism::sim {

SimReplicas::SimReplicas(const SimReplicasOptions& options, const std::string& name, World* world,
                         Network* network)
    : options_(options), world_(world), network_(network) {
  for (const ProcessId id : options.processes) {
    Replica replica;
    replica.process = id;
    replica.address = absl::StrCat(name, "-", id);
    replica.prefixes = std::make_unique<PrefixMap>(options.prefix_blocks_max);
    replicas_.push_back(std::move(replica));
  }
}

void SimReplicas::Poll() {
  for (Replica& replica : replicas_) {
    if (replica.poll != 0) {
      if (world_->now() - replica.polled_at < options_.poll_timeout) continue;
      network_->Cancel(replica.poll);
      replica.ready = false;
    }
    replica.poll = network_->Open(kRouter, replica.process, {.kind = EventKind::kAskLoad});
    replica.polled_at = world_->now();
  }
}

bool SimReplicas::TakePollEvent(const Event& event) {
  for (Replica& replica : replicas_) {
    if (replica.poll != event.stream) continue;
    if (event.kind == EventKind::kEnd) {
      replica.poll = 0;
      if (event.code != EndCode::kOk) replica.ready = false;
      return true;
    }
    replica.ready = true;
    replica.refused = false;
    replica.leaves = event.value != 0;
    replica.others = std::max<int64_t>(0, event.index - replica.in_flight);
    return true;
  }
  return false;
}

std::vector<size_t> SimReplicas::ReadyOf(const std::vector<size_t>& excluded) const {
  std::vector<size_t> indices;
  for (size_t i = 0; i < replicas_.size(); ++i) {
    const bool left_out = std::find(excluded.begin(), excluded.end(), i) != excluded.end();
    if (replicas_[i].ready && !replicas_[i].leaves && !left_out) indices.push_back(i);
  }
  return indices;
}

Candidate SimReplicas::CandidateOf(const Replica& replica) const {
  Candidate candidate{.address = replica.address,
                      .in_flight = replica.in_flight,
                      .others = replica.others,
                      .capacity = options_.capacity,
                      .pending_tokens = replica.pending_tokens};
  // One that refuses is full whatever it said before.
  if (replica.refused) candidate.capacity = std::max<int64_t>(1, candidate.load());
  if (replica.refused && candidate.load() == 0) candidate.others = 1;
  return candidate;
}

std::optional<SimReplicas::Use> SimReplicas::TryEncoder(const std::string& picture,
                                                        const std::vector<size_t>& excluded, Lack* lack) {
  const std::vector<size_t> ready = ReadyOf(excluded);
  *lack = Lack::kReplica;
  if (ready.empty()) return std::nullopt;
  std::vector<Candidate> candidates;
  for (const size_t i : ready) candidates.push_back(CandidateOf(replicas_[i]));
  const size_t best = RankEncoders(picture, candidates).front();
  *lack = Lack::kRoom;
  if (candidates[best].full()) return std::nullopt;
  return Begin(ready[best], 1, 0);
}

std::optional<SimReplicas::Use> SimReplicas::TryDecoder(const Wish& wish, Lack* lack) {
  return DecoderOf(ReadyOf({}), wish, false, lack);
}

std::optional<SimReplicas::Use> SimReplicas::PickDecoder(const Wish& wish,
                                                         const std::vector<size_t>& excluded) {
  Lack lack;
  return DecoderOf(ReadyOf(excluded), wish, true, &lack);
}

std::optional<size_t> SimReplicas::Best(const std::vector<Candidate>& candidates, const Wish& wish,
                                        bool also_full) {
  if (options_.placement == Placement::kPrefixAffinity) {
    return prism::PickDecoder(candidates, wish.prompt_tokens, world_->random().Next(), also_full);
  }
  std::optional<size_t> best;
  const size_t first = turn_++;
  for (size_t i = 0; i < candidates.size(); ++i) {
    const size_t at = (first + i) % candidates.size();
    if (!also_full && candidates[at].full()) continue;
    const bool better = !best.has_value() || (options_.placement == Placement::kLeastLoaded &&
                                              candidates[at].load() < candidates[*best].load());
    if (better) best = at;
  }
  return best;
}

std::optional<SimReplicas::Use> SimReplicas::DecoderOf(const std::vector<size_t>& ready, const Wish& wish,
                                                       bool also_full, Lack* lack) {
  *lack = Lack::kReplica;
  if (ready.empty()) return std::nullopt;
  std::vector<Candidate> candidates;
  for (const size_t i : ready) {
    candidates.push_back(CandidateOf(replicas_[i]));
    candidates.back().known_tokens =
        static_cast<int64_t>(replicas_[i].prefixes->Match(wish.blocks)) * kPrefixBlockTokens;
  }
  *lack = Lack::kRoom;
  const std::optional<size_t> best = Best(candidates, wish, also_full);
  if (!best.has_value()) return std::nullopt;
  replicas_[ready[*best]].prefixes->Add(wish.blocks);
  const int64_t rest = wish.prompt_tokens - std::min(candidates[*best].known_tokens, wish.prompt_tokens);
  return Begin(ready[*best], wish.choices, static_cast<double>(rest));
}

SimReplicas::Use SimReplicas::Begin(size_t index, int64_t slots, double tokens) {
  replicas_[index].in_flight += slots;
  replicas_[index].pending_tokens += tokens;
  return {.replica = index, .slots = slots, .pending_tokens = tokens};
}

void SimReplicas::Prefilled(Use& use) {
  replicas_[use.replica].pending_tokens -= std::exchange(use.pending_tokens, 0);
}

void SimReplicas::End(const Use& use, bool refused) {
  Replica& replica = replicas_[use.replica];
  replica.in_flight -= use.slots;
  replica.pending_tokens -= use.pending_tokens;
  replica.refused = refused;
}

void SimReplicas::CheckIdle() const {
  for (const Replica& replica : replicas_) {
    if (replica.in_flight == 0 && replica.pending_tokens == 0) continue;
    world_->Violate(absl::StrCat("the router counts ", replica.in_flight, " pieces of work and ",
                                 replica.pending_tokens, " tokens on ", replica.address, ", which is idle"));
  }
}

}  // namespace prism::sim
