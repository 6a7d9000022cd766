#include "common/checkpoint/model_config.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cmath>
#include <cstring>
#include <filesystem>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "common/base/status.h"
#include "nlohmann/json.hpp"

namespace prism {
namespace {

using Json = nlohmann::json;

// The longest text of a value that a message repeats.
constexpr size_t kShownBytesMax = 64;

std::string Shown(const Json& value) {
  std::string text = value.dump(-1, ' ', true, Json::error_handler_t::replace);
  if (text.size() > kShownBytesMax) text = text.substr(0, kShownBytesMax) + "...";
  return text;
}

// One JSON object of a file, with a path for messages ("config.json: text_config.").
//
// Every getter checks type and bounds. The first failure is kept in status(); the getters then
// return harmless values, so that a reader asks once at its end.
class Fields {
 public:
  Fields(std::string where, const Json& object, absl::Status* status)
      : where_(std::move(where)), object_(object), status_(status) {}

  // The value, or null if the field is absent or is null.
  const Json* Find(const char* key) const {
    const auto it = object_.find(key);
    return it == object_.end() || it->is_null() ? nullptr : &*it;
  }
  bool Has(const char* key) const { return Find(key) != nullptr; }

  int64_t Int(const char* key, int64_t least, int64_t most) const {
    const Json* value = Find(key);
    if (value == nullptr) {
      Fail(key, "is missing");
      return least;
    }
    return ToInt(key, *value, least, most);
  }
  int64_t IntOr(const char* key, int64_t absent, int64_t least, int64_t most) const {
    return Has(key) ? Int(key, least, most) : absent;
  }
  std::vector<int64_t> Ints(const char* key, const Json& list, int64_t least, int64_t most,
                            size_t length_max) const {
    std::vector<int64_t> values;
    if (!list.is_array() || list.size() > length_max) {
      Fail(key, absl::StrCat("is ", Shown(list), ", want a list of at most ", length_max, " integers"));
      return values;
    }
    for (const Json& value : list) values.push_back(ToInt(key, value, least, most));
    return values;
  }

  // In (above, most], or [above, most] if `closed`.
  double RealOr(const char* key, double absent, double above, double most, bool closed = false) const {
    const Json* value = Find(key);
    if (value == nullptr) return absent;
    const double number = value->is_number() ? value->get<double>() : std::nan("");
    if (!(closed ? number >= above : number > above) || !(number <= most)) {
      Fail(key, absl::StrCat("is ", Shown(*value), ", want a number in ", closed ? "[" : "(", above, ", ",
                             most, "]"));
      return absent;
    }
    return number;
  }

  std::optional<bool> Bool(const char* key) const {
    const Json* value = Find(key);
    if (value == nullptr) return std::nullopt;
    if (!value->is_boolean()) {
      Fail(key, absl::StrCat("is ", Shown(*value), ", want true or false"));
      return std::nullopt;
    }
    return value->get<bool>();
  }

  std::string StringOr(const char* key, std::string absent) const {
    const Json* value = Find(key);
    if (value == nullptr) return absent;
    if (!value->is_string()) {
      Fail(key, absl::StrCat("is ", Shown(*value), ", want a string"));
      return absent;
    }
    return value->get<std::string>();
  }

  // The object under `key`; an empty one, and a failure unless it may be absent, if there is none.
  Fields Object(const char* key, bool may_be_absent) const {
    static const Json* const empty = new Json(Json::object());
    const Json* value = Find(key);
    if (value == nullptr && !may_be_absent) Fail(key, "is missing");
    if (value != nullptr && !value->is_object()) {
      Fail(key, absl::StrCat("is ", Shown(*value), ", want an object"));
      value = nullptr;
    }
    return Fields(absl::StrCat(where_, key, "."), value == nullptr ? *empty : *value, status_);
  }

  void Fail(absl::string_view key, absl::string_view problem) const {
    if (status_->ok()) *status_ = absl::InvalidArgumentError(absl::StrCat(where_, key, " ", problem));
  }
  void FailUnimplemented(absl::string_view key, absl::string_view problem) const {
    if (status_->ok()) *status_ = absl::UnimplementedError(absl::StrCat(where_, key, " ", problem));
  }

