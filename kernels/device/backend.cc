#include "kernels/device/backend.h"

#include <algorithm>
#include <utility>

#include "common/base/status.h"
#include "kernels/device/fault.h"

namespace prism {
namespace {

constexpr int64_t kAlignment = 256;     // bytes; enough for any vector load of any device
constexpr int64_t kBlockMin = 1 << 20;  // bytes

// The body itself, for streams that have nothing better.
class RecordedBody final : public RecordedWork {
 public:
  explicit RecordedBody(std::function<absl::Status()> body) : body_(std::move(body)) {}
  absl::Status Run() const { return body_(); }

 private:
  const std::function<absl::Status()> body_;
};

}  // namespace

absl::StatusOr<TensorView> Workspace::Take(DType dtype, Shape shape) {
  const int64_t bytes = shape.num_elements() * static_cast<int64_t>(SizeOf(dtype));
  const int64_t rounded = (std::max<int64_t>(bytes, 1) + kAlignment - 1) / kAlignment * kAlignment;
  if (blocks_.empty() || used_bytes_ + rounded > blocks_.back().view().size_bytes()) {
    const int64_t size = std::max(rounded, kBlockMin);
    PRISM_ASSIGN_OR_RETURN(Tensor block, stream_->Allocate(DType::kU8, Shape{size}));
    blocks_.push_back(std::move(block));
    used_bytes_ = 0;
    ++generation_;
  }
  uint8_t* data = blocks_.back().data<uint8_t>() + used_bytes_;
  used_bytes_ += rounded;
  return TensorView(data, dtype, std::move(shape));
}

void Workspace::Reset() {
  used_bytes_ = 0;
  if (blocks_.size() <= 1) return;
  // The next pass of this size fits one block.
  int64_t total = 0;
  for (const Tensor& block : blocks_) total += block.view().size_bytes();
  blocks_.clear();
  ++generation_;
  absl::StatusOr<Tensor> block = stream_->Allocate(DType::kU8, Shape{total});
  if (block.ok()) blocks_.push_back(*std::move(block));
}

absl::Status Stream::QueueEndless() {
  WaitWhileArmed();
  return absl::OkStatus();
}

absl::StatusOr<std::unique_ptr<RecordedWork>> Stream::Record(std::function<absl::Status()> body) {
  return std::unique_ptr<RecordedWork>(std::make_unique<RecordedBody>(std::move(body)));
}

absl::StatusOr<bool> Stream::Replay(const RecordedWork& work) {
  PRISM_RETURN_IF_ERROR(static_cast<const RecordedBody&>(work).Run());
  return true;
}

}  // namespace prism
