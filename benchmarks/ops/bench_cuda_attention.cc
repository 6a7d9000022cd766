// Attention, norms and rotation on CUDA against their floors: bytes over the bandwidth and operations
// over the matrix rate that were measured on this kind of device.
//
//   bench_cuda_attention [decode | prompt | tower | rows]...      all of them by default
//
// A figure is the time of one launch in a graph of many, over buffers that together are several
// times the second-level cache: the median of some replays, and the least of them.
#include <cuda_bf16.h>
#include <cuda_runtime_api.h>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <numeric>
#include <random>
#include <string>
#include <vector>

#include "kernels/cuda/attention/attention.h"
#include "kernels/cuda/norm/norm.h"

namespace prism::cuda {
namespace {

constexpr double kBytesPerSecond = 4.3e12;        // read-only stream of an H200
constexpr double kFlopsPerSecond = 790e12;        // bf16 products of random data
constexpr int64_t kRotated = int64_t{512} << 20;  // bytes that a rotation of buffers covers at least
constexpr int kTokensPerPage = 64;

void Check(cudaError_t error) {
  if (error == cudaSuccess) return;
  std::fprintf(stderr, "%s\n", cudaGetErrorString(error));
  std::exit(1);
}

// Device memory for the rest of the program.
template <typename T>
T* Allocate(int64_t count) {
  void* data = nullptr;
  Check(cudaMalloc(&data, static_cast<size_t>(count) * sizeof(T)));
  return static_cast<T*>(data);
}
template <typename T>
T* Upload(const std::vector<T>& values) {
  T* data = Allocate<T>(static_cast<int64_t>(values.size()));
  Check(cudaMemcpy(data, values.data(), values.size() * sizeof(T), cudaMemcpyHostToDevice));
  return data;
}

// Normal values, the same block over and over.
__nv_bfloat16* RandomBf16(int64_t count) {
  static const std::vector<uint16_t>* block = [] {
    auto* values = new std::vector<uint16_t>(size_t{1} << 22);
    std::mt19937 generator(1);
    std::normal_distribution<float> distribution;
    for (uint16_t& value : *values) {
      const float x = distribution(generator);
      uint32_t bits;
      std::memcpy(&bits, &x, sizeof(bits));
      value = static_cast<uint16_t>(bits >> 16);
    }
    return values;
  }();
  auto* data = Allocate<uint16_t>(count);
  for (int64_t at = 0; at < count; at += static_cast<int64_t>(block->size())) {
    const int64_t size = std::min<int64_t>(static_cast<int64_t>(block->size()), count - at);
    Check(cudaMemcpy(data + at, block->data(), static_cast<size_t>(size) * 2, cudaMemcpyHostToDevice));
  }
  return reinterpret_cast<__nv_bfloat16*>(data);
}
float* RandomF32(int64_t count) {
  std::vector<float> values(static_cast<size_t>(count));
  std::mt19937 generator(2);
  std::normal_distribution<float> distribution;
  for (float& value : values) value = distribution(generator);
  return Upload(values);
}

struct Seconds {
  double median, least;
};

// Seconds of one launch(i); launches with i modulo `rotation` use different memory.
Seconds Time(int rotation, const std::function<cudaError_t(int, cudaStream_t)>& launch) {
  cudaStream_t stream = nullptr;
  Check(cudaStreamCreate(&stream));
  Check(launch(0, stream));
  cudaEvent_t begin, end;
  Check(cudaEventCreate(&begin));
  Check(cudaEventCreate(&end));
  Check(cudaEventRecord(begin, stream));
  Check(launch(rotation > 1 ? 1 : 0, stream));
  Check(cudaEventRecord(end, stream));
  Check(cudaStreamSynchronize(stream));
  float once_ms = 0;
  Check(cudaEventElapsedTime(&once_ms, begin, end));
  const int launches =
      std::max(rotation, std::clamp(static_cast<int>(1.0f / std::max(once_ms, 0.002f)), 1, 400));
  Check(cudaStreamBeginCapture(stream, cudaStreamCaptureModeRelaxed));
  for (int i = 0; i < launches; ++i) Check(launch(i % rotation, stream));
  cudaGraph_t graph;
  Check(cudaStreamEndCapture(stream, &graph));
  cudaGraphExec_t exec;
  Check(cudaGraphInstantiate(&exec, graph, 0));
  std::vector<float> times;
  for (int repeat = 0; repeat < 31; ++repeat) {
    Check(cudaEventRecord(begin, stream));
    Check(cudaGraphLaunch(exec, stream));
    Check(cudaEventRecord(end, stream));
    Check(cudaStreamSynchronize(stream));
    float ms = 0;
    Check(cudaEventElapsedTime(&ms, begin, end));
    if (repeat > 0) times.push_back(ms);
  }
  std::sort(times.begin(), times.end());
  Check(cudaGraphExecDestroy(exec));
  Check(cudaGraphDestroy(graph));
  Check(cudaStreamDestroy(stream));
  return {times[times.size() / 2] / 1e3 / launches, times[0] / 1e3 / launches};
}

void Print(const std::string& name, const Seconds& taken, double bytes, double flops) {
  const double floor = std::max(bytes / kBytesPerSecond, flops / kFlopsPerSecond);
  const double seconds = taken.median;
  std::printf("%-40s %9.2f us (least %9.2f)  floor %8.2f us  ratio %5.3f  %7.1f GB/s %6.1f TFLOP/s\n",
              name.c_str(), seconds * 1e6, taken.least * 1e6, floor * 1e6, floor / seconds,
              bytes / seconds / 1e9, flops / seconds / 1e12);
  std::fflush(stdout);
}

struct Sequence {
  int context, rows;
};

constexpr int kHeads = 32, kKvHeads = 4, kHeadSize = 128;  // of 30B-A3B

// The paged memory of some layers, and one step over it.
class PagedBench {
 public:
  explicit PagedBench(const std::vector<Sequence>& sequences) {
    int pages_max = 1, num_pages = 0;
    std::vector<int32_t> starts = {0}, contexts;
    for (const Sequence& s : sequences) {
      const int pages = (s.context + kTokensPerPage - 1) / kTokensPerPage;
      pages_max = std::max(pages_max, pages);
      num_pages += pages;
      starts.push_back(starts.back() + s.rows);
      contexts.push_back(s.context);
      bytes_ += 2.0 * s.context * kKvHeads * kHeadSize * 2;
      for (int row = 0; row < s.rows; ++row) {
        flops_ += 4.0 * (s.context - s.rows + row + 1) * kHeads * kHeadSize;
      }
    }
    std::vector<int32_t> order(static_cast<size_t>(num_pages)), tables;
    std::iota(order.begin(), order.end(), 0);
    std::shuffle(order.begin(), order.end(), std::mt19937(3));
    size_t next = 0;
    for (const Sequence& s : sequences) {
      for (int j = 0; j < pages_max; ++j)
        tables.push_back(j * kTokensPerPage < s.context ? order[next++] : -1);
    }
    layer_ = static_cast<int64_t>(num_pages) * kTokensPerPage * kKvHeads * kHeadSize;
    layers_ = static_cast<int>(std::max<int64_t>(1, kRotated / (layer_ * 4)));
    const int rows = starts.back();
    params_ = {.qkv = RandomBf16(int64_t{rows} * (kHeads + 2 * kKvHeads) * kHeadSize),
               .columns = (kHeads + 2 * kKvHeads) * kHeadSize,
               .k = RandomBf16(layer_ * layers_),
               .v = RandomBf16(layer_ * layers_),
               .query_starts = Upload(starts),
               .context_lengths = Upload(contexts),
               .page_tables = Upload(tables),
               .out = Allocate<__nv_bfloat16>(int64_t{rows} * kHeads * kHeadSize),
               .num_rows = rows,
               .num_sequences = static_cast<int32_t>(sequences.size()),
               .pages_max = pages_max,
               .num_heads = kHeads,
               .num_kv_heads = kKvHeads,
               .head_size = kHeadSize,
               .scale_log2 = static_cast<float>(1.4426950408889634 / std::sqrt(kHeadSize))};
    bytes_ += 2.0 * rows * kHeads * kHeadSize * 2;
  }
  ~PagedBench() {
    for (const void* data :
         std::initializer_list<const void*>{params_.qkv, params_.k, params_.v, params_.query_starts,
                                            params_.context_lengths, params_.page_tables, params_.out}) {
      Check(cudaFree(const_cast<void*>(data)));
    }
  }

