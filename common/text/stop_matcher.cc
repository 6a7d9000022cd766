#include "common/text/stop_matcher.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/base/status.h"
#include "common/base/utf8.h"

namespace prism {

absl::StatusOr<StopMatcher> StopMatcher::Create(absl::Span<const std::string> stops, bool include_stop) {
  if (stops.size() > kStopStringsMax) {
    return absl::InvalidArgumentError(
        absl::StrCat("stop: ", stops.size(), " stop strings, at most ", kStopStringsMax));
  }
  StopMatcher matcher;
  matcher.include_stop_ = include_stop;
  for (size_t i = 0; i < stops.size(); ++i) {
    const std::string name = absl::StrCat("stop.", i);
    if (stops[i].empty()) return absl::InvalidArgumentError(absl::StrCat(name, ": is empty"));
    if (stops[i].size() > kStopBytesMax) {
      return absl::InvalidArgumentError(
          absl::StrCat(name, ": ", stops[i].size(), " bytes, at most ", kStopBytesMax));
    }
    PRISM_RETURN_IF_ERROR(CheckUtf8(stops[i], name));
    Stop stop{stops[i], std::vector<uint8_t>(stops[i].size() + 1, 0), 0};
    for (size_t length = 2; length <= stop.text.size(); ++length) {
      uint8_t shorter = stop.shorter[length - 1];
      while (shorter > 0 && stop.text[shorter] != stop.text[length - 1]) shorter = stop.shorter[shorter];
      if (stop.text[shorter] == stop.text[length - 1]) ++shorter;
      stop.shorter[length] = shorter;
    }
    matcher.stops_.push_back(std::move(stop));
  }
  return matcher;
}

StopMatcher::Output StopMatcher::Push(absl::string_view text, bool may_stop) {
  Output output;
  if (stopped()) {
    output.stopped = true;
    return output;
  }
  const Stop* completed = nullptr;
  size_t held = 0;
  for (const char c : text) {
    held_.push_back(c);
    held = 0;
    for (Stop& stop : stops_) {
      while (stop.matched > 0 && stop.text[stop.matched] != c) stop.matched = stop.shorter[stop.matched];
      if (stop.text[stop.matched] == c) ++stop.matched;
      if (stop.matched == stop.text.size() && !may_stop) stop.matched = stop.shorter[stop.matched];
      if (stop.matched == stop.text.size() &&
          (completed == nullptr || stop.text.size() > completed->text.size())) {
        completed = &stop;
      }
      held = std::max<size_t>(held, stop.matched);
    }
    if (completed != nullptr) break;
  }
  if (completed != nullptr) {
    stop_text_ = completed->text;
    if (!include_stop_) held_.resize(held_.size() - stop_text_.size());
    output.text = std::exchange(held_, std::string());
    output.stopped = true;
    return output;
  }
  if (text.empty()) return output;
  // Every stop string begins at the start of a character, so what is held back does too.
  output.text = held_.substr(0, held_.size() - held);
  held_.erase(0, held_.size() - held);
  return output;
}

std::string StopMatcher::Finish() { return std::exchange(held_, std::string()); }

}  // namespace prism
