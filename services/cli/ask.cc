#include "services/cli/ask.h"

#include <cstdio>
#include <fstream>
#include <iterator>
#include <nlohmann/json.hpp>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "common/base/base64.h"
#include "services/cli/http_client.h"

namespace prism {
namespace {

using Json = nlohmann::ordered_json;

constexpr size_t kPictureBytesMax = 32 << 20;
constexpr std::chrono::milliseconds kAnswerIdleTimeout{60'000};  // comments come every ten seconds

absl::StatusOr<std::string> ReadPicture(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  if (!file) return absl::NotFoundError(absl::StrCat(path, ": cannot be read"));
  std::string bytes;
  char part[1 << 16];
  while (file.read(part, sizeof(part)) || file.gcount() > 0) {
    bytes.append(part, static_cast<size_t>(file.gcount()));
    if (bytes.size() > kPictureBytesMax) {
      return absl::InvalidArgumentError(absl::StrCat(path, ": is larger than ", kPictureBytesMax, " bytes"));
    }
  }
  return bytes;
}

absl::string_view TypeOf(absl::string_view bytes) {
  if (absl::StartsWith(bytes, "\xff\xd8\xff")) return "image/jpeg";
  if (absl::StartsWith(bytes, "\x89PNG\r\n\x1a\n")) return "image/png";
  if (bytes.size() >= 12 && absl::StartsWith(bytes, "RIFF") && bytes.substr(8, 4) == "WEBP")
    return "image/webp";
  return "";
}

int Error(absl::string_view message) {
  std::fprintf(stderr, "prism ask: %s\n", std::string(message).c_str());
  return 1;
}

}  // namespace

std::string ErrorMessageOf(absl::string_view body) {
  const Json json = Json::parse(body.begin(), body.end(), nullptr, /*allow_exceptions=*/false);
  if (json.is_object() && json.contains("error") && json["error"].is_object() &&
      json["error"].contains("message") && json["error"]["message"].is_string()) {
    return json["error"]["message"].get<std::string>();
  }
  return std::string(body.substr(0, 500));
}

absl::StatusOr<std::string> AskBody(const AskOptions& options) {
  Json content = Json::array();
  std::string clip;  // of the pictures, if they are its frames
  if (options.fps.has_value() && options.pictures.empty()) {
    return absl::InvalidArgumentError("--fps was given, but no pictures to be the clip's frames");
  }
  for (const std::string& path : options.pictures) {
    const absl::StatusOr<std::string> bytes = ReadPicture(path);
    if (!bytes.ok()) return bytes.status();
    const absl::string_view type = TypeOf(*bytes);
    if (type.empty())
      return absl::InvalidArgumentError(absl::StrCat(path, ": is no JPEG, PNG or WebP picture"));
    if (options.fps.has_value()) {
      absl::StrAppend(&clip, clip.empty() ? "data:video/jpeg;base64," : ",", EncodeBase64(*bytes));
      continue;
    }
    content.push_back(
        {{"type", "image_url"},
         {"image_url", {{"url", absl::StrCat("data:", type, ";base64,", EncodeBase64(*bytes))}}}});
  }
  if (options.fps.has_value()) {
    content.push_back(
        {{"type", "video_url"}, {"video_url", {{"url", std::move(clip)}, {"fps", *options.fps}}}});
  }
  content.push_back({{"type", "text"}, {"text", options.question}});
  Json body;
  body["messages"] = Json::array({Json{{"role", "user"}, {"content", std::move(content)}}});
  body["stream"] = true;
  if (options.max_tokens > 0) body["max_tokens"] = options.max_tokens;
  if (options.temperature.has_value()) body["temperature"] = *options.temperature;
  if (options.seed.has_value()) body["seed"] = *options.seed;
  return body.dump(-1, ' ', false, Json::error_handler_t::replace);
}

std::string AnswerReader::Take(absl::string_view part) {
  held_.append(part.data(), part.size());
  std::string text;
  size_t end;
  while ((end = held_.find('\n')) != std::string::npos) {
    absl::string_view line = absl::string_view(held_).substr(0, end);
    absl::ConsumeSuffix(&line, "\r");
    if (absl::ConsumePrefix(&line, "data: ")) {
      if (line == "[DONE]") {
        done_ = finished_ && error_.empty();
      } else {
        TakeEvent(line, &text);
      }
    }
    held_.erase(0, end + 1);
  }
  return text;
}

void AnswerReader::TakeEvent(absl::string_view event, std::string* text) {
  const Json json = Json::parse(event.begin(), event.end(), nullptr, /*allow_exceptions=*/false);
  if (!json.is_object()) {
    error_ = "the server sent an event that is no JSON object";
    return;
  }
  if (json.contains("error")) {
    error_ = ErrorMessageOf(event);
    return;
  }
  const auto choices = json.find("choices");
  if (choices == json.end() || !choices->is_array() || choices->empty() || !choices->front().is_object())
    return;
  const Json& choice = choices->front();
  if (const auto reason = choice.find("finish_reason"); reason != choice.end() && reason->is_string())
    finished_ = true;
  const auto delta = choice.find("delta");
  if (delta == choice.end() || !delta->is_object()) return;
  for (const bool reasoning : {true, false}) {
    const auto words = delta->find(reasoning ? "reasoning_content" : "content");
    if (words == delta->end() || !words->is_string() || words->get_ref<const std::string&>().empty())
      continue;
    if (reasoning != thinking_) text->append(reasoning ? "<think>" : "</think>\n");
    thinking_ = reasoning;
    text->append(words->get_ref<const std::string&>());
  }
}

int Ask(const AskOptions& options) {
  const absl::StatusOr<HttpUrl> url = ParseHttpUrl(options.url);
  if (!url.ok()) return Error(url.status().message());
  absl::StatusOr<std::string> body = AskBody(options);
  if (!body.ok()) return Error(body.status().message());
  HttpCall call;
  call.method = "POST";
  call.path = "/v1/chat/completions";
  call.content_type = "application/json";
  call.api_key = options.api_key;
  call.body = *std::move(body);
  call.idle_timeout = kAnswerIdleTimeout;

  AnswerReader reader;
  std::string refusal;
  const absl::StatusOr<HttpReply> reply = SendHttp(*url, call, [&](int status, absl::string_view part) {
    if (status != 200) {
      refusal.append(part.data(), part.size());
      return;
    }
    const std::string text = reader.Take(part);
    std::fwrite(text.data(), 1, text.size(), stdout);
    std::fflush(stdout);
  });
  if (reply.ok() && reply->status != 200) return Error(ErrorMessageOf(refusal));
  std::printf("\n");
  if (!reader.error().empty()) return Error(reader.error());
  if (!reply.ok()) return Error(reply.status().message());
  if (!reader.done()) return Error("the answer was cut off");
  return 0;
}

}  // namespace prism
