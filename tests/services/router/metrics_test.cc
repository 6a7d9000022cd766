#include "services/router/metrics.h"

#include <gtest/gtest.h>

#include "tests/common/metrics/metric_shape.h"

namespace prism {
namespace {

TEST(RouterMetricsTest, ShowsTheNamesThatAreWrittenDown) {
  MetricRegistry registry;
  RouterMetrics metrics(&registry);
  ExpectShapeOf(registry.Text(), PRISM_SOURCE_DIR "/tests/services/router/metrics.golden");
}

}  // namespace
}  // namespace prism
