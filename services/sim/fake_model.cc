#include "services/sim/fake_model.h"

#include "services/sim/workload.h"

namespace prism::sim {

ReferenceChoice::ReferenceChoice(const ChatSpec* chat, uint32_t choice) : chat_(chat), choice_(choice) {
  size_t span = 0;
  const auto length = static_cast<int64_t>(chat->token_ids.size());
  for (int64_t i = 0; i < length; ++i) {
    while (span < chat->spans.size() && i >= chat->spans[span].offset + chat->spans[span].num_tokens) ++span;
    uint64_t row = 0;
    if (span < chat->spans.size() && i >= chat->spans[span].offset) {
      row = FakeModel::PictureRow(chat->pictures[span], i - chat->spans[span].offset);
    }
    Add(chat->token_ids[static_cast<size_t>(i)], row);
  }
}

void ReferenceChoice::Add(int32_t token_id, uint64_t picture_row) {
  if (length_ % kTokensPerPage == 0) {
    if (length_ > 0) folded_ = FakeModel::Fold(folded_, slot_);
    slot_ = 0;
  }
  slot_ = FakeModel::Slot(slot_, token_id, picture_row);
  ++length_;
}

int32_t ReferenceChoice::Next() {
  const int32_t token_id = FakeModel::Sample(folded_, slot_, chat_->seed, choice_, index_++);
  Add(token_id, 0);
  return token_id;
}

}  // namespace prism::sim
