#include "services/decoder/decoder_sizes.h"

#include <unistd.h>

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "common/base/status.h"
#include "common/base/thread.h"
#include "common/checkpoint/tp_shard.h"
#include "services/decoder/kv/kv_store.h"
#include "services/decoder/kv/page.h"

namespace prism {
namespace {

constexpr int64_t kScoreRowsMax = 64;
constexpr int64_t kSamplingThreadsMax = 4;

absl::StatusOr<int64_t> PageBytes(const ModelConfig& config, int64_t num_ranks, DType dtype) {
  PRISM_ASSIGN_OR_RETURN(const TpShard shard,
                         ShardFor(config.text, {.rank = 0, .num_ranks = static_cast<int>(num_ranks)}));
  const KvShape shape{.num_layers = config.text.num_hidden_layers,
                      .kv_heads = shard.kv_heads.size(),
                      .head_dim = config.text.head_dim,
                      .dtype = dtype};
  return shape.page_bytes();
}

int64_t DefaultKvBytes(int64_t context, int64_t page_bytes, int64_t num_ranks, const MachineSizes& machine) {
  const int64_t highest = std::max(kKvBytesDefaultMin, machine.memory_bytes / kKvMemoryPart / num_ranks);
  return std::clamp(PagesFor(context) * page_bytes, kKvBytesDefaultMin, highest);
}

int64_t EmbeddingCacheBytes(const ModelConfig& config, const SizeFlags& flags, int64_t model_length_max) {
  if (flags.embedding_cache_bytes > 0) return flags.embedding_cache_bytes;
  const int64_t token_bytes =
      (1 + config.vision.num_deepstack()) * config.text.hidden_size * static_cast<int64_t>(sizeof(float));
  return std::min(kEmbeddingContextsDefault * model_length_max * token_bytes, kEmbeddingBytesDefaultMax);
}

}  // namespace

MachineSizes ThisMachine() {
  return {.memory_bytes = int64_t{sysconf(_SC_PHYS_PAGES)} * sysconf(_SC_PAGE_SIZE), .cpus = AvailableCpus()};
}

absl::StatusOr<DecoderSizes> SizeDecoder(const ModelConfig& config, const SizeFlags& flags,
                                         const MachineSizes& machine, DType activation_dtype) {
  const int64_t num_ranks = flags.tensor_parallel_size;
  PRISM_RETURN_IF_ERROR(CheckTensorParallel(config.text, static_cast<int>(num_ranks)));
  if (flags.max_num_batched_tokens < flags.max_num_seqs) {
    return absl::InvalidArgumentError(absl::StrCat("--max-num-batched-tokens is ",
                                                   flags.max_num_batched_tokens,
                                                   ", want at least --max-num-seqs, ", flags.max_num_seqs));
  }
  const int64_t positions = config.text.max_position_embeddings;
  if (flags.max_model_len > positions) {
    return absl::InvalidArgumentError(absl::StrCat("--max-model-len is ", flags.max_model_len,
                                                   ", the model's context is ", positions, " tokens"));
  }
  const int64_t context = flags.max_model_len > 0 ? flags.max_model_len : positions;

  DecoderSizes sizes;
  PRISM_ASSIGN_OR_RETURN(sizes.kv_page_bytes, PageBytes(config, num_ranks, activation_dtype));
  const int64_t threads = flags.threads > 0 ? flags.threads : machine.cpus;
  sizes.threads_per_rank = static_cast<int>(std::max<int64_t>(1, threads / num_ranks));
  sizes.sampling_threads = static_cast<int>(std::clamp<int64_t>(threads, 1, kSamplingThreadsMax));
  sizes.score_rows_max = kScoreRowsMax;
  sizes.logit_rows_max = flags.max_num_seqs + kScoreRowsMax;
  // More pages than every sequence at its longest would never be used.
  sizes.kv_pages_max = flags.max_num_seqs * PagesFor(context);
  sizes.model_length_max = context;
  sizes.embedding_cache_bytes = EmbeddingCacheBytes(config, flags, sizes.model_length_max);
  if (machine.device_memory && flags.kv_cache_bytes == 0) return sizes;
  const int64_t kv_bytes = flags.kv_cache_bytes > 0
                               ? flags.kv_cache_bytes
                               : DefaultKvBytes(context, sizes.kv_page_bytes, num_ranks, machine);
  sizes.kv_pages = std::min(kv_bytes / sizes.kv_page_bytes, sizes.kv_pages_max);
  if (sizes.kv_pages < 1) {
    return absl::InvalidArgumentError(absl::StrCat("--kv-cache-bytes is ", kv_bytes, ", one page of ",
                                                   kTokensPerPage, " tokens takes ", sizes.kv_page_bytes,
                                                   " bytes"));
  }
  if (flags.max_model_len > 0 && PagesFor(context) > sizes.kv_pages) {
    return absl::InvalidArgumentError(
        absl::StrCat("--max-model-len ", context, " needs ", PagesFor(context), " KV pages of ",
                     sizes.kv_page_bytes, " bytes, --kv-cache-bytes ", kv_bytes, " holds ", sizes.kv_pages));
  }
  sizes.model_length_max = std::min(context, sizes.kv_pages * kTokensPerPage);
  sizes.embedding_cache_bytes = EmbeddingCacheBytes(config, flags, sizes.model_length_max);
  return sizes;
}

absl::Status SetKvPages(const SizeFlags& flags, int64_t kv_pages, DecoderSizes* sizes) {
  if (flags.max_model_len > 0 && PagesFor(flags.max_model_len) > kv_pages) {
    return absl::InvalidArgumentError(
        absl::StrCat("--max-model-len ", flags.max_model_len, " needs ", PagesFor(flags.max_model_len),
                     " KV pages of ", sizes->kv_page_bytes, " bytes, the device has room for ", kv_pages));
  }
  sizes->kv_pages = kv_pages;
  sizes->model_length_max = std::min(sizes->model_length_max, kv_pages * kTokensPerPage);
  return absl::OkStatus();
}

}  // namespace prism
