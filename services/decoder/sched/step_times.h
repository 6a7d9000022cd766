// StepTimes learns how long steps of how many rows take, and tells how long work will.
//
// A step's time is no multiple of its rows: a few rows take as long as one on a device that reads all
// weights either way. So steps are kept by the power of two that their rows reach, each with a smoothed
// time, and sizes in between are interpolated. Beyond the largest size seen, a step is taken to last
// as long as that one: an estimate that turns work away must not be too high.
//
// Thread safety: thread-compatible; a plain value.
#pragma once

#include <array>
#include <cstdint>

namespace prism {

class StepTimes {
 public:
  // A step of `rows` rows took so long. REQUIRES: rows >= 1, seconds >= 0
  void Observe(int64_t rows, double seconds);
  // Of a step of `rows` rows; 0 if nothing was observed or rows is 0. REQUIRES: rows >= 0
  double SecondsOfStep(int64_t rows) const;
  // The most rows, of rows_max, rows_max / 2, ... and at least rows_min, whose step is expected to take no
  // longer than `seconds`. REQUIRES: 1 <= rows_min <= rows_max
  int64_t RowsWithin(double seconds, int64_t rows_min, int64_t rows_max) const;
  // Of `rows` rows in steps of at most `rows_max`. REQUIRES: rows >= 0, rows_max >= 1
  double SecondsFor(int64_t rows, int64_t rows_max) const;

 private:
  static constexpr int kSizes = 32;  // 1, 2, 4, ... rows

  struct Size {
    double rows = 0;  // smoothed; 0: none seen
    double seconds = 0;
  };
  std::array<Size, kSizes> sizes_{};
};

}  // namespace prism
