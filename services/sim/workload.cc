#include "services/sim/workload.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "services/sim/fake_model.h"

namespace prism::sim {
namespace {

// Beginnings that prompts share are as long as this many tokens times 1, 2, 3 ...
constexpr int64_t kPrefixTokens = 48;
// Sides of pictures in patches. Few, so that different pictures have one size.
constexpr int32_t kSides[] = {4, 8, 12};
// Numbers whose hashes make texts.
constexpr uint64_t kPrefixOrigin = 0x5052454649580000u;

}  // namespace

std::optional<SimTime> Workload::NextGap() {
  if (burst_left_ > 0) {
    --burst_left_;
    return 0;
  }
  if (random_->Chance(options_.burst_chance)) burst_left_ = random_->Between(1, options_.burst_max);
  return random_->Exponential(kSecond / options_.arrivals_per_s);
}

void Workload::AddText(int64_t num_tokens, uint64_t origin, ChatSpec& chat) const {
  for (int64_t i = 0; i < num_tokens; ++i) {
    chat.token_ids.push_back(FakeModel::TextToken(SplitMix64(origin + static_cast<uint64_t>(i))));
  }
}

void Workload::AddPicture(ChatSpec& chat) {
  const int64_t picture = random_->Below(options_.num_pictures);
  const int32_t side = kSides[picture % 3];
  const int32_t grid_h = side;
  const int32_t grid_w = 4;
  const int64_t num_tokens = int64_t{grid_h / 2} * (grid_w / 2);
  chat.spans.push_back({.offset = static_cast<int64_t>(chat.token_ids.size()),
                        .num_tokens = num_tokens,
                        .grid_h = grid_h,
                        .grid_w = grid_w,
                        .embedding_index = static_cast<int32_t>(chat.pictures.size()),
                        .first_row = 0});
  chat.pictures.push_back(SplitMix64(static_cast<uint64_t>(picture) + 1));
  chat.token_ids.insert(chat.token_ids.end(), static_cast<size_t>(num_tokens), FakeModel::kPlaceholder);
}

std::shared_ptr<const ChatSpec> Workload::Next(SimTime now) {
  auto chat = std::make_shared<ChatSpec>();
  Random& random = *random_;
  chat->id = ++last_id_;
  chat->seed = random.Next();
  // The first has most of the chats.
  chat->tenant = absl::StrCat("tenant-", random.Chance(0.5) ? 0 : random.Below(options_.num_tenants));
  if (random.Chance(options_.salt_chance)) chat->salt = static_cast<uint64_t>(random.Between(1, 2));
  if (random.Chance(options_.prefix_chance)) {
    const auto prefix = static_cast<uint64_t>(random.Below(options_.num_prefixes));
    AddText(kPrefixTokens * static_cast<int64_t>(1 + prefix), kPrefixOrigin + (prefix % 2 << 32), *chat);
  }
  const bool pictures = options_.pictures_max > 0 && random.Chance(options_.picture_chance);
  const int64_t num_pictures = pictures ? random.Between(1, options_.pictures_max) : 0;
  // A picture at the very beginning is where only its content tells prompts apart.
  if (num_pictures > 0 && random.Chance(0.5)) AddPicture(*chat);
  const bool common = random.Chance(0.2);  // the whole prompt may come again
  const uint64_t origin = common ? kPrefixOrigin + (uint64_t{7} << 32) : random.Next();
  AddText(common ? 70 : random.Between(1, random.Between(1, options_.prompt_max)), origin, *chat);
  while (static_cast<int64_t>(chat->pictures.size()) < num_pictures) {
    AddPicture(*chat);
    AddText(random.Between(1, 8), random.Next(), *chat);
  }
  chat->num_choices =
      random.Chance(options_.choices_chance) ? static_cast<uint32_t>(random.Between(2, 4)) : 1;
  chat->max_tokens = random.Between(1, options_.max_tokens_max);
  if (random.Chance(0.2)) chat->priority = static_cast<int32_t>(random.Between(-1, 2));
  if (random.Chance(options_.stops_chance)) {
    const int64_t num_stops = random.Between(1, 3);
    for (int64_t i = 0; i < num_stops; ++i) {
      std::string stop;
      const int64_t letters = random.Between(1, 3);
      for (int64_t k = 0; k < letters; ++k) {
        stop += FakeModel::TextOf(FakeModel::TextToken(random.Next()));
      }
      chat->stops.push_back(std::move(stop));
    }
  }
  if (random.Chance(options_.cancel_chance)) chat->cancel_after = random.Exponential(1.5 * kSecond);
  if (random.Chance(options_.disconnect_chance)) {
    chat->disconnect_at_event = random.Below(chat->max_tokens + 2);
  }
  if (random.Chance(options_.deadline_chance)) {
    chat->deadline = now + 50 * kMillisecond + random.Exponential(4 * kSecond);
  }
  chat->slow_reader = random.Chance(0.05);
  return chat;
}

}  // namespace prism::sim
