#include "kernels/layers/weight_loader.h"

#include <gtest/gtest.h>

#include <cstring>
#include <filesystem>

#include "common/checkpoint/weight_map.h"
#include "kernels/cpu/cpu_backend.h"
#include "kernels/cpu/cpu_stream.h"
#include "kernels/ops/synthetic_fill.h"
#include "tests/common/checkpoint/test_files.h"

namespace prism {
namespace {

constexpr char kModel[] = "moe-micro";

// The CPU's ops on what is taken for memory of a device's own.
class DeviceBackend final : public Backend {
 public:
  absl::string_view name() const override { return "device"; }
  absl::string_view numerics_id() const override { return cpu_->numerics_id(); }
  DType activation_dtype() const override { return cpu_->activation_dtype(); }
  bool has_device_memory() const override { return true; }
  const OpTable& ops() const override { return cpu_->ops(); }
  absl::StatusOr<std::unique_ptr<Stream>> CreateStream(const StreamOptions& options) override {
    return std::unique_ptr<Stream>(std::make_unique<cpu::CpuStream>(this, options.num_threads));
  }

 private:
  const std::unique_ptr<Backend> cpu_ = CreateCpuBackend();
};

// A folder with the micro model's configuration and, as files, the weights that seed 0 makes. Parameter:
// whether the stream's device has memory of its own.
class WeightLoaderTest : public testing::TestWithParam<bool> {
 protected:
  void SetUp() override {
    const std::string model = ModelFolder(kModel);
    for (const auto& file : std::filesystem::directory_iterator(model)) {
      std::filesystem::copy(file, folder_.path());
    }
    synthetic_ = Open(LoadFormat::kSynthetic);
    std::vector<TensorToWrite> tensors;
    for (const WeightSpec& spec : synthetic_->weights()) {
      tensors.push_back(ToWrite(spec.name, synthetic_->Get(spec.name)->view()));
    }
    folder_.Write("model.safetensors", SafetensorsImage(tensors));
    stored_ = Open(LoadFormat::kSafetensors);
    backend_ = GetParam() ? std::make_unique<DeviceBackend>() : CreateCpuBackend();
    stream_ = *backend_->CreateStream({.num_threads = 2});
  }

  std::unique_ptr<Checkpoint> Open(LoadFormat format) {
    absl::StatusOr<std::unique_ptr<Checkpoint>> checkpoint =
        Checkpoint::Open(folder_.path(), {.format = format});
    EXPECT_TRUE(checkpoint.ok()) << checkpoint.status();
    return *std::move(checkpoint);
  }

  // What a layer makes of the same random rows, as bits.
  template <typename Layer>
  std::vector<float> Apply(const Layer& layer, int64_t out_features) {
    const int64_t rows = 3;
    const Tensor x = Tensor::Host(DType::kF32, {rows, layer.in_features()});
    const Tensor y = Tensor::Host(DType::kF32, {rows, out_features});
    uint32_t state = 1;
    for (float& value : x.span<float>()) {
      state = state * 1664525u + 1013904223u;
      value = static_cast<float>(state >> 8) / (1 << 24) - 0.5f;
    }
    EXPECT_TRUE(layer.Forward(*stream_, x.view(), y.view()).ok());
    return {y.span<float>().begin(), y.span<float>().end()};
  }

