#include "services/sim/sim_router.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/base/check.h"
#include "services/sim/fake_model.h"

namespace prism::sim {
namespace {

// A picture is sent to this many encoders at the most.
constexpr size_t kTriesMax = 2;
// Until full encoders are asked again for a picture of a chat that had begun.
constexpr SimTime kEncodeAgain = 100 * kMillisecond;
// What a hop keeps for itself of a deadline.
constexpr SimTime kHopMargin = 50 * kMillisecond;

SimTime HopDeadline(SimTime deadline, SimTime now) {
  if (deadline >= kNever) return deadline;
  return deadline - std::min(kHopMargin, std::max<SimTime>(deadline - now, 0) / 10);
}

AttemptState::Ending EndingOf(EndCode code) {
  switch (code) {
    case EndCode::kUnavailable:
    case EndCode::kConnectionLost:
    case EndCode::kCancelled:
    case EndCode::kOk:  // ended its stream before the answer
      return AttemptState::Ending::kCrashed;
    case EndCode::kDraining:
      return AttemptState::Ending::kLeft;
    case EndCode::kExhausted:
      return AttemptState::Ending::kRefused;
    case EndCode::kEmbeddingLost:
      return AttemptState::Ending::kEmbeddingLost;
    default:
      return AttemptState::Ending::kFailed;
  }
}

}  // namespace

SimRouter::SimRouter(const SimRouterOptions& options, World* world, Network* network)
    : options_(options), world_(world), network_(network) {
  for (const ProcessId id : options.decoders) {
    decoders_.push_back({.process = id, .address = absl::StrCat("decoder-", id)});
  }
  for (const ProcessId id : options.encoders) {
    encoders_.push_back({.process = id, .address = absl::StrCat("encoder-", id)});
  }
  world_->After(options_.tick, {.kind = EventKind::kTick, .to = kRouter});
  world_->After(options_.poll_interval, {.kind = EventKind::kPoll, .to = kRouter});
}

void SimRouter::Handle(const Event& event) {
  switch (event.kind) {
    case EventKind::kChat:
      return OnChat(event);
    case EventKind::kResume:
      return OnResume(event);
    case EventKind::kCancel:
      return OnClientCancel(event);
    case EventKind::kTick:
      return OnTick();
    case EventKind::kPoll:
      return OnPoll();
    case EventKind::kLoad:
      return OnLoad(event);
    case EventKind::kEncoded:
      return OnEncoded(event);
    case EventKind::kStarted:
    case EventKind::kToken:
    case EventKind::kChoiceFinished:
    case EventKind::kFinished:
    case EventKind::kHeartbeat:
      return OnDecoderEvent(event);
    case EventKind::kEnd:
      return OnCallEnd(event);
    default:
      world_->Violate(absl::StrCat("the router cannot handle ", Describe(event)));
  }
}

SimRouter::Generation* SimRouter::FindActive(uint64_t id) {
  const auto found = generations_.find(id);
  return found == generations_.end() || found->second.outcome.has_value() ? nullptr : &found->second;
}

// Clients.

void SimRouter::OnChat(const Event& event) {
  const std::shared_ptr<const ChatSpec>& chat = event.request->chat;
  if (num_waiting_ >= options_.waiting_max) return network_->End(event.stream, EndCode::kExhausted);
  if (world_->now() >= chat->deadline) return network_->End(event.stream, EndCode::kDeadline);
  const auto [place, is_new] = generations_.try_emplace(chat->id, chat, options_.attempts);
  if (!is_new) return world_->Violate(absl::StrCat("generation ", chat->id, " came twice"));
  Generation& generation = place->second;
  generation.client = event.stream;
  generation.deadline = std::min(chat->deadline, world_->now() + options_.request_timeout);
  generation.reasons.resize(chat->num_choices);
  for (uint32_t i = 0; i < chat->num_choices; ++i) {
    absl::StatusOr<StopMatcher> matcher = StopMatcher::Create(chat->stops, false);
    if (!matcher.ok()) return world_->Violate(std::string(matcher.status().message()));
    generation.texts.push_back(*std::move(matcher));
  }
  clients_[event.stream] = chat->id;
  ++num_active_;
  ++num_waiting_;
  generation.pictures.resize(chat->pictures.size());
  if (generation.pictures.empty()) return StartAttempt(chat->id, generation, EndCode::kUnavailable);
  EncodeAll(chat->id, generation);
}

void SimRouter::OnResume(const Event& event) {
  const auto found = generations_.find(event.generation);
  if (found == generations_.end()) return network_->End(event.stream, EndCode::kNotFound);
  Generation& generation = found->second;
  if (generation.client != 0) {
    // The connection that it had is given up by its client.
    clients_.erase(generation.client);
    network_->End(generation.client, EndCode::kCancelled);
  }
  generation.client = event.stream;
  clients_[event.stream] = event.generation;
  for (size_t number = static_cast<size_t>(event.index); number < generation.events.size(); ++number) {
    Event message{.kind = EventKind::kChatEvent, .generation = event.generation};
    message.chat_event = generation.events[number];
    network_->ToClient(event.stream, std::move(message));
  }
  if (!generation.outcome.has_value()) return;
  network_->End(event.stream, *generation.outcome);
  clients_.erase(event.stream);
  generation.client = 0;
}

void SimRouter::OnClientCancel(const Event& event) {
  const auto found = clients_.find(event.stream);
  if (found == clients_.end()) return;
  const uint64_t id = found->second;
  clients_.erase(found);
  Generation* const generation = FindActive(id);
  if (generation == nullptr) return;
  generation->client = 0;
  // Who said that it may come back has only lost its connection.
  if (event.broken && generation->chat->disconnect_at_event != kNever) return;
  End(id, *generation, EndCode::kCancelled);
}

// Replicas.

std::vector<size_t> SimRouter::ReadyOf(const std::vector<Replica>& replicas,
                                       const std::vector<size_t>& excluded) const {
  std::vector<size_t> indices;
  for (size_t i = 0; i < replicas.size(); ++i) {
    const bool left_out = std::find(excluded.begin(), excluded.end(), i) != excluded.end();
    if (replicas[i].ready && !replicas[i].leaves && !left_out) indices.push_back(i);
  }
  return indices;
}

std::vector<Candidate> SimRouter::CandidatesOf(const std::vector<Replica>& replicas,
                                               const std::vector<size_t>& indices) const {
  std::vector<Candidate> candidates;
  for (const size_t i : indices) {
    candidates.push_back({.address = replicas[i].address,
                          .in_flight = replicas[i].in_flight,
                          .others = std::max<int64_t>(0, replicas[i].reported - replicas[i].in_flight)});
  }
  return candidates;
}

void SimRouter::OnPoll() {
  for (const bool encoder : {false, true}) {
    std::vector<Replica>& replicas = encoder ? encoders_ : decoders_;
    for (size_t i = 0; i < replicas.size(); ++i) {
      Replica& replica = replicas[i];
      if (replica.poll != 0) {
        if (world_->now() - replica.polled_at < options_.poll_timeout) continue;
        network_->Cancel(replica.poll);
        calls_.erase(replica.poll);
        replica.ready = false;
      }
      replica.poll = network_->Open(kRouter, replica.process, {.kind = EventKind::kAskLoad});
      replica.polled_at = world_->now();
      calls_[replica.poll] = {.kind = Call::Kind::kPoll, .replica = i, .encoder = encoder};
    }
  }
  world_->After(options_.poll_interval, {.kind = EventKind::kPoll, .to = kRouter});
}

void SimRouter::OnLoad(const Event& event) {
  const auto found = calls_.find(event.stream);
  if (found == calls_.end()) return;
  Replica& replica = (found->second.encoder ? encoders_ : decoders_)[found->second.replica];
  replica.ready = true;
  replica.leaves = event.value != 0;
  replica.reported = event.index;
}

// Pictures.

void SimRouter::EncodeAll(uint64_t id, Generation& generation) {
  for (size_t i = 0; i < generation.pictures.size(); ++i) {
    if (generation.outcome.has_value()) return;
    Encode(id, generation, i);
  }
}

void SimRouter::Encode(uint64_t id, Generation& generation, size_t index) {
  Picture& picture = generation.pictures[index];
  std::vector<size_t> ready = ReadyOf(encoders_, picture.failed);
  if (ready.empty() && generation.encoded_elsewhere) ready = ReadyOf(encoders_, {});
  if (ready.empty()) return End(id, generation, EndCode::kUnavailable);
  const uint64_t content = generation.chat->pictures[index];
  const size_t best =
      ready[RankEncoders(absl::StrCat("picture-", content), CandidatesOf(encoders_, ready)).front()];
  auto handle = std::make_shared<EmbeddingHandle>();
  handle->content = content;
  handle->num_tokens = generation.chat->spans[index].num_tokens;
  Event encode{.kind = EventKind::kEncode, .generation = id, .index = static_cast<int64_t>(index)};
  encode.handle = std::move(handle);
  picture.encoder = best;
  picture.asked_at = world_->now();
  picture.stream = network_->Open(kRouter, encoders_[best].process, std::move(encode));
  ++encoders_[best].in_flight;
  calls_[picture.stream] = {
      .kind = Call::Kind::kEncode, .replica = best, .encoder = true, .generation = id, .picture = index};
}

void SimRouter::OnEncoded(const Event& event) {
  const auto found = calls_.find(event.stream);
  if (found == calls_.end()) return;
  Generation* const generation = FindActive(found->second.generation);
  if (generation == nullptr) return;
  const uint64_t id = found->second.generation;
  Picture& picture = generation->pictures[found->second.picture];
  if (picture.stream != event.stream) return;
  if (event.handle->content != generation->chat->pictures[found->second.picture]) {
    world_->Violate(absl::StrCat("generation ", id, ": an encoder answered with another picture"));
  }
  picture.handle = event.handle;
  picture.stream = 0;
  --encoders_[picture.encoder].in_flight;
  calls_.erase(found);
  const auto is_here = [](const Picture& each) { return each.handle != nullptr; };
  if (std::all_of(generation->pictures.begin(), generation->pictures.end(), is_here)) {
    StartAttempt(id, *generation, EndCode::kUnavailable);
  }
}

void SimRouter::EncodeFailed(uint64_t id, Generation& generation, size_t index, EndCode code) {
  Picture& picture = generation.pictures[index];
  picture.stream = 0;
  --encoders_[picture.encoder].in_flight;
  if (code == EndCode::kConnectionLost) encoders_[picture.encoder].ready = false;
  picture.failed.push_back(picture.encoder);
  const bool worth_another = picture.failed.size() < kTriesMax && !ReadyOf(encoders_, picture.failed).empty();
  if (worth_another) return Encode(id, generation, index);
  if (code == EndCode::kExhausted && !generation.events.empty()) {
    // Its client has been told that it began: it is not shed, but tries again until its deadline.
    picture.failed.clear();
    picture.again_at = world_->now() + kEncodeAgain;
    return;
  }
  End(id, generation, code == EndCode::kExhausted ? EndCode::kExhausted : EndCode::kUnavailable);
}

// Attempts.

void SimRouter::StartAttempt(uint64_t id, Generation& generation, EndCode why) {
  const std::vector<size_t> ready = ReadyOf(decoders_, generation.attempts.tried());
  // The client learns what happened to its decoder, not that no other is left.
  if (ready.empty()) return End(id, generation, why == EndCode::kExhausted ? why : EndCode::kUnavailable);
  // Full ones are taken: the decoder itself refuses what it cannot queue.
  const size_t best = ready[*PickDecoder(CandidatesOf(decoders_, ready),
                                         static_cast<int64_t>(generation.chat->token_ids.size()),
                                         world_->random().Next(), true)];
  auto request = std::make_shared<AttemptRequest>();
  request->chat = generation.chat;
  for (const Picture& picture : generation.pictures) request->handles.push_back(picture.handle);
  for (uint32_t i = 0; i < generation.chat->num_choices; ++i) {
    const std::vector<uint32_t>& ids = generation.journal.token_ids(i);
    request->emitted.emplace_back(ids.begin(), ids.end());
  }
  if (world_->plant() == Plant::kResumeForgetsToken && !request->emitted[0].empty()) {
    request->emitted[0].erase(request->emitted[0].begin());
  }
  request->finished = generation.reasons;
  request->resumed = !generation.events.empty();
  request->deadline = HopDeadline(generation.deadline, world_->now());
  if (generation.attempts.num_begun() > 0) ++resumes_;
  Event generate{.kind = EventKind::kGenerate, .generation = id};
  generate.attempt = generation.attempts.Begin(best, world_->Now());
  generate.request = std::move(request);
  generation.decoder = best;
  generation.attempt = network_->Open(kRouter, decoders_[best].process, std::move(generate));
  ++decoders_[best].in_flight;
  calls_[generation.attempt] = {.kind = Call::Kind::kAttempt, .replica = best, .generation = id};
}

void SimRouter::CloseAttemptStream(Generation& generation) {
  if (generation.attempt == 0) return;
  network_->Cancel(generation.attempt);
  calls_.erase(generation.attempt);
  --decoders_[generation.decoder].in_flight;
  generation.attempt = 0;
}

void SimRouter::EndAttempt(uint64_t id, Generation& generation, AttemptState::Ending ending, EndCode code) {
  CloseAttemptStream(generation);
  switch (generation.attempts.End(ending)) {
    case AttemptState::Next::kAnother:
      return StartAttempt(id, generation, code);
    case AttemptState::Next::kReencodeElsewhere:
      generation.encoded_elsewhere = true;
      [[fallthrough]];
    case AttemptState::Next::kReencode:
      ++reencodes_;
      for (Picture& picture : generation.pictures) {
        picture.failed.clear();
        if (generation.encoded_elsewhere) picture.failed.push_back(picture.encoder);
        picture.handle.reset();
        picture.again_at = kNever;
      }
      return EncodeAll(id, generation);
    case AttemptState::Next::kFail:
      break;
  }
  End(id, generation,
      ending == AttemptState::Ending::kFailed && code != EndCode::kOk ? code : EndCode::kUnavailable);
}

void SimRouter::MoveAway(uint64_t id, Generation& generation) {
  if (generation.attempt == 0 || !decoders_[generation.decoder].leaves) return;
  std::vector<size_t> excluded = generation.attempts.tried();
  excluded.push_back(generation.decoder);
  // Where no other decoder is ready, the answer is finished in place.
  if (ReadyOf(decoders_, excluded).empty()) return;
  EndAttempt(id, generation, AttemptState::Ending::kLeft, EndCode::kDraining);
}

void SimRouter::OnDecoderEvent(const Event& event) {
  Generation* const generation = FindActive(event.generation);
  if (generation == nullptr) {
    ++dropped_events_;
    return;
  }
  const bool counts = generation->attempts.IsLive(event.attempt);
  if (!counts && !(world_->plant() == Plant::kAcceptOlderAttempt && generation->attempt != 0)) {
    ++dropped_events_;
    return;
  }
  // What counts must come from the stream that was opened last and not given up.
  if (generation->attempt != event.stream) {
    world_->Violate(absl::StrCat("generation ", event.generation, ": an event of attempt ", event.attempt,
                                 " counts while the stream of attempt ", generation->attempts.newest(),
                                 " is live"));
    return;
  }
  HandleDecoderEvent(event.generation, *generation, event);
  if (generation->outcome.has_value() || !generation->journal.decoder_works_for_nothing()) return;
  generation->attempts.Complete();
  CloseAttemptStream(*generation);
  Complete(event.generation, *generation);
}

void SimRouter::HandleDecoderEvent(uint64_t id, Generation& generation, const Event& event) {
  const SteadyTime now = world_->Now();
  switch (event.kind) {
    case EventKind::kStarted: {
      generation.attempts.OnStarted(now);
      int64_t tokens = 0;
      for (const VisualSpan& span : generation.chat->spans) tokens += span.num_tokens;
      if (event.value != tokens) {
        world_->Violate(absl::StrCat("generation ", id, ": the decoder has ", event.value, " of ", tokens,
                                     " tokens of pictures"));
      }
      if (generation.events.empty()) Emit(generation, {.kind = ChatEvent::Kind::kStarted});
      return;
    }
    case EventKind::kToken:
      return TakeToken(id, generation, event);
    case EventKind::kChoiceFinished: {
      generation.attempts.OnOther(now);
      const absl::StatusOr<GenerationJournal::Take> take = generation.journal.OnChoiceFinished(event.choice);
      if (!take.ok()) return world_->Violate(std::string(take.status().message()));
      if (*take == GenerationJournal::Take::kRepeat) return;
      std::string rest = generation.texts[event.choice].Finish();
      if (!rest.empty()) {
        Emit(generation, {.kind = ChatEvent::Kind::kDelta, .choice = event.choice, .text = std::move(rest)});
      }
      return EndChoice(generation, event.choice, event.reason);
    }
    case EventKind::kFinished:
      return generation.attempts.OnOther(now);
    case EventKind::kHeartbeat:
      return generation.attempts.OnHeartbeat(static_cast<uint64_t>(event.value), event.index != 0, now);
    default:
      return;
  }
}

void SimRouter::TakeToken(uint64_t id, Generation& generation, const Event& event) {
  generation.attempts.OnToken(world_->Now());
  const absl::StatusOr<GenerationJournal::Take> take = generation.journal.OnToken(
      event.choice, static_cast<uint64_t>(event.index), static_cast<uint32_t>(event.value));
  if (!take.ok()) return world_->Violate(absl::StrCat("generation ", id, ": ", take.status().message()));
  if (*take == GenerationJournal::Take::kRepeat) return;
  if (!std::exchange(generation.first_token, true)) --num_waiting_;
  const auto token_id = static_cast<int32_t>(event.value);
  StopMatcher::Output output = generation.texts[event.choice].Push(FakeModel::TextOf(token_id));
  Emit(generation, {.kind = ChatEvent::Kind::kDelta,
                    .choice = event.choice,
                    .token_id = token_id,
                    .text = std::move(output.text)});
  if (output.stopped) EndChoice(generation, event.choice, FinishReason::kStop);
}

void SimRouter::EndChoice(Generation& generation, uint32_t choice, FinishReason reason) {
  generation.reasons[choice] = reason;
  generation.journal.EndChoice(choice);
  Emit(generation, {.kind = ChatEvent::Kind::kChoiceFinished,
                    .choice = choice,
                    .reason = reason,
                    .completion_tokens = static_cast<int64_t>(generation.journal.token_ids(choice).size())});
}

void SimRouter::OnCallEnd(const Event& event) {
  const auto found = calls_.find(event.stream);
  if (found == calls_.end()) return;
  const Call call = found->second;
  calls_.erase(found);
  Replica& replica = (call.encoder ? encoders_ : decoders_)[call.replica];
  switch (call.kind) {
    case Call::Kind::kRelease:
      return;
    case Call::Kind::kPoll:
      replica.poll = 0;
      if (event.code != EndCode::kOk) replica.ready = false;
      return;
    case Call::Kind::kEncode:
      if (Generation* const generation = FindActive(call.generation)) {
        EncodeFailed(call.generation, *generation, call.picture, event.code);
      }
      return;
    case Call::Kind::kAttempt:
      break;
  }
  Generation* const generation = FindActive(call.generation);
  if (generation == nullptr) return;
  --replica.in_flight;
  generation->attempt = 0;
  if (generation->journal.all_ended()) {
    generation->attempts.Complete();
    return Complete(call.generation, *generation);
  }
  const AttemptState::Ending ending = EndingOf(event.code);
  if (ending == AttemptState::Ending::kCrashed) replica.ready = false;
  EndAttempt(call.generation, *generation, ending, event.code);
}

void SimRouter::OnTick() {
  std::vector<uint64_t> ids;
  ids.reserve(generations_.size());
  for (const auto& [id, generation] : generations_) ids.push_back(id);
  for (const uint64_t id : ids) {
    Generation& generation = generations_.at(id);
    if (generation.outcome.has_value()) {
      if (world_->now() - generation.ended_at >= options_.keep) generations_.erase(id);
      continue;
    }
    if (world_->now() >= generation.deadline) {
      End(id, generation, EndCode::kDeadline);
      continue;
    }
    for (size_t i = 0; i < generation.pictures.size() && !generation.outcome.has_value(); ++i) {
      Picture& picture = generation.pictures[i];
      if (world_->now() >= picture.again_at) {
        picture.again_at = kNever;
        Encode(id, generation, i);
        continue;
      }
      if (picture.stream == 0 || world_->now() - picture.asked_at < options_.encode_timeout) continue;
      network_->Cancel(picture.stream);
      calls_.erase(picture.stream);
      EncodeFailed(id, generation, i, EndCode::kDeadline);
    }
    if (generation.outcome.has_value()) continue;
    if (generation.attempt != 0 && generation.attempts.Check(world_->Now()) != AttemptState::Health::kAlive) {
      decoders_[generation.decoder].ready = false;
      EndAttempt(id, generation, AttemptState::Ending::kCrashed, EndCode::kUnavailable);
      continue;
    }
    MoveAway(id, generation);
  }
  world_->After(options_.tick, {.kind = EventKind::kTick, .to = kRouter});
}

// Ends.

void SimRouter::Emit(Generation& generation, ChatEvent event) {
  event.number = static_cast<int64_t>(generation.events.size());
  generation.events.push_back(std::make_shared<const ChatEvent>(std::move(event)));
  if (generation.client == 0) return;
  Event message{.kind = EventKind::kChatEvent, .generation = generation.chat->id};
  message.chat_event = generation.events.back();
  network_->ToClient(generation.client, std::move(message));
}

void SimRouter::Complete(uint64_t id, Generation& generation) {
  Emit(generation, {.kind = ChatEvent::Kind::kFinished});
  End(id, generation, EndCode::kOk);
}

void SimRouter::End(uint64_t id, Generation& generation, EndCode code) {
  if (generation.outcome.has_value()) {
    return world_->Violate(absl::StrCat("generation ", id, " ends as ", NameOf(code), " and ended as ",
                                        NameOf(*generation.outcome)));
  }
  generation.outcome = code;
  generation.ended_at = world_->now();
  --num_active_;
  if (!generation.first_token) --num_waiting_;
  if (generation.attempt != 0) {
    CloseAttemptStream(generation);
    generation.attempts.End(AttemptState::Ending::kFailed);
  }
  for (Picture& picture : generation.pictures) {
    if (picture.stream != 0) {
      network_->Cancel(picture.stream);
      calls_.erase(picture.stream);
      --encoders_[picture.encoder].in_flight;
      picture.stream = 0;
    }
    if (picture.handle == nullptr) continue;
    Event release{.kind = EventKind::kRelease};
    release.handle = std::move(picture.handle);
    const StreamId stream = network_->Open(kRouter, encoders_[picture.encoder].process, std::move(release));
    calls_[stream] = {.kind = Call::Kind::kRelease, .replica = picture.encoder, .encoder = true};
  }
  if (generation.client == 0) return;
  network_->End(generation.client, code);
  clients_.erase(generation.client);
  generation.client = 0;
}

std::string SimRouter::DescribeChat(uint64_t id) const {
  const auto found = generations_.find(id);
  if (found == generations_.end()) return "not at the router";
  const Generation& generation = found->second;
  if (generation.outcome.has_value()) return absl::StrCat("ended as ", NameOf(*generation.outcome));
  std::string text = absl::StrCat("client stream ", generation.client, ", attempt stream ",
                                  generation.attempt, " on process ", decoders_[generation.decoder].process,
                                  ", ", generation.journal.num_tokens(), " tokens");
  for (const Picture& picture : generation.pictures) {
    absl::StrAppend(&text, picture.handle != nullptr ? ", a picture" : ", a picture to come by stream ",
                    picture.handle != nullptr ? "" : absl::StrCat(picture.stream));
  }
  return text;
}

void SimRouter::Check() {
  if (num_waiting_ < 0 || num_waiting_ > options_.waiting_max) {
    world_->Violate(
        absl::StrCat(num_waiting_, " chats wait at the router, at most ", options_.waiting_max, " may"));
  }
}

}  // namespace prism::sim
