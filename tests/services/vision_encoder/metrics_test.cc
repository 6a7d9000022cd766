#include "services/vision_encoder/metrics.h"

#include <gtest/gtest.h>

#include "tests/common/metrics/metric_shape.h"

namespace prism {
namespace {

TEST(EncoderMetricsTest, ShowsTheNamesThatAreWrittenDown) {
  MetricRegistry registry;
  EncoderMetrics metrics(&registry);
  ExpectShapeOf(registry.Text(), PRISM_SOURCE_DIR "/tests/services/vision_encoder/metrics.golden");
}

}  // namespace
}  // namespace prism
