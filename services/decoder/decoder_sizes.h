// DecoderSizes: how large everything is that the decoder takes at start, from the model and the
// flags, with every contradiction refused by its numbers.
//
// Thread safety: plain values and functions.
#pragma once

#include <cstdint>

#include "absl/status/statusor.h"
#include "common/checkpoint/model_config.h"
#include "common/tensor/dtype.h"

namespace prism {

// Flags that size things; 0 means: derived.
struct SizeFlags {
  int64_t tensor_parallel_size = 1;
  int64_t max_model_len = 0;
  int64_t max_num_seqs = 64;
  int64_t max_num_batched_tokens = 2048;
  int64_t kv_cache_bytes = 0;  // of each rank
  int64_t threads = 0;         // CPU threads of all ranks together
  int64_t embedding_cache_bytes = 0;
};

// What the machine has.
struct MachineSizes {
  int64_t memory_bytes = 0;
  int64_t cpus = 1;
};
MachineSizes ThisMachine();

struct DecoderSizes {
  int64_t model_length_max = 0;  // prompt and answer, tokens
  int64_t kv_pages = 0;
  int64_t kv_page_bytes = 0;   // of one page on one rank
  int64_t logit_rows_max = 0;  // of a step
  int64_t score_rows_max = 0;  // of them, for scores
  int64_t embedding_cache_bytes = 0;
  int threads_per_rank = 1;
  int sampling_threads = 1;
};

// Without --kv-cache-bytes: a whole context, within these bounds.
inline constexpr int64_t kKvBytesDefaultMin = int64_t{256} << 20;
inline constexpr int64_t kKvMemoryPart = 4;  // at most this fraction (1/4) of the machine, all ranks together

// Without --embedding-cache-bytes: so many contexts full of pictures, within this bound.
inline constexpr int64_t kEmbeddingContextsDefault = 8;
inline constexpr int64_t kEmbeddingBytesDefaultMax = int64_t{1} << 30;

// `activation_dtype` is the backend's. InvalidArgument: the ranks do not divide the model, or a size
// contradicts another (which, and by how much).
absl::StatusOr<DecoderSizes> SizeDecoder(const ModelConfig& config, const SizeFlags& flags,
                                         const MachineSizes& machine, DType activation_dtype);

}  // namespace prism
