// data: URLs, the one form in which a client gives a picture or a clip.
//
// Thread safety: functions only.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace prism {

// What a picture's first bytes say it is: "image/jpeg", "image/png", "image/webp", or empty.
absl::string_view SniffImageType(absl::string_view bytes);

// The bytes of "data:image/TYPE[;parameter]...;base64,DATA".
//
// The length is checked before anything is decoded: ResourceExhausted beyond `bytes_max`.
// InvalidArgument: another scheme or media type, not base64, malformed, or empty. The type named is
// not compared with the bytes: the vision encoder goes by those.
absl::StatusOr<std::string> DecodeImageDataUrl(absl::string_view url, uint64_t bytes_max);

struct ClipFiles {
  std::string bytes;                  // the frames' files, one after the other
  std::vector<uint32_t> frame_bytes;  // size of each
};

// The frames of "data:video/TYPE;base64,FRAME,FRAME,...", TYPE being jpeg, png or webp and each FRAME
// a picture file in base64. `bytes_max` is for all of them together; errors as above, also for what is
// a video file (nothing decodes one) and for fewer than kClipFramesMin or more than kClipFramesMax frames.
absl::StatusOr<ClipFiles> DecodeClipDataUrl(absl::string_view url, uint64_t bytes_max);

}  // namespace prism
