#include "common/base/log.h"

#include <spdlog/sinks/stdout_sinks.h>
#include <spdlog/spdlog.h>

#include <cmath>
#include <cstdio>
#include <memory>

#include "common/base/utf8.h"

namespace prism {
namespace {

std::string& ProgramJson() {
  static std::string* const program = new std::string("\"prism\"");
  return *program;
}

}  // namespace

std::string JsonQuote(absl::string_view text) {
  std::string out = "\"";
  for (size_t i = 0; i < text.size();) {
    const unsigned char c = static_cast<unsigned char>(text[i]);
    if (c == '"' || c == '\\') {
      out += '\\';
      out += static_cast<char>(c);
      ++i;
    } else if (c < 0x20) {
      char escape[8];
      std::snprintf(escape, sizeof(escape), "\\u%04x", c);
      out += escape;
      ++i;
    } else if (const size_t length = Utf8CharacterSize(text.substr(i)); length > 0) {
      out.append(text.data() + i, length);
      i += length;
    } else {
      out += "\xEF\xBF\xBD";
      ++i;
    }
  }
  out += '"';
  return out;
}

void LogField::SetInteger(int64_t value) { json_ = std::to_string(value); }

void LogField::SetReal(double value) {
  if (!std::isfinite(value)) {
    json_ = "null";
    return;
  }
  char buffer[32];
  std::snprintf(buffer, sizeof(buffer), "%.9g", value);
  json_ = buffer;
}

void LogField::SetString(absl::string_view value) { json_ = JsonQuote(value); }

void InitLog(absl::string_view program, absl::string_view level) {
  ProgramJson() = JsonQuote(program);
  auto logger = std::make_shared<spdlog::logger>("prism", std::make_shared<spdlog::sinks::stderr_sink_mt>());
  logger->set_pattern("%v");
  logger->set_level(level == "debug"     ? spdlog::level::debug
                    : level == "warning" ? spdlog::level::warn
                    : level == "error"   ? spdlog::level::err
                                         : spdlog::level::info);
  logger->flush_on(spdlog::level::debug);
  spdlog::set_default_logger(std::move(logger));
}

void Log(LogLevel level, absl::string_view message, std::initializer_list<LogField> fields) {
  static constexpr spdlog::level::level_enum kLevels[] = {spdlog::level::debug, spdlog::level::info,
                                                          spdlog::level::warn, spdlog::level::err};
  static constexpr const char* kNames[] = {"debug", "info", "warning", "error"};
  const int index = static_cast<int>(level);
  if (!spdlog::should_log(kLevels[index])) return;
  const auto now = std::chrono::system_clock::now();
  const std::time_t seconds = std::chrono::system_clock::to_time_t(now);
  const int millis = static_cast<int>(
      std::chrono::duration_cast<std::chrono::milliseconds>(now.time_since_epoch()).count() % 1000);
  std::tm utc{};
  gmtime_r(&seconds, &utc);
  char time[40];
  const size_t length = std::strftime(time, sizeof(time), "%Y-%m-%dT%H:%M:%S", &utc);
  std::snprintf(time + length, sizeof(time) - length, ".%03dZ", millis);
  std::string line = std::string("{\"time\":\"") + time + "\",\"level\":\"" + kNames[index] +
                     "\",\"program\":" + ProgramJson() + ",\"message\":" + JsonQuote(message);
  for (const LogField& field : fields) line += "," + JsonQuote(field.key()) + ":" + field.json();
  line += "}";
  spdlog::log(kLevels[index], "{}", line);
}

}  // namespace prism
