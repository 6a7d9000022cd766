// Qwen3-VL in its published sizes, synthetic weights, on CUDA: log-probabilities of the last rows of three
// prompts against Hugging Face in float32, beside Hugging Face's own run in bf16 (tests/oracle/full). The
// largest needs 66 GiB of device memory; a size that does not fit the device is skipped, as are all without a
// device.
#include <gtest/gtest.h>

#include <chrono>
#include <cmath>
#include <filesystem>
#include <fstream>
#include <map>
#include <nlohmann/json.hpp>
#include <thread>

#include "kernels/cuda/cuda_backend.h"
#include "tests/oracle/oracle_case.h"
#include "tests/oracle/oracle_model.h"

namespace prism {
namespace {

constexpr int64_t kPages = 64;
constexpr int64_t kRows = 16;  // that the reference keeps of each prompt
constexpr int kBest = 20;
constexpr double kOneMax = 1.15;      // of their mean, for one prompt
constexpr double kDecidedGap = 0.15;  // a float32 lead at which the best token must be the same

using Clock = std::chrono::steady_clock;

double SecondsSince(Clock::time_point start) {
  return std::chrono::duration<double>(Clock::now() - start).count();
}

nlohmann::json ReadReference(const std::string& size, const char* type) {
  const std::string path = absl::StrCat(PRISM_SOURCE_DIR "/tests/oracle/full/", size, ".", type, ".json");
  std::ifstream file(path);
  EXPECT_TRUE(file) << path;
  return nlohmann::json::parse(file, nullptr, false);
}

// A folder that holds the published configuration alone.
std::string ConfigurationFolder(const std::string& size) {
  const std::string folder = testing::TempDir() + "/prism-" + size;
  std::filesystem::create_directories(folder);
  std::filesystem::copy_file(PRISM_SOURCE_DIR "/tests/common/checkpoint/data/" + size + ".json",
                             folder + "/config.json", std::filesystem::copy_options::overwrite_existing);
  return folder;
}

// How far one run is from float32 on a prompt's rows: over tokens in the best 20 of both.
struct Distance {
  double sum = 0, worst = 0;
  int compared = 0, same_best = 0, decided_otherwise = 0;

  double mean() const { return sum / compared; }
  // One row: the log-probabilities of the run's best tokens and the reference's row.
  void Add(const std::map<int32_t, double>& run, int32_t best, const nlohmann::json& reference) {
    for (const nlohmann::json& token : reference) {
      const auto found = run.find(token[0].get<int32_t>());
      if (found == run.end()) continue;
      const double error = std::fabs(found->second - token[1].get<double>());
      EXPECT_FALSE(std::isnan(error));
      sum += error;
      worst = std::max(worst, error);
      ++compared;
    }
    const bool same = best == reference[0][0].get<int32_t>();
    same_best += same;
    decided_otherwise += !same && reference[0][1].get<double>() - reference[1][1].get<double>() > kDecidedGap;
  }
};

class FullSizeTest : public testing::TestWithParam<const char*> {};

TEST_P(FullSizeTest, LogProbabilitiesAreAsGoodAsTheReferencesOwnInBf16) {
  const auto backend = CreateCudaBackend();
  if (!backend.ok()) GTEST_SKIP() << backend.status();
  const nlohmann::json reference = ReadReference(GetParam(), "f32");
  const nlohmann::json in_bf16 = ReadReference(GetParam(), "bf16");
  ASSERT_TRUE(reference.is_array() && in_bf16.is_array() && reference.size() == in_bf16.size());
  const Clock::time_point began = Clock::now();
  const int threads = static_cast<int>(std::max(1u, std::thread::hardware_concurrency()));
  const auto model = OracleModel::LoadFolder(**backend, ConfigurationFolder(GetParam()), threads, kPages);
  if (absl::IsResourceExhausted(model.status())) GTEST_SKIP() << model.status();
  ASSERT_TRUE(model.ok()) << model.status();
  std::printf("  loaded in %.1f s\n", SecondsSince(began));

  double sum_of_means = 0, sum_of_their_means = 0;
  for (size_t index = 0; index < reference.size(); ++index) {
    const nlohmann::json& entry = reference[index];
    OracleCase prompt;
    const std::string name = entry["name"];
    prompt.prompt_token_ids = entry["prompt_token_ids"].get<std::vector<int32_t>>();
    std::vector<PatchGrid> grids;
    if (name != "text") {
      prompt.images = {name};
      auto grid = PatchesOfPicture(name);
      ASSERT_TRUE(grid.ok()) << grid.status();
      grids.push_back(*std::move(grid));
    }
    const auto pictures = (*model)->Encode(grids);
    ASSERT_TRUE(pictures.ok()) << pictures.status();
    HarnessSequence sequence = (*model)->PromptOf(prompt, grids, *pictures);
    const auto tokens = static_cast<int64_t>(sequence.ids.size());
    const Clock::time_point start = Clock::now();
    const auto logits = (*model)->text().Step({{.sequence = &sequence, .count = tokens, .all_logits = true}});
    ASSERT_TRUE(logits.ok()) << logits.status();
    const double seconds = SecondsSince(start);

    Distance ours, theirs;
    for (int64_t r = 0; r < kRows; ++r) {
      const nlohmann::json& row = entry["last16_top20"][static_cast<size_t>(r)];
      const std::vector<double> all = LogSoftmax(logits->view().Rows(tokens - kRows + r, 1).span<float>());
      std::vector<double> sorted = all;
      std::nth_element(sorted.begin(), sorted.begin() + kBest - 1, sorted.end(), std::greater<>());
      std::map<int32_t, double> best;
      for (size_t id = 0; id < all.size(); ++id) {
        if (!(all[id] < sorted[kBest - 1])) best[static_cast<int32_t>(id)] = all[id];
      }
      ours.Add(best, static_cast<int32_t>(std::max_element(all.begin(), all.end()) - all.begin()), row);
      const nlohmann::json& their_row = in_bf16[index]["last16_top20"][static_cast<size_t>(r)];
      std::map<int32_t, double> their_best;
      for (const nlohmann::json& token : their_row) {
        their_best[token[0].get<int32_t>()] = token[1].get<double>();
      }
      theirs.Add(their_best, their_row[0][0].get<int32_t>(), row);
    }
    sum_of_means += ours.mean();
    sum_of_their_means += theirs.mean();
    std::printf(
        "  %-8s %-14s tokens %4lld  mean %.4f (theirs %.4f)  worst %.3f (%.3f)  same best %d of 16 (%d)  "
        "%.2f s\n",
        GetParam(), name.c_str(), static_cast<long long>(tokens), ours.mean(), theirs.mean(), ours.worst,
        theirs.worst, ours.same_best, theirs.same_best, seconds);
    EXPECT_LE(ours.mean(), kOneMax * theirs.mean()) << name;
    EXPECT_EQ(ours.decided_otherwise, 0) << name;
    EXPECT_GE(ours.compared, kRows * 10) << name;
    (*model)->text().Free(sequence);
  }
  ASSERT_EQ(reference.size(), 3u);
  std::printf("  %-8s mean over the prompts %.4f (theirs %.4f)\n", GetParam(), sum_of_means / 3,
              sum_of_their_means / 3);
  EXPECT_LE(sum_of_means, sum_of_their_means);
}

INSTANTIATE_TEST_SUITE_P(Sizes, FullSizeTest, testing::Values("2b", "4b", "8b", "30b-a3b"),
                         [](const auto& test) {
                           std::string name = test.param;
                           std::erase(name, '-');
                           return name;
                         });

}  // namespace
}  // namespace prism
