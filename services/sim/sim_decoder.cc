#include "services/sim/sim_decoder.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "services/sim/fake_model.h"

namespace prism::sim {

SimDecoder::SimDecoder(ProcessId id, const SimDecoderOptions& options, World* world, Network* network)
    : id_(id),
      options_(options),
      world_(world),
      network_(network),
      pool_(options.kv_pages),
      prefixes_(&pool_, options.prefix_caching),
      scheduler_(options.scheduler, &pool_, &prefixes_),
      slots_(static_cast<size_t>(options.kv_pages * kTokensPerPage)) {
  // Another tenant's leftovers, which nobody may read.
  for (uint64_t& slot : slots_) slot = world->random().Next();
  world_->After(options_.heartbeat / 2, {.kind = EventKind::kTick, .to = id_});
}

void SimDecoder::Handle(const Event& event) {
  switch (event.kind) {
    case EventKind::kGenerate:
      return OnGenerate(event);
    case EventKind::kFetched:
      return OnFetched(event);
    case EventKind::kEnd:
      return OnFetchFailed(event);
    case EventKind::kCancel:
      return OnCancel(event);
    case EventKind::kStepDone:
      return OnStepDone();
    case EventKind::kTick:
      return OnTick();
    case EventKind::kAskLoad:
      network_->ToClient(event.stream, {.kind = EventKind::kLoad,
                                        .index = static_cast<int64_t>(actives_.size()),
                                        .value = draining_ ? 1 : 0});
      return network_->End(event.stream, EndCode::kOk);
    default:
      world_->Violate(absl::StrCat("decoder ", id_, " cannot handle ", Describe(event)));
  }
}

EndCode SimDecoder::Admit(const AttemptRequest& request) const {
  const ChatSpec& chat = *request.chat;
  if (draining_) return EndCode::kDraining;
  if (!scheduler_.CheckFits(static_cast<int64_t>(chat.token_ids.size()) + chat.max_tokens).ok()) {
    return EndCode::kInvalid;
  }
  int64_t tokens = 0;
  for (const VisualSpan& span : chat.spans) tokens += span.num_tokens;
  if (tokens > options_.embedding_tokens_max) return EndCode::kInvalid;
  if (world_->now() >= request.deadline) return EndCode::kDeadline;
  // A resumed chat is refused for no full queue: its client has been told that it began.
  const int64_t waiting_max = options_.max_waiting + (request.resumed ? options_.resumed_max : 0);
  return waiting_ >= waiting_max ? EndCode::kExhausted : EndCode::kOk;
}

void SimDecoder::OnGenerate(const Event& event) {
  if (event.request->deadline > event.request->chat->deadline) {
    world_->Violate(absl::StrCat("generation ", event.generation, ": the decoder's deadline ",
                                 event.request->deadline, " is later than the client's ",
                                 event.request->chat->deadline));
  }
  if (const EndCode refused = Admit(*event.request); refused != EndCode::kOk) {
    return network_->End(event.stream, refused);
  }
  ++waiting_;
  Active active;
  active.stream = event.stream;
  active.generation = event.generation;
  active.attempt = event.attempt;
  active.request = event.request;
  active.pulls.resize(event.request->chat->pictures.size());
  active.choices.resize(event.request->chat->num_choices);
  for (size_t i = 0; i < active.choices.size(); ++i) {
    active.choices[i].num_tokens = static_cast<int64_t>(event.request->emitted[i].size());
  }
  active.last_event = world_->now();
  actives_.push_back(std::move(active));
  by_stream_[event.stream] = std::prev(actives_.end());
  if (!stepping_) Wake();
}

void SimDecoder::OnCancel(const Event& event) {
  const auto found = by_stream_.find(event.stream);
  if (found == by_stream_.end()) return;
  Active& active = *found->second;
  active.told_at_step = steps_;
  if (world_->plant() == Plant::kIgnoreCancelWhileQueued && !active.planned) return;
  active.cancelled = true;
  if (!stepping_) Wake();
}

void SimDecoder::OnFetched(const Event& event) {
  const auto found = by_pull_.find(event.stream);
  if (found == by_pull_.end()) return;
  Active& active = *found->second;
  for (size_t i = 0; i < active.pulls.size(); ++i) {
    Pull& pull = active.pulls[i];
    if (pull.stream != event.stream) continue;
    const EmbeddingHandle& handle = *active.request->handles[i];
    // The digest in the handle is checked against what arrived.
    if (static_cast<uint64_t>(event.value) != handle.content) {
      active.error = EndCode::kEmbeddingLost;
      continue;
    }
    pull.content = handle.content;
  }
}

void SimDecoder::OnFetchFailed(const Event& event) {
  const auto found = by_pull_.find(event.stream);
  if (found == by_pull_.end()) return;
  Active& active = *found->second;
  by_pull_.erase(found);
  for (Pull& pull : active.pulls) {
    if (pull.stream != event.stream) continue;
    pull.stream = 0;
    if (pull.content == 0) active.error = EndCode::kEmbeddingLost;
  }
  if (!stepping_) Wake();
}

void SimDecoder::Drain() {
  draining_ = true;
  for (Active& active : actives_) Emit(active, {.kind = EventKind::kDraining});
}

void SimDecoder::OnTick() {
  for (Active& active : actives_) {
    if (world_->now() - active.last_event >= options_.heartbeat) {
      Emit(active, {.kind = EventKind::kHeartbeat, .value = steps_});
    }
  }
  if (!stepping_) Wake();
  world_->After(options_.heartbeat / 2, {.kind = EventKind::kTick, .to = id_});
}

void SimDecoder::Wake() {
  Sweep();
  BeginStep();
}

void SimDecoder::Sweep() {
  bool ended;
  do {
    ended = false;
    memory_is_short_ = false;
    for (auto it = actives_.begin(); it != actives_.end();) {
      const auto current = it++;
      const EndCode code = Advance(*current);
      if (code == EndCode::kOk && !finished(*current)) continue;
      End(current, code);
      ended = true;
    }
  } while (ended && memory_is_short_);
}

EndCode SimDecoder::Advance(Active& active) {
  if (active.error != EndCode::kOk) return active.error;
  if (finished(active)) return EndCode::kOk;
  if (active.cancelled) return EndCode::kCancelled;
  if (world_->now() >= active.request->deadline) return EndCode::kDeadline;
  if (active.stage == Stage::kNeedsMemory) {
    if (active.pulls.empty()) return Schedule(active);
    if (memory_is_short_) return EndCode::kOk;
    if (!StartPulls(active)) {
      memory_is_short_ = true;
      return EndCode::kOk;
    }
  }
  if (active.stage == Stage::kPulling &&
      std::all_of(active.pulls.begin(), active.pulls.end(),
                  [](const Pull& pull) { return pull.content != 0 && pull.stream == 0; })) {
    return Schedule(active);
  }
  return EndCode::kOk;
}

const SimDecoder::CachedPicture* SimDecoder::FindCached(uint64_t content, int64_t num_tokens) const {
  for (const CachedPicture& cached : cache_) {
    if (cached.content == content) return &cached;
    if (world_->plant() == Plant::kPictureOfSameSize && cached.num_tokens == num_tokens) return &cached;
  }
  return nullptr;
}

bool SimDecoder::StartPulls(Active& active) {
  int64_t tokens = 0;
  for (const auto& handle : active.request->handles) tokens += handle->num_tokens;
  if (embedding_tokens_ + tokens > options_.embedding_tokens_max) return false;
  embedding_tokens_ += tokens;
  active.pinned_tokens = tokens;
  active.stage = Stage::kPulling;
  for (size_t i = 0; i < active.pulls.size(); ++i) {
    const std::shared_ptr<const EmbeddingHandle>& handle = active.request->handles[i];
    if (const CachedPicture* cached = FindCached(handle->content, handle->num_tokens)) {
      active.pulls[i].content = cached->content;
      continue;
    }
    Event fetch{.kind = EventKind::kFetch};
    fetch.handle = handle;
    active.pulls[i].stream = network_->Open(id_, handle->encoder, std::move(fetch));
    by_pull_[active.pulls[i].stream] = &active;
  }
  // Those in use leave less room for those that are kept.
  int64_t room = options_.embedding_tokens_max - embedding_tokens_;
  for (auto it = cache_.begin(); it != cache_.end();) {
    room -= it->num_tokens;
    it = room < 0 ? cache_.erase(it) : std::next(it);
  }
  return true;
}

EndCode SimDecoder::Schedule(Active& active) {
  active.stage = Stage::kScheduled;
  const AttemptRequest& request = *active.request;
  const ChatSpec& chat = *request.chat;
  const PageKey root = PrefixRoot(
      "sim", "fake",
      options_.prefix_caching ? absl::StrCat(chat.salt) : absl::StrCat("unshared ", last_sequence_));
  SequenceId leader = 0;
  for (uint32_t index = 0; index < chat.num_choices; ++index) {
    const std::vector<int32_t>& emitted = request.emitted[index];
    if (request.finished[index] != FinishReason::kNone) continue;
    if (!emitted.empty()) {
      const FinishReason reason = EndAfter(active, static_cast<int64_t>(emitted.size()), emitted.back());
      if (reason != FinishReason::kNone) {
        EmitStarted(active);
        Emit(active, {.kind = EventKind::kChoiceFinished,
                      .reason = reason,
                      .choice = index,
                      .value = static_cast<int64_t>(emitted.size())});
        continue;
      }
    }
    Sequence::Options options{.id = ++last_sequence_,
                              .token_ids = chat.token_ids,
                              .prompt_length = static_cast<int64_t>(chat.token_ids.size()),
                              .limit = static_cast<int64_t>(chat.token_ids.size()) + chat.max_tokens,
                              .priority = chat.priority,
                              .due = SteadyOf(request.deadline),
                              .follows = leader,
                              .spans = chat.spans,
                              .prefix_root = root};
    for (const uint64_t content : chat.pictures) {
      const bool blind = world_->plant() == Plant::kIgnoreContentKey;
      options.embedding_ids.push_back(blind ? std::string("a picture") : absl::StrCat(content));
    }
    options.token_ids.insert(options.token_ids.end(), emitted.begin(), emitted.end());
    if (!scheduler_.Add(std::make_unique<Sequence>(std::move(options))).ok()) return EndCode::kExhausted;
    if (leader == 0) leader = last_sequence_;
    active.choices[index].sequence = last_sequence_;
    owners_[last_sequence_] = {&active, index};
  }
  return EndCode::kOk;
}

bool SimDecoder::finished(const Active& active) const {
  return active.stage == Stage::kScheduled &&
         std::all_of(active.choices.begin(), active.choices.end(),
                     [](const Choice& choice) { return choice.sequence == 0; });
}

FinishReason SimDecoder::EndAfter(const Active& active, int64_t num_tokens, int32_t last) const {
  if (FakeModel::IsEnd(last) && !active.request->chat->ignore_ends) return FinishReason::kStop;
  return num_tokens >= active.request->chat->max_tokens ? FinishReason::kLength : FinishReason::kNone;
}

void SimDecoder::BeginStep() {
  plan_ = scheduler_.Plan();
  if (world_->plant() == Plant::kLeakPageOnPreemption && scheduler_.preemptions() > preemptions_seen_ &&
      pool_.TryReserve(1)) {
    pool_.TakeReserved();
  }
  preemptions_seen_ = scheduler_.preemptions();
  if (plan_.empty()) return;
  for (const PlannedSequence& planned : plan_.sequences) {
    Active& active = *owners_.at(planned.id).active;
    if (active.told_at_step.has_value() && steps_ > *active.told_at_step) {
      world_->Violate(absl::StrCat("generation ", active.generation, ".", active.attempt,
                                   ": cancelled in step ", *active.told_at_step + 1, " and computed in step ",
                                   steps_ + 1));
    }
    const Sequence& sequence = *scheduler_.Find(planned.id);
    if (planned.begin == sequence.cached()) cached_tokens_ += planned.begin;
    computed_tokens_ += std::clamp<int64_t>(sequence.prompt_length() - planned.begin, 0, planned.count);
    if (active.planned) continue;
    active.planned = true;
    --waiting_;
    EmitStarted(active);
  }
  stepping_ = true;
  if (world_->plant() == Plant::kPublishUnretired) scheduler_.Complete(plan_);
  SimTime cost = options_.step_base + options_.step_row * plan_.num_rows();
  cost += world_->random().Exponential(static_cast<double>(cost) / 8);
  world_->After(cost, {.kind = EventKind::kStepDone, .to = id_});
}

void SimDecoder::OnStepDone() {
  stepping_ = false;
  ++steps_;
  const bool failed =
      options_.step_failure_chance > 0 && world_->random().Chance(options_.step_failure_chance);
  if (failed) {
    FailStep();
  } else {
    Compute();
  }
  Wake();
}

void SimDecoder::FailStep() {
  // Nobody knows what it has written.
  for (const int32_t slot : plan_.slots) slots_[static_cast<size_t>(slot)] = world_->random().Next();
  if (world_->plant() != Plant::kPublishUnretired) scheduler_.Abandon(plan_);
  for (const PlannedSequence& planned : plan_.sequences) {
    owners_.at(planned.id).active->error = EndCode::kInternal;
  }
}

// All rows of a step are computed at once: what another sequence writes in the same step is not seen.
void SimDecoder::Compute() {
  struct Sampled {
    const PlannedSequence* planned;
    int32_t token_id;
  };
  std::vector<Sampled> sampled;
  written_.clear();
  size_t run = 0;
  for (size_t s = 0; s < plan_.sequences.size(); ++s) {
    const PlannedSequence& planned = plan_.sequences[s];
    const Owner& owner = owners_.at(planned.id);
    const int32_t* pages = plan_.page_tables.data() + s * static_cast<size_t>(plan_.page_table_width);
    const auto slot_of = [pages](int64_t index) {
      return int64_t{pages[index / kTokensPerPage]} * kTokensPerPage + index % kTokensPerPage;
    };
    uint64_t folded = 0;
    for (int64_t end = kTokensPerPage; end <= planned.begin; end += kTokensPerPage) {
      folded = FakeModel::Fold(folded, slots_[static_cast<size_t>(slot_of(end - 1))]);
    }
    uint64_t slot =
        planned.begin % kTokensPerPage == 0 ? 0 : slots_[static_cast<size_t>(slot_of(planned.begin - 1))];
    for (int64_t i = 0; i < planned.count; ++i) {
      const int64_t index = planned.begin + i;
      const int64_t row = planned.first_row + i;
      if (index % kTokensPerPage == 0) {
        if (i > 0) folded = FakeModel::Fold(folded, slot);
        slot = 0;
      }
      while (run < plan_.visual_runs.size() &&
             row >= plan_.visual_runs[run].first_row + plan_.visual_runs[run].count) {
        ++run;
      }
      uint64_t picture_row = 0;
      if (run < plan_.visual_runs.size() && row >= plan_.visual_runs[run].first_row) {
        const VisualRun& visual = plan_.visual_runs[run];
        const Pull& pull = owner.active->pulls[static_cast<size_t>(visual.embedding_index)];
        picture_row =
            FakeModel::PictureRow(pull.content, visual.first_embedding_row + (row - visual.first_row));
      }
      slot = FakeModel::Slot(slot, plan_.token_ids[static_cast<size_t>(row)], picture_row);
      written_.push_back({plan_.slots[static_cast<size_t>(row)], slot});
    }
    if (planned.num_logits == 0) continue;
    const Choice& choice = owner.active->choices[owner.choice];
    sampled.push_back({&planned, FakeModel::Sample(folded, slot, owner.active->request->chat->seed,
                                                   owner.choice, choice.num_tokens)});
  }
  for (const auto& [slot, value] : written_) {
    const auto page = static_cast<PageIndex>(slot / kTokensPerPage);
    if (pool_.users(page) != 1 || prefixes_.published(page)) {
      world_->Violate(absl::StrCat("decoder ", id_, ": page ", page, ", which others read, is written"));
    }
    slots_[static_cast<size_t>(slot)] = value;
  }
  if (world_->plant() != Plant::kPublishUnretired) scheduler_.Complete(plan_);
  for (const Sampled& each : sampled) Apply(*each.planned, each.token_id);
}

void SimDecoder::Apply(const PlannedSequence& planned, int32_t token_id) {
  const Owner owner = owners_.at(planned.id);
  Active& active = *owner.active;
  if (active.cancelled) return;
  Choice& choice = active.choices[owner.choice];
  const int64_t index = choice.num_tokens++;
  scheduler_.Find(planned.id)->Append(token_id);
  Emit(active, {.kind = EventKind::kToken, .choice = owner.choice, .index = index, .value = token_id});
  const FinishReason reason = EndAfter(active, choice.num_tokens, token_id);
  if (reason == FinishReason::kNone) return;
  scheduler_.Remove(planned.id);
  owners_.erase(planned.id);
  choice.sequence = 0;
  Emit(active, {.kind = EventKind::kChoiceFinished,
                .reason = reason,
                .choice = owner.choice,
                .value = choice.num_tokens});
}

void SimDecoder::Emit(Active& active, Event event) {
  active.last_event = world_->now();
  event.generation = active.generation;
  event.attempt = active.attempt;
  network_->ToClient(active.stream, std::move(event));
}

void SimDecoder::EmitStarted(Active& active) {
  if (std::exchange(active.started, true)) return;
  int64_t tokens = 0;
  for (size_t i = 0; i < active.pulls.size(); ++i) {
    if (active.pulls[i].content != 0) tokens += active.request->handles[i]->num_tokens;
  }
  Emit(active, {.kind = EventKind::kStarted, .value = tokens});
}

void SimDecoder::End(Actives::iterator it, EndCode code) {
  Active& active = *it;
  if (code == EndCode::kOk) Emit(active, {.kind = EventKind::kFinished});
  for (Choice& choice : active.choices) {
    if (choice.sequence == 0) continue;
    scheduler_.Remove(choice.sequence);
    owners_.erase(choice.sequence);
  }
  if (!active.planned) --waiting_;
  embedding_tokens_ -= active.pinned_tokens;
  for (size_t i = 0; i < active.pulls.size(); ++i) {
    const Pull& pull = active.pulls[i];
    if (pull.stream != 0) {
      network_->Cancel(pull.stream);
      by_pull_.erase(pull.stream);
    }
    const EmbeddingHandle& handle = *active.request->handles[i];
    if (pull.content == 0 || FindCached(pull.content, handle.num_tokens) != nullptr) continue;
    cache_.push_front({.content = pull.content, .num_tokens = handle.num_tokens});
  }
  int64_t room = options_.embedding_tokens_max - embedding_tokens_;
  for (auto cached = cache_.begin(); cached != cache_.end();) {
    room -= cached->num_tokens;
    cached = room < 0 ? cache_.erase(cached) : std::next(cached);
  }
  network_->End(active.stream, code);
  by_stream_.erase(active.stream);
  actives_.erase(it);
}

void SimDecoder::Check() {
  const auto broken = [this](absl::string_view what) {
    world_->Violate(absl::StrCat("decoder ", id_, ": ", what));
  };
  if (pool_.used() + pool_.free() + pool_.reserved() + pool_.cached() != pool_.total()) {
    broken("pages do not add up to the total");
  }
  int64_t used = 0;
  int64_t reserved = 0;
  users_.assign(static_cast<size_t>(pool_.total()), 0);
  for (const auto& [id, owner] : owners_) {
    const Sequence* sequence = scheduler_.Find(id);
    if (sequence == nullptr) return broken(absl::StrCat("sequence ", id, " is lost"));
    for (const PageIndex page : sequence->pages()) {
      if (users_[static_cast<size_t>(page)]++ == 0) ++used;
    }
    reserved += sequence->reserved_pages();
  }
  if (used != pool_.used() || reserved != pool_.reserved()) {
    broken(absl::StrCat("sequences have ", used, " pages and ", reserved, " promised, the pool says ",
                        pool_.used(), " and ", pool_.reserved()));
  }
  for (PageIndex page = 0; page < pool_.total(); ++page) {
    if (users_[static_cast<size_t>(page)] == pool_.users(page)) continue;
    broken(absl::StrCat("page ", page, " has ", users_[static_cast<size_t>(page)], " users, the pool says ",
                        pool_.users(page)));
  }
  if (static_cast<size_t>(scheduler_.num_running() + scheduler_.num_waiting()) != owners_.size()) {
    broken("the scheduler has sequences that belong to no chat");
  }
  const int64_t waiting_max = options_.max_waiting + options_.resumed_max;
  if (waiting_ < 0 || waiting_ > waiting_max) {
    broken(absl::StrCat(waiting_, " chats wait, at most ", waiting_max, " may"));
  }
  if (embedding_tokens_ > options_.embedding_tokens_max) broken("too many embeddings in memory");
}

void SimDecoder::CheckIdle() {
  if (pool_.used() == 0 && pool_.reserved() == 0 && pool_.cached() == prefixes_.num_published() &&
      scheduler_.idle() && embedding_tokens_ == 0 && waiting_ == 0) {
    return;
  }
  world_->Violate(absl::StrCat("decoder ", id_, " is idle with ", pool_.used(), " pages used, ",
                               pool_.reserved(), " promised, ", embedding_tokens_,
                               " tokens of pictures pinned and ", waiting_, " chats waiting"));
}

}  // namespace prism::sim
