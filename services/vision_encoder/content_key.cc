#include "services/vision_encoder/content_key.h"

#include "common/base/check.h"
#include "common/base/hash.h"

namespace prism {
namespace {

void AddNumber(Sha256& sha, uint64_t value) {
  uint8_t bytes[8];
  for (int i = 0; i < 8; ++i) bytes[i] = static_cast<uint8_t>(value >> (8 * i));
  sha.Update(bytes, sizeof bytes);
}

void AddText(Sha256& sha, absl::string_view text) {
  AddNumber(sha, text.size());
  sha.Update(text);
}

void AddChoice(Sha256& sha, const ProcessorChoice& choice) {
  AddNumber(sha, choice.alpha == AlphaMode::kWhite ? 1 : 2);
  AddNumber(sha, static_cast<uint64_t>(choice.bounds.min_pixels));
  AddNumber(sha, static_cast<uint64_t>(choice.bounds.max_pixels));
}

std::string Bytes(const Sha256Digest& digest) { return std::string(digest.begin(), digest.end()); }

}  // namespace

ContentKey ComputeContentKey(absl::Span<const RgbImage> frames, const ProcessorChoice& choice,
                             const KeyScope& scope) {
  PRISM_CHECK(!frames.empty());
  Sha256 sha;
  if (frames.size() == 1) {
    AddText(sha, "prism embedding 1");
  } else {
    AddText(sha, "prism clip embedding 1");
    AddNumber(sha, frames.size());
  }
  AddNumber(sha, static_cast<uint64_t>(frames[0].height()));
  AddNumber(sha, static_cast<uint64_t>(frames[0].width()));
  for (const RgbImage& frame : frames) {
    PRISM_CHECK(frame.size() == frames[0].size());
    sha.Update(frame.data(), static_cast<size_t>(frame.size_bytes()));
  }
  AddChoice(sha, choice);
  AddText(sha, scope.weights_digest);
  AddText(sha, scope.numerics_id);
  AddText(sha, scope.salt);
  return Bytes(sha.Finish());
}

std::string ComputeFileKey(absl::string_view media_sha256, absl::Span<const uint32_t> frame_bytes,
                           const ProcessorChoice& choice, absl::string_view salt) {
  Sha256 sha;
  AddText(sha, "prism file 1");
  AddText(sha, media_sha256);
  AddNumber(sha, frame_bytes.size());
  for (const uint32_t size : frame_bytes) AddNumber(sha, size);
  AddChoice(sha, choice);
  AddText(sha, salt);
  return Bytes(sha.Finish());
}

}  // namespace prism