  ScratchFolder folder_;
  std::unique_ptr<Checkpoint> synthetic_, stored_;
  std::unique_ptr<Backend> backend_;
  std::unique_ptr<Stream> stream_;
};

bool SameBytes(const TensorView& a, const TensorView& b) {
  return a.dtype() == b.dtype() && a.shape() == b.shape() &&
         std::memcmp(a.raw(), b.raw(), static_cast<size_t>(a.size_bytes())) == 0;
}

TEST_P(WeightLoaderTest, MadeOnTheDeviceOrReadFromAFileWeightsAreTheSame) {
  WeightLoader made(stream_.get(), synthetic_.get());
  WeightLoader read(stream_.get(), stored_.get());
  const TextConfig& text = synthetic_->config().text;
  const std::string layer = "model.language_model.layers.0.";
  const auto same_packed = [](const LinearWeight& a, const LinearWeight& b) {
    return a.out_features == b.out_features && a.in_features == b.in_features &&
           SameBytes(a.packed.view(), b.packed.view());
  };

  const std::string table = "model.language_model.embed_tokens.weight";
  EXPECT_TRUE(SameBytes(made.Load(table)->view(), read.Load(table)->view()));
  const std::string norm = layer + "input_layernorm.weight";
  EXPECT_TRUE(SameBytes(made.LoadF32(norm)->view(), read.LoadF32(norm)->view()));

  // Half the heads, as a rank of two has them, filled up to an odd width.
  const std::vector<WeightLoader::RowsOf> parts = {
      {layer + "self_attn.q_proj.weight", {text.q_size() / 2, text.q_size()}},
      {layer + "self_attn.v_proj.weight", {0, text.kv_size()}}};
  const int64_t width = text.q_size() / 2 + text.kv_size() + 3;
  const auto made_rows = made.LoadRows(parts, SumOrder::kLeaves, width);
  const auto read_rows = read.LoadRows(parts, SumOrder::kLeaves, width);
  ASSERT_TRUE(made_rows.ok() && read_rows.ok()) << made_rows.status() << read_rows.status();
  ASSERT_EQ(made_rows->out_features(), width);
  const std::vector<float> y = Apply(*made_rows, width);
  EXPECT_EQ(y, Apply(*read_rows, width));
  EXPECT_NE(y[0], 0);
  EXPECT_EQ(y[static_cast<size_t>(width - 1)], 0) << "filled up with something else than zeros";

  const IndexRange half = RankRange(text.q_size(), 1, 2);
  const std::unique_ptr<Communicator> alone = std::move(CreateInProcessGroup(1)[0]);
  const std::string o_proj = layer + "self_attn.o_proj.weight";
  const auto made_columns = made.LoadColumns(o_proj, half, text.q_size(), alone.get());
  const auto read_columns = read.LoadColumns(o_proj, half, text.q_size(), alone.get());
  ASSERT_TRUE(made_columns.ok() && read_columns.ok()) << made_columns.status() << read_columns.status();
  EXPECT_EQ(Apply(*made_columns, text.hidden_size), Apply(*read_columns, text.hidden_size));

  for (const int64_t expert : {int64_t{0}, text.num_experts - 1}) {
    const int64_t size = text.moe_intermediate_size;
    for (const IndexRange slice : {IndexRange{0, size}, {0, 16}, {size - 32, size}}) {
      const auto a = made.LoadExpert(0, expert, slice), b = read.LoadExpert(0, expert, slice);
      ASSERT_TRUE(a.ok() && b.ok()) << a.status() << b.status();
      EXPECT_EQ(a->gate_up.out_features, 2 * slice.size());
      EXPECT_EQ(a->down.in_features, slice.size());
      EXPECT_TRUE(same_packed(a->gate_up, b->gate_up)) << expert;
      EXPECT_TRUE(same_packed(a->down, b->down)) << expert;
    }
  }

  // A weight of five axes, with its bias.
  const std::string patch = "model.visual.patch_embed.proj.";
  const auto made_patch = made.LoadLinear(patch + "weight", patch + "bias", SumOrder::kChain);
  const auto read_patch = read.LoadLinear(patch + "weight", patch + "bias", SumOrder::kChain);
  ASSERT_TRUE(made_patch.ok() && read_patch.ok()) << made_patch.status() << read_patch.status();
  EXPECT_EQ(Apply(*made_patch, made_patch->out_features()), Apply(*read_patch, made_patch->out_features()));
}

TEST_P(WeightLoaderTest, WhatIsNotThereIsNamed) {
  for (const Checkpoint* checkpoint : {synthetic_.get(), stored_.get()}) {
    WeightLoader loader(stream_.get(), checkpoint);
    EXPECT_TRUE(absl::IsNotFound(loader.Load("model.nothing").status()));
    const std::string name = "model.language_model.norm.weight";
    EXPECT_FALSE(loader.LoadRows({{name, {0, 1 << 20}}}, SumOrder::kLeaves).ok());
    const int64_t size = synthetic_->config().text.moe_intermediate_size;
    EXPECT_FALSE(loader.LoadExpert(0, 1 << 20, {0, size}).ok());
    EXPECT_FALSE(loader.LoadExpert(0, 0, {16, size + 16}).ok());
  }
}

TEST_P(WeightLoaderTest, FillingWalksRowsAndColumns) {
  const SyntheticTensor tensor = {.base = 7, .mean = 1, .amplitude = 0.5};
  const int64_t rows = 5, columns = 9;
  const Tensor out = Tensor::Host(DType::kBF16, {rows + 1, columns});
  for (BFloat16& value : out.span<BFloat16>()) value = BFloat16(-99.0f);
  ASSERT_TRUE(SyntheticFill(*stream_, {.tensor = tensor,
                                       .first = 100,
                                       .row_stride = 3,
                                       .column_stride = 11,
                                       .out = out.view().Rows(0, rows)})
                  .ok());
  for (int64_t n = 0; n < rows; ++n) {
    for (int64_t k = 0; k < columns; ++k) {
      BFloat16 expected;
      FillSynthetic(tensor, 100 + n * 3 + k * 11, 1, 1, &expected);
      EXPECT_EQ(static_cast<float>(out.data<BFloat16>()[n * columns + k]), static_cast<float>(expected));
    }
  }
  EXPECT_EQ(static_cast<float>(out.data<BFloat16>()[rows * columns]), -99.0f) << "wrote past the end";
  EXPECT_FALSE(SyntheticFill(*stream_, {.tensor = tensor, .first = -1, .out = out.view()}).ok());
}

INSTANTIATE_TEST_SUITE_P(OwnMemory, WeightLoaderTest, testing::Bool());

}  // namespace
}  // namespace prism
