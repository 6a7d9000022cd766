// Attention, the activations and the row-wise ops on one core, beside what that core can do, measured in turn
// with them in the same run: many queries beside its fused multiply-add peak, one token a sequence beside its
// read bandwidth. A pair of query and key counts 4 D operations: a multiply and an add an element for
// the score, and the same for the value; the exponential is not counted.
//
//   bench_attention [ROUNDS]       medians over ROUNDS (7) interleaved rounds
#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <numeric>
#include <random>

#include "benchmarks/ops/yardstick.h"
#include "kernels/cpu/cpu_backend.h"
#include "kernels/ops/activation.h"
#include "kernels/ops/add.h"
#include "kernels/ops/attention.h"
#include "kernels/ops/norm.h"
#include "kernels/ops/rope.h"

#define HWY_DISABLED_TARGETS (HWY_SSSE3 | HWY_AVX3_DL | HWY_SVE | HWY_SVE2 | HWY_SVE_256 | HWY_SVE2_128)
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "benchmarks/ops/bench_attention.cc"
#include "hwy/foreach_target.h"
#include "hwy/highway.h"

HWY_BEFORE_NAMESPACE();
namespace prism::bench {
namespace HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

// Runs `steps` steps of twelve independent chains in registers; gives the operations done.
double MultiplyAdd(int64_t steps, float* sink) {
  const hn::CappedTag<float, 16> d;
  using Vector = hn::Vec<decltype(d)>;
  constexpr int kChains = 12;
  Vector sums[kChains];
  for (int i = 0; i < kChains; ++i) sums[i] = hn::Set(d, static_cast<float>(i));
  const Vector scale = hn::Set(d, 0.5f);
  const Vector shift = hn::Set(d, *sink);
  for (int64_t step = 0; step < steps; ++step) {
#pragma GCC unroll 12
    for (int i = 0; i < kChains; ++i) sums[i] = hn::MulAdd(sums[i], scale, shift);
  }
  Vector total = sums[0];
  for (int i = 1; i < kChains; ++i) total = hn::Add(total, sums[i]);
  *sink = hn::GetLane(total) * 1e-6f;
  return 2.0 * kChains * static_cast<double>(hn::Lanes(d)) * static_cast<double>(steps);
}

}  // namespace HWY_NAMESPACE
}  // namespace prism::bench
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace prism::bench {
namespace {

HWY_EXPORT(MultiplyAdd);

// Operations per second of fused multiply-adds that wait for nothing.
double PeakFlops() {
  static float sink = 1.0f;
  double operations = 0.0;
  const double seconds = Seconds([&] { operations = HWY_DYNAMIC_DISPATCH(MultiplyAdd)(4'000'000, &sink); });
  return operations / seconds;
}

Tensor Random(Shape shape) {
  Tensor tensor = Tensor::Host(DType::kF32, std::move(shape));
  std::mt19937 generator(1);
  std::uniform_real_distribution<float> distribution(-1.0f, 1.0f);
  for (float& value : tensor.span<float>()) value = distribution(generator);
  return tensor;
}

// Something to time, and how much work one call is.
struct Case {
  std::string name;
  double operations;  // 0: not counted
  double bytes;       // of keys and values, where memory decides; else 0
  double elements;    // of output
  std::function<absl::Status()> run;
};

// A vision segment: every patch sees every patch.
Case Varlen(Stream& stream, int64_t rows, int64_t num_heads, int64_t head_size) {
  const int64_t width = num_heads * head_size;
  auto qkv = std::make_shared<Tensor>(Random({rows, 3 * width}));
  auto out = std::make_shared<Tensor>(Tensor::Host(DType::kF32, {rows, width}));
  auto starts = std::make_shared<std::vector<int32_t>>(std::vector<int32_t>{0, static_cast<int32_t>(rows)});
  return {"varlen  " + std::to_string(rows) + " patches, " + std::to_string(num_heads) + " heads of " +
              std::to_string(head_size),
          4.0 * static_cast<double>(head_size * num_heads * rows * rows), 0.0,
          static_cast<double>(rows * width), [=, &stream] {
            return AttentionVarlen(stream, {.qkv = qkv->view(),
                                            .num_heads = num_heads,
                                            .segment_starts = TensorView(starts->data(), Shape{2}),
                                            .out = out->view(),
                                            .scale = 0.125f});
          }};
}

// `num_sequences` contexts of `length` tokens of which the last `rows` are new; 8 KV heads of 128, as all
// dense models have. With one new token each, calls go through layers that no cache holds together.
Case Paged(Stream& stream, int64_t num_sequences, int64_t length, int64_t rows, int64_t num_heads) {
  constexpr int64_t kKvHeads = 8, kHeadSize = 128;
  constexpr int64_t kLayersMax = 16;
  const int64_t pages_each = (length + kAttentionTile - 1) / kAttentionTile;
  const int64_t num_pages = num_sequences * pages_each;
  const int64_t width = num_heads * kHeadSize;
  const int64_t all_rows = num_sequences * rows;
  const double layer_bytes =
      static_cast<double>(num_sequences * length * kKvHeads * kHeadSize) * 2 * sizeof(float);
  const int64_t num_layers =
      rows > 1 ? 1
               : std::clamp<int64_t>(
                     static_cast<int64_t>(2.0 * static_cast<double>(LastLevelCacheBytes()) / layer_bytes), 1,
                     kLayersMax);
  struct Memory {
    Tensor qkv, out;
    std::vector<Tensor> k, v;
    std::vector<int32_t> starts, lengths, tables;
    size_t layer = 0;
  };
  auto m = std::make_shared<Memory>();
  m->qkv = Random({all_rows, width + 2 * kKvHeads * kHeadSize});
  m->out = Tensor::Host(DType::kF32, {all_rows, width});
  for (int64_t i = 0; i < num_layers; ++i) {
    m->k.push_back(Random({num_pages, kKvHeads, kHeadSize, kAttentionTile}));
    m->v.push_back(Random({num_pages, kKvHeads, kAttentionTile, kHeadSize}));
  }
  for (int64_t s = 0; s <= num_sequences; ++s) m->starts.push_back(static_cast<int32_t>(s * rows));
  m->lengths.assign(static_cast<size_t>(num_sequences), static_cast<int32_t>(length));
  m->tables.resize(static_cast<size_t>(num_pages));
  std::iota(m->tables.begin(), m->tables.end(), 0);
  const double pairs = static_cast<double>(num_sequences * rows) *
                       (static_cast<double>(length) - static_cast<double>(rows - 1) / 2.0);
  return {"paged   " + std::to_string(num_sequences) + " x " + std::to_string(rows) + " new of " +
              std::to_string(length) + " tokens, " + std::to_string(num_heads) + "/8 heads of 128",
          rows > 1 ? 4.0 * static_cast<double>(width) * pairs : 0.0, rows > 1 ? 0.0 : layer_bytes,
          static_cast<double>(all_rows * width), [=, &stream] {
            m->layer = (m->layer + 1) % m->k.size();
            return AttentionPaged(
                stream, {.qkv = m->qkv.view(),
                         .num_heads = num_heads,
                         .kv = {.k = m->k[m->layer].view(), .v = m->v[m->layer].view()},
                         .query_starts = TensorView(m->starts.data(), Shape{num_sequences + 1}),
                         .context_lengths = TensorView(m->lengths.data(), Shape{num_sequences}),
                         .page_tables = TensorView(m->tables.data(), Shape{num_sequences, pages_each}),
                         .out = m->out.view(),
                         .scale = 0.088f});
          }};
}

// Ops that pass over their rows once or twice: 256 rows of 4096, heads of 128.
Case RowWise(Stream& stream, const std::string& name) {
  constexpr int64_t kRows = 256, kColumns = 4096, kHalf = 64;
  auto x = std::make_shared<Tensor>(Random({kRows, kColumns}));
  auto y = std::make_shared<Tensor>(Random({kRows, kColumns}));
  auto weight = std::make_shared<Tensor>(Random({kColumns}));
  auto table = std::make_shared<Tensor>(Random({kRows, kHalf}));
  return {name, 0.0, 0.0, static_cast<double>(kRows * kColumns), [=, &stream] {
            if (name == "rms_norm") {
              return RmsNorm(stream,
                             {.x = x->view(), .weight = weight->view(), .y = y->view(), .epsilon = 1e-6f});
            }
            if (name == "layer_norm") {
              return LayerNorm(stream, {.x = x->view(),
                                        .weight = weight->view(),
                                        .bias = weight->view(),
                                        .y = y->view(),
                                        .epsilon = 1e-6f});
            }
            if (name == "add") return Add(stream, {.x = y->view(), .y = x->view()});
            return RopeApply(stream, {.x = y->view(),
                                      .cos = table->view(),
                                      .sin = table->view(),
                                      .column = 0,
                                      .num_heads = kColumns / (2 * kHalf)});
          }};
}

Case Activation(Stream& stream, const std::string& name, int64_t rows, int64_t columns) {
  const int64_t inputs = name == "silu_mul" ? 2 * columns : columns;
  auto x = std::make_shared<Tensor>(Random({rows, inputs}));
  auto y = std::make_shared<Tensor>(Random({rows, columns}));
  return {name, 0.0, 0.0, static_cast<double>(rows * columns), [=, &stream] {
            if (name == "silu_mul") return SiluMul(stream, {.x = x->view(), .y = y->view()});
            return Gelu(stream,
                        {.x = y->view(), .form = name == "gelu tanh" ? GeluForm::kTanh : GeluForm::kErf});
          }};
}

int Run(int rounds) {
  std::printf("%s\n", MachineAndCommit().c_str());
  const auto backend = CreateCpuBackend();
  const std::unique_ptr<Stream> stream = backend->CreateStream({.num_threads = 1}).value();
  std::vector<std::function<Case()>> cases;
  for (const int64_t head_size : {64, 72}) {
    for (const int64_t rows : {196, 784, 4096}) {
      cases.push_back([&, rows, head_size] { return Varlen(*stream, rows, 16, head_size); });
    }
  }
  cases.push_back([&] { return Paged(*stream, 1, 512, 512, 16); });
  cases.push_back([&] { return Paged(*stream, 1, 4096, 512, 16); });
  cases.push_back([&] { return Paged(*stream, 1, 4096, 512, 32); });
  cases.push_back([&] { return Paged(*stream, 1, 4096, 1, 16); });
  cases.push_back([&] { return Paged(*stream, 8, 1024, 1, 16); });
  cases.push_back([&] { return Paged(*stream, 8, 1024, 1, 32); });
  for (const char* name : {"silu_mul", "gelu tanh", "gelu erf"}) {
    cases.push_back([&, name] { return Activation(*stream, name, 256, 4096); });
  }

  for (const char* name : {"rms_norm", "layer_norm", "rope_apply", "add"}) {
    cases.push_back([&, name] { return RowWise(*stream, name); });
  }

  BandwidthProbe bandwidth(2 * LastLevelCacheBytes());
  std::printf("one thread; medians of %d rounds\n%-50s %10s %10s %10s %6s %11s\n", rounds, "", "ms", "ours",
              "the core's", "ratio", "ns/element");
  for (const std::function<Case()>& make : cases) {
    const Case c = make();
    std::vector<double> seconds, limits;
    for (int round = 0; round <= rounds; ++round) {
      const double limit = c.bytes > 0 ? bandwidth.Read(8) : PeakFlops();
      absl::Status status;
      const double each = Seconds([&] { status = c.run(); });
      if (!status.ok()) {
        std::printf("%s: %s\n", c.name.c_str(), std::string(status.message()).c_str());
        return 1;
      }
      if (round == 0) continue;  // warms up
      limits.push_back(limit);
      seconds.push_back(each);
    }
    const double median = Median(seconds);
    const double limit = Median(limits);
    const double work = c.bytes > 0 ? c.bytes : c.operations;
    std::printf("%-50s %10.3f", c.name.c_str(), median * 1e3);
    if (work > 0) {
      std::printf(" %5.1f %s %5.1f %s %6.2f", work / median / 1e9, c.bytes > 0 ? "GB/s" : "GF/s", limit / 1e9,
                  c.bytes > 0 ? "GB/s" : "GF/s", work / median / limit);
    } else {
      std::printf(" %10s %10s %6s", "", "", "");
    }
    std::printf(" %11.3f\n", median * 1e9 / c.elements);
  }
  return 0;
}

}  // namespace
}  // namespace prism::bench

int main(int argc, char** argv) { return prism::bench::Run(argc > 1 ? std::atoi(argv[1]) : 7); }
#endif  // HWY_ONCE
