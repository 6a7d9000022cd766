#include "services/decoder/sched/step_times.h"

#include <algorithm>
#include <bit>

#include "common/base/check.h"

namespace prism {
namespace {

// Weight of the newest step of a size.
constexpr double kSmoothing = 0.2;

}  // namespace

void StepTimes::Observe(int64_t rows, double seconds) {
  PRISM_CHECK(rows >= 1 && seconds >= 0);
  const int log = std::bit_width(static_cast<uint64_t>(rows)) - 1;
  Size& size = sizes_[static_cast<size_t>(std::min(log, kSizes - 1))];
  const double weight = size.rows == 0 ? 1 : kSmoothing;
  size.rows += weight * (static_cast<double>(rows) - size.rows);
  size.seconds += weight * (seconds - size.seconds);
}

double StepTimes::SecondsOfStep(int64_t rows) const {
  PRISM_CHECK(rows >= 0);
  if (rows == 0) return 0;
  const auto wanted = static_cast<double>(rows);
  const Size* below = nullptr;
  for (const Size& size : sizes_) {
    if (size.rows == 0) continue;
    if (size.rows >= wanted) {
      if (below == nullptr || size.rows == below->rows) return size.seconds;
      const double part = (wanted - below->rows) / (size.rows - below->rows);
      return below->seconds + part * (size.seconds - below->seconds);
    }
    below = &size;
  }
  return below == nullptr ? 0 : below->seconds;
}

int64_t StepTimes::RowsWithin(double seconds, int64_t rows_min, int64_t rows_max) const {
  PRISM_CHECK(rows_min >= 1 && rows_min <= rows_max);
  int64_t rows = rows_max;
  while (rows > rows_min && SecondsOfStep(rows) > seconds) rows = std::max(rows_min, rows / 2);
  return rows;
}

double StepTimes::SecondsFor(int64_t rows, int64_t rows_max) const {
  PRISM_CHECK(rows >= 0 && rows_max >= 1);
  return static_cast<double>(rows / rows_max) * SecondsOfStep(rows_max) + SecondsOfStep(rows % rows_max);
}

}  // namespace prism
