// ModelConfig: what the small files of a Hugging Face folder say about a Qwen3-VL checkpoint.
//
// Every spelling that transformers 4.57 and 5.x write is read. Contradictions, sizes out of
// bounds and features not supported are refused with the field, its value and the bound, so that
// whoever holds a ModelConfig may multiply its sizes without overflow checks.
//
// Thread safety: plain values. Ownership: owns everything.
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace prism {

// The bounds that sizes are held to; far above every published model, far below overflow.
inline constexpr int64_t kConfigVocabularyMax = 1 << 24;
inline constexpr int64_t kConfigWidthMax = 1 << 17;  // hidden, intermediate and head-product sizes
inline constexpr int64_t kConfigLayersMax = 1024;
inline constexpr int64_t kConfigHeadsMax = 1024;
inline constexpr int64_t kConfigHeadDimMax = 1024;
inline constexpr int64_t kConfigExpertsMax = 4096;
inline constexpr int64_t kConfigPositionsMax = 1 << 24;
inline constexpr int64_t kConfigPatchMax = 64;
inline constexpr int64_t kConfigFileBytesMax = 16 << 20;  // of each JSON file

// The language model (text_config).
struct TextConfig {
  int64_t vocab_size = 0;
  int64_t hidden_size = 0;
  int64_t num_hidden_layers = 0;
  int64_t num_attention_heads = 0;
  int64_t num_key_value_heads = 0;  // divides num_attention_heads
  int64_t head_dim = 0;             // even; never derived from hidden_size (128 if the file omits it)
  int64_t intermediate_size = 0;    // of a dense MLP
  int64_t max_position_embeddings = 0;
  double rms_norm_eps = 1e-6;
  double rope_theta = 0;
  // Rotary pairs for time, height and width; they sum to head_dim / 2. Always interleaved.
  std::array<int64_t, 3> mrope_section{};

  // Mixture of experts; num_experts is 0 in a dense model and the rest is then meaningless.
  int64_t num_experts = 0;
  int64_t num_experts_per_tok = 0;
  int64_t moe_intermediate_size = 0;
  int64_t decoder_sparse_step = 1;
  std::vector<int64_t> mlp_only_layers;

  // Whether this layer's MLP is a mixture of experts.
  bool IsMoeLayer(int64_t layer) const;
  // Rows of q_proj and of k_proj and v_proj.
  int64_t q_size() const { return num_attention_heads * head_dim; }
  int64_t kv_size() const { return num_key_value_heads * head_dim; }
};

// The vision tower (vision_config).
struct VisionConfig {
  int64_t depth = 0;
  int64_t hidden_size = 0;
  int64_t num_heads = 0;
  int64_t intermediate_size = 0;
  int64_t in_channels = 3;
  int64_t patch_size = 16;
  int64_t temporal_patch_size = 2;
  int64_t spatial_merge_size = 2;
  int64_t num_position_embeddings = 0;  // a square number
  int64_t out_hidden_size = 0;          // equals the text hidden_size
  // Blocks (0-based, ascending) whose outputs feed the DeepStack mergers.
  std::vector<int64_t> deepstack_visual_indexes;

  int64_t head_dim() const { return hidden_size / num_heads; }  // a multiple of 4
  // Numbers of one patch: channels x frames x height x width.
  int64_t patch_elements() const { return in_channels * temporal_patch_size * patch_size * patch_size; }
  // Side of the square grid of position embeddings.
  int64_t position_grid() const;
  // Patches of one visual token.
  int64_t merge_area() const { return spatial_merge_size * spatial_merge_size; }
  int64_t num_deepstack() const { return static_cast<int64_t>(deepstack_visual_indexes.size()); }
};

// What generation_config.json proposes where a request is silent. Without that file: greedy.
struct GenerationDefaults {
  bool do_sample = false;
  double temperature = 1.0;         // >= 0; 0 means greedy
  double top_p = 1.0;               // in (0, 1]
  int64_t top_k = 0;                // 0: no limit
  double repetition_penalty = 1.0;  // > 0
};

// The bounds of resizing, in pixels of the resized picture (the files call them edges).
struct PixelBounds {
  int64_t min_pixels = 0;
  int64_t max_pixels = 0;  // >= min_pixels
};

struct VideoSampling {
  double fps = 2.0;
  int64_t min_frames = 4;
  int64_t max_frames = 768;
};

struct ModelConfig {
  std::string model_type;  // "qwen3_vl" or "qwen3_vl_moe"
  TextConfig text;
  VisionConfig vision;

  int64_t image_token_id = 0;
  int64_t video_token_id = 0;
  int64_t vision_start_token_id = 0;
  int64_t vision_end_token_id = 0;
  // Every id that ends a text, from generation_config.json (one id or a list), else from
  // text_config; at least one, no repeats, in the file's order.
  std::vector<int64_t> eos_token_ids;
  std::optional<int64_t> bos_token_id;
  std::optional<int64_t> pad_token_id;

  // The top-level field; nullopt where the file is silent (then a stored lm_head decides).
  std::optional<bool> tie_word_embeddings;

  GenerationDefaults generation;
  PixelBounds image;
  // The whole video's pixels.
  PixelBounds video;
  VideoSampling video_sampling;
};

// The texts of a folder's files; an absent file is nullopt, config.json must be there.
struct ModelConfigFiles {
  std::string config;                             // config.json
  std::optional<std::string> generation;          // generation_config.json
  std::optional<std::string> preprocessor;        // preprocessor_config.json
  std::optional<std::string> video_preprocessor;  // video_preprocessor_config.json
  std::optional<std::string> processor;           // processor_config.json
};

// InvalidArgument for malformed or contradicting files (file, field, value, bound);
// Unimplemented for quantised checkpoints, scaled rotary positions and other model types.
absl::StatusOr<ModelConfig> ParseModelConfig(const ModelConfigFiles& files);

// Reads the files of `directory`. NotFound if the folder or its config.json is not there, else as
// ParseModelConfig().
absl::StatusOr<ModelConfig> ReadModelConfig(absl::string_view directory);

// What a model is called where nobody says: the last part of its folder's path.
std::string ModelNameOf(const std::string& directory);

// The whole of a small file. NotFound if it cannot be opened, InvalidArgument above `bytes_max`.
absl::StatusOr<std::string> ReadSmallFile(absl::string_view path, int64_t bytes_max);

}  // namespace prism
