#include "common/checkpoint/synthetic.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <memory>
#include <sstream>

#include "common/base/hash.h"
#include "common/checkpoint/checkpoint.h"
#include "tests/common/checkpoint/test_files.h"

namespace prism {
namespace {

class SyntheticModelTest : public testing::TestWithParam<const char*> {
 protected:
  static std::unique_ptr<Checkpoint> Synthetic(uint64_t seed = 0) {
    auto checkpoint =
        Checkpoint::Open(ModelFolder(GetParam()), {.format = LoadFormat::kSynthetic, .synthetic_seed = seed});
    EXPECT_TRUE(checkpoint.ok()) << checkpoint.status();
    return *std::move(checkpoint);
  }
};

std::string Sha256Hex(const TensorView& view) {
  return Hex(Sha256Of(view.raw(), static_cast<size_t>(view.size_bytes())));
}

TEST_P(SyntheticModelTest, EveryTensorHasTheDigestOfTheReferenceFile) {
  const std::unique_ptr<Checkpoint> checkpoint = Synthetic();
  std::istringstream table(ReadWhole(DataFile(std::string(GetParam()) + ".sha256")));
  std::string digest, name, shape;
  size_t count = 0;
  ParallelPool pool(2);
  while (table >> digest >> name >> shape) {
    absl::StatusOr<LoadedTensor> tensor = checkpoint->Get(name, count % 2 == 0 ? &pool : nullptr);
    ASSERT_TRUE(tensor.ok()) << tensor.status();
    EXPECT_EQ(absl::StrJoin(tensor->view().shape().dims(), "x"), shape) << name;
    EXPECT_EQ(Sha256Hex(tensor->view()), digest) << name;
    ++count;
  }
  EXPECT_EQ(count, checkpoint->weights().size());
  EXPECT_GT(count, 100u);
}

TEST_P(SyntheticModelTest, EveryTensorEqualsTheReferenceFileItself) {
  const std::string folder = SharedModelFolder(GetParam());
  if (!std::filesystem::exists(folder + "/model.safetensors"))
    GTEST_SKIP() << folder << " is not on this machine";
  const std::unique_ptr<Checkpoint> synthetic = Synthetic();
  const auto stored = Checkpoint::Open(folder);
  ASSERT_TRUE(stored.ok()) << stored.status();
  EXPECT_EQ((*stored)->head_is_tied(), synthetic->head_is_tied());
  ASSERT_EQ((*stored)->weights().size(), synthetic->weights().size());
  for (const WeightSpec& spec : synthetic->weights()) {
    const auto a = synthetic->Get(spec.name);
    const auto b = (*stored)->Get(spec.name);
    ASSERT_TRUE(a.ok() && b.ok()) << spec.name;
    ASSERT_EQ(a->view().shape(), b->view().shape()) << spec.name;
    ASSERT_EQ(b->view().dtype(), DType::kBF16);
    EXPECT_EQ(std::memcmp(a->view().raw(), b->view().raw(), static_cast<size_t>(a->view().size_bytes())), 0)
        << spec.name;
  }
}

TEST_P(SyntheticModelTest, AnotherSeedIsAnotherModel) {
  const auto a = Synthetic(0)->Get("model.visual.pos_embed.weight");
  const auto b = Synthetic(1)->Get("model.visual.pos_embed.weight");
  ASSERT_TRUE(a.ok() && b.ok());
  EXPECT_NE(Sha256Hex(a->view()), Sha256Hex(b->view()));
}

INSTANTIATE_TEST_SUITE_P(Micro, SyntheticModelTest, testing::Values("dense-micro", "moe-micro"),
                         [](const auto& model) {
                           return std::string(model.param, std::string(model.param).find('-'));
                         });

// The definition in the header, element by element, in plain arithmetic.
float Defined(const SyntheticTensor& tensor, int64_t i) {
  const uint64_t mixed = SplitMix64(tensor.base + static_cast<uint64_t>(i) * 0x9E3779B97F4A7C15u);
  const double u = static_cast<double>(mixed >> 40) / 16777216.0;
  return static_cast<float>(tensor.mean + tensor.amplitude * (2 * u - 1));
}

TEST(FillSyntheticTest, AnyPieceWithAnyStrideIsThatPieceOfTheTensor) {
  const SyntheticTensor tensor = DescribeSynthetic("a.weight", Shape{97, 301}, false, 5);
  for (const int64_t first : {0, 1, 7, 63, 29196}) {
    for (const int64_t stride : {1, 2, 301, 1 << 20}) {
      for (const int64_t count : {0, 1, 2, 7, 8, 9, 15, 16, 17, 64, 100}) {
        std::vector<BFloat16> out(static_cast<size_t>(count) + 1);
        out.back().bits = 0x7FC1;
        FillSynthetic(tensor, first, stride, count, out.data());
        for (int64_t j = 0; j < count; ++j) {
          ASSERT_EQ(out[static_cast<size_t>(j)].bits, BFloat16(Defined(tensor, first + j * stride)).bits);
        }
        ASSERT_EQ(out.back().bits, 0x7FC1) << "wrote past the end";
      }
    }
  }
}

TEST(FillSyntheticTest, EveryInstructionSetGivesTheSameBits) {
  const SyntheticTensor tensor = DescribeSynthetic("a.norm.weight", Shape{1000}, false, 9);
  const auto fills = internal::SyntheticFills();
  std::vector<uint16_t> want(100003), out(want.size());
  fills.front().second(tensor, 77, 0x9E3779B97F4A7C15u, static_cast<int64_t>(want.size()), want.data());
  for (const auto& [name, fill] : fills) {
    std::fill(out.begin(), out.end(), uint16_t{0x7FC1});
    fill(tensor, 77, 0x9E3779B97F4A7C15u, static_cast<int64_t>(out.size()), out.data());
    EXPECT_EQ(out, want) << name;
  }
}

TEST(DescribeSyntheticTest, TheSpreadFollowsTheName) {
  const auto spread = [](const char* name, const Shape& shape, bool tied) {
    const SyntheticTensor tensor = DescribeSynthetic(name, shape, tied, 0);
    return std::pair(tensor.mean, tensor.amplitude);
  };
  EXPECT_EQ(spread("x.norm1.bias", Shape{3}, false), std::pair(0.0, 0.2));
  EXPECT_EQ(spread("x.norm1.weight", Shape{3}, false), std::pair(1.0, 0.3));
  EXPECT_EQ(spread("x.embed_tokens.weight", Shape{3, 4}, true), std::pair(0.0, 0.25));
  EXPECT_EQ(spread("x.embed_tokens.weight", Shape{3, 4}, false), std::pair(0.0, 1.2));
  EXPECT_EQ(spread("x.pos_embed.weight", Shape{3, 4}, false), std::pair(0.0, 0.9));
  EXPECT_EQ(spread("lm_head.weight", Shape{3, 12}, false), std::pair(0.0, 1.0));
  EXPECT_EQ(spread("x.mlp.gate.weight", Shape{3, 12}, false), std::pair(0.0, 1.0));
  EXPECT_EQ(spread("x.mlp.gate_proj.weight", Shape{3, 12}, false), std::pair(0.0, 0.5));
  EXPECT_EQ(spread("x.proj.weight", Shape{5, 3, 2, 2, 1}, false), std::pair(0.0, 0.5));
  EXPECT_EQ(spread("x.experts.gate_up_proj", Shape{9, 12, 7}, false), std::pair(0.0, 0.5));
  EXPECT_EQ(spread("x.experts.down_proj", Shape{9, 3, 7}, false), std::pair(0.0, 1.0));
}

}  // namespace
}  // namespace prism
