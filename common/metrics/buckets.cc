#include "common/metrics/buckets.h"

#include "common/base/check.h"

namespace prism {

std::vector<double> OneTwoFiveBuckets(double value_max) {
  PRISM_CHECK(value_max >= 1);
  std::vector<double> buckets;
  for (double decade = 1;; decade *= 10) {
    for (const double step : {1.0, 2.0, 5.0}) {
      buckets.push_back(decade * step);
      if (buckets.back() >= value_max) return buckets;
    }
  }
}

}  // namespace prism
