// A tower that a test can look into and hold.
#pragma once

#include <atomic>
#include <cmath>
#include <limits>
#include <memory>
#include <utility>
#include <vector>

#include "common/base/mutex.h"
#include "services/vision_encoder/tower.h"

namespace prism::testing {

// What a test and a FakeTower share; outlives the tower.
class TowerControl {
 public:
  static constexpr int64_t kHidden = 64, kLevels = 2;

  // From now on a pass stops in its first block until Release() lets it go.
  void Hold() {
    MutexLock lock(&mutex_);
    held_ = true;
  }
  void Release() {
    MutexLock lock(&mutex_);
    held_ = false;
    changed_.NotifyAll();
  }
  // Blocks until so many passes have begun.
  void AwaitPasses(int count) {
    MutexLock lock(&mutex_);
    while (static_cast<int>(passes_.size()) < count) changed_.Wait(&mutex_);
  }
  // Blocks until so many passes have ended, one way or another.
  void AwaitEnds(int count) {
    MutexLock lock(&mutex_);
    while (ends_ < count) changed_.Wait(&mutex_);
  }
  // Grids of each pass, the two of the self-test included.
  std::vector<std::vector<PatchGridSize>> passes() {
    MutexLock lock(&mutex_);
    return passes_;
  }

  std::atomic<bool> gives_nan{false};  // in the first value of the last picture
  std::atomic<bool> is_random{false};  // the same picture gives something else every time
  std::atomic<bool> fails{false};

 private:
  friend class FakeTower;
  Mutex mutex_;
  CondVar changed_;
  bool held_ ABSL_GUARDED_BY(mutex_) = false;
  std::vector<std::vector<PatchGridSize>> passes_ ABSL_GUARDED_BY(mutex_);
  int ends_ ABSL_GUARDED_BY(mutex_) = 0;
};

// embeddings[n, d] = patches[4 n, 101 d mod 1536] and deepstack[k, n, d] = that + k + 1.
class FakeTower : public Tower {
 public:
  explicit FakeTower(TowerControl* control) : control_(control) {}
  int64_t hidden_size() const override { return TowerControl::kHidden; }
  int64_t num_deepstack() const override { return TowerControl::kLevels; }
  DType dtype() const override { return DType::kF32; }

  absl::Status Forward(const TensorView& patches, absl::Span<const PatchGridSize> grids,
                       const TensorView& embeddings, const TensorView& deepstack,
                       const std::function<absl::Status()>& after_block) override {
    {
      MutexLock lock(&control_->mutex_);
      control_->passes_.emplace_back(grids.begin(), grids.end());
      control_->changed_.NotifyAll();
      while (control_->held_) control_->changed_.Wait(&control_->mutex_);
    }
    const absl::Status status = Compute(patches, grids, embeddings, deepstack, after_block);
    MutexLock lock(&control_->mutex_);
    ++control_->ends_;
    control_->changed_.NotifyAll();
    return status;
  }

  static float ValueOf(const float* first_patch_of_token, int64_t d) {
    return first_patch_of_token[101 * d % kPatchValues];
  }

 private:
  absl::Status Compute(const TensorView& patches, absl::Span<const PatchGridSize> grids,
                       const TensorView& embeddings, const TensorView& deepstack,
                       const std::function<absl::Status()>& after_block) {
    int64_t num_patches = 0;
    for (const PatchGridSize& grid : grids) num_patches += grid.num_patches();
    if (patches.dim(0) != num_patches || patches.dim(1) != kPatchValues)
      return absl::InternalError("shape of patches");
    const int64_t tokens = num_patches / 4;
    constexpr int64_t kHidden = TowerControl::kHidden;
    if (embeddings.dim(0) != tokens || deepstack.dim(1) != tokens)
      return absl::InternalError("shape of embeddings");
    if (after_block) {
      const absl::Status status = after_block();
      if (!status.ok()) return status;
    }
    if (control_->fails) return absl::ResourceExhaustedError("no device memory");
    for (int64_t n = 0; n < tokens; ++n) {
      for (int64_t d = 0; d < kHidden; ++d) {
        const float value = ValueOf(patches.data<float>() + 4 * n * kPatchValues, d);
        embeddings.data<float>()[n * kHidden + d] = value;
        for (int64_t k = 0; k < TowerControl::kLevels; ++k) {
          deepstack.data<float>()[(k * tokens + n) * kHidden + d] = value + static_cast<float>(k + 1);
        }
      }
    }
    if (control_->is_random) embeddings.data<float>()[0] = static_cast<float>(++calls_);
    if (control_->gives_nan) {
      const int64_t first = tokens - grids.back().num_tokens();
      embeddings.data<float>()[first * kHidden] = std::numeric_limits<float>::quiet_NaN();
    }
    return absl::OkStatus();
  }

  TowerControl* const control_;
  int calls_ = 0;
};

inline TowerFactory FactoryOf(TowerControl* control) {
  return
      [control]() -> absl::StatusOr<std::unique_ptr<Tower>> { return std::make_unique<FakeTower>(control); };
}

// A picture of that size whose first pixel tells it from others.
inline RgbImage PictureOf(uint8_t mark, ImageSize size = {.height = 32, .width = 32}) {
  RgbImage image(size);
  for (int64_t i = 0; i < image.size_bytes(); ++i) image.data()[i] = static_cast<uint8_t>(mark + i);
  return image;
}

// One picture, as the batcher takes it.
inline std::vector<RgbImage> FramesOf(RgbImage image) {
  std::vector<RgbImage> frames;
  frames.push_back(std::move(image));
  return frames;
}

}  // namespace prism::testing
