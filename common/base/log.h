// The log: JSON lines on standard error, one object a line, through spdlog.
//
//   LogInfo("weights loaded", {{"tensors", 882}, {"seconds", 1.5}});
//
// A line has "time" (RFC 3339, UTC), "level", "program", "message", then the fields. No line
// carries media, prompts or keys.
//
// Thread safety: all functions may be called from any thread after InitLog().
#pragma once

#include <cstdint>
#include <initializer_list>
#include <string>
#include <type_traits>
#include <utility>

#include "absl/strings/string_view.h"

namespace prism {

enum class LogLevel { kDebug, kInfo, kWarning, kError };

// One named value of a log line.
class LogField {
 public:
  template <typename T>
  LogField(absl::string_view key, const T& value) : key_(key) {
    if constexpr (std::is_same_v<T, bool>) {
      json_ = value ? "true" : "false";
    } else if constexpr (std::is_integral_v<T>) {
      SetInteger(static_cast<int64_t>(value));
    } else if constexpr (std::is_floating_point_v<T>) {
      SetReal(static_cast<double>(value));
    } else {
      SetString(absl::string_view(value));
    }
  }
  const std::string& key() const { return key_; }
  const std::string& json() const { return json_; }

 private:
  void SetInteger(int64_t value);
  // null if not finite.
  void SetReal(double value);
  void SetString(absl::string_view value);
  std::string key_;
  std::string json_;
};

// Names the program in every line. Call once, first thing in main().
// `level` is one of debug, info, warning, error; anything else means info.
void InitLog(absl::string_view program, absl::string_view level);

void Log(LogLevel level, absl::string_view message, std::initializer_list<LogField> fields = {});

inline void LogDebug(absl::string_view m, std::initializer_list<LogField> f = {}) {
  Log(LogLevel::kDebug, m, f);
}
inline void LogInfo(absl::string_view m, std::initializer_list<LogField> f = {}) {
  Log(LogLevel::kInfo, m, f);
}
inline void LogWarning(absl::string_view m, std::initializer_list<LogField> f = {}) {
  Log(LogLevel::kWarning, m, f);
}
inline void LogError(absl::string_view m, std::initializer_list<LogField> f = {}) {
  Log(LogLevel::kError, m, f);
}

// `text` as a JSON string with its quotes; invalid UTF-8 becomes U+FFFD.
std::string JsonQuote(absl::string_view text);

}  // namespace prism