 private:
  int64_t ToInt(const char* key, const Json& value, int64_t least, int64_t most) const {
    // An unsigned value that does not fit int64 is above every bound of ours.
    const bool fits =
        value.is_number_integer() &&
        !(value.is_number_unsigned() && value.get<uint64_t>() > static_cast<uint64_t>(INT64_MAX));
    const int64_t number = fits ? value.get<int64_t>() : 0;
    if (!fits || number < least || number > most) {
      Fail(key, absl::StrCat("is ", Shown(value), ", want an integer in [", least, ", ", most, "]"));
      return least;
    }
    return number;
  }

  const std::string where_;
  const Json& object_;
  absl::Status* const status_;
};

absl::StatusOr<Json> ParseObject(absl::string_view file, const std::string& text) {
  Json json = Json::parse(text, nullptr, /*allow_exceptions=*/false);
  if (!json.is_object()) {
    return absl::InvalidArgumentError(
        absl::StrCat(file, ": ", json.is_discarded() ? "not well-formed JSON" : "not a JSON object"));
  }
  return json;
}

void RefuseQuantised(const Fields& fields) {
  if (!fields.Has("quantization_config")) return;
  const Fields quantised = fields.Object("quantization_config", true);
  fields.FailUnimplemented(
      "quantization_config",
      absl::StrCat("has method \"", quantised.StringOr("quant_method", "unknown"),
                   "\"; quantised checkpoints are not supported, want f32, f16 or bf16"));
}

// The rotary fields: `rope_parameters` of transformers 5, or `rope_theta` beside `rope_scaling`.
void ReadRope(const Fields& text, TextConfig* out) {
  const char* const key = text.Has("rope_parameters") ? "rope_parameters" : "rope_scaling";
  const Fields rope = text.Object(key, true);
  const std::string type = rope.StringOr("rope_type", rope.StringOr("type", "default"));
  if (type != "default" && type != "mrope") {
    rope.FailUnimplemented(
        rope.Has("rope_type") ? "rope_type" : "type",
        absl::StrCat("is \"", type, "\"; scaled rotary positions are not supported, want \"default\""));
  }
  constexpr double kThetaMax = 1e12;
  // The fallback is the class default of transformers 5; published files always carry the field.
  const double outer = text.RealOr("rope_theta", 500000.0, 1.0, kThetaMax);
  out->rope_theta = rope.RealOr("rope_theta", outer, 1.0, kThetaMax);
  if (text.Has("rope_theta") && out->rope_theta != outer) {
    text.Fail("rope_theta", absl::StrCat("is ", outer, " but ", key, ".rope_theta is ", out->rope_theta));
  }
  if (rope.Bool("mrope_interleaved").value_or(true) == false) {
    rope.FailUnimplemented("mrope_interleaved", "is false; only the interleaved layout is supported");
  }
  out->mrope_section = {24, 20, 20};
  if (const Json* list = rope.Find("mrope_section")) {
    const std::vector<int64_t> section = rope.Ints("mrope_section", *list, 0, kConfigHeadDimMax, 3);
    if (section.size() != 3) {
      rope.Fail("mrope_section", absl::StrCat("has ", section.size(), " numbers, want 3"));
      return;
    }
    std::copy(section.begin(), section.end(), out->mrope_section.begin());
  }
  const auto& s = out->mrope_section;
  const int64_t half = out->head_dim / 2;
  if (2 * (s[0] + s[1] + s[2]) != out->head_dim) {
    rope.Fail("mrope_section", absl::StrCat("is [", absl::StrJoin(s, ", "), "], twice its sum is ",
                                            2 * (s[0] + s[1] + s[2]), ", want head_dim ", out->head_dim));
  } else if (3 * s[1] > half + 1 || 3 * s[2] > half) {
    // Height takes the pairs 1, 4, 7, ... and width 2, 5, 8, ...: they must exist.
    rope.Fail("mrope_section",
              absl::StrCat("is [", absl::StrJoin(s, ", "), "], want height and width of at most ", half / 3,
                           " so that they interleave within ", half, " pairs"));
  }
}

void ReadExperts(const Fields& text, bool mixture, TextConfig* out) {
  const int64_t named = text.IntOr("num_experts", -1, 0, kConfigExpertsMax);
  const int64_t local = text.IntOr("num_local_experts", -1, 0, kConfigExpertsMax);
  if (named >= 0 && local >= 0 && named != local) {
    text.Fail("num_experts", absl::StrCat("is ", named, " but num_local_experts is ", local));
  }
  out->num_experts = std::max<int64_t>({named, local, 0});
  if (!mixture) {
    if (out->num_experts > 0) {
      text.Fail("num_experts", absl::StrCat("is ", out->num_experts, ", want 0 in a qwen3_vl model"));
    }
    return;
  }
  if (out->num_experts == 0) {
    text.Fail("num_experts", "is missing or 0, want at least 1 in a qwen3_vl_moe model");
    return;
  }
  out->num_experts_per_tok = text.Int("num_experts_per_tok", 1, kConfigExpertsMax);
  if (out->num_experts_per_tok > out->num_experts) {
    text.Fail("num_experts_per_tok",
              absl::StrCat("is ", out->num_experts_per_tok, ", want at most num_experts ", out->num_experts));
  }
  out->moe_intermediate_size = text.Int("moe_intermediate_size", 1, kConfigWidthMax);
  out->decoder_sparse_step = text.IntOr("decoder_sparse_step", 1, 1, kConfigLayersMax);
  if (const Json* list = text.Find("mlp_only_layers")) {
    out->mlp_only_layers =
        text.Ints("mlp_only_layers", *list, 0, out->num_hidden_layers - 1, kConfigLayersMax);
  }
}

void ReadText(const Fields& text, bool mixture, TextConfig* out) {
  RefuseQuantised(text);
  out->vocab_size = text.Int("vocab_size", 1, kConfigVocabularyMax);
  out->hidden_size = text.Int("hidden_size", 1, kConfigWidthMax);
  out->num_hidden_layers = text.Int("num_hidden_layers", 1, kConfigLayersMax);
  out->num_attention_heads = text.Int("num_attention_heads", 1, kConfigHeadsMax);
  out->num_key_value_heads = text.Int("num_key_value_heads", 1, kConfigHeadsMax);
  // 128 is the class default of transformers; hidden_size / heads would be wrong for most sizes.
  out->head_dim = text.IntOr("head_dim", 128, 2, kConfigHeadDimMax);
  out->intermediate_size = text.Int("intermediate_size", 1, kConfigWidthMax);
  out->max_position_embeddings = text.Int("max_position_embeddings", 1, kConfigPositionsMax);
  out->rms_norm_eps = text.RealOr("rms_norm_eps", 1e-6, 0.0, 0.1);
  if (out->head_dim % 2 != 0)
    text.Fail("head_dim", absl::StrCat("is ", out->head_dim, ", want an even number"));
  if (out->num_attention_heads % out->num_key_value_heads != 0) {
    text.Fail("num_attention_heads",
              absl::StrCat("is ", out->num_attention_heads, ", want a multiple of num_key_value_heads ",
                           out->num_key_value_heads));
  }
  if (out->q_size() > kConfigWidthMax) {
    text.Fail("num_attention_heads",
              absl::StrCat("x head_dim is ", out->q_size(), ", want at most ", kConfigWidthMax));
  }
  if (const std::string act = text.StringOr("hidden_act", "silu"); act != "silu") {
    text.FailUnimplemented("hidden_act", absl::StrCat("is \"", act, "\", want \"silu\""));
  }
  if (text.Bool("attention_bias").value_or(false))
    text.FailUnimplemented("attention_bias", "is true, want false");
  if (text.Bool("use_sliding_window").value_or(false)) {
    text.FailUnimplemented("use_sliding_window", "is true, want false");
  }
  ReadExperts(text, mixture, out);
  ReadRope(text, out);
}

void ReadVision(const Fields& vision, const TextConfig& text, VisionConfig* out) {
  RefuseQuantised(vision);
  out->depth = vision.Int("depth", 1, kConfigLayersMax);
  out->hidden_size = vision.Int("hidden_size", 1, kConfigWidthMax / 16);
  out->num_heads = vision.Int("num_heads", 1, kConfigHeadsMax);
  out->intermediate_size = vision.Int("intermediate_size", 1, kConfigWidthMax);
  out->in_channels = vision.IntOr("in_channels", 3, 3, 3);
  out->patch_size = vision.IntOr("patch_size", 16, 1, kConfigPatchMax);
  out->temporal_patch_size = vision.IntOr("temporal_patch_size", 2, 1, 16);
  out->spatial_merge_size = vision.IntOr("spatial_merge_size", 2, 1, 8);
  out->num_position_embeddings = vision.IntOr("num_position_embeddings", 2304, 1, kConfigPositionsMax);
  out->out_hidden_size = vision.Int("out_hidden_size", 1, kConfigWidthMax);
  if (out->hidden_size % out->num_heads != 0) {
    vision.Fail("hidden_size",
                absl::StrCat("is ", out->hidden_size, ", want a multiple of num_heads ", out->num_heads));
  } else if (out->head_dim() % 4 != 0) {
    vision.Fail("hidden_size", absl::StrCat("/ num_heads is ", out->head_dim(),
                                            ", want a multiple of 4: rotary halves for height and width"));
  }
  if (out->out_hidden_size != text.hidden_size) {
    vision.Fail("out_hidden_size", absl::StrCat("is ", out->out_hidden_size,
                                                ", want text_config.hidden_size ", text.hidden_size));
  }
  const int64_t side = out->position_grid();
  if (side * side != out->num_position_embeddings) {
    vision.Fail("num_position_embeddings",
                absl::StrCat("is ", out->num_position_embeddings, ", want a square number"));
  }
  if (const std::string act = vision.StringOr("hidden_act", "gelu_pytorch_tanh");
      act != "gelu_pytorch_tanh") {
    vision.FailUnimplemented("hidden_act", absl::StrCat("is \"", act, "\", want \"gelu_pytorch_tanh\""));
  }
  const Json* indexes = vision.Find("deepstack_visual_indexes");
  if (indexes == nullptr) {
    vision.Fail("deepstack_visual_indexes", "is missing");
    return;
  }
  out->deepstack_visual_indexes = vision.Ints("deepstack_visual_indexes", *indexes, 0, out->depth - 1,
                                              static_cast<size_t>(kConfigLayersMax));
  const std::vector<int64_t>& taps = out->deepstack_visual_indexes;
  if (std::adjacent_find(taps.begin(), taps.end(), std::greater_equal<int64_t>()) != taps.end()) {
    vision.Fail("deepstack_visual_indexes",
                absl::StrCat("is [", absl::StrJoin(taps, ", "), "], want ascending numbers"));
  }
  if (out->num_deepstack() > text.num_hidden_layers) {
    vision.Fail("deepstack_visual_indexes",
                absl::StrCat("has ", taps.size(), " numbers, want at most num_hidden_layers ",
                             text.num_hidden_layers));
  }
}

// Token ids: one integer or a list of them, without repeats.
std::vector<int64_t> TokenIds(const Fields& fields, const char* key, int64_t vocab_size) {
  constexpr size_t kEosIdsMax = 64;
  const Json* value = fields.Find(key);
  if (value == nullptr) return {};
  const std::vector<int64_t> ids = value->is_array()
                                       ? fields.Ints(key, *value, 0, vocab_size - 1, kEosIdsMax)
                                       : std::vector<int64_t>{fields.Int(key, 0, vocab_size - 1)};
  std::vector<int64_t> distinct;
  for (const int64_t id : ids) {
    if (std::find(distinct.begin(), distinct.end(), id) == distinct.end()) distinct.push_back(id);
  }
  return distinct;
}

std::optional<int64_t> TokenId(const Fields& fields, const char* key, int64_t vocab_size) {
  if (!fields.Has(key)) return std::nullopt;
  return fields.Int(key, 0, vocab_size - 1);
}

void ReadSlotIds(const Fields& top, ModelConfig* out) {
  const int64_t last = out->text.vocab_size - 1;
  const std::pair<const char*, int64_t*> ids[] = {{"image_token_id", &out->image_token_id},
                                                  {"video_token_id", &out->video_token_id},
                                                  {"vision_start_token_id", &out->vision_start_token_id},
                                                  {"vision_end_token_id", &out->vision_end_token_id}};
  for (const auto& [key, id] : ids) {
    *id = top.Int(key, 0, last);
    for (const auto& [other_key, other] : ids) {
      if (other == id) break;
      if (*other == *id) top.Fail(key, absl::StrCat("is ", *id, ", which is ", other_key, " too"));
    }
  }
}

void ReadGeneration(const Fields& fields, ModelConfig* out) {
  GenerationDefaults& g = out->generation;
  g.do_sample = fields.Bool("do_sample").value_or(g.do_sample);
  g.temperature = fields.RealOr("temperature", g.temperature, 0.0, 100.0, /*closed=*/true);
  g.top_p = fields.RealOr("top_p", g.top_p, 0.0, 1.0);
  g.top_k = std::max<int64_t>(0, fields.IntOr("top_k", g.top_k, -1, kConfigVocabularyMax));
  g.repetition_penalty = fields.RealOr("repetition_penalty", g.repetition_penalty, 0.0, 100.0);
}

void ReadPixelBounds(const Fields& processor, PixelBounds* out) {
  constexpr int64_t kPixelsMax = int64_t{1} << 40;
  const Fields size = processor.Object("size", true);
  out->min_pixels = size.IntOr("shortest_edge", out->min_pixels, 1, kPixelsMax);
  out->max_pixels = size.IntOr("longest_edge", out->max_pixels, 1, kPixelsMax);
  out->min_pixels = processor.IntOr("min_pixels", out->min_pixels, 1, kPixelsMax);
  out->max_pixels = processor.IntOr("max_pixels", out->max_pixels, 1, kPixelsMax);
  if (out->min_pixels > out->max_pixels) {
    processor.Fail("size",
                   absl::StrCat("has min_pixels ", out->min_pixels, " above max_pixels ", out->max_pixels));
  }
}

// What a picture's and a video's processor share: sizes that must be the tower's, and the
// normalisation the patches are made with.
void CheckProcessor(const Fields& processor, const VisionConfig& vision) {
  const std::pair<const char*, int64_t> sizes[] = {{"patch_size", vision.patch_size},
                                                   {"merge_size", vision.spatial_merge_size},
                                                   {"temporal_patch_size", vision.temporal_patch_size}};
  for (const auto& [key, want] : sizes) {
    const int64_t value = processor.IntOr(key, want, 1, 1024);
    if (value != want) {
      processor.Fail(key, absl::StrCat("is ", value, " but vision_config has ", want));
    }
  }
  for (const char* key : {"image_mean", "image_std"}) {
    const Json* list = processor.Find(key);
    if (list == nullptr) continue;
    const bool halves = list->is_array() && list->size() == 3 &&
                        std::all_of(list->begin(), list->end(),
                                    [](const Json& v) { return v.is_number() && v.get<double>() == 0.5; });
    if (!halves)
      processor.FailUnimplemented(key, absl::StrCat("is ", Shown(*list), ", want [0.5, 0.5, 0.5]"));
  }
  if (const double factor = processor.RealOr("rescale_factor", 1.0 / 255, 0.0, 1.0);
      std::fabs(factor * 255 - 1) > 1e-6) {
    processor.FailUnimplemented("rescale_factor", absl::StrCat("is ", factor, ", want 1/255"));
  }
}

// The processors: each from its own file, else from the object in processor_config.json.
absl::Status ReadProcessors(const ModelConfigFiles& files, ModelConfig* out) {
  out->image = {.min_pixels = 65536, .max_pixels = 16777216};
  out->video = {.min_pixels = 4096, .max_pixels = 25165824};
  const struct {
    const std::optional<std::string>& text;
    const char* file;
    const char* key;
    bool video;
  } sources[] = {{files.preprocessor, "preprocessor_config.json", "image_processor", false},
                 {files.video_preprocessor, "video_preprocessor_config.json", "video_processor", true}};
  for (const auto& source : sources) {
    absl::Status status;
    const bool own = source.text.has_value();
    if (!own && !files.processor.has_value()) continue;
    const char* const file = own ? source.file : "processor_config.json";
    PRISM_ASSIGN_OR_RETURN(const Json json, ParseObject(file, own ? *source.text : *files.processor));
    const Fields top(absl::StrCat(file, ": "), json, &status);
    const Fields processor = own ? top : top.Object(source.key, true);
    CheckProcessor(processor, out->vision);
    ReadPixelBounds(processor, source.video ? &out->video : &out->image);
    if (source.video) {
      VideoSampling& s = out->video_sampling;
      s.fps = processor.RealOr("fps", s.fps, 0.0, 1000.0);
      s.min_frames = processor.IntOr("min_frames", s.min_frames, 1, 1 << 20);
      s.max_frames = processor.IntOr("max_frames", s.max_frames, s.min_frames, 1 << 20);
    }
    PRISM_RETURN_IF_ERROR(status);
  }
  return absl::OkStatus();
}

absl::StatusOr<std::optional<std::string>> ReadOptional(absl::string_view directory, absl::string_view name) {
  absl::StatusOr<std::string> text = ReadSmallFile(absl::StrCat(directory, "/", name), kConfigFileBytesMax);
  if (absl::IsNotFound(text.status())) return std::nullopt;
  if (!text.ok()) return text.status();
  return std::optional<std::string>(*std::move(text));
}

}  // namespace

bool TextConfig::IsMoeLayer(int64_t layer) const {
  return num_experts > 0 && (layer + 1) % decoder_sparse_step == 0 &&
         std::find(mlp_only_layers.begin(), mlp_only_layers.end(), layer) == mlp_only_layers.end();
}

int64_t VisionConfig::position_grid() const {
  return std::llround(std::sqrt(static_cast<double>(num_position_embeddings)));
}

absl::StatusOr<ModelConfig> ParseModelConfig(const ModelConfigFiles& files) {
  ModelConfig out;
  absl::Status status;
  PRISM_ASSIGN_OR_RETURN(const Json json, ParseObject("config.json", files.config));
  const Fields top("config.json: ", json, &status);
  out.model_type = top.StringOr("model_type", "");
  if (out.model_type != "qwen3_vl" && out.model_type != "qwen3_vl_moe") {
    PRISM_RETURN_IF_ERROR(status);
    return absl::UnimplementedError(absl::StrCat("config.json: model_type is \"",
                                                 out.model_type.substr(0, kShownBytesMax),
                                                 "\", want \"qwen3_vl\" or \"qwen3_vl_moe\""));
  }
  RefuseQuantised(top);
  const Fields text = top.Object("text_config", false);
  PRISM_RETURN_IF_ERROR(status);
  ReadText(text, out.model_type == "qwen3_vl_moe", &out.text);
  PRISM_RETURN_IF_ERROR(status);
  ReadVision(top.Object("vision_config", false), out.text, &out.vision);
  ReadSlotIds(top, &out);
  out.tie_word_embeddings = top.Bool("tie_word_embeddings");
  out.eos_token_ids = TokenIds(text, "eos_token_id", out.text.vocab_size);
  out.bos_token_id = TokenId(text, "bos_token_id", out.text.vocab_size);
  out.pad_token_id = TokenId(text, "pad_token_id", out.text.vocab_size);
  PRISM_RETURN_IF_ERROR(status);

  if (files.generation.has_value()) {
    PRISM_ASSIGN_OR_RETURN(const Json generation_json,
                           ParseObject("generation_config.json", *files.generation));
    const Fields generation("generation_config.json: ", generation_json, &status);
    ReadGeneration(generation, &out);
    if (generation.Has("eos_token_id")) {
      out.eos_token_ids = TokenIds(generation, "eos_token_id", out.text.vocab_size);
    }
    if (const auto id = TokenId(generation, "bos_token_id", out.text.vocab_size)) out.bos_token_id = id;
    if (const auto id = TokenId(generation, "pad_token_id", out.text.vocab_size)) out.pad_token_id = id;
    PRISM_RETURN_IF_ERROR(status);
  }
  if (out.eos_token_ids.empty()) {
    return absl::InvalidArgumentError(
        "generation_config.json and config.json: text_config.eos_token_id are missing: no id ends a text");
  }
  PRISM_RETURN_IF_ERROR(ReadProcessors(files, &out));
  return out;
}

std::string ModelNameOf(const std::string& directory) {
  // As of a folder, however many slashes stand behind it.
  std::error_code none;
  const std::filesystem::path inside = std::filesystem::absolute(directory + "/.", none).lexically_normal();
  return inside.parent_path().filename().string();
}

absl::StatusOr<ModelConfig> ReadModelConfig(absl::string_view directory) {
  struct stat info{};
  if (stat(std::string(directory).c_str(), &info) != 0) {
    return absl::NotFoundError(absl::StrCat("model folder ", directory, ": ", std::strerror(errno)));
  }
  if (!S_ISDIR(info.st_mode)) {
    return absl::InvalidArgumentError(absl::StrCat("model folder ", directory, ": not a folder"));
  }
  ModelConfigFiles files;
  PRISM_ASSIGN_OR_RETURN(files.config,
                         ReadSmallFile(absl::StrCat(directory, "/config.json"), kConfigFileBytesMax));
  PRISM_ASSIGN_OR_RETURN(files.generation, ReadOptional(directory, "generation_config.json"));
  PRISM_ASSIGN_OR_RETURN(files.preprocessor, ReadOptional(directory, "preprocessor_config.json"));
  PRISM_ASSIGN_OR_RETURN(files.video_preprocessor, ReadOptional(directory, "video_preprocessor_config.json"));
  PRISM_ASSIGN_OR_RETURN(files.processor, ReadOptional(directory, "processor_config.json"));
  absl::StatusOr<ModelConfig> config = ParseModelConfig(files);
  if (!config.ok()) {
    return absl::Status(config.status().code(), absl::StrCat(directory, "/", config.status().message()));
  }
  return config;
}

absl::StatusOr<std::string> ReadSmallFile(absl::string_view path, int64_t bytes_max) {
  const std::string name(path);
  // Without O_NONBLOCK a named pipe would hold the reader up.
  const int fd = open(name.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK);
  if (fd < 0) {
    const int error = errno;
    const std::string message = absl::StrCat(name, ": ", std::strerror(error));
    return error == ENOENT ? absl::NotFoundError(message) : absl::FailedPreconditionError(message);
  }
  struct stat info{};
  absl::Status status;
  std::string text;
  if (fstat(fd, &info) != 0 || !S_ISREG(info.st_mode)) {
    status = absl::InvalidArgumentError(absl::StrCat(name, ": not a regular file"));
  } else if (info.st_size > bytes_max) {
    status = absl::InvalidArgumentError(
        absl::StrCat(name, ": ", info.st_size, " bytes, want at most ", bytes_max));
  } else {
    text.resize(static_cast<size_t>(info.st_size));
    size_t done = 0;
    while (done < text.size()) {
      const ssize_t got = read(fd, text.data() + done, text.size() - done);
      if (got < 0 && errno == EINTR) continue;
      if (got <= 0) break;
      done += static_cast<size_t>(got);
    }
    if (done < text.size()) {
      status = absl::InvalidArgumentError(absl::StrCat(name, ": read ", done, " of ", text.size(), " bytes"));
    }
  }
  close(fd);
  if (!status.ok()) return status;
  return text;
}

}  // namespace prism
