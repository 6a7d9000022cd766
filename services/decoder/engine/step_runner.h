// StepRunner computes steps on one rank: from a plan on the host to logits on the device.
//
// A step that only generates (one row a sequence) is padded to one of a few sizes and, from its third
// time on, queued as one recording: a model is hundreds of kernels, and queueing each takes longer than
// running it. Padding repeats the first sequence and stores nothing, so it reads no weight and changes
// no bit that the others would not.
//
// Thread safety: belongs to the rank's thread. Ownership: stream, model and communicator must outlive it.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <utility>

#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "kernels/comm/communicator.h"
#include "kernels/device/backend.h"
#include "services/decoder/engine/step_input.h"
#include "services/decoder/model/text_model.h"
#include "services/decoder/sched/step_plan.h"

namespace prism {

// The least size of a recorded step that holds `rows` rows, or 0 if none does: 1, 2, 4, 8, 12, 16, 24,
// 32, 48, 64, 96, 128, 192, 256, but no more than `rows_max`. REQUIRES: rows >= 1
int64_t RecordedRows(int64_t rows, int64_t rows_max);
// The width of its page tables: a power of two of at least 16, but no more than `pages_max`.
int64_t RecordedPages(int64_t pages, int64_t pages_max);

class StepRunner {
 public:
  static constexpr size_t kRecordingsMax = 64;

  struct Options {
    StepLimits limits;
    bool record = false;  // as Stream::records_cheaply() proposes
  };

  // ResourceExhausted if the device has not the memory. `comm` is the model's.
  static absl::StatusOr<std::unique_ptr<StepRunner>> Create(Stream& stream, const TextModel& model,
                                                            Communicator& comm, const Options& options);

  // Queues the step. `logits` [logit_rows_max, V] f32 gets the plan's logit rows at its front, and may
  // be written behind them; absent on ranks other than the first. `kv` has one entry a layer.
  absl::Status Run(const StepPlan& plan, absl::Span<const VisualRowSource> visual,
                   absl::Span<const KvLayer> kv, const TensorView& logits, const TextTap& tap = nullptr);

  // Makes one piece of the workspace's several where the next step would, at a moment when no rank's
  // kernel waits for another's. All ranks call it together; Run() begins with it.
  absl::Status GatherWorkspace();

  // Makes all recordings anew, for when the KV memory goes.
  void ForgetRecordings() { recordings_.clear(); }

  // Recordings there are, and steps that were queued as one.
  size_t num_recordings() const { return recordings_.size(); }
  int64_t num_replayed() const { return num_replayed_; }

 private:
  struct Recording {
    std::unique_ptr<RecordedWork> work;  // null: the size was seen, its memory is there
    const KvLayer* kv = nullptr;
    int failures = 0;
  };

  StepRunner(Stream* stream, const TextModel* model, Communicator* comm, const Options& options)
      : stream_(*stream), model_(*model), comm_(*comm), options_(options) {}

  // The plan at a recorded step's size, or nothing if it is to be run as it is.
  bool Pad(const StepPlan& plan, StepPlan* padded) const;
  absl::Status RunPadded(const StepPlan& padded, absl::Span<const KvLayer> kv, const TensorView& logits);

  Stream& stream_;
  const TextModel& model_;
  Communicator& comm_;
  const Options options_;
  std::unique_ptr<StepBuffers> buffers_;
  std::map<std::pair<int64_t, int64_t>, Recording> recordings_;  // by rows and page table width
  int64_t num_replayed_ = 0;
};

}  // namespace prism
