#include "common/checkpoint/model_config.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>

#include "nlohmann/json.hpp"
#include "tests/common/checkpoint/test_files.h"

namespace prism {
namespace {

using Json = nlohmann::json;
using testing::ElementsAre;
using testing::HasSubstr;

Json Published(const std::string& size) { return Json::parse(ReadWhole(DataFile(size + ".json"))); }

absl::StatusOr<ModelConfig> Parse(const Json& config) { return ParseModelConfig({.config = config.dump()}); }

TEST(ModelNameTest, IsTheLastPartOfTheFoldersPath) {
  EXPECT_EQ(ModelNameOf("models/demo"), "demo");
  EXPECT_EQ(ModelNameOf("demo"), "demo");
  EXPECT_EQ(ModelNameOf("/models/Qwen3-VL-2B-Instruct//"), "Qwen3-VL-2B-Instruct");
  EXPECT_EQ(ModelNameOf("models/old/../new/."), "new");
  EXPECT_EQ(ModelNameOf("."), std::filesystem::current_path().filename().string());
}

TEST(ModelConfigTest, ReadsAPublishedMixtureOfExperts) {
  const auto config = Parse(Published("30b-a3b"));
  ASSERT_TRUE(config.ok()) << config.status();
  const TextConfig& t = config->text;
  EXPECT_EQ(config->model_type, "qwen3_vl_moe");
  EXPECT_EQ(t.vocab_size, 151936);
  EXPECT_EQ(t.hidden_size, 2048);
  EXPECT_EQ(t.num_hidden_layers, 48);
  EXPECT_EQ(t.num_attention_heads, 32);
  EXPECT_EQ(t.num_key_value_heads, 4);
  EXPECT_EQ(t.head_dim, 128);
  EXPECT_EQ(t.q_size(), 4096);
  EXPECT_EQ(t.kv_size(), 512);
  EXPECT_EQ(t.num_experts, 128);
  EXPECT_EQ(t.num_experts_per_tok, 8);
  EXPECT_EQ(t.moe_intermediate_size, 768);
  EXPECT_EQ(t.rope_theta, 5e6);
  EXPECT_EQ(t.rms_norm_eps, 1e-6);
  EXPECT_THAT(t.mrope_section, ElementsAre(24, 20, 20));
  EXPECT_EQ(t.max_position_embeddings, 262144);
  const VisionConfig& v = config->vision;
  EXPECT_EQ(v.depth, 27);
  EXPECT_EQ(v.head_dim(), 72);
  EXPECT_EQ(v.patch_elements(), 1536);
  EXPECT_EQ(v.position_grid(), 48);
  EXPECT_EQ(v.merge_area(), 4);
  EXPECT_THAT(v.deepstack_visual_indexes, ElementsAre(8, 16, 24));
  EXPECT_EQ(config->image_token_id, 151655);
  EXPECT_EQ(config->video_token_id, 151656);
  EXPECT_EQ(config->vision_start_token_id, 151652);
  EXPECT_EQ(config->vision_end_token_id, 151653);
  EXPECT_EQ(config->tie_word_embeddings, false);
  EXPECT_THAT(config->eos_token_ids, ElementsAre(151645));
  EXPECT_EQ(config->bos_token_id, 151643);
  for (int64_t layer = 0; layer < 48; ++layer) EXPECT_TRUE(t.IsMoeLayer(layer));
}

TEST(ModelConfigTest, ReadsEveryPublishedSize) {
  for (const char* size : {"2b", "4b", "8b", "32b", "30b-a3b", "235b-a22b"}) {
    const auto config = Parse(Published(size));
    ASSERT_TRUE(config.ok()) << size << ": " << config.status();
    EXPECT_EQ(config->text.head_dim, 128) << size;
    EXPECT_FALSE(config->text.num_experts == 0 && config->text.IsMoeLayer(0)) << size;
  }
}

TEST(ModelConfigTest, ReadsTheFilesThatTransformersFiveWrites) {
  const auto moe = ReadModelConfig(ModelFolder("moe-micro"));
  ASSERT_TRUE(moe.ok()) << moe.status();
  EXPECT_EQ(moe->text.num_experts, 12);  // num_local_experts
  EXPECT_EQ(moe->text.rope_theta, 5e6);  // rope_parameters
  EXPECT_EQ(moe->tie_word_embeddings, false);
  EXPECT_THAT(moe->eos_token_ids, ElementsAre(1006, 1004));
  EXPECT_EQ(moe->pad_token_id, 1004);
  EXPECT_TRUE(moe->generation.do_sample);
  EXPECT_EQ(moe->generation.temperature, 0.7);
  EXPECT_EQ(moe->generation.top_p, 0.8);
  EXPECT_EQ(moe->generation.top_k, 20);
  EXPECT_EQ(moe->generation.repetition_penalty, 1.0);
  EXPECT_EQ(moe->image.min_pixels, 65536);
  EXPECT_EQ(moe->image.max_pixels, 16777216);
  EXPECT_EQ(moe->video.min_pixels, 4096);  // processor_config.json["video_processor"]
  EXPECT_EQ(moe->video.max_pixels, 25165824);
  EXPECT_EQ(moe->video_sampling.max_frames, 768);
  const auto dense = ReadModelConfig(ModelFolder("dense-micro"));
  ASSERT_TRUE(dense.ok()) << dense.status();
  EXPECT_EQ(dense->tie_word_embeddings, true);
  EXPECT_EQ(dense->text.num_key_value_heads, 1);
  EXPECT_THAT(dense->vision.deepstack_visual_indexes, ElementsAre(0, 1, 2));
}

TEST(ModelConfigTest, BothSpellingsOfRotaryAndExpertsMeanTheSame) {
  Json old_spelling = Published("30b-a3b");
  Json new_spelling = old_spelling;
  Json& text = new_spelling["text_config"];
  text["rope_parameters"] = text["rope_scaling"];
  text["rope_parameters"]["rope_theta"] = text["rope_theta"];
  text.erase("rope_scaling");
  text.erase("rope_theta");
  text["num_local_experts"] = text["num_experts"];
  text.erase("num_experts");
  new_spelling["vision_config"]["rope_parameters"] = {{"rope_theta", 10000.0}, {"rope_type", "axial"}};
  const auto a = Parse(old_spelling);
  const auto b = Parse(new_spelling);
  ASSERT_TRUE(a.ok() && b.ok()) << b.status();
  EXPECT_EQ(a->text.rope_theta, b->text.rope_theta);
  EXPECT_EQ(a->text.num_experts, b->text.num_experts);
  EXPECT_EQ(a->text.mrope_section, b->text.mrope_section);
}

TEST(ModelConfigTest, RotaryTypeMayBeCalledTypeOrMropeOrBeAbsent) {
  Json config = Published("8b");
  Json& rope = config["text_config"]["rope_scaling"];
  rope.erase("rope_type");
  EXPECT_TRUE(Parse(config).ok());
  rope["type"] = "mrope";
  EXPECT_TRUE(Parse(config).ok());
  config["text_config"].erase("rope_scaling");
  ASSERT_TRUE(Parse(config).ok());
  EXPECT_THAT(Parse(config)->text.mrope_section, ElementsAre(24, 20, 20));
  config["text_config"].erase("rope_theta");
  EXPECT_EQ(Parse(config)->text.rope_theta, 500000.0);
  config["text_config"].erase("head_dim");
  EXPECT_EQ(Parse(config)->text.head_dim, 128);
}

TEST(ModelConfigTest, TheTopLevelTieWinsOverTheTextOne) {
  Json config = Published("30b-a3b");
  config["text_config"]["tie_word_embeddings"] = true;
  EXPECT_EQ(Parse(config)->tie_word_embeddings, false);
  config.erase("tie_word_embeddings");
  EXPECT_EQ(Parse(config)->tie_word_embeddings, std::nullopt);
}

TEST(ModelConfigTest, DenseLayersAmongMixturesFollowTheListAndTheStep) {
  Json config = Published("30b-a3b");
  config["text_config"]["mlp_only_layers"] = {1, 5};
  config["text_config"]["decoder_sparse_step"] = 2;
  const auto parsed = Parse(config);
  ASSERT_TRUE(parsed.ok()) << parsed.status();
  std::vector<int64_t> mixtures;
  for (int64_t i = 0; i < 8; ++i) {
    if (parsed->text.IsMoeLayer(i)) mixtures.push_back(i);
  }
  EXPECT_THAT(mixtures, ElementsAre(3, 7));
}

// ---- What is refused -------------------------------------------------------------------------

struct Refusal {
  std::string size;
  std::string pointer;  // where in config.json
  Json value;           // null removes the field
  std::string message;
  absl::StatusCode code = absl::StatusCode::kInvalidArgument;
};

void PrintTo(const Refusal& refusal, std::ostream* out) { *out << refusal.pointer << " " << refusal.value; }

class RefusedConfigTest : public testing::TestWithParam<Refusal> {};

TEST_P(RefusedConfigTest, NamesTheFieldTheValueAndTheBound) {
  const Refusal& refusal = GetParam();
  Json config = Published(refusal.size);
  const Json::json_pointer pointer(refusal.pointer);
  if (refusal.value.is_null()) {
    config[pointer.parent_pointer()].erase(pointer.back());
  } else {
    config[pointer] = refusal.value;
  }
  const auto parsed = Parse(config);
  ASSERT_FALSE(parsed.ok());
  EXPECT_EQ(parsed.status().code(), refusal.code);
  EXPECT_EQ(parsed.status().message(), refusal.message);
}

constexpr auto kUnimplemented = absl::StatusCode::kUnimplemented;

INSTANTIATE_TEST_SUITE_P(
    Contradictions, RefusedConfigTest,
    testing::Values(
        Refusal{
            "30b-a3b", "/text_config/num_key_value_heads", 5,
            "config.json: text_config.num_attention_heads is 32, want a multiple of num_key_value_heads 5"},
        Refusal{"8b", "/vision_config/out_hidden_size", 2048,
                "config.json: vision_config.out_hidden_size is 2048, want text_config.hidden_size 4096"},
        Refusal{
            "8b",
            "/text_config/rope_scaling/mrope_section",
            {24, 20, 21},
            "config.json: text_config.rope_scaling.mrope_section is [24, 20, 21], twice its sum is 130, want "
            "head_dim 128"},
        Refusal{"8b",
                "/text_config/rope_scaling/mrope_section",
                {24, 40},
                "config.json: text_config.rope_scaling.mrope_section has 2 numbers, want 3"},
        Refusal{"8b",
                "/text_config/rope_scaling/mrope_section",
                {14, 25, 25},
                "config.json: text_config.rope_scaling.mrope_section is [14, 25, 25], want height and width "
                "of at most "
                "21 so that they interleave within 64 pairs"},
        Refusal{"8b", "/vision_config/num_heads", 5,
                "config.json: vision_config.hidden_size is 1152, want a multiple of num_heads 5"},
        Refusal{"8b", "/vision_config/num_heads", 64,
                "config.json: vision_config.hidden_size / num_heads is 18, want a multiple of 4: rotary "
                "halves for height "
                "and width"},
        Refusal{"8b",
                "/vision_config/deepstack_visual_indexes",
                {8, 16, 27},
                "config.json: vision_config.deepstack_visual_indexes is 27, want an integer in [0, 26]"},
        Refusal{"8b",
                "/vision_config/deepstack_visual_indexes",
                {8, 24, 16},
                "config.json: vision_config.deepstack_visual_indexes is [8, 24, 16], want ascending numbers"},
        Refusal{"8b", "/text_config/num_hidden_layers", 2,
                "config.json: vision_config.deepstack_visual_indexes has 3 numbers, want at most "
                "num_hidden_layers 2"},
        Refusal{"30b-a3b", "/text_config/num_experts_per_tok", 129,
                "config.json: text_config.num_experts_per_tok is 129, want at most num_experts 128"},
        Refusal{"30b-a3b", "/text_config/num_local_experts", 64,
                "config.json: text_config.num_experts is 128 but num_local_experts is 64"},
        Refusal{
            "30b-a3b", "/text_config/num_experts", nullptr,
            "config.json: text_config.num_experts is missing or 0, want at least 1 in a qwen3_vl_moe model"},
        Refusal{"8b", "/text_config/num_experts", 4,
                "config.json: text_config.num_experts is 4, want 0 in a qwen3_vl model"},
        Refusal{"30b-a3b",
                "/text_config/mlp_only_layers",
                {48},
                "config.json: text_config.mlp_only_layers is 48, want an integer in [0, 47]"},
        Refusal{"8b", "/vision_config/num_position_embeddings", 2305,
                "config.json: vision_config.num_position_embeddings is 2305, want a square number"},
        Refusal{"8b",
                "/text_config/rope_parameters",
                {{"rope_theta", 1e6}, {"mrope_section", {24, 20, 20}}},
                "config.json: text_config.rope_theta is 5e+06 but rope_parameters.rope_theta is 1e+06"},
        Refusal{"8b", "/video_token_id", 151655,
                "config.json: video_token_id is 151655, which is image_token_id too"},
        Refusal{"8b", "/image_token_id", 151936,
                "config.json: image_token_id is 151936, want an integer in [0, 151935]"}));

INSTANTIATE_TEST_SUITE_P(
    Sizes, RefusedConfigTest,
    testing::Values(
        Refusal{"8b", "/text_config/hidden_size", 0,
                "config.json: text_config.hidden_size is 0, want an integer in [1, 131072]"},
        Refusal{"8b", "/text_config/hidden_size", -4096,
                "config.json: text_config.hidden_size is -4096, want an integer in [1, 131072]"},
        Refusal{
            "8b", "/text_config/hidden_size", 18446744073709551615u,
            "config.json: text_config.hidden_size is 18446744073709551615, want an integer in [1, 131072]"},
        Refusal{"8b", "/text_config/hidden_size", 4096.5,
                "config.json: text_config.hidden_size is 4096.5, want an integer in [1, 131072]"},
        Refusal{"8b", "/text_config/hidden_size", "4096",
                "config.json: text_config.hidden_size is \"4096\", want an integer in [1, 131072]"},
        Refusal{"8b", "/text_config/hidden_size", nullptr, "config.json: text_config.hidden_size is missing"},
        Refusal{"8b", "/text_config/vocab_size", 1 << 30,
                "config.json: text_config.vocab_size is 1073741824, want an integer in [1, 16777216]"},
        Refusal{"8b", "/text_config/num_hidden_layers", 1025,
                "config.json: text_config.num_hidden_layers is 1025, want an integer in [1, 1024]"},
        Refusal{"8b", "/text_config/head_dim", 127,
                "config.json: text_config.head_dim is 127, want an even number"},
        Refusal{"8b", "/text_config/num_attention_heads", 0,
                "config.json: text_config.num_attention_heads is 0, want an integer in [1, 1024]"},
        Refusal{"8b", "/text_config/num_key_value_heads", 0,
                "config.json: text_config.num_key_value_heads is 0, want an integer in [1, 1024]"},
        Refusal{"8b", "/text_config/rms_norm_eps", 0,
                "config.json: text_config.rms_norm_eps is 0, want a number in (0, 0.1]"},
        Refusal{"8b", "/vision_config/depth", 0,
                "config.json: vision_config.depth is 0, want an integer in [1, 1024]"},
        Refusal{"8b", "/vision_config/num_heads", 0,
                "config.json: vision_config.num_heads is 0, want an integer in [1, 1024]"},
        Refusal{"8b", "/vision_config/patch_size", 1 << 20,
                "config.json: vision_config.patch_size is 1048576, want an integer in [1, 64]"},
        Refusal{"8b", "/vision_config/in_channels", 4,
                "config.json: vision_config.in_channels is 4, want an integer in [3, 3]"},
        Refusal{"8b", "/vision_config", 3, "config.json: vision_config is 3, want an object"},
        Refusal{"8b", "/text_config", nullptr, "config.json: text_config is missing"}));

INSTANTIATE_TEST_SUITE_P(
    NotSupported, RefusedConfigTest,
    testing::Values(
        Refusal{"8b", "/model_type", "llama",
                "config.json: model_type is \"llama\", want \"qwen3_vl\" or \"qwen3_vl_moe\"",
                kUnimplemented},
        Refusal{"8b", "/text_config/hidden_act", "gelu",
                "config.json: text_config.hidden_act is \"gelu\", want \"silu\"", kUnimplemented},
        Refusal{"8b", "/vision_config/hidden_act", "silu",
                "config.json: vision_config.hidden_act is \"silu\", want \"gelu_pytorch_tanh\"",
                kUnimplemented},
        Refusal{"8b", "/text_config/attention_bias", true,
                "config.json: text_config.attention_bias is true, want false", kUnimplemented},
        Refusal{"8b", "/text_config/rope_scaling/rope_type", "yarn",
                "config.json: text_config.rope_scaling.rope_type is \"yarn\"; scaled rotary positions are "
                "not supported, "
                "want \"default\"",
                kUnimplemented},
        Refusal{"8b", "/text_config/rope_scaling/mrope_interleaved", false,
                "config.json: text_config.rope_scaling.mrope_interleaved is false; only the interleaved "
                "layout is "
                "supported",
                kUnimplemented},
        Refusal{"8b",
                "/quantization_config",
                {{"quant_method", "fp8"}},
                "config.json: quantization_config has method \"fp8\"; quantised checkpoints are not "
                "supported, want f32, "
                "f16 or bf16",
                kUnimplemented},
        Refusal{
            "8b",
            "/text_config/quantization_config",
            {{"quant_method", "awq"}},
            "config.json: text_config.quantization_config has method \"awq\"; quantised checkpoints are not "
            "supported, want f32, f16 or bf16",
            kUnimplemented}));

TEST(ModelConfigTest, RefusesWhatIsNotJson) {
  EXPECT_EQ(ParseModelConfig({.config = "{"}).status().message(), "config.json: not well-formed JSON");
  EXPECT_EQ(ParseModelConfig({.config = "[1]"}).status().message(), "config.json: not a JSON object");
  EXPECT_EQ(ParseModelConfig({.config = std::string(200000, '[')}).status().message(),
            "config.json: not well-formed JSON");
  // Nesting costs the parser no stack.
  EXPECT_EQ(
      ParseModelConfig({.config = std::string(200000, '[') + std::string(200000, ']')}).status().message(),
      "config.json: not a JSON object");
}

TEST(ModelConfigTest, AMessageRepeatsOnlyTheBeginningOfAValue) {
  Json config = Published("8b");
  config["text_config"]["hidden_size"] = std::string(100000, 'x');
  EXPECT_LT(Parse(config).status().message().size(), 300u);
}

// ---- The other files -------------------------------------------------------------------------

absl::StatusOr<ModelConfig> WithGeneration(const Json& generation) {
  return ParseModelConfig({.config = Published("8b").dump(), .generation = generation.dump()});
}

TEST(ModelConfigTest, TheGenerationFileDecidesWhatEndsAText) {
  EXPECT_THAT(WithGeneration({{"eos_token_id", {151645, 151643, 151645}}})->eos_token_ids,
              ElementsAre(151645, 151643));
  EXPECT_THAT(WithGeneration({{"eos_token_id", 7}})->eos_token_ids, ElementsAre(7));
  EXPECT_THAT(WithGeneration(Json::object())->eos_token_ids, ElementsAre(151645));
  EXPECT_EQ(WithGeneration({{"eos_token_id", 151936}}).status().message(),
            "generation_config.json: eos_token_id is 151936, want an integer in [0, 151935]");
  Json silent = Published("8b");
  silent["text_config"].erase("eos_token_id");
  EXPECT_THAT(std::string(Parse(silent).status().message()), HasSubstr("no id ends a text"));
}

TEST(ModelConfigTest, GenerationDefaultsAreBounded) {
  EXPECT_EQ(WithGeneration({{"temperature", -1}}).status().message(),
            "generation_config.json: temperature is -1, want a number in [0, 100]");
  EXPECT_EQ(WithGeneration({{"top_p", 0}}).status().message(),
            "generation_config.json: top_p is 0, want a number in (0, 1]");
  EXPECT_EQ(WithGeneration({{"top_p", 1.5}}).status().message(),
            "generation_config.json: top_p is 1.5, want a number in (0, 1]");
  EXPECT_EQ(WithGeneration({{"top_k", -2}}).status().message(),
            "generation_config.json: top_k is -2, want an integer in [-1, 16777216]");
  EXPECT_EQ(WithGeneration({{"top_k", -1}})->generation.top_k, 0);
  EXPECT_EQ(WithGeneration({{"do_sample", 1}}).status().message(),
            "generation_config.json: do_sample is 1, want true or false");
}

absl::StatusOr<ModelConfig> WithPreprocessor(const Json& preprocessor) {
  return ParseModelConfig({.config = Published("8b").dump(), .preprocessor = preprocessor.dump()});
}

TEST(ModelConfigTest, TheProcessorMustAgreeWithTheTower) {
  EXPECT_EQ(WithPreprocessor({{"patch_size", 14}}).status().message(),
            "preprocessor_config.json: patch_size is 14 but vision_config has 16");
  EXPECT_EQ(WithPreprocessor({{"merge_size", 4}}).status().message(),
            "preprocessor_config.json: merge_size is 4 but vision_config has 2");
  EXPECT_EQ(WithPreprocessor({{"temporal_patch_size", 1}}).status().message(),
            "preprocessor_config.json: temporal_patch_size is 1 but vision_config has 2");
  EXPECT_EQ(WithPreprocessor({{"image_mean", {0.48, 0.5, 0.5}}}).status().message(),
            "preprocessor_config.json: image_mean is [0.48,0.5,0.5], want [0.5, 0.5, 0.5]");
  EXPECT_EQ(WithPreprocessor({{"size", {{"shortest_edge", 100}, {"longest_edge", 10}}}}).status().message(),
            "preprocessor_config.json: size has min_pixels 100 above max_pixels 10");
}

TEST(ModelConfigTest, PixelBoundsHaveTwoSpellingsAndADefault) {
  EXPECT_EQ(Parse(Published("8b"))->image.max_pixels, 16777216);
  EXPECT_EQ(WithPreprocessor({{"size", {{"shortest_edge", 5}, {"longest_edge", 10}}}})->image.min_pixels, 5);
  EXPECT_EQ(WithPreprocessor({{"min_pixels", 6}, {"max_pixels", 10}})->image.max_pixels, 10);
  const auto nested = ParseModelConfig({.config = Published("8b").dump(),
                                        .processor = R"({"image_processor": {"size": {"longest_edge": 70000}},
                                                         "video_processor": {"fps": 4, "min_frames": 2}})"});
  ASSERT_TRUE(nested.ok()) << nested.status();
  EXPECT_EQ(nested->image.max_pixels, 70000);
  EXPECT_EQ(nested->video_sampling.fps, 4);
  EXPECT_EQ(nested->video_sampling.min_frames, 2);
}

// ---- The folder ------------------------------------------------------------------------------

TEST(ReadModelConfigTest, AnUnknownFolderAndAMissingFileAreNotFound) {
  const ScratchFolder folder;
  const absl::Status absent = ReadModelConfig(folder.File("absent")).status();
  EXPECT_EQ(absent.code(), absl::StatusCode::kNotFound);
  EXPECT_EQ(absent.message(),
            absl::StrCat("model folder ", folder.File("absent"), ": No such file or directory"));
  const absl::Status empty = ReadModelConfig(folder.path()).status();
  EXPECT_EQ(empty.code(), absl::StatusCode::kNotFound);
  EXPECT_EQ(empty.message(), absl::StrCat(folder.File("config.json"), ": No such file or directory"));
  folder.Write("file", "x");
  EXPECT_EQ(ReadModelConfig(folder.File("file")).status().code(), absl::StatusCode::kInvalidArgument);
}

TEST(ReadModelConfigTest, AnErrorNamesTheFolder) {
  const ScratchFolder folder;
  folder.Write("config.json", "{}");
  EXPECT_THAT(std::string(ReadModelConfig(folder.path()).status().message()),
              testing::StartsWith(folder.File("config.json: model_type is \"\"")));
}

TEST(ReadModelConfigTest, RefusesFilesThatAreTooLargeOrNotFiles) {
  const ScratchFolder folder;
  folder.Write("config.json", std::string(static_cast<size_t>(kConfigFileBytesMax) + 1, ' '));
  EXPECT_EQ(ReadModelConfig(folder.path()).status().message(),
            absl::StrCat(folder.File("config.json"), ": 16777217 bytes, want at most 16777216"));
  std::filesystem::remove(folder.File("config.json"));
  ASSERT_EQ(mkfifo(folder.File("config.json").c_str(), 0600), 0);
  EXPECT_EQ(ReadModelConfig(folder.path()).status().message(),
            absl::StrCat(folder.File("config.json"), ": not a regular file"));
}

}  // namespace
}  // namespace prism
