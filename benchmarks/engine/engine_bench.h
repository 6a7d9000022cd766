// The engine's model code, timed without its network: steps of generated rows, prompts and
// pictures, on any backend, with weights of the checkpoint (synthetic ones as a rule), random token
// ids, a KV memory of random keys and values, and random patches.
//
// A step is timed from a plan in host memory to its logits in the device's: what a rank does but
// for sampling. A picture is timed from patches to embeddings, both in host memory.
//
// Thread safety: everything of a rank on one thread. Ownership: backend, checkpoint and communicator
// must outlive what is made from them.
#pragma once

#include <cstdint>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "common/checkpoint/checkpoint.h"
#include "kernels/comm/communicator.h"
#include "kernels/device/backend.h"
#include "services/decoder/engine/step_runner.h"
#include "services/decoder/kv/kv_store.h"
#include "services/decoder/model/text_model.h"

namespace prism::bench {

struct Rounds {
  int warm_up = 3;
  int timed = 5;  // >= 1
};

// Times of one workload.
struct Measurement {
  std::vector<double> seconds;  // a round
  double distinct_experts = 0;  // that a layer's rows chose, mean over layers; 0 in a dense model

  double median() const;
  double least() const;
};

struct TextBenchLimits {
  StreamOptions stream;
  MoeShard moe_shard = MoeShard::kIds;
  bool record = true;         // steps that only generate are queued as recordings where that pays
  int64_t rows_max = 1;       // of a step
  int64_t sequences_max = 1;  // of a step
  int64_t context_max = 1;    // tokens of a sequence
  int64_t pages_max = 1;      // of all sequences
};

class TextBench {
 public:
  // Loads the language model of one rank and fills its KV memory. Every rank of a group makes its own, on
  // its own thread, and all call the same with the same arguments.
  static absl::StatusOr<std::unique_ptr<TextBench>> Create(Backend& backend, const Checkpoint& checkpoint,
                                                           Communicator& comm, const TextBenchLimits& limits);

  // One token for each of `batch` sequences with `context` tokens before it.
  absl::StatusOr<Measurement> Decode(int64_t batch, int64_t context, const Rounds& rounds);
  // A prompt of `tokens`, from nothing to the logits after it, in steps of at most rows_max.
  absl::StatusOr<Measurement> Prefill(int64_t tokens, const Rounds& rounds);
  // The digest of the first row of logits that the last step left, 64 hexadecimal digits: equal workloads on
  // equal weights give equal ones. On the first rank.
  absl::StatusOr<std::string> LogitsDigest();

 private:
  TextBench(Communicator* comm, const TextBenchLimits& limits) : comm_(*comm), limits_(limits) {}

  // Rows [begin, begin + count) of each of `batch` sequences.
  StepPlan PlanFor(int64_t batch, int64_t begin, int64_t count);
  absl::Status Run(const StepPlan& plan, const TextTap& tap = nullptr);
  absl::StatusOr<double> DistinctExperts(const StepPlan& plan);

  Communicator& comm_;
  const TextBenchLimits limits_;
  std::mt19937 random_{1};
  std::unique_ptr<Stream> stream_;  // outlives what lies in its memory
  std::unique_ptr<TextModel> model_;
  std::unique_ptr<KvStore> kv_;
  std::unique_ptr<StepRunner> runner_;
  std::vector<int32_t> pages_;  // in no order of their own
  Tensor logits_;               // [sequences, V] f32
};

// One picture of grid 1 x height x width, in patches (both even).
absl::StatusOr<Measurement> MeasureTower(Backend& backend, const Checkpoint& checkpoint,
                                         const StreamOptions& where, int32_t height, int32_t width,
                                         const Rounds& rounds);

}  // namespace prism::bench
