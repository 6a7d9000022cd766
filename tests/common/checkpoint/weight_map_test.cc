#include "common/checkpoint/weight_map.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <set>

#include "tests/common/checkpoint/test_files.h"

namespace prism {
namespace {

using testing::HasSubstr;

ModelConfig Published(const std::string& size) {
  const auto config = ParseModelConfig({.config = ReadWhole(DataFile(size + ".json"))});
  EXPECT_TRUE(config.ok()) << config.status();
  return *config;
}

ModelConfig Micro(const std::string& name) { return *ReadModelConfig(ModelFolder(name)); }

std::vector<WeightSpec> Whole(const ModelConfig& config) {
  return PublishedWeights(config, CheckpointPart::kWhole, !*config.tie_word_embeddings);
}

std::vector<StoredWeight> AsStored(const std::vector<WeightSpec>& specs) {
  std::vector<StoredWeight> stored;
  for (const WeightSpec& spec : specs) stored.push_back({spec.name, DType::kBF16, spec.shape});
  return stored;
}

StoredWeight& Find(std::vector<StoredWeight>& stored, const std::string& name) {
  const auto it =
      std::find_if(stored.begin(), stored.end(), [&](const StoredWeight& w) { return w.name == name; });
  EXPECT_NE(it, stored.end()) << name;
  return *it;
}

struct Totals {
  const char* size;
  size_t count;
  int64_t parameters;
};

TEST(PublishedWeightsTest, EverySizeHasItsPublishedCountAndParameters) {
  for (const auto& [size, count, parameters] :
       {Totals{"2b", 625, 2127532032}, Totals{"4b", 713, 4437815808}, Totals{"8b", 750, 8767123696},
        Totals{"32b", 1058, 33357390064}, Totals{"30b-a3b", 882, 31070754032},
        Totals{"235b-a22b", 1388, 235670022896}}) {
    const std::vector<WeightSpec> weights = Whole(Published(size));
    EXPECT_EQ(weights.size(), count) << size;
    EXPECT_EQ(CountParameters(weights), parameters) << size;
    std::set<std::string> names;
    for (const WeightSpec& weight : weights) names.insert(weight.name);
    EXPECT_EQ(names.size(), count) << size;
  }
}

TEST(PublishedWeightsTest, TheTwoHalvesMakeTheWhole) {
  const ModelConfig config = Published("30b-a3b");
  const auto vision = PublishedWeights(config, CheckpointPart::kVision, true);
  const auto text = PublishedWeights(config, CheckpointPart::kText, true);
  EXPECT_EQ(vision.size(), 351u);
  EXPECT_EQ(vision.size() + text.size(), 882u);
  for (const WeightSpec& weight : vision) EXPECT_EQ(PartOfName(weight.name), CheckpointPart::kVision);
  for (const WeightSpec& weight : text) EXPECT_EQ(PartOfName(weight.name), CheckpointPart::kText);
}

TEST(PublishedWeightsTest, LayersOfOneModelMayDiffer) {
  ModelConfig config = Micro("moe-micro");
  config.text.mlp_only_layers = {2};
  const auto weights = Whole(config);
  const auto has = [&](const std::string& name) {
    return std::any_of(weights.begin(), weights.end(), [&](const WeightSpec& w) { return w.name == name; });
  };
  EXPECT_TRUE(has(GateUpName(1)));
  EXPECT_FALSE(has(GateUpName(2)));
  EXPECT_TRUE(has("model.language_model.layers.2.mlp.down_proj.weight"));
}

TEST(CanonicalNameTest, EveryAliasLeadsToThePublishedName) {
  EXPECT_EQ(CanonicalName("visual.blocks.0.norm1.weight"), "model.visual.blocks.0.norm1.weight");
  EXPECT_EQ(CanonicalName("model.layers.3.mlp.gate.weight"), "model.language_model.layers.3.mlp.gate.weight");
  EXPECT_EQ(CanonicalName("language_model.model.norm.weight"), "model.language_model.norm.weight");
  EXPECT_EQ(CanonicalName("language_model.lm_head.weight"), "lm_head.weight");
  EXPECT_EQ(CanonicalName("model.embed_tokens.weight"), "model.language_model.embed_tokens.weight");
  EXPECT_EQ(CanonicalName("model.norm.weight"), "model.language_model.norm.weight");
  for (const WeightSpec& weight : Whole(Micro("moe-micro")))
    EXPECT_EQ(CanonicalName(weight.name), weight.name);
}

TEST(MatchWeightsTest, ThePublishedNamesMatch) {
  for (const char* name : {"dense-micro", "moe-micro"}) {
    const ModelConfig config = Micro(name);
    const auto specs = Whole(config);
    const auto match = MatchWeights(name, config, CheckpointPart::kWhole, AsStored(specs));
    ASSERT_TRUE(match.ok()) << match.status();
    EXPECT_EQ(match->stored.size(), specs.size());
    EXPECT_EQ(match->head_is_tied, *config.tie_word_embeddings);
    for (const ExpertLayout layout : match->expert_layouts) EXPECT_EQ(layout, ExpertLayout::kInputMajor);
  }
}

TEST(MatchWeightsTest, AliasesMatch) {
  const ModelConfig config = Micro("moe-micro");
  auto stored = AsStored(Whole(config));
  for (StoredWeight& weight : stored) {
    const std::string prefix = "model.language_model.";
    if (weight.name.substr(0, prefix.size()) == prefix)
      weight.name = "model." + weight.name.substr(prefix.size());
    if (weight.name.substr(0, 13) == "model.visual.") weight.name = weight.name.substr(6);
  }
  EXPECT_TRUE(MatchWeights("m", config, CheckpointPart::kWhole, stored).ok());
}

TEST(MatchWeightsTest, AllMissingExtraMisshapenAndMistypedTensorsAreListedAtOnce) {
  const ModelConfig config = Micro("dense-micro");
  auto stored = AsStored(Whole(config));
  Find(stored, "model.visual.pos_embed.weight").shape = Shape{2304, 127};
  Find(stored, "model.language_model.norm.weight").dtype = DType::kI8;
  Find(stored, "model.visual.merger.norm.bias").name = "model.visual.merger.norm.bais";
  Find(stored, "model.language_model.layers.3.self_attn.k_proj.weight").name = "more";
  stored.push_back({"visual.patch_embed.proj.bias", DType::kBF16, Shape{128}});
  const absl::Status status = MatchWeights("the/folder", config, CheckpointPart::kWhole, stored).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(
      status.message(),
      "the/folder: the weights do not match config.json; 2 missing: model.visual.merger.norm.bias, "
      "model.language_model.layers.3.self_attn.k_proj.weight; 1 misshapen: model.visual.pos_embed.weight is "
      "[2304, 127], want [2304, 128]; 1 of a type other than f32, f16, bf16: "
      "model.language_model.norm.weight is "
      "i8; 2 extra: model.visual.merger.norm.bais, more; 1 stored twice: model.visual.patch_embed.proj.bias "
      "as "
      "model.visual.patch_embed.proj.bias and as visual.patch_embed.proj.bias");
}

TEST(MatchWeightsTest, AListIsCutAfterTwentyNamesAndCounted) {
  const ModelConfig config = Micro("dense-micro");
  const absl::Status status = MatchWeights("m", config, CheckpointPart::kWhole, {}).status();
  EXPECT_THAT(std::string(status.message()), HasSubstr("; 121 missing: "));
  EXPECT_THAT(std::string(status.message()), HasSubstr(" and 101 more"));
  EXPECT_EQ(std::count(status.message().begin(), status.message().end(), ','), 19);
}

TEST(MatchWeightsTest, AHalfLooksAtItsOwnTensorsOnly) {
  const ModelConfig config = Micro("dense-micro");
  auto stored = AsStored(Whole(config));
  Find(stored, "model.language_model.norm.weight").shape = Shape{1};
  stored.push_back({"something.else", DType::kBF16, Shape{1}});
  EXPECT_TRUE(MatchWeights("m", config, CheckpointPart::kVision, stored).ok());
  const absl::Status text = MatchWeights("m", config, CheckpointPart::kText, stored).status();
  EXPECT_EQ(text.message(),
            "m: the weights do not match config.json; 1 misshapen: model.language_model.norm.weight is [1], "
            "want [128]; "
            "1 extra: something.else");
  Find(stored, "model.visual.pos_embed.weight").shape = Shape{1};
  EXPECT_FALSE(MatchWeights("m", config, CheckpointPart::kVision, stored).ok());
}

TEST(MatchWeightsTest, AStoredHeadWinsOverTheTieAndAnUntiedOneMustBeThere) {
  ModelConfig config = Micro("dense-micro");
  auto stored = AsStored(Whole(config));
  EXPECT_TRUE(MatchWeights("m", config, CheckpointPart::kText, stored)->head_is_tied);
  stored.push_back({"lm_head.weight", DType::kBF16, Shape{1024, 128}});
  EXPECT_FALSE(MatchWeights("m", config, CheckpointPart::kText, stored)->head_is_tied);
  stored.pop_back();
  config.tie_word_embeddings = std::nullopt;
  EXPECT_TRUE(MatchWeights("m", config, CheckpointPart::kText, stored)->head_is_tied);
  config.tie_word_embeddings = false;
  EXPECT_THAT(std::string(MatchWeights("m", config, CheckpointPart::kText, stored).status().message()),
              HasSubstr("1 missing: lm_head.weight"));
}

TEST(MatchWeightsTest, OutputMajorExpertsAreFoundByTheirShape) {
  const ModelConfig config = Micro("moe-micro");
  auto stored = AsStored(Whole(config));
  Find(stored, GateUpName(2)).shape = Shape{12, 192, 128};
  Find(stored, DownName(2)).shape = Shape{12, 128, 96};
  const auto match = MatchWeights("m", config, CheckpointPart::kWhole, stored);
  ASSERT_TRUE(match.ok()) << match.status();
  EXPECT_EQ(match->expert_layouts[1], ExpertLayout::kInputMajor);
  EXPECT_EQ(match->expert_layouts[2], ExpertLayout::kOutputMajor);
}

TEST(MatchWeightsTest, TwoLayoutsInOneLayerAreMisshapen) {
  const ModelConfig config = Micro("moe-micro");
  auto stored = AsStored(Whole(config));
  Find(stored, DownName(2)).shape = Shape{12, 128, 96};
  EXPECT_THAT(
      std::string(MatchWeights("m", config, CheckpointPart::kWhole, stored).status().message()),
      HasSubstr("1 misshapen: model.language_model.layers.2.mlp.experts.gate_up_proj is [12, 128, 192], want "
                "[12, 192, 128]"));
  Find(stored, DownName(2)).shape = Shape{12, 96, 127};
  EXPECT_THAT(std::string(MatchWeights("m", config, CheckpointPart::kWhole, stored).status().message()),
              HasSubstr("down_proj is [12, 96, 127], want [12, 96, 128] or [12, 128, 96]"));
}

TEST(MatchWeightsTest, ASquareMatrixLeavesTheLayoutToTheOther) {
  ModelConfig config = Micro("moe-micro");
  config.text.moe_intermediate_size = 64;  // gate_up is [12, 128, 128] either way
  auto stored = AsStored(Whole(config));
  EXPECT_EQ(MatchWeights("m", config, CheckpointPart::kText, stored)->expert_layouts[0],
            ExpertLayout::kInputMajor);
  Find(stored, DownName(0)).shape = Shape{12, 128, 64};
  EXPECT_EQ(MatchWeights("m", config, CheckpointPart::kText, stored)->expert_layouts[0],
            ExpertLayout::kOutputMajor);
}

TEST(MatchWeightsTest, UnfusedExpertsAreFoundAndTheirGapsListed) {
  const ModelConfig config = Micro("moe-micro");
  auto stored = AsStored(Whole(config));
  stored.erase(
      std::remove_if(stored.begin(), stored.end(),
                     [](const StoredWeight& w) { return w.name == GateUpName(1) || w.name == DownName(1); }),
      stored.end());
  for (int64_t e = 0; e < 12; ++e) {
    stored.push_back({UnfusedExpertName(1, e, "gate_proj"), DType::kBF16, Shape{96, 128}});
    stored.push_back({UnfusedExpertName(1, e, "up_proj"), DType::kBF16, Shape{96, 128}});
    stored.push_back({UnfusedExpertName(1, e, "down_proj"), DType::kBF16, Shape{128, 96}});
  }
  const auto match = MatchWeights("m", config, CheckpointPart::kWhole, stored);
  ASSERT_TRUE(match.ok()) << match.status();
  EXPECT_EQ(match->expert_layouts[1], ExpertLayout::kUnfused);
  stored.pop_back();
  EXPECT_THAT(std::string(MatchWeights("m", config, CheckpointPart::kWhole, stored).status().message()),
              HasSubstr("1 missing: model.language_model.layers.1.mlp.experts.11.down_proj.weight"));
}

}  // namespace
}  // namespace prism
