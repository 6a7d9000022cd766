#include "services/gateway/data_url.h"

#include <algorithm>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "common/base/base64.h"
#include "common/base/status.h"
#include "common/wire/request_limits.h"

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

// A data: URL taken apart; views into it.
struct DataUrl {
  absl::string_view type;  // "image/jpeg", without parameters
  absl::string_view data;  // base64
};

// `wanted` is the form that is accepted, `kind` how its media type begins.
absl::StatusOr<DataUrl> SplitDataUrl(absl::string_view url, absl::string_view kind,
                                     absl::string_view wanted) {
  if (!absl::StartsWithIgnoreCase(url, "data:")) {
    return absl::InvalidArgumentError(
        absl::StrCat("has ", SchemeOf(url), "; only ", wanted, " URLs are accepted, nothing is fetched"));
  }
  const absl::string_view head = url.substr(0, kUrlHeadBytesMax);
  const size_t comma = head.find(',');
  if (comma == absl::string_view::npos) {
    return absl::InvalidArgumentError(
        absl::StrCat("data URL has no comma in its first ", kUrlHeadBytesMax, " bytes"));
  }
  const absl::string_view description = head.substr(5, comma - 5);
  if (!absl::StartsWithIgnoreCase(description, kind)) {
    return absl::InvalidArgumentError(absl::StrCat("data URL is not of media type ", kind, "..."));
  }
  if (!absl::EndsWithIgnoreCase(description, ";base64")) {
    return absl::InvalidArgumentError("data URL is not marked ;base64 before its comma");
  }
  return DataUrl{.type = description.substr(0, description.find(';')), .data = url.substr(comma + 1)};
}

// Base64 becomes `what` of at most `bytes_max` bytes; the length is looked at before anything is decoded.
absl::StatusOr<std::string> DecodeFile(absl::string_view data, absl::string_view what, uint64_t bytes_max) {
  if (data.empty()) return absl::InvalidArgumentError(absl::StrCat(what, " is empty (0 bytes)"));
  const uint64_t size_bytes = static_cast<uint64_t>(data.size()) / 4 * 3;
  if (size_bytes > bytes_max + 2) {
    return absl::ResourceExhaustedError(
        absl::StrCat(what, " has about ", size_bytes, " bytes, at most ", bytes_max, " are accepted"));
  }
  PRISM_ASSIGN_OR_RETURN(std::string bytes, DecodeBase64(data));
  if (bytes.empty()) return absl::InvalidArgumentError(absl::StrCat(what, " is empty (0 bytes)"));
  if (bytes.size() > bytes_max) {
    return absl::ResourceExhaustedError(
        absl::StrCat(what, " has ", bytes.size(), " bytes, at most ", bytes_max, " are accepted"));
  }
  return bytes;
}

}  // namespace

absl::string_view SniffImageType(absl::string_view bytes) {
  if (absl::StartsWith(bytes, "\xff\xd8\xff")) return "image/jpeg";
  if (absl::StartsWith(bytes, "\x89PNG\r\n\x1a\n")) return "image/png";
  if (bytes.size() >= 12 && bytes.substr(0, 4) == "RIFF" && bytes.substr(8, 4) == "WEBP") return "image/webp";
  return "";
}

absl::StatusOr<std::string> DecodeImageDataUrl(absl::string_view url, uint64_t bytes_max) {
  PRISM_ASSIGN_OR_RETURN(const DataUrl parts, SplitDataUrl(url, "image/", "data:image/...;base64,"));
  return DecodeFile(parts.data, "picture", bytes_max);
}

absl::StatusOr<ClipFiles> DecodeClipDataUrl(absl::string_view url, uint64_t bytes_max) {
  PRISM_ASSIGN_OR_RETURN(const DataUrl parts,
                         SplitDataUrl(url, "video/", "data:video/jpeg;base64,FRAME,FRAME,..."));
  const absl::string_view subtype = parts.type.substr(std::min<size_t>(parts.type.size(), 6));
  if (!absl::EqualsIgnoreCase(subtype, "jpeg") && !absl::EqualsIgnoreCase(subtype, "jpg") &&
      !absl::EqualsIgnoreCase(subtype, "png") && !absl::EqualsIgnoreCase(subtype, "webp")) {
    return absl::InvalidArgumentError(
        "is a video file; those are not decoded here: send its frames as "
        "data:video/jpeg;base64,FRAME,FRAME,..., each a "
        "JPEG, PNG or WebP file in base64");
  }
  const size_t num_frames =
      parts.data.empty() ? 0 : 1 + static_cast<size_t>(std::count(parts.data.begin(), parts.data.end(), ','));
  if (num_frames < kClipFramesMin || num_frames > kClipFramesMax) {
    return absl::InvalidArgumentError(absl::StrCat("clip has ", num_frames, " frames, want ", kClipFramesMin,
                                                   " to ", kClipFramesMax, ", joined by commas"));
  }
  ClipFiles clip;
  absl::string_view rest = parts.data;
  for (size_t f = 0; f < num_frames; ++f) {
    const size_t end = std::min(rest.find(','), rest.size());
    PRISM_ASSIGN_OR_RETURN(const std::string frame,
                           DecodeFile(rest.substr(0, end), absl::StrCat("frame ", f, " of the clip"),
                                      bytes_max - clip.bytes.size()));
    clip.bytes += frame;
    clip.frame_bytes.push_back(static_cast<uint32_t>(frame.size()));
    rest.remove_prefix(std::min(end + 1, rest.size()));
  }
  return clip;
}

}  // namespace prism
