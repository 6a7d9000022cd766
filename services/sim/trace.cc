#include "services/sim/trace.h"

#include <algorithm>
#include <utility>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "common/base/hash.h"
#include "common/base/status.h"
#include "services/sim/fake_model.h"

namespace prism::sim {
namespace {

constexpr absl::string_view kHeader =
    "arrival_ms,tenant,prefix_id,prefix_tokens,prompt_tokens,pictures,picture_tokens,output_tokens";
constexpr size_t kNumFields = 8;
constexpr uint64_t kPrefixSalt = 0x9E4F1D;
constexpr uint64_t kTailSalt = 0x7A11;

absl::Status Wrong(size_t line, absl::string_view field, absl::string_view value, absl::string_view want) {
  return absl::InvalidArgumentError(
      absl::StrCat("line ", line, ": ", field, " is \"", value.substr(0, 40), "\", want ", want));
}

absl::StatusOr<int64_t> ParseCount(size_t line, absl::string_view field, absl::string_view text,
                                   int64_t min) {
  int64_t value = 0;
  if (!absl::SimpleAtoi(text, &value) || value < min || value > kTraceTokensMax) {
    return Wrong(line, field, text, absl::StrCat(min, " .. ", kTraceTokensMax));
  }
  return value;
}

absl::StatusOr<TraceChat> ParseLine(size_t line, absl::string_view text, double arrival_min_ms) {
  const std::vector<absl::string_view> fields = absl::StrSplit(text, ',');
  if (fields.size() != kNumFields) {
    return absl::InvalidArgumentError(
        absl::StrCat("line ", line, ": has ", fields.size(), " fields, want ", kNumFields));
  }
  TraceChat chat;
  constexpr double kArrivalMaxMs = 1e12;
  if (!absl::SimpleAtod(fields[0], &chat.arrival_ms) ||
      !(chat.arrival_ms >= arrival_min_ms && chat.arrival_ms <= kArrivalMaxMs)) {
    return Wrong(line, "arrival_ms", fields[0], absl::StrCat(arrival_min_ms, " .. ", kArrivalMaxMs));
  }
  chat.tenant = std::string(fields[1]);
  if (!absl::SimpleAtoi(fields[2], &chat.prefix_id)) {
    return Wrong(line, "prefix_id", fields[2], "a number");
  }
  PRISM_ASSIGN_OR_RETURN(chat.prompt_tokens, ParseCount(line, "prompt_tokens", fields[4], 1));
  PRISM_ASSIGN_OR_RETURN(chat.prefix_tokens, ParseCount(line, "prefix_tokens", fields[3], 0));
  if (chat.prefix_tokens > chat.prompt_tokens) {
    return Wrong(line, "prefix_tokens", fields[3], absl::StrCat("at most the prompt's ", chat.prompt_tokens));
  }
  if (!fields[5].empty()) {
    for (const absl::string_view picture : absl::StrSplit(fields[5], ';')) {
      uint64_t number = 0;
      if (!absl::SimpleAtoi(picture, &number) || chat.pictures.size() >= kTracePicturesMax) {
        return Wrong(line, "pictures", fields[5], absl::StrCat("at most ", kTracePicturesMax, " numbers"));
      }
      chat.pictures.push_back(number);
    }
  }
  PRISM_ASSIGN_OR_RETURN(chat.picture_tokens,
                         ParseCount(line, "picture_tokens", fields[6], chat.pictures.empty() ? 0 : 1));
  PRISM_ASSIGN_OR_RETURN(chat.output_tokens, ParseCount(line, "output_tokens", fields[7], 1));
  return chat;
}

}  // namespace

absl::StatusOr<std::vector<TraceChat>> ParseTrace(absl::string_view text) {
  std::vector<TraceChat> trace;
  size_t line = 0;
  for (absl::string_view row : absl::StrSplit(text, '\n')) {
    ++line;
    if (!row.empty() && row.back() == '\r') row.remove_suffix(1);
    if (line == 1) {
      if (row != kHeader) return Wrong(1, "the header", row, absl::StrCat("\"", kHeader, "\""));
      continue;
    }
    if (row.empty()) continue;
    if (trace.size() >= kTraceChatsMax) {
      return absl::InvalidArgumentError(
          absl::StrCat("line ", line, ": more than ", kTraceChatsMax, " chats"));
    }
    PRISM_ASSIGN_OR_RETURN(TraceChat chat, ParseLine(line, row, trace.empty() ? 0 : trace.back().arrival_ms));
    trace.push_back(std::move(chat));
  }
  if (trace.empty()) return absl::InvalidArgumentError("the trace has no chats");
  return trace;
}

std::optional<SimTime> TraceSource::NextGap() {
  if (next_ == trace_.size()) return std::nullopt;
  const auto arrival = static_cast<SimTime>(trace_[next_].arrival_ms * kMillisecond);
  const SimTime gap = std::max<SimTime>(0, arrival - last_);
  last_ = std::max(last_, arrival);
  return gap;
}

std::shared_ptr<const ChatSpec> TraceSource::Next(SimTime /*now*/) {
  const TraceChat& from = trace_[next_++];
  auto chat = std::make_shared<ChatSpec>();
  chat->id = next_;
  chat->tenant = from.tenant;
  chat->seed = next_;
  chat->max_tokens = from.output_tokens;
  chat->ignore_ends = true;
  const auto add_text = [&chat](int64_t begin, int64_t end, uint64_t origin) {
    for (int64_t i = begin; i < end; ++i) {
      chat->token_ids.push_back(FakeModel::TextToken(SplitMix64(origin + static_cast<uint64_t>(i))));
    }
  };
  add_text(0, from.prefix_tokens, SplitMix64(from.prefix_id ^ kPrefixSalt << 40));
  for (const uint64_t picture : from.pictures) {
    chat->spans.push_back({.offset = static_cast<int64_t>(chat->token_ids.size()),
                           .num_tokens = from.picture_tokens,
                           .grid_h = 2,
                           .grid_w = static_cast<int32_t>(2 * from.picture_tokens),
                           .embedding_index = static_cast<int32_t>(chat->pictures.size()),
                           .first_row = 0});
    chat->pictures.push_back(SplitMix64(picture + 1));
    chat->token_ids.insert(chat->token_ids.end(), static_cast<size_t>(from.picture_tokens),
                           FakeModel::kPlaceholder);
  }
  add_text(from.prefix_tokens, from.prompt_tokens, SplitMix64(chat->id ^ kTailSalt << 40));
  return chat;
}

}  // namespace prism::sim
