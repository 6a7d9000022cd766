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
  bool device_memory = false;  // the ranks' devices have memory of their own
};
// Its devices left out.
MachineSizes ThisMachine();

struct DecoderSizes {
  int64_t model_length_max = 0;  // prompt and answer, tokens
  int64_t kv_pages = 0;          // 0: to be counted when the weights are loaded (SetKvPages)
  int64_t kv_pages_max = 0;      // more would never be used
  int64_t kv_page_bytes = 0;     // of one page on one rank
  int64_t logit_rows_max = 0;    // of a step
  int64_t score_rows_max = 0;    // of them, for scores
  int64_t embedding_cache_bytes = 0;
  int threads_per_rank = 1;
  int sampling_threads = 1;
};

// Without --kv-cache-bytes, on a machine whose memory the ranks share: a whole context, within these
// bounds. On devices with memory of their own: what they have left.
inline constexpr int64_t kKvBytesDefaultMin = int64_t{256} << 20;
inline constexpr int64_t kKvMemoryPart = 4;  // at most this fraction (1/4) of the machine, all ranks together

// Without --embedding-cache-bytes: so many contexts full of pictures, within this bound.
inline constexpr int64_t kEmbeddingContextsDefault = 8;
inline constexpr int64_t kEmbeddingBytesDefaultMax = int64_t{1} << 30;

// `activation_dtype` is the backend's. InvalidArgument: the ranks do not divide the model, or a size
// contradicts another (which, and by how much).
absl::StatusOr<DecoderSizes> SizeDecoder(const ModelConfig& config, const SizeFlags& flags,
                                         const MachineSizes& machine, DType activation_dtype);

// Completes sizes whose kv_pages was 0 with the pages there is room for. InvalidArgument if
// --max-model-len needs more. REQUIRES: kv_pages >= 1
absl::Status SetKvPages(const SizeFlags& flags, int64_t kv_pages, DecoderSizes* sizes);

}  // namespace prism
