#include "common/checkpoint/weight_map.h"

#include <algorithm>
#include <set>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"

namespace prism {
namespace {

constexpr char kHeadName[] = "lm_head.weight";

std::string LayerName(int64_t layer, absl::string_view rest) {
  return absl::StrCat("model.language_model.layers.", layer, ".", rest);
}

void AddLinear(const std::string& name, int64_t out, int64_t in, std::vector<WeightSpec>* weights) {
  weights->push_back({name + ".weight", Shape{out, in}});
  weights->push_back({name + ".bias", Shape{out}});
}

void AddNorm(const std::string& name, int64_t width, std::vector<WeightSpec>* weights) {
  weights->push_back({name + ".weight", Shape{width}});
  weights->push_back({name + ".bias", Shape{width}});
}

void AddVision(const VisionConfig& v, std::vector<WeightSpec>* weights) {
  const int64_t c = v.hidden_size;
  const int64_t merged = c * v.merge_area();
  const std::string root = "model.visual.";
  weights->push_back({root + "patch_embed.proj.weight",
                      Shape{c, v.in_channels, v.temporal_patch_size, v.patch_size, v.patch_size}});
  weights->push_back({root + "patch_embed.proj.bias", Shape{c}});
  weights->push_back({root + "pos_embed.weight", Shape{v.num_position_embeddings, c}});
  for (int64_t i = 0; i < v.depth; ++i) {
    const std::string block = absl::StrCat(root, "blocks.", i, ".");
    AddNorm(block + "norm1", c, weights);
    AddNorm(block + "norm2", c, weights);
    AddLinear(block + "attn.qkv", 3 * c, c, weights);
    AddLinear(block + "attn.proj", c, c, weights);
    AddLinear(block + "mlp.linear_fc1", v.intermediate_size, c, weights);
    AddLinear(block + "mlp.linear_fc2", c, v.intermediate_size, weights);
  }
  // The last merger normalises a patch, the DeepStack mergers a whole token.
  AddNorm(root + "merger.norm", c, weights);
  AddLinear(root + "merger.linear_fc1", merged, merged, weights);
  AddLinear(root + "merger.linear_fc2", v.out_hidden_size, merged, weights);
  for (int64_t k = 0; k < v.num_deepstack(); ++k) {
    const std::string merger = absl::StrCat(root, "deepstack_merger_list.", k, ".");
    AddNorm(merger + "norm", merged, weights);
    AddLinear(merger + "linear_fc1", merged, merged, weights);
    AddLinear(merger + "linear_fc2", v.out_hidden_size, merged, weights);
  }
}

void AddText(const TextConfig& t, bool with_head, std::vector<WeightSpec>* weights) {
  const int64_t h = t.hidden_size;
  weights->push_back({"model.language_model.embed_tokens.weight", Shape{t.vocab_size, h}});
  for (int64_t i = 0; i < t.num_hidden_layers; ++i) {
    weights->push_back({LayerName(i, "input_layernorm.weight"), Shape{h}});
    weights->push_back({LayerName(i, "self_attn.q_proj.weight"), Shape{t.q_size(), h}});
    weights->push_back({LayerName(i, "self_attn.k_proj.weight"), Shape{t.kv_size(), h}});
    weights->push_back({LayerName(i, "self_attn.v_proj.weight"), Shape{t.kv_size(), h}});
    weights->push_back({LayerName(i, "self_attn.o_proj.weight"), Shape{h, t.q_size()}});
    weights->push_back({LayerName(i, "self_attn.q_norm.weight"), Shape{t.head_dim}});
    weights->push_back({LayerName(i, "self_attn.k_norm.weight"), Shape{t.head_dim}});
    weights->push_back({LayerName(i, "post_attention_layernorm.weight"), Shape{h}});
    if (t.IsMoeLayer(i)) {
      weights->push_back({LayerName(i, "mlp.gate.weight"), Shape{t.num_experts, h}});
      weights->push_back({GateUpName(i), Shape{t.num_experts, h, 2 * t.moe_intermediate_size}});
      weights->push_back({DownName(i), Shape{t.num_experts, t.moe_intermediate_size, h}});
    } else {
      weights->push_back({LayerName(i, "mlp.gate_proj.weight"), Shape{t.intermediate_size, h}});
      weights->push_back({LayerName(i, "mlp.up_proj.weight"), Shape{t.intermediate_size, h}});
      weights->push_back({LayerName(i, "mlp.down_proj.weight"), Shape{h, t.intermediate_size}});
    }
  }
  weights->push_back({"model.language_model.norm.weight", Shape{h}});
  if (with_head) weights->push_back({kHeadName, Shape{t.vocab_size, h}});
}

Shape Swapped(const Shape& s) { return Shape{s[0], s[2], s[1]}; }

// One kind of disagreement: an exact count and the first few cases.
class Cases {
 public:
  explicit Cases(absl::string_view kind) : kind_(kind) {}
  void Add(absl::string_view text) {
    if (++count_ <= kMismatchesNamed) absl::StrAppend(&text_, count_ == 1 ? "" : ", ", text);
  }
  size_t count() const { return count_; }
  // "; 3 missing: a, b, c"
  std::string ToString() const {
    if (count_ == 0) return "";
    const std::string more =
        count_ > kMismatchesNamed ? absl::StrCat(" and ", count_ - kMismatchesNamed, " more") : "";
    return absl::StrCat("; ", count_, " ", kind_, ": ", text_, more);
  }

