#include "benchmarks/engine/floors.h"

#include <algorithm>
#include <cmath>

namespace prism::bench {
namespace {

constexpr double kElementBytes = 2;
// Reads and writes of the residual stream that no schedule saves, a row, layer and channel.
constexpr double kResidualBytes = 24;

double Ratio(double amount, double rate) { return rate > 0 ? amount / rate : 0; }

// Elements of one layer's weights outside its MLP.
double AttentionElements(const TextConfig& text) {
  const auto hidden = static_cast<double>(text.hidden_size);
  return hidden * static_cast<double>(text.q_size() + 2 * text.kv_size()) +
         static_cast<double>(text.q_size()) * hidden;
}

double ExpertElements(const TextConfig& text) {
  return 3.0 * static_cast<double>(text.hidden_size) * static_cast<double>(text.moe_intermediate_size);
}

double DenseElements(const TextConfig& text) {
  return 3.0 * static_cast<double>(text.hidden_size) * static_cast<double>(text.intermediate_size);
}

double RouterElements(const TextConfig& text) {
  return static_cast<double>(text.hidden_size) * static_cast<double>(text.num_experts);
}

double HeadElements(const TextConfig& text) {
  return static_cast<double>(text.vocab_size) * static_cast<double>(text.hidden_size);
}

// Multiply-adds of one row through all layers, without the head.
double RowProducts(const TextConfig& text) {
  double products = 0;
  for (int64_t layer = 0; layer < text.num_hidden_layers; ++layer) {
    products += AttentionElements(text);
    products +=
        text.IsMoeLayer(layer)
            ? static_cast<double>(text.num_experts_per_tok) * ExpertElements(text) + RouterElements(text)
            : DenseElements(text);
  }
  return products;
}

}  // namespace

double ExpectedExperts(const TextConfig& text, int64_t rows) {
  if (text.num_experts == 0) return 0;
  const auto experts = static_cast<double>(text.num_experts);
  const double chosen = static_cast<double>(text.num_experts_per_tok) / experts;
  return experts * (1 - std::pow(1 - chosen, static_cast<double>(rows)));
}

double WeightBytes(const TextConfig& text, int64_t rows, bool with_head) {
  double elements = with_head ? HeadElements(text) : 0;
  for (int64_t layer = 0; layer < text.num_hidden_layers; ++layer) {
    elements += AttentionElements(text);
    elements += text.IsMoeLayer(layer)
                    ? ExpectedExperts(text, rows) * ExpertElements(text) + RouterElements(text)
                    : DenseElements(text);
  }
  return elements * kElementBytes;
}

double DecodeFloor(const TextConfig& text, const Ceilings& device, int64_t batch, int64_t context) {
  const auto rows = static_cast<double>(batch);
  const auto layers = static_cast<double>(text.num_hidden_layers);
  const auto tokens = static_cast<double>(context);
  const double kv_bytes = 2 * layers * static_cast<double>(text.kv_size()) * kElementBytes;
  const double bytes = WeightBytes(text, batch, true) + rows * tokens * kv_bytes +
                       rows * layers * static_cast<double>(text.hidden_size) * kResidualBytes;
  const double operations = rows * 2 * (RowProducts(text) + HeadElements(text)) +
                            4 * rows * static_cast<double>(text.q_size()) * tokens * layers;
  return std::max(Ratio(bytes, device.bytes_per_s), Ratio(operations, device.matrix_flops));
}

double PrefillFloor(const TextConfig& text, const Ceilings& device, int64_t tokens) {
  const auto rows = static_cast<double>(tokens);
  const double linear = std::max(Ratio(rows * 2 * RowProducts(text), device.matrix_flops),
                                 Ratio(WeightBytes(text, tokens, false), device.bytes_per_s));
  const double attention =
      4 * static_cast<double>(text.q_size()) * rows * rows / 2 * static_cast<double>(text.num_hidden_layers);
  return linear + Ratio(attention, device.attention_flops);
}

double TowerFloor(const VisionConfig& vision, const Ceilings& device, int64_t patches) {
  const auto rows = static_cast<double>(patches);
  const auto channels = static_cast<double>(vision.hidden_size);
  const double block =
      2 * rows * (4 * channels * channels + 2 * channels * static_cast<double>(vision.intermediate_size)) +
      4 * rows * rows * channels;
  const double merged = channels * static_cast<double>(vision.merge_area());
  const double merger = 2 * rows / static_cast<double>(vision.merge_area()) *
                        (merged * merged + merged * static_cast<double>(vision.out_hidden_size));
  const double operations = static_cast<double>(vision.depth) * block +
                            2 * rows * static_cast<double>(vision.patch_elements()) * channels +
                            static_cast<double>(vision.num_deepstack() + 1) * merger;
  return Ratio(operations, device.matrix_flops);
}

}  // namespace prism::bench
