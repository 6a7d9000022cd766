#include "services/gateway/metrics.h"

#include <gtest/gtest.h>

#include "tests/common/metrics/metric_shape.h"

namespace prism {
namespace {

TEST(GatewayMetricsTest, ShowsTheNamesThatAreWrittenDown) {
  MetricRegistry registry;
  GatewayMetrics metrics(&registry);
  metrics.Answered("/v1/chat/completions", "POST", 200, 1.5);
  ExpectShapeOf(registry.Text(), PRISM_SOURCE_DIR "/tests/services/gateway/metrics.golden");
}

}  // namespace
}  // namespace prism
