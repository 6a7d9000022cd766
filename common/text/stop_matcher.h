// StopMatcher ends a text at the first stop string and holds back what could be the beginning of one, so
// that no part of a stop string is ever shown before it is known not to be one.
//
// Among stop strings the one that is completed first wins; of several completed by the same byte the
// longest. So the result does not depend on how the text was cut into pieces.
//
// Thread safety: one thread at a time.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"

namespace prism {

inline constexpr size_t kStopStringsMax = 8;
inline constexpr size_t kStopBytesMax = 64;

class StopMatcher {
 public:
  // InvalidArgument "stop: ..." or "stop.2: ...": more than kStopStringsMax, one that is empty, longer
  // than kStopBytesMax or not UTF-8.
  // With `include_stop` the stop string itself is part of the text.
  static absl::StatusOr<StopMatcher> Create(absl::Span<const std::string> stops, bool include_stop);

  struct Output {
    std::string text;      // to show now
    bool stopped = false;  // a stop string was completed; all further text is dropped
  };
  // `text` is whole characters, and so is what is shown. Without `may_stop` no stop string ends within
  // `text`; one that begins there may end later.
  Output Push(absl::string_view text, bool may_stop = true);

  // The text has ended without a stop string: what was held back. Empty after a stop.
  std::string Finish();

  bool stopped() const { return !stop_text_.empty(); }
  // The stop string that ended the text; empty before.
  const std::string& stop_text() const { return stop_text_; }
  size_t held_bytes() const { return held_.size(); }

 private:
  // A stop string with, for each length of a matched prefix, the length of the longest shorter one that
  // is also matched (Knuth, Morris, Pratt).
  struct Stop {
    std::string text;
    std::vector<uint8_t> shorter;
    uint8_t matched = 0;
  };

  std::vector<Stop> stops_;
  bool include_stop_ = false;
  std::string held_;
  std::string stop_text_;
};

}  // namespace prism
