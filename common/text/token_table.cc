#include "common/text/token_table.h"

#include <algorithm>
#include <cstring>

#include "absl/strings/str_cat.h"

namespace prism {
namespace {

uint64_t Load(const char* data, size_t size) {
  uint64_t word = 0;
  std::memcpy(&word, data, size);
  return word;
}

uint64_t Mix(uint64_t a, uint64_t b) {
  const auto product = static_cast<unsigned __int128>(a) * b;
  return static_cast<uint64_t>(product) ^ static_cast<uint64_t>(product >> 64);
}

// Tokens are few and fixed, so nobody can choose bytes that make the probes long.
uint32_t HashOf(absl::string_view bytes) {
  uint64_t hash = bytes.size() * 0x9e3779b97f4a7c15u;
  size_t i = 0;
  for (; i + 8 <= bytes.size(); i += 8) {
    hash = Mix(hash ^ Load(bytes.data() + i, 8), 0xa0761d6478bd642fu);
  }
  if (i < bytes.size()) {
    hash = Mix(hash ^ Load(bytes.data() + i, bytes.size() - i), 0xe7037ed1a0b428dbu);
  }
  hash = Mix(hash, 0x8ebc6af09c88c6e3u);
  return static_cast<uint32_t>(hash ^ hash >> 32);
}

}  // namespace

absl::StatusOr<TokenTable> TokenTable::Create(absl::Span<const Entry> entries) {
  TokenTable table;
  int32_t last_id = -1;
  size_t findable = 0;
  for (const Entry& entry : entries) {
    if (entry.id < 0 || entry.id > kTokenIdMax) {
      return absl::InvalidArgumentError(absl::StrCat("token id ", entry.id, " is not in 0..", kTokenIdMax));
    }
    if (entry.bytes.empty() || entry.bytes.size() > kTokenBytesMax) {
      return absl::InvalidArgumentError(
          absl::StrCat("token ", entry.id, " has ", entry.bytes.size(), " bytes, not 1..", kTokenBytesMax));
    }
    last_id = std::max(last_id, entry.id);
    findable += entry.findable;
  }

  table.offsets_.assign(static_cast<size_t>(last_id) + 2, 0);
  for (const Entry& entry : entries) {
    if (table.offsets_[entry.id + 1] != 0) {
      return absl::InvalidArgumentError(absl::StrCat("token id ", entry.id, " is given twice"));
    }
    table.offsets_[entry.id + 1] = static_cast<uint32_t>(entry.bytes.size());
  }
  for (size_t i = 1; i < table.offsets_.size(); ++i) table.offsets_[i] += table.offsets_[i - 1];
  table.blob_.resize(table.offsets_.back());
  for (const Entry& entry : entries) {
    std::memcpy(table.blob_.data() + table.offsets_[entry.id], entry.bytes.data(), entry.bytes.size());
  }

  size_t num_slots = 1;
  while (num_slots < findable * 2 + 1) num_slots *= 2;
  table.slots_.assign(num_slots, Slot());
  for (const Entry& entry : entries) {
    if (!entry.findable) continue;
    const int32_t other = table.Find(entry.bytes);
    if (other != kNoToken) {
      return absl::InvalidArgumentError(
          absl::StrCat("tokens ", other, " and ", entry.id, " have the same bytes"));
    }
    const uint32_t hash = HashOf(entry.bytes);
    size_t slot = hash & (num_slots - 1);
    while (table.slots_[slot].id != kNoToken) slot = (slot + 1) & (num_slots - 1);
    table.slots_[slot] = {hash, entry.id};
    table.longest_findable_ = std::max(table.longest_findable_, entry.bytes.size());
  }
  return table;
}

int32_t TokenTable::Find(absl::string_view wanted) const {
  if (wanted.size() > longest_findable_) return kNoToken;
  const uint32_t hash = HashOf(wanted);
  const size_t mask = slots_.size() - 1;
  for (size_t slot = hash & mask; slots_[slot].id != kNoToken; slot = (slot + 1) & mask) {
    if (slots_[slot].hash == hash && bytes(slots_[slot].id) == wanted) return slots_[slot].id;
  }
  return kNoToken;
}

}  // namespace prism
