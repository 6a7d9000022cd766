#include "common/checkpoint/checkpoint.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <functional>
#include <map>
#include <thread>

#include "tests/common/checkpoint/test_files.h"

namespace prism {
namespace {

using testing::HasSubstr;

std::unique_ptr<Checkpoint> OpenOrDie(const std::string& folder, const CheckpointOptions& options = {}) {
  auto checkpoint = Checkpoint::Open(folder, options);
  EXPECT_TRUE(checkpoint.ok()) << checkpoint.status();
  return checkpoint.ok() ? *std::move(checkpoint) : nullptr;
}

std::unique_ptr<Checkpoint> Synthetic(const std::string& model,
                                      CheckpointPart part = CheckpointPart::kWhole) {
  return OpenOrDie(ModelFolder(model), {.format = LoadFormat::kSynthetic, .part = part});
}

std::string BytesOf(const TensorView& view) {
  return std::string(static_cast<const char*>(view.raw()), static_cast<size_t>(view.size_bytes()));
}
std::string BytesOf(const absl::StatusOr<LoadedTensor>& tensor) {
  EXPECT_TRUE(tensor.ok()) << tensor.status();
  return tensor.ok() ? BytesOf(tensor->view()) : "";
}

// All tensors of a model as a folder would store them.
std::map<std::string, TensorToWrite> AllTensors(const Checkpoint& from) {
  std::map<std::string, TensorToWrite> tensors;
  for (const WeightSpec& spec : from.weights()) {
    const auto tensor = from.Get(spec.name);
    EXPECT_TRUE(tensor.ok()) << tensor.status();
    tensors[spec.name] = ToWrite(spec.name, tensor->view());
  }
  return tensors;
}

std::vector<TensorToWrite> Values(const std::map<std::string, TensorToWrite>& tensors) {
  std::vector<TensorToWrite> values;
  for (const auto& [name, tensor] : tensors) values.push_back(tensor);
  return values;
}

void CopyConfig(const std::string& model, const ScratchFolder& folder) {
  for (const char* file : {"config.json", "generation_config.json", "preprocessor_config.json"}) {
    std::filesystem::copy(ModelFolder(model) + "/" + file, folder.File(file));
  }
}

// [out, in] as published [in, out], element by element.
std::string TransposedBytes(const std::string& bytes, int64_t rows, int64_t columns, int64_t size) {
  std::string out(bytes.size(), '\0');
  for (int64_t r = 0; r < rows; ++r) {
    for (int64_t c = 0; c < columns; ++c) {
      std::memcpy(&out[static_cast<size_t>((c * rows + r) * size)],
                  &bytes[static_cast<size_t>((r * columns + c) * size)], static_cast<size_t>(size));
    }
  }
  return out;
}

TEST(LoadFormatTest, IsReadByName) {
  EXPECT_EQ(*ParseLoadFormat("auto"), LoadFormat::kAuto);
  EXPECT_EQ(*ParseLoadFormat("safetensors"), LoadFormat::kSafetensors);
  EXPECT_EQ(*ParseLoadFormat("synthetic"), LoadFormat::kSynthetic);
  EXPECT_EQ(ParseLoadFormat("dummy").status().message(),
            "load format is \"dummy\", want \"auto\", \"safetensors\" or \"synthetic\"");
}

// ---- Opening ---------------------------------------------------------------------------------

TEST(CheckpointTest, AFolderWithoutWeightsIsNotFound) {
  const ScratchFolder folder;
  CopyConfig("dense-micro", folder);
  const absl::Status status = Checkpoint::Open(folder.path()).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kNotFound);
  EXPECT_EQ(
      status.message(),
      absl::StrCat(folder.path(),
                   ": no weights: neither model.safetensors nor model.safetensors.index.json is there"));
  EXPECT_EQ(Checkpoint::Open(folder.File("none")).status().code(), absl::StatusCode::kNotFound);
}

TEST(CheckpointTest, StoredWeightsAreMappedAndEqualWhatWasWritten) {
  const ScratchFolder folder;
  CopyConfig("moe-micro", folder);
  const auto tensors = AllTensors(*Synthetic("moe-micro"));
  folder.Write("model.safetensors", SafetensorsImage(Values(tensors)));
  const auto checkpoint = OpenOrDie(folder.path());
  ASSERT_NE(checkpoint, nullptr);
  EXPECT_FALSE(checkpoint->synthetic());
  EXPECT_EQ(checkpoint->weights().size(), 116u);
  for (const auto& [name, tensor] : tensors) {
    auto loaded = checkpoint->Get(name);
    EXPECT_EQ(BytesOf(loaded), tensor.bytes) << name;
    EXPECT_FALSE(loaded->owned()) << name;
    checkpoint->Release(*std::move(loaded));
    EXPECT_EQ(BytesOf(checkpoint->Get(name)), tensor.bytes) << name << " after release";
  }
  EXPECT_EQ(checkpoint->Get("nothing").status().message(),
            absl::StrCat(folder.path(), ": no tensor nothing in the whole checkpoint"));
}

TEST(CheckpointTest, ShardsAreReadThroughTheirIndexAndAHalfOpensOnlyItsOwn) {
  const ScratchFolder folder;
  CopyConfig("dense-micro", folder);
  const auto tensors = AllTensors(*Synthetic("dense-micro"));
  std::vector<TensorToWrite> vision, text;
  std::string map;
  for (const auto& [name, tensor] : tensors) {
    const bool is_vision = PartOfName(name) == CheckpointPart::kVision;
    (is_vision ? vision : text).push_back(tensor);
    absl::StrAppend(&map, map.empty() ? "" : ",", "\"", name, "\":\"", is_vision ? "a" : "b",
                    ".safetensors\"");
  }
  folder.Write("a.safetensors", SafetensorsImage(vision));
  folder.Write("model.safetensors.index.json", absl::StrCat("{\"weight_map\":{", map, "}}"));
  const absl::Status absent = Checkpoint::Open(folder.path()).status();
  EXPECT_EQ(absent.code(), absl::StatusCode::kNotFound);
  EXPECT_EQ(absent.message(), absl::StrCat(folder.path(),
                                           ": 1 of 2 files that model.safetensors.index.json names are not "
                                           "there: b.safetensors"));
  const auto half = OpenOrDie(folder.path(), {.part = CheckpointPart::kVision});
  ASSERT_NE(half, nullptr);
  EXPECT_EQ(BytesOf(half->Get("model.visual.pos_embed.weight")),
            tensors.at("model.visual.pos_embed.weight").bytes);
  EXPECT_EQ(half->Get("model.language_model.norm.weight").status().code(), absl::StatusCode::kNotFound);
  folder.Write("b.safetensors", SafetensorsImage(text));
  const auto whole = OpenOrDie(folder.path());
  ASSERT_NE(whole, nullptr);
  for (const auto& [name, tensor] : tensors) EXPECT_EQ(BytesOf(whole->Get(name)), tensor.bytes) << name;
}

TEST(CheckpointTest, AnIndexThatPlacesATensorWhereItIsNotReportsItMissing) {
  const ScratchFolder folder;
  CopyConfig("dense-micro", folder);
  auto tensors = AllTensors(*Synthetic("dense-micro"));
  std::string map;
  for (const auto& [name, tensor] : tensors) {
    absl::StrAppend(&map, map.empty() ? "" : ",", "\"", name, "\":\"a.safetensors\"");
  }
  tensors.erase("model.visual.merger.norm.bias");
  folder.Write("a.safetensors", SafetensorsImage(Values(tensors)));
  folder.Write("model.safetensors.index.json", absl::StrCat("{\"weight_map\":{", map, "}}"));
  EXPECT_EQ(Checkpoint::Open(folder.path()).status().message(),
            absl::StrCat(folder.path(),
                         ": the weights do not match config.json; 1 missing: model.visual.merger.norm.bias"));
}

TEST(CheckpointTest, MismatchesAreListedTogetherAndPerHalf) {
  const ScratchFolder folder;
  CopyConfig("dense-micro", folder);
  auto tensors = AllTensors(*Synthetic("dense-micro"));
  tensors.erase("model.visual.pos_embed.weight");
  tensors["model.language_model.norm.weight"].shape = {64, 2};
  tensors["odd"] = {"odd", "F32", {1}, "1234"};
  folder.Write("model.safetensors", SafetensorsImage(Values(tensors)));
  EXPECT_EQ(
      Checkpoint::Open(folder.path()).status().message(),
      absl::StrCat(
          folder.path(),
          ": the weights do not match config.json; 1 missing: model.visual.pos_embed.weight; 1 misshapen: "
          "model.language_model.norm.weight is [64, 2], want [128]; 1 extra: odd"));
  EXPECT_EQ(Checkpoint::Open(folder.path(), {.part = CheckpointPart::kVision}).status().message(),
            absl::StrCat(folder.path(),
                         ": the weights do not match config.json; 1 missing: model.visual.pos_embed.weight"));
}

// ---- Pieces ----------------------------------------------------------------------------------

class PiecesTest : public testing::TestWithParam<bool> {
 protected:
  void SetUp() override {
    synthetic_ = Synthetic("moe-micro");
    if (GetParam()) {
      checkpoint_ = Synthetic("moe-micro");
      return;
    }
    CopyConfig("moe-micro", folder_);
    folder_.Write("model.safetensors", SafetensorsImage(Values(AllTensors(*synthetic_))));
    checkpoint_ = OpenOrDie(folder_.path());
  }
  const ScratchFolder folder_;
  std::unique_ptr<Checkpoint> synthetic_, checkpoint_;
};

constexpr char kQ[] = "model.language_model.layers.1.self_attn.q_proj.weight";  // [512, 128]
constexpr char kO[] = "model.language_model.layers.1.self_attn.o_proj.weight";  // [128, 512]

TEST_P(PiecesTest, RowsAreThePieceOfTheWhole) {
  ParallelPool pool(2);
  const std::string whole = BytesOf(synthetic_->Get(kQ));
  const auto rows = checkpoint_->GetRows(kQ, {128, 256}, &pool);
  EXPECT_EQ(BytesOf(rows), whole.substr(128 * 128 * 2, 128 * 128 * 2));
  EXPECT_EQ(rows->view().shape(), (Shape{128, 128}));
  EXPECT_EQ(checkpoint_->GetRows(kQ, {7, 7})->view().num_elements(), 0);
  const auto experts = checkpoint_->GetRows(GateUpName(0), {3, 6});
  EXPECT_EQ(experts->view().shape(), (Shape{3, 128, 192}));
  EXPECT_EQ(BytesOf(experts),
            BytesOf(synthetic_->Get(GateUpName(0))).substr(3 * 128 * 192 * 2, 3 * 128 * 192 * 2));
  for (const IndexRange bad : {IndexRange{-1, 3}, IndexRange{3, 2}, IndexRange{0, 513}}) {
    const absl::Status status = checkpoint_->GetRows(kQ, bad).status();
    EXPECT_EQ(status.code(), absl::StatusCode::kOutOfRange);
    EXPECT_EQ(status.message(),
              absl::StrCat(kQ, ": rows [", bad.begin, ", ", bad.end, "), want a range in [0, 512)"));
  }
}

TEST_P(PiecesTest, ColumnsAreThePieceOfTheWhole) {
  ParallelPool pool(2);
  const std::string whole = BytesOf(synthetic_->Get(kO));
  const auto columns = checkpoint_->GetColumns(kO, {128, 384}, &pool);
  ASSERT_TRUE(columns.ok()) << columns.status();
  EXPECT_EQ(columns->view().shape(), (Shape{128, 256}));
  std::string want;
  for (size_t row = 0; row < 128; ++row) want += whole.substr((row * 512 + 128) * 2, 256 * 2);
  EXPECT_EQ(BytesOf(columns), want);
  EXPECT_EQ(BytesOf(checkpoint_->GetColumns(kO, {0, 512})), whole);
  EXPECT_EQ(checkpoint_->GetColumns(kO, {5, 5})->view().num_elements(), 0);
  EXPECT_EQ(checkpoint_->GetColumns(kO, {0, 513}).status().message(),
            absl::StrCat(kO, ": columns [0, 513), want a range in [0, 512)"));
  EXPECT_EQ(checkpoint_->GetColumns("model.language_model.norm.weight", {0, 1}).status().message(),
            "model.language_model.norm.weight has shape [128], want a matrix");
}

TEST_P(PiecesTest, AnExpertHasARowPerOutput) {
  ParallelPool pool(2);
  const std::string gate_up = BytesOf(synthetic_->Get(GateUpName(3)));
  const std::string down = BytesOf(synthetic_->Get(DownName(3)));
  constexpr size_t kGateUpBytes = 128 * 192 * 2, kDownBytes = 96 * 128 * 2;
  for (const int64_t e : {0, 5, 11}) {
    const auto expert = checkpoint_->GetExpert(3, e, e == 5 ? &pool : nullptr);
    ASSERT_TRUE(expert.ok()) << expert.status();
    EXPECT_EQ(expert->gate_up.view().shape(), (Shape{192, 128}));
    EXPECT_EQ(expert->down.view().shape(), (Shape{128, 96}));
    const auto at = static_cast<size_t>(e);
    EXPECT_EQ(BytesOf(expert->gate_up.view()),
              TransposedBytes(gate_up.substr(at * kGateUpBytes, kGateUpBytes), 128, 192, 2));
    EXPECT_EQ(BytesOf(expert->down.view()),
              TransposedBytes(down.substr(at * kDownBytes, kDownBytes), 96, 128, 2));
  }
  EXPECT_EQ(checkpoint_->GetExpert(3, 12).status().message(),
            "layer 3: expert is 12, want a number in [0, 12)");
  EXPECT_EQ(checkpoint_->GetExpert(4, 0).status().message(), "layer 4 of 4 has no experts");
  EXPECT_EQ(checkpoint_->GetExpert(-1, 0).status().message(), "layer -1 of 4 has no experts");
}

TEST_P(PiecesTest, SmallTensorsCanBeHadInFloat32) {
  const auto f32 = checkpoint_->GetF32("model.visual.merger.norm.weight");
  const auto bf16 = synthetic_->Get("model.visual.merger.norm.weight");
  ASSERT_TRUE(f32.ok() && bf16.ok());
  ASSERT_EQ(f32->shape(), bf16->view().shape());
  for (int64_t i = 0; i < f32->shape().num_elements(); ++i) {
    EXPECT_EQ(f32->data<float>()[i], static_cast<float>(bf16->view().data<BFloat16>()[i]));
  }
}

TEST_P(PiecesTest, ManyThreadsMayReadAtOnce) {
  const std::string want = BytesOf(synthetic_->Get(GateUpName(1)));
  std::vector<std::thread> threads;
  std::atomic<int> equal{0};
  for (int t = 0; t < 4; ++t) {
    threads.emplace_back([&] {
      for (int i = 0; i < 3; ++i) {
        auto tensor = checkpoint_->Get(GateUpName(1));
        if (tensor.ok() && BytesOf(tensor->view()) == want) ++equal;
        checkpoint_->Release(*std::move(tensor));
        if (checkpoint_->GetExpert(1, i).ok()) ++equal;
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(equal, 24);
}

INSTANTIATE_TEST_SUITE_P(Checkpoint, PiecesTest, testing::Bool(),
                         [](const auto& synthetic) { return synthetic.param ? "synthetic" : "stored"; });

TEST(CheckpointTest, ATiedHeadIsTheEmbedding) {
  const auto checkpoint = Synthetic("dense-micro");
  EXPECT_TRUE(checkpoint->head_is_tied());
  EXPECT_EQ(BytesOf(checkpoint->GetRows("lm_head.weight", {3, 9})),
            BytesOf(checkpoint->GetRows("model.language_model.embed_tokens.weight", {3, 9})));
  EXPECT_FALSE(Synthetic("moe-micro")->head_is_tied());
  EXPECT_EQ(checkpoint->GetExpert(0, 0).status().message(), "layer 0 of 4 has no experts");
}

TEST(CheckpointTest, AHalfOfASyntheticCheckpointHasItsOwnTensorsOnly) {
  const auto vision = Synthetic("moe-micro", CheckpointPart::kVision);
  const auto text = Synthetic("moe-micro", CheckpointPart::kText);
  EXPECT_EQ(vision->weights().size() + text->weights().size(), 116u);
  EXPECT_TRUE(vision->Get("model.visual.pos_embed.weight").ok());
  EXPECT_EQ(vision->Get(GateUpName(0)).status().code(), absl::StatusCode::kNotFound);
  EXPECT_EQ(vision->GetExpert(0, 0).status().code(), absl::StatusCode::kNotFound);
  EXPECT_EQ(text->Get("model.visual.pos_embed.weight").status().code(), absl::StatusCode::kNotFound);
}

// ---- Other layouts and types -----------------------------------------------------------------

// Stores moe-micro with the experts of each layer as `rearrange` leaves them; every way of asking
// must give what the published layout gives.
void ExpectSameAsPublished(const std::function<void(std::map<std::string, TensorToWrite>&)>& rearrange) {
  const ScratchFolder folder;
  CopyConfig("moe-micro", folder);
  const auto published = Synthetic("moe-micro");
  auto tensors = AllTensors(*published);
  rearrange(tensors);
  folder.Write("model.safetensors", SafetensorsImage(Values(tensors)));
  const auto checkpoint = OpenOrDie(folder.path());
  ASSERT_NE(checkpoint, nullptr);
  ParallelPool pool(2);
  for (int64_t layer = 0; layer < 4; ++layer) {
    EXPECT_EQ(BytesOf(checkpoint->Get(GateUpName(layer), &pool)), BytesOf(published->Get(GateUpName(layer))));
    EXPECT_EQ(BytesOf(checkpoint->GetRows(DownName(layer), {2, 5})),
              BytesOf(published->GetRows(DownName(layer), {2, 5})));
    for (const int64_t e : {0, 7, 11}) {
      const auto a = checkpoint->GetExpert(layer, e);
      const auto b = published->GetExpert(layer, e);
      ASSERT_TRUE(a.ok() && b.ok()) << a.status();
      EXPECT_EQ(a->gate_up.view().shape(), b->gate_up.view().shape());
      EXPECT_EQ(BytesOf(a->gate_up.view()), BytesOf(b->gate_up.view()));
      EXPECT_EQ(BytesOf(a->down.view()), BytesOf(b->down.view()));
    }
  }
}

TEST(CheckpointTest, OutputMajorExpertsReadLikePublishedOnes) {
  ExpectSameAsPublished([](std::map<std::string, TensorToWrite>& tensors) {
    for (int64_t layer : {0, 1, 2, 3}) {
      for (const std::string& name : {GateUpName(layer), DownName(layer)}) {
        TensorToWrite& tensor = tensors[name];
        const int64_t in = tensor.shape[1], out = tensor.shape[2];
        std::string bytes;
        for (int64_t e = 0; e < 12; ++e) {
          bytes += TransposedBytes(
              tensor.bytes.substr(static_cast<size_t>(e * in * out * 2), static_cast<size_t>(in * out * 2)),
              in, out, 2);
        }
        tensor.bytes = bytes;
        tensor.shape = {12, out, in};
      }
    }
  });
}

TEST(CheckpointTest, UnfusedExpertsReadLikePublishedOnes) {
  ExpectSameAsPublished([](std::map<std::string, TensorToWrite>& tensors) {
    const auto published = Synthetic("moe-micro");
    for (int64_t layer : {1, 2}) {
      tensors.erase(GateUpName(layer));
      tensors.erase(DownName(layer));
      for (int64_t e = 0; e < 12; ++e) {
        const auto expert = published->GetExpert(layer, e);
        const TensorView& gate_up = expert->gate_up.view();
        for (const auto& [matrix, view] :
             {std::pair{"gate_proj", gate_up.Rows(0, 96)}, std::pair{"up_proj", gate_up.Rows(96, 96)},
              std::pair{"down_proj", expert->down.view()}}) {
          const std::string name = UnfusedExpertName(layer, e, matrix);
          // Such checkpoints often drop the middle of the prefix too.
          const std::string stored =
              layer == 1 ? name : "model." + name.substr(strlen("model.language_model."));
          tensors[stored] = ToWrite(stored, view);
        }
      }
    }
  });
}

TEST(CheckpointTest, Float32StaysAndFloat16BecomesFloat32Exactly) {
  const ScratchFolder folder;
  CopyConfig("moe-micro", folder);
  const auto published = Synthetic("moe-micro");
  auto tensors = AllTensors(*published);
  // A third of a unit is not a bf16: rounding would show.
  const std::vector<float> thirds(192, 1.0f / 3);
  tensors["model.language_model.layers.0.self_attn.q_norm.weight"] =
      ToWrite("model.language_model.layers.0.self_attn.q_norm.weight", TensorView(thirds.data(), Shape{128}));
  std::vector<Float16> halves(12 * 128 * 192);
  for (size_t i = 0; i < halves.size(); ++i) halves[i].bits = static_cast<uint16_t>(i % 0x7C00);
  tensors[GateUpName(0)] = ToWrite(GateUpName(0), TensorView(halves.data(), Shape{12, 128, 192}));
  std::vector<TensorToWrite> values = Values(tensors);
  folder.Write("model.safetensors", SafetensorsImage(values));
  const auto checkpoint = OpenOrDie(folder.path());
  ASSERT_NE(checkpoint, nullptr);
  const auto norm = checkpoint->Get("model.language_model.layers.0.self_attn.q_norm.weight");
  ASSERT_EQ(norm->view().dtype(), DType::kF32);
  EXPECT_EQ(norm->view().data<float>()[5], 1.0f / 3);
  const auto fused = checkpoint->GetRows(GateUpName(0), {4, 5});
  ASSERT_EQ(fused->view().dtype(), DType::kF32);
  EXPECT_EQ(fused->view().data<float>()[9], static_cast<float>(halves[4 * 128 * 192 + 9]));
  const auto expert = checkpoint->GetExpert(0, 4);
  ASSERT_EQ(expert->gate_up.view().dtype(), DType::kF32);
  EXPECT_EQ(expert->gate_up.view().data<float>()[7 * 128 + 3],
            static_cast<float>(halves[static_cast<size_t>(4 * 128 * 192 + 3 * 192 + 7)]));
  EXPECT_EQ(expert->down.view().dtype(), DType::kBF16);
}

TEST(CheckpointTest, TensorsOffTheirAlignmentAreCopied) {
  const ScratchFolder folder;
  CopyConfig("dense-micro", folder);
  const auto tensors = AllTensors(*Synthetic("dense-micro"));
  std::string image = SafetensorsImage(Values(tensors));
  // One more blank ends the header: every tensor moves by a byte.
  uint64_t length = 0;
  std::memcpy(&length, image.data(), 8);
  image.insert(8 + static_cast<size_t>(length), " ");
  ++length;
  std::memcpy(image.data(), &length, 8);
  folder.Write("model.safetensors", image);
  const auto checkpoint = OpenOrDie(folder.path());
  ASSERT_NE(checkpoint, nullptr);
  for (const auto& [name, tensor] : tensors) {
    const auto loaded = checkpoint->Get(name);
    EXPECT_EQ(BytesOf(loaded), tensor.bytes) << name;
    EXPECT_TRUE(loaded->owned());
    EXPECT_EQ(reinterpret_cast<uintptr_t>(loaded->view().raw()) % 64, 0u);
  }
  EXPECT_EQ(BytesOf(checkpoint->GetColumns(kO, {0, 256})),
            BytesOf(Synthetic("dense-micro")->GetColumns(kO, {0, 256})));
}

TEST(LoadedTensorTest, TakingCopiesWhatIsMappedAndMovesWhatIsOwned) {
  const std::vector<float> values = {1, 2, 3, 4};
  const Tensor copy = LoadedTensor(TensorView(values.data(), Shape{4})).TakeOwned();
  EXPECT_NE(copy.view().raw(), values.data());
  EXPECT_EQ(copy.data<float>()[3], 4);
  Tensor owned = Tensor::HostZeros(DType::kF32, Shape{2, 2});
  const void* const memory = owned.view().raw();
  EXPECT_EQ(LoadedTensor(std::move(owned)).TakeOwned().view().raw(), memory);
  EXPECT_EQ(LoadedTensor(Tensor::HostZeros(DType::kF32, Shape{2, 2})).Reshaped(Shape{4}).TakeOwned().shape(),
            Shape{4});
}

// ---- Digests ---------------------------------------------------------------------------------

TEST(WeightsDigestTest, DependsOnEveryByteOfItsHalfAndOnNothingElse) {
  const ScratchFolder folder;
  CopyConfig("dense-micro", folder);
  auto tensors = AllTensors(*Synthetic("dense-micro"));
  const auto digest = [&](CheckpointPart part, ParallelPool* pool = nullptr) {
    folder.Write("model.safetensors", SafetensorsImage(Values(tensors)));
    return *OpenOrDie(folder.path())->WeightsDigest(part, pool);
  };
  const std::string vision = digest(CheckpointPart::kVision);
  const std::string text = digest(CheckpointPart::kText);
  EXPECT_EQ(vision.size(), 64u);
  EXPECT_NE(vision, text);
  ParallelPool pool(2);
  EXPECT_EQ(digest(CheckpointPart::kVision, &pool), vision);
  EXPECT_EQ(
      *OpenOrDie(folder.path(), {.part = CheckpointPart::kVision})->WeightsDigest(CheckpointPart::kVision),
      vision);
  tensors["model.language_model.norm.weight"].bytes.back() ^= 1;
  EXPECT_EQ(digest(CheckpointPart::kVision), vision);
  EXPECT_NE(digest(CheckpointPart::kText), text);
}

TEST(WeightsDigestTest, OfSyntheticWeightsDependsOnTheSeed) {
  const auto digest = [](uint64_t seed, CheckpointPart part) {
    return *OpenOrDie(ModelFolder("moe-micro"), {.format = LoadFormat::kSynthetic, .synthetic_seed = seed})
                ->WeightsDigest(part);
  };
  EXPECT_EQ(digest(3, CheckpointPart::kText), digest(3, CheckpointPart::kText));
  EXPECT_NE(digest(3, CheckpointPart::kText), digest(4, CheckpointPart::kText));
  EXPECT_NE(digest(3, CheckpointPart::kText), digest(3, CheckpointPart::kVision));
}

TEST(WeightsDigestTest, EqualWeightsUnderOtherHeadsAreAnotherModel) {
  const ScratchFolder folder;
  CopyConfig("dense-micro", folder);
  const auto digest = [&] {
    return *OpenOrDie(folder.path(), {.format = LoadFormat::kSynthetic})
                ->WeightsDigest(CheckpointPart::kVision);
  };
  const std::string before = digest();
  std::string config = ReadWhole(folder.File("config.json"));
  const size_t at = config.find("\"num_heads\": 2");
  ASSERT_NE(at, std::string::npos);
  config.replace(at, strlen("\"num_heads\": 2"), "\"num_heads\": 4");
  folder.Write("config.json", config);
  EXPECT_NE(digest(), before);
}

TEST(WeightsDigestTest, AHalfHasNoDigestOfTheOther) {
  EXPECT_EQ(Synthetic("dense-micro", CheckpointPart::kVision)
                ->WeightsDigest(CheckpointPart::kText)
                .status()
                .message(),
            "the vision checkpoint has no text weights to digest");
}

}  // namespace
}  // namespace prism
