#include "services/sim/sim_router.h"

#include <algorithm>
#include <utility>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "common/base/check.h"
#include "services/sim/fake_model.h"

namespace prism::sim {
namespace {

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

// Codes as statuses, for the log.
absl::Status StatusOf(EndCode code) {
  if (code == EndCode::kOk) return absl::OkStatus();
  return absl::UnknownError(absl::StrCat(static_cast<int>(code)));
}

EndCode CodeOf(const absl::Status& status) {
  if (status.ok()) return EndCode::kOk;
  int code = 0;
  if (!absl::IsUnknown(status) || !absl::SimpleAtoi(status.message(), &code)) return EndCode::kInternal;
  return static_cast<EndCode>(code);
}

// As the decoder's page keys: ids, pictures and salt make a prefix.
std::vector<uint64_t> BlocksOf(const ChatSpec& chat) {
  std::vector<PrefixMedia> media;
  for (size_t i = 0; i < chat.spans.size(); ++i) {
    media.push_back({.offset = chat.spans[i].offset,
                     .num_tokens = chat.spans[i].num_tokens,
                     .content_key = absl::StrCat(chat.pictures[i])});
  }
  return PrefixBlocks(chat.token_ids, media, absl::StrCat(chat.salt));
}

}  // namespace

SimRouter::SimRouter(const SimRouterOptions& options, World* world, Network* network)
    : options_(options),
      world_(world),
      network_(network),
      admission_(options.admission),
      tenants_(options.tenants),
      decoders_(options.decoders, "decoder", world, network),
      queue_([this](uint64_t id) { return Try(id); }),
      pictures_(options.pictures, world, network,
                [this](uint64_t id, EndCode code) { OnPictures(id, code); }),
      budget_(std::make_shared<JournalBudget>(options.journal_bytes, Gauge())) {
  world_->After(options_.tick, {.kind = EventKind::kTick, .to = kRouter});
  world_->After(options_.poll_interval, {.kind = EventKind::kPoll, .to = kRouter});
}

SimRouter::~SimRouter() {
  for (const auto& [id, generation] : generations_) {
    if (generation.log != nullptr) generation.log->DropReaders();
  }
}

void SimRouter::Handle(const Event& event) {
  Dispatch(event);
  Sweep();
}

void SimRouter::Dispatch(const Event& event) {
  switch (event.kind) {
    case EventKind::kChat:
      return OnChat(event);
    case EventKind::kResume:
      return OnResume(event);
    case EventKind::kCancel:
      return OnClientCancel(event);
    case EventKind::kReaderReady:
      return OnReaderReady(event);
    case EventKind::kTick:
      return OnTick();
    case EventKind::kPoll:
      decoders_.Poll();
      pictures_.Poll();
      return world_->After(options_.poll_interval, {.kind = EventKind::kPoll, .to = kRouter});
    case EventKind::kLoad:
    case EventKind::kEncoded:
    case EventKind::kEnd:
      if (decoders_.TakePollEvent(event)) return queue_.Pump();
      if (pictures_.TakeEvent(event)) return;
      if (event.kind == EventKind::kEnd) OnAttemptEnd(event);
      return;
    case EventKind::kStarted:
    case EventKind::kToken:
    case EventKind::kChoiceFinished:
    case EventKind::kFinished:
    case EventKind::kHeartbeat:
    case EventKind::kDraining:
      return OnDecoderEvent(event);
    default:
      world_->Violate(absl::StrCat("the router cannot handle ", Describe(event)));
  }
}

SimRouter::Generation* SimRouter::FindActive(uint64_t id) {
  const auto found = generations_.find(id);
  return found == generations_.end() || found->second.outcome.has_value() ? nullptr : &found->second;
}

// Clients.

std::optional<Refusal> SimRouter::Admit(const ChatSpec& chat, double work) {
  const SteadyTime now = world_->Now();
  if (std::optional<Refusal> refusal = tenants_.Admit(now, chat.tenant, work)) return refusal;
  std::optional<Refusal> refusal = admission_.Admit(now, work, SteadyOf(chat.deadline));
  if (refusal.has_value()) tenants_.Ended(now, chat.tenant, work, 0, 0);
  return refusal;
}

void SimRouter::OnChat(const Event& event) {
  const std::shared_ptr<const ChatSpec>& chat = event.request->chat;
  if (world_->now() >= chat->deadline) return network_->End(event.stream, EndCode::kDeadline);
  const bool resumable = chat->disconnect_at_event != kNever;
  if (resumable && budget_->full()) return network_->End(event.stream, EndCode::kExhausted);
  const double work = static_cast<double>(chat->token_ids.size()) +
                      static_cast<double>(chat->max_tokens * chat->num_choices) / 2;
  if (const std::optional<Refusal> refusal = Admit(*chat, work)) {
    if (refusal->retry_ms <= 0) {
      world_->Violate(
          absl::StrCat("chat ", chat->id, " is refused and told to come back in ", refusal->retry_ms, " ms"));
    }
    return network_->End(event.stream, EndCode::kExhausted);
  }
  const auto [place, is_new] = generations_.try_emplace(chat->id, chat, options_.attempts);
  if (!is_new) return world_->Violate(absl::StrCat("generation ", chat->id, " came twice"));
  Generation& generation = place->second;
  Log::Options log{.budget = resumable ? budget_ : nullptr, .clock = world_};
  if (!resumable) {
    log.on_deserted = [this, id = chat->id](const absl::Status&) { deserted_.push_back(id); };
  }
  generation.log = std::make_shared<Log>(std::move(log));
  generation.work = work;
  generation.began = world_->now();
  generation.deadline = std::min(chat->deadline, world_->now() + options_.request_timeout);
  generation.wish = {.prompt_tokens = static_cast<int64_t>(chat->token_ids.size()),
                     .blocks = BlocksOf(*chat),
                     .choices = chat->num_choices};
  generation.reasons.resize(chat->num_choices);
  for (uint32_t i = 0; i < chat->num_choices; ++i) {
    absl::StatusOr<StopMatcher> matcher = StopMatcher::Create(chat->stops, false);
    if (!matcher.ok()) return world_->Violate(std::string(matcher.status().message()));
    generation.texts.push_back(*std::move(matcher));
  }
  Read(event.stream, chat->id, generation, 0);
  ++num_active_;
  if (chat->pictures.empty()) return OnPictures(chat->id, EndCode::kOk);
  pictures_.Encode(chat->id, chat, options_.tenants.Of(chat->tenant).weight);
}

absl::Status SimRouter::Reading::Emit(ChatEvent event) {
  Event message{.kind = EventKind::kChatEvent, .generation = generation};
  message.chat_event = std::make_shared<const ChatEvent>(std::move(event));
  router->network_->ToClient(stream, std::move(message));
  if (!slow) return absl::OkStatus();
  ready = false;
  router->world_->After(1 + router->world_->random().Exponential(30.0 * kMillisecond),
                        {.kind = EventKind::kReaderReady,
                         .to = kRouter,
                         .generation = generation,
                         .value = static_cast<int64_t>(stream)});
  return absl::OkStatus();
}

void SimRouter::Reading::Done(absl::Status status) {
  if (std::exchange(done, true)) {
    router->world_->Violate(absl::StrCat("the client of generation ", generation, " is told two ends"));
  }
  router->network_->End(stream, CodeOf(status));
  router->over_.push_back(stream);
}

void SimRouter::Read(StreamId stream, uint64_t id, Generation& generation, uint64_t from) {
  auto reading = std::make_unique<Reading>(this, stream, id, generation.chat->slow_reader);
  absl::StatusOr<std::shared_ptr<EventReader<ChatEvent>>> reader =
      generation.log->Attach(reading.get(), from);
  if (!reader.ok()) {
    // A client has seen no event that the log does not have.
    return world_->Violate(absl::StrCat("generation ", id, ": ", reader.status().message()));
  }
  reading->reader = *reader;
  readings_[stream] = std::move(reading);
  (*reader)->Pump();
}

void SimRouter::OnResume(const Event& event) {
  const auto found = generations_.find(event.generation);
  if (found == generations_.end()) return network_->End(event.stream, EndCode::kNotFound);
  Read(event.stream, event.generation, found->second, static_cast<uint64_t>(event.index));
}

void SimRouter::OnReaderReady(const Event& event) {
  const auto found = readings_.find(static_cast<StreamId>(event.value));
  if (found == readings_.end() || found->second->done) return;
  found->second->ready = true;
  found->second->reader->Pump();
}

void SimRouter::OnClientCancel(const Event& event) {
  const auto found = readings_.find(event.stream);
  if (found == readings_.end()) return;
  const uint64_t id = found->second->generation;
  found->second->reader->Stop(StatusOf(EndCode::kCancelled));
  Generation* const generation = FindActive(id);
  if (generation == nullptr) return;
  // Who said that it may come back has only lost its connection, unless it cancels by name.
  if (!event.broken && generation->log->kept()) End(id, *generation, EndCode::kCancelled);
}

void SimRouter::Sweep() {
  while (!deserted_.empty()) {
    const uint64_t id = deserted_.back();
    deserted_.pop_back();
    if (Generation* const generation = FindActive(id)) End(id, *generation, EndCode::kCancelled);
  }
  for (const StreamId stream : over_) readings_.erase(stream);
  over_.clear();
}

// Attempts.

void SimRouter::OnPictures(uint64_t id, EndCode code) {
  Generation* const generation = FindActive(id);
  if (generation == nullptr) return;
  if (code != EndCode::kOk) return End(id, *generation, code);
  if (!generation->waiting) return GoOn(id, *generation, EndCode::kUnavailable);
  queue_.Push(id, generation->chat->tenant, options_.tenants.Of(generation->chat->tenant).weight,
              generation->work);
  queue_.Pump();
}

bool SimRouter::Try(uint64_t id) {
  Generation* const generation = FindActive(id);
  if (generation == nullptr) return true;
  SimReplicas::Lack lack;
  const std::optional<SimReplicas::Use> use = decoders_.TryDecoder(generation->wish, &lack);
  if (!use.has_value() && lack == SimReplicas::Lack::kRoom) return false;
  if (!use.has_value()) {
    End(id, *generation, EndCode::kUnavailable);
    return true;
  }
  generation->waiting = false;
  admission_.Dispatched(world_->Now(), generation->work);
  StartAttempt(id, *generation, *use);
  return true;
}

void SimRouter::GoOn(uint64_t id, Generation& generation, EndCode why) {
  const std::optional<SimReplicas::Use> use =
      decoders_.PickDecoder(generation.wish, generation.attempts.tried());
  if (!use.has_value() && generation.journal.any_token()) {
    // One may be started again soon.
    generation.waits = true;
    generation.waits_why = why;
    generation.without_decoder = std::min(generation.without_decoder, world_->now());
    return;
  }
  // The client learns what happened to its decoder, not that no other is left.
  if (!use.has_value()) return End(id, generation, why == EndCode::kExhausted ? why : EndCode::kUnavailable);
  if (generation.attempts.num_begun() > 0) ++resumes_;
  StartAttempt(id, generation, *use);
}

void SimRouter::EndWait(uint64_t id, Generation& generation) {
  const std::optional<SimReplicas::Use> use = decoders_.PickDecoder(generation.wish, {});
  if (use.has_value()) {
    generation.waits = false;
    ++resumes_;
    return StartAttempt(id, generation, *use);
  }
  if (world_->now() - generation.without_decoder < options_.resume_wait) return;
  End(id, generation,
      generation.waits_why == EndCode::kExhausted ? generation.waits_why : EndCode::kUnavailable);
}

void SimRouter::StartAttempt(uint64_t id, Generation& generation, const SimReplicas::Use& use) {
  auto request = std::make_shared<AttemptRequest>();
  request->chat = generation.chat;
  if (!generation.chat->pictures.empty()) request->handles = pictures_.HandlesOf(id);
  for (uint32_t i = 0; i < generation.chat->num_choices; ++i) {
    const std::vector<uint32_t>& ids = generation.journal.token_ids(i);
    request->emitted.emplace_back(ids.begin(), ids.end());
  }
  if (world_->plant() == Plant::kResumeForgetsToken && !request->emitted[0].empty()) {
    request->emitted[0].erase(request->emitted[0].begin());
  }
  request->finished = generation.reasons;
  request->resumed = generation.begun;
  request->deadline = HopDeadline(generation.deadline, world_->now());
  Event generate{.kind = EventKind::kGenerate, .generation = id};
  generate.attempt = generation.attempts.Begin(use.replica, world_->Now());
  generate.request = std::move(request);
  generation.use = use;
  generation.attempt = network_->Open(kRouter, decoders_.process(use.replica), std::move(generate));
  attempts_[generation.attempt] = id;
}

void SimRouter::CloseAttemptStream(Generation& generation) {
  if (generation.attempt == 0) return;
  network_->Cancel(generation.attempt);
  attempts_.erase(generation.attempt);
  generation.attempt = 0;
  decoders_.End(generation.use, false);
}

void SimRouter::EndAttempt(uint64_t id, Generation& generation, AttemptState::Ending ending, EndCode code) {
  CloseAttemptStream(generation);
  const AttemptState::Next next = generation.attempts.End(ending);
  switch (next) {
    case AttemptState::Next::kAnother:
      return GoOn(id, generation, code);
    case AttemptState::Next::kReencode:
    case AttemptState::Next::kReencodeElsewhere:
      ++reencodes_;
      return pictures_.EncodeAgain(id, next == AttemptState::Next::kReencodeElsewhere);
    case AttemptState::Next::kFail:
      break;
  }
  End(id, generation,
      ending == AttemptState::Ending::kFailed && code != EndCode::kOk ? code : EndCode::kUnavailable);
}

void SimRouter::MoveAway(uint64_t id, Generation& generation) {
  if (generation.attempt == 0 || !decoders_.leaves(generation.use.replica)) return;
  std::vector<size_t> excluded = generation.attempts.tried();
  excluded.push_back(generation.use.replica);
  // Where no other decoder is ready, the answer is finished in place.
  if (!decoders_.AnyReady(excluded)) return;
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
  if (generation->journal_full) return End(event.generation, *generation, EndCode::kJournalFull);
  if (generation->outcome.has_value() || !generation->journal.decoder_works_for_nothing()) return;
  generation->attempts.Complete();
  CloseAttemptStream(*generation);
  Complete(event.generation, *generation);
}

void SimRouter::HandleDecoderEvent(uint64_t id, Generation& generation, const Event& event) {
  const SteadyTime now = world_->Now();
  switch (event.kind) {
    case EventKind::kStarted:
      return OnStarted(id, generation, event);
    case EventKind::kToken:
      return OnToken(id, generation, event);
    case EventKind::kChoiceFinished:
      return OnChoiceFinished(generation, event);
    case EventKind::kHeartbeat:
      return generation.attempts.OnHeartbeat(static_cast<uint64_t>(event.value), event.index != 0, now);
    case EventKind::kDraining:
      decoders_.SetLeaves(generation.use.replica);
      [[fallthrough]];
    default:
      return generation.attempts.OnOther(now);
  }
}

void SimRouter::OnStarted(uint64_t id, Generation& generation, const Event& event) {
  generation.attempts.OnStarted(world_->Now());
  int64_t tokens = 0;
  for (const VisualSpan& span : generation.chat->spans) tokens += span.num_tokens;
  if (event.value != tokens) {
    world_->Violate(absl::StrCat("generation ", id, ": the decoder has ", event.value, " of ", tokens,
                                 " tokens of pictures"));
  }
  if (!std::exchange(generation.begun, true)) Emit(generation, {.kind = ChatEvent::Kind::kStarted});
}

void SimRouter::OnToken(uint64_t id, Generation& generation, const Event& event) {
  generation.attempts.OnToken(world_->Now());
  generation.without_decoder = kNever;
  decoders_.Prefilled(generation.use);
  const absl::StatusOr<GenerationJournal::Take> take = generation.journal.OnToken(
      event.choice, static_cast<uint64_t>(event.index), static_cast<uint32_t>(event.value));
  if (!take.ok()) return world_->Violate(absl::StrCat("generation ", id, ": ", take.status().message()));
  if (*take == GenerationJournal::Take::kRepeat) return;
  const auto token_id = static_cast<int32_t>(event.value);
  StopMatcher::Output output = generation.texts[event.choice].Push(FakeModel::TextOf(token_id));
  Emit(generation, {.kind = ChatEvent::Kind::kDelta,
                    .choice = event.choice,
                    .token_id = token_id,
                    .text = std::move(output.text)});
  if (output.stopped) EndChoice(generation, event.choice, FinishReason::kStop);
}

void SimRouter::OnChoiceFinished(Generation& generation, const Event& event) {
  generation.attempts.OnOther(world_->Now());
  const absl::StatusOr<GenerationJournal::Take> take = generation.journal.OnChoiceFinished(event.choice);
  if (!take.ok()) return world_->Violate(std::string(take.status().message()));
  if (*take == GenerationJournal::Take::kRepeat) return;
  std::string rest = generation.texts[event.choice].Finish();
  if (!rest.empty()) {
    Emit(generation, {.kind = ChatEvent::Kind::kDelta, .choice = event.choice, .text = std::move(rest)});
  }
  EndChoice(generation, event.choice, event.reason);
}

void SimRouter::EndChoice(Generation& generation, uint32_t choice, FinishReason reason) {
  generation.reasons[choice] = reason;
  generation.journal.EndChoice(choice);
  Emit(generation, {.kind = ChatEvent::Kind::kChoiceFinished,
                    .choice = choice,
                    .reason = reason,
                    .completion_tokens = static_cast<int64_t>(generation.journal.token_ids(choice).size())});
}

void SimRouter::OnAttemptEnd(const Event& event) {
  const auto found = attempts_.find(event.stream);
  if (found == attempts_.end()) return;
  const uint64_t id = found->second;
  attempts_.erase(found);
  Generation* const generation = FindActive(id);
  if (generation == nullptr)
    return world_->Violate(absl::StrCat("generation ", id, " ended with a live attempt"));
  generation->attempt = 0;
  const AttemptState::Ending ending = EndingOf(event.code);
  decoders_.End(generation->use, ending == AttemptState::Ending::kRefused);
  if (generation->journal.all_ended()) {
    generation->attempts.Complete();
    Complete(id, *generation);
  } else {
    if (ending == AttemptState::Ending::kCrashed) decoders_.ReportGone(generation->use.replica);
    EndAttempt(id, *generation, ending, event.code);
  }
  queue_.Pump();
}

void SimRouter::OnTick() {
  std::vector<uint64_t> ids;
  ids.reserve(generations_.size());
  for (const auto& [id, generation] : generations_) ids.push_back(id);
  for (const uint64_t id : ids) {
    Generation& generation = generations_.at(id);
    const std::optional<SteadyTime> idle = generation.log->idle_since();
    if (!generation.outcome.has_value()) {
      const bool orphan = generation.log->kept() && idle.has_value() &&
                          world_->Now() - *idle >= std::chrono::microseconds(options_.orphan_timeout);
      if (orphan) {
        End(id, generation, EndCode::kCancelled);
      } else {
        Watch(id, generation);
      }
    } else if (idle.has_value() &&
               (!generation.log->kept() || world_->now() - generation.ended_at >= options_.journal_ttl)) {
      generations_.erase(id);
    }
  }
  pictures_.Tick();
  queue_.Pump();
  world_->After(options_.tick, {.kind = EventKind::kTick, .to = kRouter});
}

void SimRouter::Watch(uint64_t id, Generation& generation) {
  if (world_->now() >= generation.deadline) return End(id, generation, EndCode::kDeadline);
  if (generation.waits) return EndWait(id, generation);
  if (generation.attempts.Check(world_->Now()) == AttemptState::Health::kAlive) {
    return MoveAway(id, generation);
  }
  decoders_.ReportGone(generation.use.replica);
  EndAttempt(id, generation, AttemptState::Ending::kCrashed, EndCode::kUnavailable);
}

// Ends.

void SimRouter::Emit(Generation& generation, ChatEvent event) {
  if (generation.journal_full) return;
  event.number = static_cast<int64_t>(generation.log->size());
  generation.journal_full = !generation.log->Append(std::move(event)).ok();
}

void SimRouter::Complete(uint64_t id, Generation& generation) {
  Emit(generation, {.kind = ChatEvent::Kind::kFinished});
  End(id, generation, generation.journal_full ? EndCode::kJournalFull : EndCode::kOk);
}

void SimRouter::End(uint64_t id, Generation& generation, EndCode code) {
  if (generation.outcome.has_value()) {
    return world_->Violate(absl::StrCat("generation ", id, " ends as ", NameOf(code), " and ended as ",
                                        NameOf(*generation.outcome)));
  }
  generation.outcome = code;
  generation.ended_at = world_->now();
  --num_active_;
  if (generation.attempt != 0) {
    CloseAttemptStream(generation);
    generation.attempts.End(AttemptState::Ending::kFailed);
  }
  queue_.Remove(id);
  pictures_.Drop(id);
  const SteadyTime now = world_->Now();
  if (generation.waiting) admission_.Left(now, generation.work);
  const auto used = static_cast<double>(generation.chat->token_ids.size() + generation.journal.num_tokens());
  tenants_.Ended(now, generation.chat->tenant, generation.work, used,
                 static_cast<double>(world_->now() - generation.began) / kSecond);
  generation.log->Close(StatusOf(code));
  queue_.Pump();
}

std::string SimRouter::DescribeChat(uint64_t id) const {
  const auto found = generations_.find(id);
  if (found == generations_.end()) return "not at the router";
  const Generation& generation = found->second;
  if (generation.outcome.has_value()) return absl::StrCat("ended as ", NameOf(*generation.outcome));
  return absl::StrCat("attempt stream ", generation.attempt, " on process ",
                      decoders_.process(generation.use.replica), ", ", generation.journal.num_tokens(),
                      " tokens", generation.waiting ? ", waiting" : "");
}

void SimRouter::Check() {
  if (admission_.waiting() < 0 || admission_.waiting() > options_.admission.waiting_max) {
    world_->Violate(absl::StrCat(admission_.waiting(), " chats wait at the router, at most ",
                                 options_.admission.waiting_max, " may"));
  }
  if (static_cast<int64_t>(queue_.size()) > admission_.waiting()) {
    world_->Violate(
        absl::StrCat(queue_.size(), " chats wait for a decoder, ", admission_.waiting(), " were let in"));
  }
}

void SimRouter::CheckIdle() const {
  decoders_.CheckIdle();
  pictures_.CheckIdle();
  if (admission_.waiting() != 0 || queue_.size() != 0 || !attempts_.empty()) {
    world_->Violate(absl::StrCat("all has ended, but the router counts ", admission_.waiting(),
                                 " chats that wait and ", attempts_.size(), " attempts"));
  }
}

}  // namespace prism::sim
