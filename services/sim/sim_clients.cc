#include "services/sim/sim_clients.h"

#include <algorithm>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"

namespace prism::sim {
namespace {

constexpr double kResumeDelayMean = 300.0 * kMillisecond;
// Hops keep something of a deadline for themselves, so the end comes this much earlier at most.
constexpr SimTime kDeadlineMargin = 100 * kMillisecond;
// The router's own deadline for a chat without one is not below this.
constexpr SimTime kOwnDeadlineMin = 60 * kSecond;

// Where `text` ends by the first of `stops` to be completed, the longest if several are; npos if none.
size_t StopPlace(const std::string& text, const std::vector<std::string>& stops) {
  for (size_t end = 1; end <= text.size(); ++end) {
    size_t place = std::string::npos;
    for (const std::string& stop : stops) {
      if (end < stop.size() || text.compare(end - stop.size(), stop.size(), stop) != 0) continue;
      place = std::min(place, end - stop.size());
    }
    if (place != std::string::npos) return place;
  }
  return std::string::npos;
}

}  // namespace

SimClients::SimClients(std::unique_ptr<ChatSource> source, bool faults, World* world, Network* network)
    : source_(std::move(source)), faults_(faults), world_(world), network_(network) {
  ScheduleNext();
}

void SimClients::ScheduleNext() {
  const std::optional<SimTime> gap = source_->NextGap();
  arrivals_ = gap.has_value();
  if (!arrivals_) return;
  // Who is sent away comes back later.
  world_->After(*gap * (1 + std::min(sent_away_, sent_away_max_)),
                {.kind = EventKind::kArrival, .to = kClients});
}

void SimClients::Handle(const Event& event) {
  switch (event.kind) {
    case EventKind::kArrival:
      return Begin();
    case EventKind::kClientTimer:
      return OnTimer(event);
    case EventKind::kChatEvent:
      return OnChatEvent(event);
    case EventKind::kEnd:
      return OnEnd(event);
    default:
      world_->Violate(absl::StrCat("clients cannot handle ", Describe(event)));
  }
}

void SimClients::Broken(const Chat& chat, const std::string& what) {
  world_->Violate(absl::StrCat("chat ", chat.spec->id, ": ", what));
}

void SimClients::Begin() {
  if (!arrivals_) return;
  Chat chat;
  chat.spec = source_->Next(world_->now());
  ScheduleNext();
  chat.began = world_->now();
  chat.choices.reserve(chat.spec->num_choices);
  const ReferenceChoice first(chat.spec.get(), 0);
  for (uint32_t i = 0; i < chat.spec->num_choices; ++i) chat.choices.emplace_back(first.Of(i));
  auto request = std::make_shared<AttemptRequest>();
  request->chat = chat.spec;
  const uint64_t id = chat.spec->id;
  Event message{.kind = EventKind::kChat, .generation = id};
  message.request = std::move(request);
  chat.stream = network_->Open(kClients, kRouter, std::move(message));
  streams_[chat.stream] = id;
  if (chat.spec->cancel_after != kNever) {
    world_->After(chat.spec->cancel_after,
                  {.kind = EventKind::kClientTimer, .to = kClients, .generation = id});
  }
  chats_.emplace(id, std::move(chat));
}

void SimClients::OnTimer(const Event& event) {
  const auto found = chats_.find(event.generation);
  if (found == chats_.end()) return;
  Chat& chat = found->second;
  if (event.value != 0) {  // it comes back
    if (chat.stream == 0) Resume(chat);
    return;
  }
  if (chat.stream == 0) {
    // Without a connection it cannot say so; it tries again when it has one.
    world_->After(100 * kMillisecond,
                  {.kind = EventKind::kClientTimer, .to = kClients, .generation = event.generation});
    return;
  }
  network_->Cancel(chat.stream);
  Close(event.generation, Outcome::kCancelled);
}

void SimClients::Resume(Chat& chat) {
  ++reconnects_;
  chat.stream =
      network_->Open(kClients, kRouter,
                     {.kind = EventKind::kResume, .generation = chat.spec->id, .index = chat.next_number});
  streams_[chat.stream] = chat.spec->id;
}

void SimClients::OnChatEvent(const Event& event) {
  const auto found = streams_.find(event.stream);
  if (found == streams_.end()) return;  // it closed this connection itself
  Chat& chat = chats_.at(found->second);
  CheckEvent(chat, *event.chat_event);
  if (chat.dropped || chat.next_number < chat.spec->disconnect_at_event) return;
  chat.dropped = true;
  network_->Break(chat.stream);
}

void SimClients::CheckEvent(Chat& chat, const ChatEvent& event) {
  if (event.number != chat.next_number) {
    return Broken(chat, absl::StrCat("event ", event.number, " came, want ", chat.next_number));
  }
  ++chat.next_number;
  if (chat.said_finished) return Broken(chat, "an event came after Finished");
  if ((event.kind == ChatEvent::Kind::kStarted) != (event.number == 0)) {
    return Broken(chat, absl::StrCat("event ", event.number, " is not what comes there"));
  }
  if (event.choice >= chat.choices.size()) return Broken(chat, "there is no such choice");
  Choice& choice = chat.choices[event.choice];
  switch (event.kind) {
    case ChatEvent::Kind::kStarted:
      return;
    case ChatEvent::Kind::kDelta:
      return CheckDelta(chat, choice, event);
    case ChatEvent::Kind::kChoiceFinished:
      return CheckChoiceFinished(chat, choice, event);
    case ChatEvent::Kind::kFinished:
      chat.said_finished = true;
      for (const Choice& each : chat.choices) {
        if (!each.finished) Broken(chat, "Finished came before the end of a choice");
      }
      return;
  }
}

void SimClients::CheckDelta(Chat& chat, Choice& choice, const ChatEvent& event) {
  const std::string where = absl::StrCat("choice ", event.choice, " token ", choice.num_tokens, ": ");
  if (choice.finished) return Broken(chat, where + "it came after the choice's end");
  if (event.token_id >= 0) {
    const int32_t expected = choice.reference.Next();
    if (event.token_id != expected) {
      return Broken(chat, absl::StrCat(where, "is ", event.token_id, ", undisturbed it is ", expected));
    }
    ++choice.num_tokens;
    ++tokens_;
    chat.first_token = std::min(chat.first_token, world_->now());
    choice.last_token = event.token_id;
    choice.raw += FakeModel::TextOf(event.token_id);
  }
  choice.shown += event.text;
  if (!absl::StartsWith(choice.raw, choice.shown))
    return Broken(chat, where + "its text is not that of its tokens");
}

void SimClients::CheckChoiceFinished(const Chat& chat, Choice& choice, const ChatEvent& event) {
  const std::string where = absl::StrCat("choice ", event.choice, " of ", choice.num_tokens, " tokens: ");
  if (choice.finished) return Broken(chat, where + "it ended twice");
  choice.finished = true;
  const size_t stop = StopPlace(choice.raw, chat.spec->stops);
  const bool stopped = stop != std::string::npos;
  const bool by_token =
      choice.num_tokens > 0 && FakeModel::IsEnd(choice.last_token) && !chat.spec->ignore_ends;
  const bool full = choice.num_tokens == chat.spec->max_tokens;
  if (!stopped && !by_token && !full) return Broken(chat, where + "it ended before its end");
  const FinishReason expected = stopped || by_token ? FinishReason::kStop : FinishReason::kLength;
  if (event.reason != expected) return Broken(chat, where + "it ended for another reason");
  if (event.completion_tokens != choice.num_tokens) {
    return Broken(chat, absl::StrCat(where, event.completion_tokens, " are counted"));
  }
  if (choice.shown != choice.raw.substr(0, stop)) {
    return Broken(chat, absl::StrCat(where, "\"", choice.shown, "\" was shown of \"", choice.raw, "\""));
  }
}

void SimClients::OnEnd(const Event& event) {
  const auto found = streams_.find(event.stream);
  if (found == streams_.end()) return;
  const uint64_t id = found->second;
  Chat& chat = chats_.at(id);
  switch (event.code) {
    case EndCode::kOk:
      if (!chat.said_finished) Broken(chat, "its stream ended well before Finished");
      if (keep_records_) {
        int64_t num_tokens = 0;
        for (const Choice& choice : chat.choices) num_tokens += choice.num_tokens;
        records_.push_back({.began = chat.began,
                            .first_token = chat.first_token,
                            .ended = world_->now(),
                            .num_tokens = num_tokens});
      }
      return Close(id, Outcome::kFinished);
    case EndCode::kConnectionLost:
      if (chat.spec->disconnect_at_event == kNever) return Close(id, Outcome::kLost);
      streams_.erase(found);
      chat.stream = 0;
      chat.dropped = true;
      return world_->After(world_->random().Exponential(kResumeDelayMean),
                           {.kind = EventKind::kClientTimer, .to = kClients, .generation = id, .value = 1});
    case EndCode::kDeadline:
      if (world_->now() < chat.spec->deadline - kDeadlineMargin &&
          world_->now() - chat.began < kOwnDeadlineMin) {
        Broken(chat, "its deadline is said to have passed");
      }
      return Close(id, Outcome::kLate);
    case EndCode::kExhausted:
    case EndCode::kInvalid:
      if (chat.next_number > 0) Broken(chat, "it was refused after it had begun");
      return Close(id, Outcome::kRefused);
    case EndCode::kJournalFull:
      return Close(id, Outcome::kFailed);
    case EndCode::kUnavailable:
    case EndCode::kInternal:
      if (!faults_) Broken(chat, absl::StrCat("it failed as ", NameOf(event.code), " without a fault"));
      return Close(id, Outcome::kFailed);
    case EndCode::kNotFound:
      // The chat itself never reached the router.
      if (chat.next_number > 0) Broken(chat, "its generation is not known any more");
      return Close(id, Outcome::kLost);
    default:
      Broken(chat, absl::StrCat("it ended as ", NameOf(event.code)));
      return Close(id, Outcome::kFailed);
  }
}

void SimClients::Close(uint64_t id, Outcome outcome) {
  const auto found = chats_.find(id);
  if (found == chats_.end()) return world_->Violate(absl::StrCat("chat ", id, " has two outcomes"));
  ++counts_[static_cast<size_t>(outcome)];
  const bool sent_away = outcome == Outcome::kRefused || outcome == Outcome::kFailed;
  sent_away_ = sent_away ? sent_away_ + 1 : 0;
  streams_.erase(found->second.stream);
  chats_.erase(found);
}

std::string SimClients::DescribeChat(uint64_t id) const {
  const auto found = chats_.find(id);
  if (found == chats_.end()) return "no open chat";
  const Chat& chat = found->second;
  return absl::StrCat("chat ", id, ", begun at ", chat.began, " us, ", chat.next_number,
                      " events seen, stream ", chat.stream);
}

}  // namespace prism::sim
