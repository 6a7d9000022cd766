// The kernels against Hugging Face transformers in float32: pixels, grids and positions equal;
// vision, DeepStack and text tensors and logits within 1e-4; greedy answers equal.
#include <gtest/gtest.h>

#include <cmath>
#include <map>

#include "kernels/cpu/cpu_backend.h"
#include "tests/oracle/oracle_case.h"
#include "tests/oracle/oracle_model.h"
#include "tests/oracle/text_harness.h"

namespace prism {
namespace {

constexpr double kTolerance = 1e-4;

// The largest |a - b|; NaN anywhere gives infinity.
double WorstDifference(absl::Span<const float> a, absl::Span<const float> b) {
  double worst = 0;
  for (size_t i = 0; i < a.size(); ++i) {
    const double difference = std::fabs(static_cast<double>(a[i]) - static_cast<double>(b[i]));
    if (!(difference <= worst)) worst = std::isnan(difference) ? INFINITY : difference;
  }
  return worst;
}

Backend& CpuBackend() {
  static const std::unique_ptr<Backend> backend = CreateCpuBackend();
  return *backend;
}

// Made once for all its cases.
OracleModel& ModelNamed(const std::string& name) {
  static std::map<std::string, std::unique_ptr<OracleModel>> models;
  std::unique_ptr<OracleModel>& model = models[name];
  if (model == nullptr) model = OracleModel::Load(CpuBackend(), name, 2, 64).value();
  return *model;
}

class OracleTest : public testing::TestWithParam<std::tuple<const char*, const char*>> {
 protected:
  void SetUp() override {
    auto opened = OracleCase::Open(std::get<0>(GetParam()), std::get<1>(GetParam()));
    ASSERT_TRUE(opened.ok()) << opened.status();
    oracle_ = *std::move(opened);
    auto patches = PatchesOf(*oracle_);
    ASSERT_TRUE(patches.ok()) << patches.status();
    grids_ = *std::move(patches);
  }
  OracleModel& model() { return ModelNamed(std::get<0>(GetParam())); }

  // Compares rows with the stored tensor: all of its rows, the first ones of ours.
  void ExpectClose(const std::string& name, const TensorView& ours) {
    const TensorView want = oracle_->tensor(name);
    ASSERT_TRUE(want.present()) << name;
    ASSERT_EQ(ours.dim(1), want.dim(1)) << name;
    ASSERT_GE(ours.dim(0), want.dim(0)) << name;
    const double worst = WorstDifference(ours.Rows(0, want.dim(0)).span<float>(), want.span<float>());
    std::printf("  %-20s worst %.3g\n", name.c_str(), worst);
    EXPECT_LE(worst, kTolerance) << name;
    ++compared_;
  }

  // Runs the tower over all pictures; the embeddings for the language model.
  void Encode(const VisionTap& tap = nullptr) {
    auto encoded = model().Encode(grids_, tap);
    ASSERT_TRUE(encoded.ok()) << encoded.status();
    pictures_ = *std::move(encoded);
  }
  HarnessSequence Prompt() { return model().PromptOf(*oracle_, grids_, pictures_); }

