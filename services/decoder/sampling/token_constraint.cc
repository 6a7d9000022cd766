#include "services/decoder/sampling/token_constraint.h"

#include <algorithm>
#include <limits>
#include <utility>

#include "absl/strings/str_cat.h"

namespace prism {

TokenConstraint::TokenConstraint(std::shared_ptr<Automaton> automaton, TokenMasks* masks,
                                 std::vector<int32_t> end_ids)
    : automaton_(std::move(automaton)),
      masks_(*masks),
      end_ids_(std::move(end_ids)),
      state_(automaton_->start()) {
  for (const std::string& marker : automaton_->markers()) {
    marker_ids_.push_back(masks_.vocabulary().AddedId(marker).value_or(-1));
  }
  if (state_ == nullptr) {
    error_ = absl::InternalError("the grammar's first state does not fit its memory");
  } else {
    AskForMask();
  }
}

bool TokenConstraint::IsEnd(int32_t id) const {
  return std::find(end_ids_.begin(), end_ids_.end(), id) != end_ids_.end();
}

void TokenConstraint::AskForMask() { mask_ = state_->free() ? nullptr : masks_.Ask(automaton_, state_); }

void TokenConstraint::Advance(int32_t id) {
  const auto marker = std::find(marker_ids_.begin(), marker_ids_.end(), id);
  const Automaton::State* next = nullptr;
  if (marker != marker_ids_.end()) {
    const auto index = static_cast<int32_t>(marker - marker_ids_.begin());
    next = automaton_->Next(state_, automaton_->grammar().symbol_of_marker(index));
    // In free text a marker that begins nothing is a token like others.
    if (next == automaton_->dead() && state_->free()) next = state_;
  } else if (state_->free()) {
    next = state_;
  } else {
    const std::string& text = masks_.vocabulary().text(id);
    next = text.empty() ? automaton_->dead() : automaton_->Read(state_, text);
  }
  state_ = next;
}

void TokenConstraint::Accept(int32_t id) {
  if (!error_.ok()) return;
  const bool ends = IsEnd(id) && (state_->accepting() || state_->free());
  accepted_.push_back(id);
  if (ends) {
    mask_ = nullptr;
    return;
  }
  Advance(id);
  if (state_ == nullptr) StartAfresh();
  if (error_.ok() && state_ == automaton_->dead()) {
    error_ = absl::InternalError(
        absl::StrCat("answer token ", accepted_.size() - 1, " (id ", id, ") does not fit the grammar"));
  }
  if (error_.ok()) AskForMask();
}

void TokenConstraint::StartAfresh() {
  automaton_ = automaton_->Fresh();
  state_ = automaton_->start();
  for (const int32_t id : accepted_) {
    if (state_ == nullptr || state_ == automaton_->dead()) break;
    Advance(id);
  }
  if (state_ == nullptr) {
    error_ = absl::InternalError(
        absl::StrCat("the grammar needs more than ", kAutomatonBytesMax, " bytes for one answer"));
  }
}

absl::Status TokenConstraint::Apply(absl::Span<float> logits) {
  if (!error_.ok()) return error_;
  absl::StatusOr<const TokenMask*> mask = &masks_.all();
  if (mask_ != nullptr) mask = mask_->Get();
  if (!mask.ok()) {
    StartAfresh();
    if (!error_.ok()) return error_;
    AskForMask();
    mask = mask_->Get();
    if (!mask.ok()) return absl::InternalError(mask.status().message());
  }
  constexpr float kMasked = -std::numeric_limits<float>::infinity();
  std::vector<std::pair<int32_t, float>> ends;
  for (const int32_t id : end_ids_) ends.emplace_back(id, logits[static_cast<size_t>(id)]);
  (*mask)->Apply(logits);
  for (const auto& [id, logit] : ends) {
    logits[static_cast<size_t>(id)] = state_->accepting() ? logit : kMasked;
  }
  if ((*mask)->empty() && (!state_->accepting() || end_ids_.empty())) {
    return absl::InternalError(
        absl::StrCat("no token may follow answer token ", static_cast<int64_t>(accepted_.size()) - 1,
                     state_->accepting() ? ": the grammar's text is complete and no end id is allowed"
                                         : ": no token of the vocabulary fits the grammar"));
  }
  return absl::OkStatus();
}

}  // namespace prism
