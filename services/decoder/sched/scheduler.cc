#include "services/decoder/sched/scheduler.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/base/check.h"
#include "common/base/status.h"

namespace prism {
namespace {

bool IsDecoding(const Sequence& sequence) {
  return sequence.pending() == 1 && sequence.computed() >= sequence.logits_until();
}

}  // namespace

Scheduler::Scheduler(const SchedulerLimits& limits, PagePool* pool, PrefixIndex* index)
    : limits_(limits), pool_(pool), index_(index) {
  PRISM_CHECK(limits.max_num_seqs >= 1 && limits.max_num_batched_tokens >= limits.max_num_seqs);
  PRISM_CHECK(limits.waiting_max >= 1 && limits.growth_tokens >= 0 && limits.score_rows_max >= 1);
}

Scheduler::~Scheduler() {
  for (auto& [id, sequence] : sequences_) ReturnPages(*sequence);
}

absl::Status Scheduler::CheckFits(int64_t limit) const {
  if (PagesFor(limit) <= pool_->total()) return absl::OkStatus();
  return absl::ResourceExhaustedError(absl::StrCat("prompt and answer of ", limit, " tokens need ",
                                                   PagesFor(limit), " KV pages of ", kTokensPerPage,
                                                   " tokens, of which there are ", pool_->total()));
}

absl::Status Scheduler::Add(std::unique_ptr<Sequence> sequence) {
  PRISM_RETURN_IF_ERROR(CheckFits(sequence->limit()));
  const int64_t fresh = num_waiting() - preempted_waiting_;
  if (fresh >= limits_.waiting_max) {
    return absl::ResourceExhaustedError(
        absl::StrCat(fresh, " sequences are waiting, at most ", limits_.waiting_max, " may"));
  }
  sequence->arrival_ = ++arrivals_;
  Sequence* const added = sequence.get();
  PRISM_CHECK(sequences_.emplace(added->id(), std::move(sequence)).second);
  waiting_.insert(added);
  return absl::OkStatus();
}

void Scheduler::Remove(SequenceId id) {
  PRISM_CHECK(!in_step_);
  const auto found = sequences_.find(id);
  if (found == sequences_.end()) return;
  Sequence& sequence = *found->second;
  if (sequence.state() == SequenceState::kWaiting) {
    waiting_.erase(&sequence);
    if (sequence.preemptions() > 0) --preempted_waiting_;
  } else {
    running_.erase(&sequence);
  }
  ReturnPages(sequence);
  sequences_.erase(found);
}

Sequence* Scheduler::Find(SequenceId id) {
  const auto found = sequences_.find(id);
  return found == sequences_.end() ? nullptr : found->second.get();
}

QueuedWork Scheduler::Work() const {
  QueuedWork work;
  for (const Sequence* sequence : running_) work.running_rows += sequence->pending();
  for (const Sequence* sequence : waiting_) {
    work.waiting.push_back({.priority = sequence->priority(),
                            .due = sequence->due(),
                            .rows = sequence->pending() - SharedTokens(*sequence)});
  }
  return work;
}

StepPlan Scheduler::Plan(int64_t mixed_rows_max) {
  PRISM_CHECK(!in_step_);
  StepPlan plan;
  Budget budget{limits_.max_num_batched_tokens, limits_.score_rows_max};
  const int64_t preemptions = preemptions_;
  PlanDecodes(budget, plan);
  if (!plan.empty()) {
    budget.rows = std::min(budget.rows, std::max(kTokensPerPage, mixed_rows_max - plan.num_rows()));
  }
  PlanPrefills(budget, plan);
  // Pages just taken from one sequence are for the others that run, not for a newcomer.
  if (preemptions_ == preemptions) Admit(budget, plan);
  if (plan.empty()) return plan;

  plan.step = ++steps_;
  plan.query_starts.push_back(static_cast<int32_t>(plan.num_rows()));
  FillPageTables(plan);
  in_step_ = true;
  return plan;
}

void Scheduler::PlanDecodes(Budget& budget, StepPlan& plan) {
  // A preemption takes sequences off the end of running_, so the end is looked at anew each time.
  for (auto it = running_.begin(); it != running_.end();) {
    Sequence& sequence = **it;
    if (IsDecoding(sequence)) {
      if (!GivePages(sequence, sequence.length())) return;  // it was the last one
      AddRows(sequence, 1, budget, plan);
    }
    ++it;
  }
}

void Scheduler::PlanPrefills(Budget& budget, StepPlan& plan) {
  for (Sequence* sequence : running_) {
    if (IsDecoding(*sequence)) continue;
    const int64_t count = ChunkOf(*sequence, sequence->computed(), budget);
    if (count == 0) continue;
    // Known tokens were promised their pages at admission, so this takes from nobody.
    PRISM_CHECK(GivePages(*sequence, sequence->computed() + count));
    AddRows(*sequence, count, budget, plan);
  }
}

void Scheduler::Admit(Budget& budget, StepPlan& plan) {
  for (auto it = waiting_.begin(); it != waiting_.end();) {
    if (num_running() >= limits_.max_num_seqs || budget.rows == 0) return;
    Sequence& sequence = **it;
    ++it;
    if (IsBehind(sequence)) continue;
    const int64_t known = KnownTokens(sequence);
    // Whatever it needs must be under way: one that runs waits for no memory but pages.
    if (!sequence.AbsentFrom(known).empty() || sequence.ComputableUntil(known) == known) continue;
    const int64_t count = ChunkOf(sequence, known, budget);
    if (count == 0 || !AdmitOne(sequence)) return;
    PRISM_CHECK(sequence.computed() == known && GivePages(sequence, known + count));
    AddRows(sequence, count, budget, plan);
  }
}

bool Scheduler::AdmitOne(Sequence& sequence) {
  // Taken first, so that what is evicted next is not among them.
  std::vector<PageIndex> pages;
  if (index_ != nullptr) pages = index_->Acquire(sequence.KeysToTake());
  const auto num_taken = static_cast<int64_t>(pages.size());
  const int64_t tokens = std::min(sequence.limit(), sequence.length() + limits_.growth_tokens);
  if (!Reserve(PagesFor(tokens) - num_taken)) {
    if (index_ != nullptr) index_->Release(pages);
    return false;
  }
  sequence.pages_ = std::move(pages);
  sequence.reserved_pages_ = PagesFor(tokens) - num_taken;
  sequence.num_published_ = num_taken;
  sequence.computed_ = sequence.cached_ = num_taken * kTokensPerPage;
  sequence.CheckOrder();
  waiting_.erase(&sequence);
  if (sequence.preemptions() > 0) --preempted_waiting_;
  sequence.state_ = SequenceState::kRunning;
  sequence.admission_ = ++admissions_;
  running_.insert(&sequence);
  return true;
}

int64_t Scheduler::SharedTokens(const Sequence& sequence) const {
  const auto leader = sequences_.find(sequence.follows());
  if (leader == sequences_.end() || index_ == nullptr) return 0;
  return std::min(leader->second->prompt_length(), sequence.length() - 1) / kTokensPerPage * kTokensPerPage;
}

bool Scheduler::IsBehind(const Sequence& sequence) const {
  const int64_t shared = SharedTokens(sequence);
  return shared > 0 && sequences_.at(sequence.follows())->computed() < shared;
}

int64_t Scheduler::KnownTokens(Sequence& sequence) const {
  return index_ == nullptr ? 0 : index_->Match(sequence.KeysToTake()) * kTokensPerPage;
}

int64_t Scheduler::ChunkOf(const Sequence& sequence, int64_t begin, const Budget& budget) const {
  const int64_t count = std::min(sequence.ComputableUntil(begin) - begin, budget.rows);
  const int64_t scored = sequence.logits_until() - begin;
  return scored > 0 ? std::min({count, scored, budget.score_rows}) : count;
}

bool Scheduler::Reserve(int64_t count) {
  if (index_ != nullptr && count > pool_->free()) index_->Evict(count - pool_->free());
  return pool_->TryReserve(count);
}

bool Scheduler::GivePages(Sequence& sequence, int64_t num_tokens) {
  while (static_cast<int64_t>(sequence.pages_.size()) < PagesFor(num_tokens)) {
    if (sequence.reserved_pages_ == 0) {
      while (!Reserve(1)) {
        Sequence& last = **running_.rbegin();
        Preempt(last);
        if (&last == &sequence) return false;
      }
      sequence.reserved_pages_ = 1;
    }
    sequence.pages_.push_back(pool_->TakeReserved());
    --sequence.reserved_pages_;
  }
  return true;
}

void Scheduler::Preempt(Sequence& sequence) {
  ReturnPages(sequence);
  sequence.computed_ = 0;
  sequence.cached_ = 0;
  ++sequence.preemptions_;
  ++preemptions_;
  ++preempted_waiting_;
  running_.erase(&sequence);
  sequence.state_ = SequenceState::kWaiting;
  waiting_.insert(&sequence);
}

void Scheduler::ReturnPages(Sequence& sequence) {
  if (index_ != nullptr) {
    index_->Release(sequence.pages_);
  } else {
    for (const PageIndex page : sequence.pages_) pool_->RemoveUser(page, /*keep=*/false);
  }
  sequence.pages_.clear();
  sequence.num_published_ = 0;
  pool_->Unreserve(sequence.reserved_pages_);
  sequence.reserved_pages_ = 0;
}

void Scheduler::AddRows(Sequence& sequence, int64_t count, Budget& budget, StepPlan& plan) {
  const int64_t begin = sequence.computed();
  const int64_t end = begin + count;
  const int64_t first_row = plan.num_rows();
  plan.query_starts.push_back(static_cast<int32_t>(first_row));
  plan.context_lengths.push_back(static_cast<int32_t>(end));
  for (int64_t index = begin; index < end; ++index) {
    const int64_t page = sequence.pages()[static_cast<size_t>(index / kTokensPerPage)];
    plan.token_ids.push_back(sequence.token_ids()[static_cast<size_t>(index)]);
    plan.slots.push_back(static_cast<int32_t>(page * kTokensPerPage + index % kTokensPerPage));
  }
  for (const VisualSpan& span : sequence.spans()) {
    const int64_t from = std::max(begin, span.offset);
    const int64_t to = std::min(end, span.offset + span.num_tokens);
    if (from >= to) continue;
    plan.visual_runs.push_back({.sequence = sequence.id(),
                                .embedding_index = span.embedding_index,
                                .first_embedding_row = span.first_row + (from - span.offset),
                                .first_row = first_row + (from - begin),
                                .count = to - from});
    plan.num_visual_rows += to - from;
  }
  // A chunk never goes beyond the scored tokens.
  const bool scored = begin < sequence.logits_until();
  const int64_t num_logits = scored ? count : (end == sequence.length() ? 1 : 0);
  const auto first_logit = static_cast<int64_t>(plan.logit_rows.size());
  for (int64_t i = count - num_logits; i < count; ++i) {
    plan.logit_rows.push_back(static_cast<int32_t>(first_row + i));
  }
  plan.sequences.push_back({.id = sequence.id(),
                            .begin = begin,
                            .count = count,
                            .first_row = first_row,
                            .first_logit = first_logit,
                            .num_logits = num_logits});
  budget.rows -= count;
  if (scored) budget.score_rows -= count;
}

void Scheduler::FillPageTables(StepPlan& plan) {
  for (const PlannedSequence& planned : plan.sequences) {
    plan.page_table_width = std::max(plan.page_table_width, PagesFor(planned.begin + planned.count));
  }
  const auto width = static_cast<size_t>(plan.page_table_width);
  plan.page_tables.assign(plan.sequences.size() * width, 0);
  plan.positions.resize(3 * plan.token_ids.size());
  for (size_t s = 0; s < plan.sequences.size(); ++s) {
    const PlannedSequence& planned = plan.sequences[s];
    const Sequence& sequence = *Find(planned.id);
    const auto num_pages = static_cast<size_t>(PagesFor(planned.begin + planned.count));
    std::copy_n(sequence.pages().begin(), num_pages, plan.page_tables.begin() + s * width);
    for (int64_t i = 0; i < planned.count; ++i) {
      const Position position = sequence.PositionOf(planned.begin + i);
      for (size_t axis = 0; axis < 3; ++axis) {
        plan.positions[axis * plan.token_ids.size() + static_cast<size_t>(planned.first_row + i)] =
            position[axis];
      }
    }
  }
}

void Scheduler::Complete(const StepPlan& plan) {
  PRISM_CHECK(in_step_ && plan.step == steps_);
  in_step_ = false;
  for (const PlannedSequence& planned : plan.sequences) {
    Sequence* sequence = Find(planned.id);
    PRISM_CHECK(sequence != nullptr && sequence->computed() == planned.begin);
    sequence->MarkComputed(planned.begin + planned.count);
    PublishPages(*sequence);
  }
}

void Scheduler::Abandon(const StepPlan& plan) {
  PRISM_CHECK(in_step_ && plan.step == steps_);
  in_step_ = false;
}

void Scheduler::PublishPages(Sequence& sequence) {
  if (index_ == nullptr) return;
  const int64_t full = sequence.computed() / kTokensPerPage;
  if (sequence.num_published_ == full) return;
  const absl::Span<const PageKey> keys = sequence.KeysUpTo(full);
  if (keys.empty()) return;
  for (auto i = static_cast<size_t>(sequence.num_published_); i < keys.size(); ++i) {
    const PageIndex parent = i == 0 ? kNoPage : sequence.pages_[i - 1];
    sequence.pages_[i] = index_->Publish(keys[i], parent, sequence.pages_[i]);
  }
  sequence.num_published_ = full;
}

void Scheduler::Distrust(SequenceId id) {
  const Sequence* const sequence = Find(id);
  if (sequence == nullptr || index_ == nullptr) return;
  for (const PageIndex page : sequence->pages()) index_->Forget(page);
}

}  // namespace prism
