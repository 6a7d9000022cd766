#include <cmath>

#include "kernels/cpu/cpu_ops.h"
#include "kernels/cpu/parallel_rows.h"

namespace prism::cpu {
namespace {

// Sums over a row go by column modulo kLanes into double accumulators, which are then added
// pairwise: one order for every number of rows and every width of vector.
constexpr int kLanes = 8;

double AddLanes(const double (&s)[kLanes]) {
  return ((s[0] + s[1]) + (s[2] + s[3])) + ((s[4] + s[5]) + (s[6] + s[7]));
}

// Sum of term(x[c]) over the row.
template <typename Term>
double RowSum(const float* x, int64_t columns, const Term& term) {
  double lanes[kLanes] = {};
  int64_t c = 0;
  for (; c + kLanes <= columns; c += kLanes) {
    for (int lane = 0; lane < kLanes; ++lane) lanes[lane] += term(static_cast<double>(x[c + lane]));
  }
  for (int lane = 0; c < columns; ++c, ++lane) lanes[lane] += term(static_cast<double>(x[c]));
  return AddLanes(lanes);
}

void RmsNormRow(const float* x, const float* weight, int64_t columns, float epsilon, float* y) {
  const double mean_square =
      RowSum(x, columns, [](double v) { return v * v; }) / static_cast<double>(columns);
  const float scale = static_cast<float>(1.0 / std::sqrt(mean_square + static_cast<double>(epsilon)));
  for (int64_t c = 0; c < columns; ++c) y[c] = x[c] * scale * weight[c];
}

void LayerNormRow(const float* x, const float* weight, const float* bias, int64_t columns, float epsilon,
                  float* y) {
  const double mean = RowSum(x, columns, [](double v) { return v; }) / static_cast<double>(columns);
  const double variance =
      RowSum(x, columns, [mean](double v) { return (v - mean) * (v - mean); }) / static_cast<double>(columns);
  const double scale = 1.0 / std::sqrt(variance + static_cast<double>(epsilon));
  for (int64_t c = 0; c < columns; ++c) {
    y[c] = static_cast<float>((static_cast<double>(x[c]) - mean) * scale) * weight[c] + bias[c];
  }
}

// x += add, of one row; nothing if add is null.
void AddRow(float* x, const float* add, int64_t columns) {
  if (add == nullptr) return;
  for (int64_t c = 0; c < columns; ++c) x[c] += add[c];
}

const float* RowOrNull(const float* rows, int64_t index) { return rows == nullptr ? nullptr : rows + index; }

}  // namespace

absl::Status RmsNorm(Stream& stream, const RmsNormArgs& args) {
  const int64_t columns = args.x.dim(1);
  float* x = args.x.data<float>();
  const float* add = args.add.present() ? args.add.data<float>() : nullptr;
  const float* weight = args.weight.data<float>();
  float* y = args.y.data<float>();
  ParallelRows(stream, args.x.dim(0), columns, [&](int64_t begin, int64_t end) {
    for (int64_t t = begin; t < end; ++t) {
      AddRow(x + t * columns, RowOrNull(add, t * columns), columns);
      RmsNormRow(x + t * columns, weight, columns, args.epsilon, y + t * columns);
    }
  });
  return absl::OkStatus();
}

absl::Status HeadRmsNorm(Stream& stream, const HeadRmsNormArgs& args) {
  const int64_t columns = args.x.dim(1);
  const int64_t head_size = args.weight.dim(0);
  const float* weight = args.weight.data<float>();
  float* x = args.x.data<float>() + args.column;
  ParallelRows(stream, args.x.dim(0), args.num_heads * head_size, [&](int64_t begin, int64_t end) {
    for (int64_t t = begin; t < end; ++t) {
      for (int64_t h = 0; h < args.num_heads; ++h) {
        float* head = x + t * columns + h * head_size;
        RmsNormRow(head, weight, head_size, args.epsilon, head);
      }
    }
  });
  return absl::OkStatus();
}

absl::Status LayerNorm(Stream& stream, const LayerNormArgs& args) {
  const int64_t columns = args.x.dim(1);
  float* x = args.x.data<float>();
  const float* add = args.add.present() ? args.add.data<float>() : nullptr;
  const float* weight = args.weight.data<float>();
  const float* bias = args.bias.data<float>();
  float* y = args.y.data<float>();
  ParallelRows(stream, args.x.dim(0), columns, [&](int64_t begin, int64_t end) {
    for (int64_t t = begin; t < end; ++t) {
      AddRow(x + t * columns, RowOrNull(add, t * columns), columns);
      LayerNormRow(x + t * columns, weight, bias, columns, args.epsilon, y + t * columns);
    }
  });
  return absl::OkStatus();
}

}  // namespace prism::cpu
