#include "common/wire/tensor_frames.h"

#include <algorithm>
#include <cstring>

#include "absl/strings/str_cat.h"
#include "common/base/check.h"
#include "common/base/crc32c.h"
#include "common/base/status.h"
#include "common/wire/status_codec.h"

namespace prism {
namespace {

absl::Status Corrupt(absl::string_view message) {
  return ErrorWithReason(absl::StatusCode::kDataLoss, message, kReasonEmbeddingCorrupt);
}

}  // namespace

FrameSplitter::FrameSplitter(absl::Span<const uint8_t> bytes, uint64_t offset)
    : bytes_(bytes), offset_(offset) {
  PRISM_CHECK(offset <= bytes.size());
}

bool FrameSplitter::Next(v1::TensorFrame* frame) {
  if (offset_ >= bytes_.size()) return false;
  const uint8_t* data = bytes_.data() + offset_;
  const size_t size = std::min<uint64_t>(bytes_.size() - offset_, kFrameBytesMax);
  frame->set_offset(offset_);
  frame->set_data(data, size);
  frame->set_crc32c(Crc32c(data, size));
  offset_ += size;
  return true;
}

absl::Status FrameAssembler::Add(const v1::TensorFrame& frame) {
  PRISM_RETURN_IF_ERROR(status_);
  const std::string& data = frame.data();
  const std::string name = absl::StrCat("frame at offset ", frame.offset());
  if (data.empty()) {
    status_ = Corrupt(absl::StrCat(name, " is empty"));
  } else if (data.size() > kFrameBytesMax) {
    status_ = Corrupt(absl::StrCat(name, " has ", data.size(), " bytes, at most ", kFrameBytesMax));
  } else if (frame.offset() != received_) {
    status_ = Corrupt(absl::StrCat(name, ", want offset ", received_));
  } else if (data.size() > out_.size() - received_) {
    status_ = Corrupt(absl::StrCat(name, " has ", data.size(), " bytes, but the tensor only ", out_.size()));
  } else if (const uint32_t crc = Crc32c(data.data(), data.size()); crc != frame.crc32c()) {
    status_ = Corrupt(absl::StrCat(name, " has crc32c ", crc, ", announced ", frame.crc32c()));
  } else {
    std::memcpy(out_.data() + received_, data.data(), data.size());
    sha_.Update(data.data(), data.size());
    received_ += data.size();
  }
  return status_;
}

absl::Status FrameAssembler::Finish(absl::string_view digest) {
  PRISM_RETURN_IF_ERROR(status_);
  if (received_ != out_.size()) {
    return Corrupt(absl::StrCat("tensor ended after ", received_, " of ", out_.size(), " bytes"));
  }
  const Sha256Digest sha = sha_.Finish();
  const absl::string_view got(reinterpret_cast<const char*>(sha.data()), sha.size());
  if (got != digest) {
    return Corrupt(absl::StrCat("tensor has sha256 ", Hex(got), ", announced ", Hex(digest)));
  }
  return absl::OkStatus();
}

}  // namespace prism
