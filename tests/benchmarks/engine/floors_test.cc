#include "benchmarks/engine/floors.h"

#include <gtest/gtest.h>

#include <fstream>
#include <sstream>
#include <string>

namespace prism::bench {
namespace {

ModelConfig Published(const std::string& size) {
  std::ifstream file(std::string(PRISM_SOURCE_DIR) + "/tests/common/checkpoint/data/" + size + ".json");
  std::ostringstream text;
  text << file.rdbuf();
  absl::StatusOr<ModelConfig> config = ParseModelConfig({.config = text.str()});
  EXPECT_TRUE(config.ok()) << config.status();
  return *std::move(config);
}

// Within 1 %: the figures they are compared with are rounded to three digits.
void ExpectNear(double value, double expected) { EXPECT_NEAR(value / expected, 1, 0.01) << value; }

TEST(FloorsTest, DecodeStepsOfTheMixtureTakeWhatItsWeightsTakeToRead) {
  const TextConfig text = Published("30b-a3b").text;
  ExpectNear(1e3 * DecodeFloor(text, kH200, 1, 1024), 1.44);
  ExpectNear(1e3 * DecodeFloor(text, kH200, 8, 1024), 6.20);
  ExpectNear(1e3 * DecodeFloor(text, kH200, 32, 1024), 13.11);
  ExpectNear(1e3 * DecodeFloor(text, kH200, 128, 1024), 17.12);
  ExpectNear(1e3 * DecodeFloor(text, kH200, 1, 32768), 2.16);
}

TEST(FloorsTest, DecodeStepsOfDenseModelsReadAllTheirWeights) {
  ExpectNear(1 / DecodeFloor(Published("2b").text, kH200, 1, 1024), 1208);
  ExpectNear(1 / DecodeFloor(Published("4b").text, kH200, 1, 1024), 525);
  ExpectNear(1 / DecodeFloor(Published("8b").text, kH200, 1, 1024), 281);
}

TEST(FloorsTest, UniformRoutingTouchesTheExpectedExperts) {
  const TextConfig text = Published("30b-a3b").text;
  EXPECT_NEAR(ExpectedExperts(text, 1), 8, 1e-9);
  EXPECT_NEAR(ExpectedExperts(text, 8), 51.6, 0.05);
  EXPECT_NEAR(ExpectedExperts(text, 32), 111.8, 0.05);
  EXPECT_EQ(ExpectedExperts(Published("8b").text, 8), 0);
}

TEST(FloorsTest, PromptsAreBoundByWeightsThenByOperations) {
  const TextConfig text = Published("30b-a3b").text;
  // 1024 tokens: 14.0 ms of weights and 0.7 of attention; 8192: 56.6 of operations and 44.7.
  ExpectNear(1024 / PrefillFloor(text, kH200, 1024), 70e3);
  ExpectNear(8192 / PrefillFloor(text, kH200, 8192), 81e3);
}

TEST(FloorsTest, TheTowerIsBoundByOperations) {
  const VisionConfig vision = Published("30b-a3b").vision;
  ExpectNear(1e3 * TowerFloor(vision, kH200, 3072), 4.94);
  ExpectNear(1e3 * TowerFloor(vision, kH200, 240 * 136), 204);
}

TEST(FloorsTest, AnUnknownDeviceHasNoFloor) {
  const ModelConfig config = Published("30b-a3b");
  EXPECT_EQ(DecodeFloor(config.text, {}, 1, 1024), 0);
  EXPECT_EQ(PrefillFloor(config.text, {}, 1024), 0);
  EXPECT_EQ(TowerFloor(config.vision, {}, 3072), 0);
}

}  // namespace
}  // namespace prism::bench
