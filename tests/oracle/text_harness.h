// TextHarness drives the language model step by step, chunk by chunk, on 1, 2 or 4 ranks, with a
// paged KV memory whose unused places are NaN: what the tests of the reference and of invariance
// share. It plans its steps itself, so that it does not lean on the scheduler it would test.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "common/checkpoint/checkpoint.h"
#include "kernels/comm/communicator.h"
#include "services/decoder/model/text_model.h"
#include "services/decoder/sched/positions.h"

namespace prism {

// A prompt with its pictures' embeddings, and what was generated after it.
struct HarnessSequence {
  std::vector<int32_t> ids;
  std::vector<VisualSpan> spans;  // embedding_index is 0: all rows lie in one tensor
  TensorView embeddings;          // [N, D] of the backend's activation type, in host memory
  TensorView deepstack;           // [K, N, D] likewise
  // Kept by the harness.
  int64_t computed = 0;
  std::vector<int32_t> pages;
};

// Rows of one sequence to compute in a step.
struct HarnessChunk {
  HarnessSequence* sequence;
  int64_t count;
  bool all_logits = false;  // of every row of the chunk; else of the last
};

class TextHarness {
 public:
  static absl::StatusOr<std::unique_ptr<TextHarness>> Create(Backend& backend, const Checkpoint& checkpoint,
                                                             int num_ranks, int num_threads,
                                                             int64_t num_pages,
                                                             MoeShard moe_shard = MoeShard::kIds);

  // Computes the chunks in one step; the logits wanted, in order: [R, V].
  // `tap` sees rank 0's intermediate tensors, in host memory.
  absl::StatusOr<Tensor> Step(const std::vector<HarnessChunk>& chunks, const TextTap& tap = nullptr);

  // Gives a sequence's pages back, filled with NaN.
  void Free(HarnessSequence& sequence);

  int64_t vocab_size() const { return ranks_[0].model->vocab_size(); }

 private:
  struct Rank {
    std::unique_ptr<Stream> stream;
    std::unique_ptr<Communicator> comm;
    std::unique_ptr<TextModel> model;
    std::vector<Tensor> memory;
    std::vector<KvLayer> kv;
  };

  void Poison(int32_t page);
  // Uploads a step in host memory, runs it and fetches rank 0's logits.
  static absl::Status RunRank(const Rank& rank, const StepInput& host, const TensorView& logits,
                              const TextTap& tap);

  std::vector<Rank> ranks_;
  std::vector<int32_t> free_pages_;
};

// A tap that gets copies in host memory; none stays none.
TextTap OnHost(Stream& stream, TextTap tap);

// `count` greedy ids after the sequence, with their logits [count, V]; the prompt goes in chunks.
struct GreedyAnswer {
  std::vector<int32_t> ids;
  std::vector<std::vector<float>> logits;
};
absl::StatusOr<GreedyAnswer> Greedy(TextHarness& harness, HarnessSequence& sequence, int count,
                                    int64_t chunk_rows = 1 << 30);

// log softmax, in double.
std::vector<double> LogSoftmax(absl::Span<const float> logits);

}  // namespace prism