 private:
  const std::string kind_;
  size_t count_ = 0;
  std::string text_;
};

// Holds the stored weights against the wanted ones, tensor by tensor.
class Matcher {
 public:
  Matcher(const ModelConfig& config, CheckpointPart part, absl::Span<const StoredWeight> stored)
      : config_(config), part_(part), stored_(stored) {}

  absl::StatusOr<WeightMatch> Match(absl::string_view what) {
    Collect();
    const bool stored_head = names_.count(kHeadName) > 0;
    match_.head_is_tied = !stored_head && config_.tie_word_embeddings.value_or(true);
    match_.expert_layouts.assign(static_cast<size_t>(config_.text.num_hidden_layers),
                                 ExpertLayout::kInputMajor);
    if (part_ != CheckpointPart::kVision) {
      for (int64_t i = 0; i < config_.text.num_hidden_layers; ++i) {
        if (config_.text.IsMoeLayer(i)) MatchExperts(i);
      }
    }
    for (const WeightSpec& spec : PublishedWeights(config_, part_, !match_.head_is_tied)) {
      if (handled_.count(spec.name) == 0) Want(spec.name, {spec.shape});
    }
    for (const auto& [name, position] : names_) {
      if (match_.stored.count(name) == 0) extra_.Add(stored_[position].name);
    }
    if (missing_.count() + extra_.count() + misshapen_.count() + mistyped_.count() + repeated_.count() == 0) {
      return std::move(match_);
    }
    return absl::InvalidArgumentError(
        absl::StrCat(what, ": the weights do not match config.json", missing_.ToString(),
                     misshapen_.ToString(), mistyped_.ToString(), extra_.ToString(), repeated_.ToString()));
  }

 private:
  void Collect() {
    for (size_t i = 0; i < stored_.size(); ++i) {
      std::string name = CanonicalName(stored_[i].name);
      if (part_ != CheckpointPart::kWhole && PartOfName(name) != part_) continue;
      const auto [it, inserted] = names_.emplace(std::move(name), i);
      if (!inserted) {
        repeated_.Add(absl::StrCat(it->first, " as ", stored_[it->second].name, " and as ", stored_[i].name));
      }
    }
  }

  // Notes the tensor if it is stored in one of `shapes`.
  void Want(const std::string& name, absl::Span<const Shape> shapes) {
    const auto it = names_.find(name);
    if (it == names_.end()) {
      missing_.Add(name);
      return;
    }
    match_.stored.emplace(name, it->second);
    const StoredWeight& stored = stored_[it->second];
    if (std::find(shapes.begin(), shapes.end(), stored.shape) == shapes.end()) {
      std::string want = shapes[0].ToString();
      if (shapes.size() > 1) absl::StrAppend(&want, " or ", shapes[1].ToString());
      misshapen_.Add(absl::StrCat(stored.name, " is ", stored.shape.ToString(), ", want ", want));
    }
    if (stored.dtype != DType::kF32 && stored.dtype != DType::kF16 && stored.dtype != DType::kBF16) {
      mistyped_.Add(absl::StrCat(stored.name, " is ", Name(stored.dtype)));
    }
  }

  bool HasUnfused(int64_t layer) const {
    const std::string prefix = LayerName(layer, "mlp.experts.");
    const auto it = names_.lower_bound(prefix + "0");
    return it != names_.end() && absl::StartsWith(it->first, prefix) && it->first[prefix.size()] >= '0' &&
           it->first[prefix.size()] <= '9';
  }