  std::unique_ptr<OracleCase> oracle_;
  std::vector<PatchGrid> grids_;
  EncodedPictures pictures_;
  int compared_ = 0;
};

// The cases that show the tower something.
class OraclePictureTest : public OracleTest {};

TEST_P(OraclePictureTest, PixelsAndGridsAreEqual) {
  std::vector<PatchGridSize> stored_grids;
  for (const char* name : {"image_grid_thw", "video_grid_thw"}) {
    const TensorView stored = oracle_->tensor(name);
    for (int64_t i = 0; stored.present() && i < stored.dim(0); ++i) {
      const int32_t* thw = stored.data<int32_t>() + 3 * i;
      stored_grids.push_back({.t = thw[0], .h = thw[1], .w = thw[2]});
    }
  }
  ASSERT_EQ(stored_grids.size(), grids_.size());
  for (size_t i = 0; i < grids_.size(); ++i) EXPECT_EQ(grids_[i].size, stored_grids[i]);

  // Both micro models share the preprocessing, so the smaller forms of the pixels are stored once;
  // the other models' cases keep none.
  auto twin = OracleCase::Open("moe-micro", std::get<1>(GetParam()));
  if (!twin.ok()) return;
  const TensorView whole = oracle_->tensor("pixel_values");
  const TensorView one_frame = (*twin)->tensor("pixel_values.one_frame.u8");
  const TensorView video = (*twin)->tensor("pixel_values_videos.u8");
  int64_t row = 0, mismatches = 0, compared = 0;
  for (const PatchGrid& grid : grids_) {
    const float* patches = grid.patches.data<float>();
    for (int64_t p = 0; p < grid.size.num_patches(); ++p, ++row) {
      for (int64_t e = 0; e < kPatchValues; ++e, ++compared) {
        const float value = patches[p * kPatchValues + e];
        if (whole.present()) {
          mismatches += value != whole.data<float>()[row * kPatchValues + e];
          continue;
        }
        const int64_t channel = e / 512, inside = e % 256;
        const uint8_t byte = one_frame.present()
                                 ? one_frame.data<uint8_t>()[row * 768 + channel * 256 + inside]
                                 : video.data<uint8_t>()[row * kPatchValues + e];
        mismatches += value != (static_cast<float>(byte) - 127.5f) / 127.5f;
      }
    }
  }
  EXPECT_GT(compared, 0);
  EXPECT_EQ(mismatches, 0) << "of " << compared;
}

TEST_P(OraclePictureTest, VisionTensorsAgree) {
  Encode([this](absl::string_view name, const TensorView& rows) {
    ExpectClose("vision." + std::string(name), rows);
    return absl::OkStatus();
  });
  ExpectClose("vision.merged", pictures_.embeddings.view());
  for (int64_t k = 0; k < model().num_deepstack(); ++k) {
    ExpectClose("vision.deepstack." + std::to_string(k),
                pictures_.deepstack.view().Rows(k, 1).Reshape(pictures_.embeddings.shape()));
  }
  EXPECT_EQ(compared_, 2 + model().config().vision.depth + 1 + model().num_deepstack());
}

TEST_P(OracleTest, PositionsAndRopeDeltaAreEqual) {
  const HarnessSequence prompt = Prompt();
  const auto tokens = static_cast<int64_t>(prompt.ids.size());
  const PromptPositions walk = WalkPositions(tokens, prompt.spans);
  EXPECT_EQ(walk.delta, oracle_->rope_delta);
  const TensorView want = oracle_->tensor("position_ids");
  ASSERT_EQ(want.dim(1), tokens);
  for (int64_t i = 0; i < tokens; ++i) {
    for (int64_t axis = 0; axis < 3; ++axis) {
      ASSERT_EQ(walk.positions[static_cast<size_t>(i)][static_cast<size_t>(axis)],
                want.data<int32_t>()[axis * tokens + i])
          << "token " << i << " axis " << axis;
    }
  }
}

TEST_P(OracleTest, TextTensorsAndLogitsAgree) {
  Encode();
  HarnessSequence prompt = Prompt();
  const TensorView kept = oracle_->tensor("rows");
  const auto keep = [&](const TensorView& all) {
    Tensor rows = Tensor::Host(DType::kF32, Shape{kept.dim(0), all.dim(1)});
    for (int64_t i = 0; i < kept.dim(0); ++i) {
      const absl::Span<const float> row = all.Rows(kept.data<int32_t>()[i], 1).span<float>();
      std::copy(row.begin(), row.end(), rows.data<float>() + i * all.dim(1));
    }
    return rows;
  };
  const auto logits = model().text().Step(
      {{.sequence = &prompt, .count = static_cast<int64_t>(prompt.ids.size()), .all_logits = true}},
      [&](absl::string_view name, const TensorView& rows) {
        if (rows.dtype() == DType::kI32) return absl::OkStatus();  // the experts chosen
        const Tensor some = keep(rows);
        ExpectClose("text." + std::string(name), some.view());
        return absl::OkStatus();
      });
  ASSERT_TRUE(logits.ok()) << logits.status();
  const Tensor some = keep(logits->view());
  ExpectClose("logits", some.view());
  // The best eight of every row.
  const TensorView ids = oracle_->tensor("top8.ids"), logprobs = oracle_->tensor("top8.logprobs");
  double worst = 0;
  for (int64_t t = 0; t < ids.dim(0); ++t) {
    const std::vector<double> ours = LogSoftmax(logits->view().Rows(t, 1).span<float>());
    for (int64_t j = 0; j < 8; ++j) {
      const auto id = static_cast<size_t>(ids.data<int32_t>()[t * 8 + j]);
      worst = std::max(worst, std::fabs(ours[id] - static_cast<double>(logprobs.data<float>()[t * 8 + j])));
    }
  }
  std::printf("  %-20s worst %.3g\n", "top8.logprobs", worst);
  EXPECT_LE(worst, kTolerance);
  model().text().Free(prompt);
}

TEST_P(OracleTest, GreedyAnswersAreEqual) {
  Encode();
  HarnessSequence prompt = Prompt();
  const auto answer = Greedy(model().text(), prompt, static_cast<int>(oracle_->greedy_ids.size()), 512);
  ASSERT_TRUE(answer.ok()) << answer.status();
  EXPECT_EQ(answer->ids, oracle_->greedy_ids);
  double worst = 0;
  for (size_t i = 0; i < oracle_->greedy_ids.size(); ++i) {
    const double ours = LogSoftmax(answer->logits[i])[static_cast<size_t>(oracle_->greedy_ids[i])];
    worst = std::max(worst, std::fabs(ours - oracle_->greedy_logprobs[i]));
  }
  std::printf("  %-20s worst %.3g\n", "greedy.logprobs", worst);
  EXPECT_LE(worst, kTolerance);
  model().text().Free(prompt);
}

// Ranks that hold a slice of every expert instead of whole ones.
class MoeShardTest : public OracleTest {};

TEST_P(MoeShardTest, SlicesOfEveryExpertAgree) {
  for (const int ranks : {2, 4}) {
    const auto text =
        TextHarness::Create(CpuBackend(), model().checkpoint(), ranks, 1, 64, MoeShard::kIntermediate);
    ASSERT_TRUE(text.ok()) << text.status();
    HarnessSequence prompt = Prompt();
    const auto logits = (*text)->Step(
        {{.sequence = &prompt, .count = static_cast<int64_t>(prompt.ids.size()), .all_logits = true}});
    ASSERT_TRUE(logits.ok()) << logits.status();
    const TensorView kept = oracle_->tensor("rows"), want = oracle_->tensor("logits");
    for (int64_t i = 0; i < kept.dim(0); ++i) {
      EXPECT_LE(WorstDifference(logits->view().Rows(kept.data<int32_t>()[i], 1).span<float>(),
                                want.Rows(i, 1).span<float>()),
                kTolerance)
          << ranks << " ranks, row " << i;
    }
  }
}

std::string CaseName(const testing::TestParamInfo<OracleTest::ParamType>& test) {
  std::string name = std::string(std::get<0>(test.param)) + "_" + std::get<1>(test.param);
  std::replace(name.begin(), name.end(), '-', '_');
  return name;
}
// The first two are the micro models; the others were made with other sizes: experts in some layers
// only, one vision head, heads in threes, several pictures, a video before a picture.
constexpr const char* kMicro[] = {"dense-micro", "moe-micro"};
constexpr const char* kOther[] = {"other-dense", "other-moe"};

INSTANTIATE_TEST_SUITE_P(Micro, OracleTest,
                         testing::Combine(testing::ValuesIn(kMicro),
                                          testing::Values("text_short", "text_system_turns", "text_tools",
                                                          "text_long", "image_photo", "image_small",
                                                          "image_wide_gray", "image_rgba", "image_two_turns",
                                                          "video_pan")),
                         CaseName);
INSTANTIATE_TEST_SUITE_P(Micro, OraclePictureTest,
                         testing::Combine(testing::ValuesIn(kMicro),
                                          testing::Values("image_photo", "image_small", "image_wide_gray",
                                                          "image_rgba", "image_two_turns", "video_pan")),
                         CaseName);
INSTANTIATE_TEST_SUITE_P(Micro, MoeShardTest,
                         testing::Combine(testing::Values("moe-micro"),
                                          testing::Values("text_system_turns", "text_long")),
                         CaseName);
INSTANTIATE_TEST_SUITE_P(Other, MoeShardTest,
                         testing::Combine(testing::Values("other-moe"), testing::Values("h_text", "h_long")),
                         CaseName);
INSTANTIATE_TEST_SUITE_P(Other, OracleTest,
                         testing::Combine(testing::ValuesIn(kOther),
                                          testing::Values("h_text", "h_long", "h_image", "h_three",
                                                          "h_mixed")),
                         CaseName);
INSTANTIATE_TEST_SUITE_P(Other, OraclePictureTest,
                         testing::Combine(testing::ValuesIn(kOther),
                                          testing::Values("h_image", "h_three", "h_mixed")),
                         CaseName);

}  // namespace
}  // namespace prism
