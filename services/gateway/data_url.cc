#include "services/gateway/data_url.h"

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "common/base/base64.h"
#include "common/base/status.h"

namespace prism {
namespace {

// "data:image/jpeg;charset=utf-8;base64" and the like; what precedes the comma is never longer.
constexpr size_t kUrlHeadBytesMax = 256;

// A picture's scheme for messages: what stands before the colon, cut short.
std::string SchemeOf(absl::string_view url) {
  const size_t colon = url.find(':');
  if (colon == absl::string_view::npos || colon > 16) return "no scheme";
  std::string scheme;
  for (char c : url.substr(0, colon)) scheme += absl::ascii_isalnum(c) ? c : '?';
  return absl::StrCat("scheme ", scheme);
}

}  // namespace

absl::string_view SniffImageType(absl::string_view bytes) {
  if (absl::StartsWith(bytes, "\xff\xd8\xff")) return "image/jpeg";
  if (absl::StartsWith(bytes, "\x89PNG\r\n\x1a\n")) return "image/png";
  if (bytes.size() >= 12 && bytes.substr(0, 4) == "RIFF" && bytes.substr(8, 4) == "WEBP") return "image/webp";
  return "";
}

absl::StatusOr<std::string> DecodeImageDataUrl(absl::string_view url, uint64_t bytes_max) {
  if (!absl::StartsWithIgnoreCase(url, "data:")) {
    return absl::InvalidArgumentError(absl::StrCat(
        "has ", SchemeOf(url), "; only data:image/...;base64, URLs are accepted, nothing is fetched"));
  }
  const absl::string_view head = url.substr(0, kUrlHeadBytesMax);
  const size_t comma = head.find(',');
  if (comma == absl::string_view::npos) {
    return absl::InvalidArgumentError(
        absl::StrCat("data URL has no comma in its first ", kUrlHeadBytesMax, " bytes"));
  }
  const absl::string_view description = head.substr(5, comma - 5);
  if (!absl::StartsWithIgnoreCase(description, "image/")) {
    return absl::InvalidArgumentError("data URL is not of media type image/...");
  }
  if (!absl::EndsWithIgnoreCase(description, ";base64")) {
    return absl::InvalidArgumentError("data URL is not marked ;base64 before its comma");
  }
  const absl::string_view data = url.substr(comma + 1);
  if (data.empty()) return absl::InvalidArgumentError("picture is empty (0 bytes)");
  const uint64_t size_bytes = static_cast<uint64_t>(data.size()) / 4 * 3;
  if (size_bytes > bytes_max + 2) {
    return absl::ResourceExhaustedError(
        absl::StrCat("picture has about ", size_bytes, " bytes, at most ", bytes_max, " are accepted"));
  }
  PRISM_ASSIGN_OR_RETURN(std::string bytes, DecodeBase64(data));
  if (bytes.empty()) return absl::InvalidArgumentError("picture is empty (0 bytes)");
  if (bytes.size() > bytes_max) {
    return absl::ResourceExhaustedError(
        absl::StrCat("picture has ", bytes.size(), " bytes, at most ", bytes_max, " are accepted"));
  }
  return bytes;
}

}  // namespace prism