  void MatchExperts(int64_t layer) {
    const TextConfig& t = config_.text;
    const int64_t m = t.moe_intermediate_size;
    handled_.insert({GateUpName(layer), DownName(layer)});
    ExpertLayout& layout = match_.expert_layouts[static_cast<size_t>(layer)];
    if (HasUnfused(layer)) {
      layout = ExpertLayout::kUnfused;
      for (int64_t e = 0; e < t.num_experts; ++e) {
        Want(UnfusedExpertName(layer, e, "gate_proj"), {Shape{m, t.hidden_size}});
        Want(UnfusedExpertName(layer, e, "up_proj"), {Shape{m, t.hidden_size}});
        Want(UnfusedExpertName(layer, e, "down_proj"), {Shape{t.hidden_size, m}});
      }
      return;
    }
    const Shape gate_up = {t.num_experts, t.hidden_size, 2 * m};
    const Shape down = {t.num_experts, m, t.hidden_size};
    // A matrix that is square tells nothing; the other one of the layer then decides, and if
    // neither tells anything the layout is the published one.
    const bool swapped = IsStoredAs(GateUpName(layer), Swapped(gate_up), gate_up) ||
                         IsStoredAs(DownName(layer), Swapped(down), down);
    if (swapped) layout = ExpertLayout::kOutputMajor;
    // If the two contradict each other, one of them is reported as misshapen.
    if (swapped) {
      Want(GateUpName(layer), {Swapped(gate_up)});
      Want(DownName(layer), {Swapped(down)});
    } else {
      Want(GateUpName(layer), {gate_up, Swapped(gate_up)});
      Want(DownName(layer), {down, Swapped(down)});
    }
  }

  // Whether the tensor is stored with `shape`, which is not `published`.
  bool IsStoredAs(const std::string& name, const Shape& shape, const Shape& published) const {
    const auto it = names_.find(name);
    return it != names_.end() && stored_[it->second].shape == shape && !(shape == published);
  }

  const ModelConfig& config_;
  const CheckpointPart part_;
  const absl::Span<const StoredWeight> stored_;
  std::map<std::string, size_t> names_;
  std::set<std::string> handled_;
  WeightMatch match_;
  Cases missing_{"missing"}, extra_{"extra"}, misshapen_{"misshapen"}, repeated_{"stored twice"};
  Cases mistyped_{"of a type other than f32, f16, bf16"};
};

}  // namespace

absl::string_view Name(CheckpointPart part) {
  switch (part) {
    case CheckpointPart::kVision:
      return "vision";
    case CheckpointPart::kText:
      return "text";
    case CheckpointPart::kWhole:
      return "whole";
  }
  return "?";
}

std::vector<WeightSpec> PublishedWeights(const ModelConfig& config, CheckpointPart part, bool with_head) {
  std::vector<WeightSpec> weights;
  if (part != CheckpointPart::kText) AddVision(config.vision, &weights);
  if (part != CheckpointPart::kVision) AddText(config.text, with_head, &weights);
  return weights;
}

int64_t CountParameters(absl::Span<const WeightSpec> weights) {
  int64_t count = 0;
  for (const WeightSpec& weight : weights) count += weight.shape.num_elements();
  return count;
}

std::string CanonicalName(absl::string_view stored) {
  static constexpr std::pair<const char*, const char*> kAliases[] = {
      {"visual.", "model.visual."},
      {"language_model.model.", "model.language_model."},
      {"language_model.lm_head.", "lm_head."},
      {"model.layers.", "model.language_model.layers."},
      {"model.embed_tokens.", "model.language_model.embed_tokens."},
      {"model.norm.", "model.language_model.norm."},
  };
  for (const auto& [alias, published] : kAliases) {
    absl::string_view rest = stored;
    if (absl::ConsumePrefix(&rest, alias)) return absl::StrCat(published, rest);
  }
  return std::string(stored);
}

CheckpointPart PartOfName(absl::string_view canonical) {
  return absl::StartsWith(canonical, "model.visual.") ? CheckpointPart::kVision : CheckpointPart::kText;
}

std::string GateUpName(int64_t layer) { return LayerName(layer, "mlp.experts.gate_up_proj"); }
std::string DownName(int64_t layer) { return LayerName(layer, "mlp.experts.down_proj"); }
std::string UnfusedExpertName(int64_t layer, int64_t expert, absl::string_view matrix) {
  return LayerName(layer, absl::StrCat("mlp.experts.", expert, ".", matrix, ".weight"));
}

absl::StatusOr<WeightMatch> MatchWeights(absl::string_view what, const ModelConfig& config,
                                         CheckpointPart part, absl::Span<const StoredWeight> stored) {
  return Matcher(config, part, stored).Match(what);
}

}  // namespace prism