  AttentionPagedParams layer(int i) const {
    AttentionPagedParams params = params_;
    params.k += layer_ * i;
    params.v += layer_ * i;
    return params;
  }
  int num_layers() const { return layers_; }
  double bytes() const { return bytes_; }
  double flops() const { return flops_; }

 private:
  AttentionPagedParams params_;
  int64_t layer_;
  int layers_;
  double bytes_ = 0, flops_ = 0;
};

void Decode() {
  std::printf("generated rows, 32 heads of 128, 4 KV heads\n");
  for (const auto& [batch, context] : std::vector<std::pair<int, int>>{
           {1, 1024}, {8, 1024}, {32, 1024}, {128, 1024}, {1, 8192}, {8, 8192}, {32, 8192}, {1, 32768}}) {
    const PagedBench bench(std::vector<Sequence>(static_cast<size_t>(batch), Sequence{context, 1}));
    const DecodeWorkspace workspace = {
        .partials = Allocate<float>(DecodeWorkspaceBytes(bench.layer(0), 1) / 4),
        .counters = Upload(std::vector<uint32_t>(static_cast<size_t>(DecodeCounters(bench.layer(0), 1)), 0))};
    for (const DecodeSplit split : {DecodeSplit::kLeaves, DecodeSplit::kWhole, DecodeSplit::kAuto}) {
      const Seconds seconds = Time(bench.num_layers(), [&](int i, cudaStream_t stream) {
        return LaunchAttentionDecode(bench.layer(i), 1, split, workspace, stream);
      });
      Print("batch " + std::to_string(batch) + " context " + std::to_string(context) +
                (split == DecodeSplit::kWhole    ? ", whole"
                 : split == DecodeSplit::kLeaves ? ", by leaves"
                                                 : ""),
            seconds, bench.bytes(), bench.flops());
    }
    Check(cudaFree(workspace.partials));
    Check(cudaFree(workspace.counters));
  }
}

void Prompt() {
  std::printf("prompt rows, 32 heads of 128, 4 KV heads\n");
  struct Case {
    const char* name;
    std::vector<Sequence> sequences;
  };
  for (const Case& c : std::vector<Case>{{"1 x 1024", {{1024, 1024}}},
                                         {"1 x 2048", {{2048, 2048}}},
                                         {"1 x 8192", {{8192, 8192}}},
                                         {"16 x 512", std::vector<Sequence>(16, {512, 512})},
                                         {"2048 at the end of 8192", {{8192, 2048}}},
                                         {"64 at the end of 8192", {{8192, 64}}}}) {
    const PagedBench bench(c.sequences);
    const Seconds seconds = Time(bench.num_layers(), [&](int i, cudaStream_t stream) {
      return LaunchAttentionPrompt(bench.layer(i), 1, stream);
    });
    Print(c.name, seconds, bench.bytes(), bench.flops());
  }
}

void Tower() {
  std::printf("tower, 16 heads\n");
  struct Case {
    int segments, rows;
  };
  for (const int head_size : {72, 64}) {
    for (const Case& c : std::vector<Case>{{1, 3072}, {4, 3072}, {1, 8160}, {1, 32640}, {32, 196}}) {
      constexpr int kTowerHeads = 16;
      const int64_t rows = int64_t{c.segments} * c.rows, width = kTowerHeads * head_size;
      std::vector<int32_t> starts = {0};
      for (int i = 0; i < c.segments; ++i) starts.push_back(starts.back() + c.rows);
      AttentionVarlenParams params = {
          .qkv = RandomBf16(rows * 3 * width),
          .segment_starts = Upload(starts),
          .out = Allocate<__nv_bfloat16>(rows * width),
          .num_rows = static_cast<int32_t>(rows),
          .num_segments = c.segments,
          .num_heads = kTowerHeads,
          .head_size = head_size,
          .scale_log2 = static_cast<float>(1.4426950408889634 / std::sqrt(head_size))};
      const Seconds seconds =
          Time(1, [&](int, cudaStream_t stream) { return LaunchAttentionVarlen(params, stream); });
      Print(std::to_string(c.segments) + " x " + std::to_string(c.rows) + " rows, heads of " +
                std::to_string(head_size),
            seconds, static_cast<double>(rows * width) * 8,
            4.0 * c.segments * c.rows * c.rows * static_cast<double>(width));
    }
  }
}

void Rows() {
  std::printf("norms and rotation\n");
  const float* weight = RandomF32(8192);
  const auto norm = [&](const char* name, int rows, int columns,
                        cudaError_t (*launch)(const NormParams&, cudaStream_t)) {
    const int64_t count = int64_t{rows} * columns;
    const int rotation = static_cast<int>(std::clamp<int64_t>(kRotated / (count * 6), 1, 64));
    float* x = Allocate<float>(count * rotation);
    Check(cudaMemset(x, 0x3c, static_cast<size_t>(count * rotation) * 4));
    auto* y = Allocate<__nv_bfloat16>(count * rotation);
    const Seconds seconds = Time(rotation, [&](int i, cudaStream_t stream) {
      return launch({.x = x + count * i,
                     .weight = weight,
                     .bias = weight,
                     .y = {.bf16 = y + count * i, .f32 = nullptr},
                     .num_rows = rows,
                     .columns = columns,
                     .epsilon = 1e-6f},
                    stream);
    });
    Print(std::string(name) + " " + std::to_string(rows) + " x " + std::to_string(columns), seconds,
          static_cast<double>(count) * 6, 0);
    Check(cudaFree(x));
    Check(cudaFree(y));
  };
  for (const int rows : {1, 32, 128, 2048, 8192}) norm("rms_norm", rows, 2048, LaunchRmsNorm);
  for (const int rows : {3072, 32640}) norm("layer_norm", rows, 1152, LaunchLayerNorm);
  for (const int rows : {1, 32, 2048, 8192}) {
    const int64_t columns = (kHeads + 2 * kKvHeads) * kHeadSize;
    const int rotation = static_cast<int>(std::clamp<int64_t>(kRotated / (rows * columns * 4), 1, 64));
    std::vector<int32_t> slots(static_cast<size_t>(rows));
    std::iota(slots.begin(), slots.end(), 5);
    const int64_t page_elements = (int64_t{rows} + 128) * kKvHeads * kHeadSize;
    auto* qkv = RandomBf16(rows * columns * rotation);
    auto* k = Allocate<__nv_bfloat16>(page_elements * rotation);
    auto* v = Allocate<__nv_bfloat16>(page_elements * rotation);
    const float* angles = RandomF32(int64_t{rows} * kHeadSize / 2);
    const int32_t* device_slots = Upload(slots);
    const Seconds seconds = Time(rotation, [&](int i, cudaStream_t stream) {
      return LaunchAttentionPrepare({.qkv = qkv + rows * columns * i,
                                     .columns = columns,
                                     .q_weight = weight,
                                     .k_weight = weight,
                                     .cos = angles,
                                     .sin = angles,
                                     .slots = device_slots,
                                     .k = k + page_elements * i,
                                     .v = v + page_elements * i,
                                     .num_rows = rows,
                                     .num_heads = kHeads,
                                     .num_kv_heads = kKvHeads,
                                     .head_size = kHeadSize,
                                     .epsilon = 1e-6f},
                                    stream);
    });
    Print("attention_prepare " + std::to_string(rows) + " rows", seconds,
          static_cast<double>(rows) * columns * 4, 0);
    Check(cudaFree(qkv));
    Check(cudaFree(k));
    Check(cudaFree(v));
  }
  for (const int rows : {3072, 32640}) {
    constexpr int kWidth = 16 * 72;
    auto* qkv = RandomBf16(int64_t{rows} * 3 * kWidth);
    const float* angles = RandomF32(int64_t{rows} * 36);
    const Seconds seconds = Time(1, [&](int, cudaStream_t stream) {
      return LaunchRopeApply({.x = qkv,
                              .columns = 3 * kWidth,
                              .cos = angles,
                              .sin = angles,
                              .num_rows = rows,
                              .num_heads = 32,
                              .half = 36},
                             stream);
    });
    Print("rope_apply " + std::to_string(rows) + " rows, 32 heads of 72", seconds,
          static_cast<double>(rows) * 2 * kWidth * 4, 0);
    Check(cudaFree(qkv));
  }
}

int Main(int argc, char** argv) {
  cudaDeviceProp properties;
  Check(cudaGetDeviceProperties(&properties, 0));
  std::printf("commit %s, %s, %d multiprocessors\n", PRISM_BENCH_COMMIT, properties.name,
              properties.multiProcessorCount);
  const auto wanted = [&](const char* name) {
    return argc < 2 ||
           std::any_of(argv + 1, argv + argc, [&](const char* arg) { return std::strcmp(arg, name) == 0; });
  };
  if (wanted("decode")) Decode();
  if (wanted("prompt")) Prompt();
  if (wanted("tower")) Tower();
  if (wanted("rows")) Rows();
  return 0;
}

}  // namespace
}  // namespace prism::cuda

int main(int argc, char** argv) { return prism::cuda::Main(argc, argv); }
