#include "services/decoder/sched/page_keys.h"

#include <algorithm>

#include "common/base/check.h"

namespace prism {
namespace {

void AddNumber(uint64_t value, std::string& bytes) {
  for (int shift = 0; shift < 64; shift += 8) bytes.push_back(static_cast<char>(value >> shift));
}

void AddText(absl::string_view text, std::string& bytes) {
  AddNumber(text.size(), bytes);
  bytes.append(text.data(), text.size());
}

PageKey Digest(const std::string& bytes) { return Sha256Of(bytes.data(), bytes.size()); }

}  // namespace

PageKey PrefixRoot(absl::string_view numerics_id, absl::string_view weights_digest, absl::string_view salt) {
  std::string bytes = "prism-prefix-1";
  AddText(numerics_id, bytes);
  AddText(weights_digest, bytes);
  AddText(salt, bytes);
  return Digest(bytes);
}

absl::Span<const PageKey> PageKeyChain::UpTo(int64_t count, absl::Span<const int32_t> token_ids,
                                             absl::Span<const VisualSpan> spans,
                                             absl::Span<const std::string> embedding_ids) {
  PRISM_CHECK(count * kTokensPerPage <= static_cast<int64_t>(token_ids.size()));
  while (static_cast<int64_t>(keys_.size()) < count) {
    const int64_t begin = static_cast<int64_t>(keys_.size()) * kTokensPerPage;
    const int64_t end = begin + kTokensPerPage;
    const PageKey& parent = keys_.empty() ? root_ : keys_.back();
    std::string bytes(reinterpret_cast<const char*>(parent.data()), parent.size());
    for (int64_t i = begin; i < end; ++i) {
      AddNumber(static_cast<uint64_t>(token_ids[static_cast<size_t>(i)]), bytes);
    }
    for (const VisualSpan& span : spans) {
      const int64_t from = std::max(begin, span.offset);
      const int64_t to = std::min(end, span.offset + span.num_tokens);
      if (from >= to) continue;
      AddNumber(static_cast<uint64_t>(from - begin), bytes);
      AddNumber(static_cast<uint64_t>(to - from), bytes);
      AddNumber(static_cast<uint64_t>(span.grid_h), bytes);
      AddNumber(static_cast<uint64_t>(span.grid_w), bytes);
      AddNumber(static_cast<uint64_t>(from - span.offset), bytes);
      AddNumber(static_cast<uint64_t>(span.first_row + from - span.offset), bytes);
      AddText(embedding_ids[static_cast<size_t>(span.embedding_index)], bytes);
    }
    keys_.push_back(Digest(bytes));
  }
  return absl::MakeConstSpan(keys_).first(static_cast<size_t>(count));
}

}  // namespace prism
