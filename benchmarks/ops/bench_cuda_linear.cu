// Linear layers and experts on CUDA beside their floors and cuBLASLt in the same run: random inputs, weights
// that no cache holds, launches in a graph.
//
//   bench_cuda_linear [ROUNDS [layers|experts]]     medians over ROUNDS (7) interleaved rounds
//
// floor: the larger of the weights' bytes at 4.3 TB/s and the products at 790 TFLOP/s, what an H200 does for
// a copy and for a large matrix product of random values.
#include <cublasLt.h>
#include <cuda_bf16.h>
#include <cuda_runtime.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <functional>
#include <iterator>
#include <set>
#include <string>
#include <vector>

#include "common/tensor/sum_order.h"
#include "kernels/cuda/linear_kernels.h"

namespace prism::cuda {
namespace {

constexpr double kBytesPerSecond = 4.3e12;
constexpr double kFlopsPerSecond = 790e12;
constexpr int64_t kCacheBytes = int64_t{60} << 20;

void Check(cudaError_t error, const char* what) {
  if (error == cudaSuccess) return;
  std::fprintf(stderr, "%s: %s\n", what, cudaGetErrorString(error));
  std::exit(1);
}
void Check(cublasStatus_t status, const char* what) {
  if (status == CUBLAS_STATUS_SUCCESS) return;
  std::fprintf(stderr, "%s: cuBLAS status %d\n", what, static_cast<int>(status));
  std::exit(1);
}

// Grid: any. Values in [-bound, bound) that look random.
__global__ void fill_kernel(__nv_bfloat16* values, int64_t count, float bound, uint32_t seed) {
  for (int64_t i = int64_t{blockIdx.x} * blockDim.x + threadIdx.x; i < count;
       i += int64_t{gridDim.x} * blockDim.x) {
    uint32_t h = static_cast<uint32_t>(i) * 0x9E3779B9u + static_cast<uint32_t>(i >> 32) * 0x85EBCA6Bu + seed;
    h = (h ^ (h >> 16)) * 0x7FEB352Du;
    h = (h ^ (h >> 15)) * 0x846CA68Bu;
    h ^= h >> 16;
    values[i] = __float2bfloat16(bound * (static_cast<float>(h) * 0x1p-31f - 1.0f));
  }
}

// Device memory for the length of the program's part that needs it.
class DeviceBytes {
 public:
  explicit DeviceBytes(int64_t size) { Check(cudaMalloc(&data_, static_cast<size_t>(size)), "cudaMalloc"); }
  ~DeviceBytes() { cudaFree(data_); }
  DeviceBytes(const DeviceBytes&) = delete;
  DeviceBytes& operator=(const DeviceBytes&) = delete;
  char* data() const { return static_cast<char*>(data_); }
  void FillRandom(int64_t count, float bound, uint32_t seed) const {
    fill_kernel<<<1024, 256>>>(reinterpret_cast<__nv_bfloat16*>(data_), count, bound, seed);
  }

 private:
  void* data_ = nullptr;
};

// A graph of `launches` calls; seconds of one by events.
class Timed {
 public:
  Timed(cudaStream_t stream, int launches, const std::function<void(int)>& launch)
      : stream_(stream), launches_(launches) {
    cudaGraph_t graph;
    Check(cudaStreamBeginCapture(stream, cudaStreamCaptureModeRelaxed), "capture");
    for (int i = 0; i < launches; ++i) launch(i);
    Check(cudaStreamEndCapture(stream, &graph), "end of capture");
    Check(cudaGraphInstantiate(&graph_, graph, 0), "cudaGraphInstantiate");
    Check(cudaGraphDestroy(graph), "cudaGraphDestroy");
    Check(cudaEventCreate(&begin_), "event");
    Check(cudaEventCreate(&end_), "event");
    Run();
  }
  ~Timed() {
    cudaGraphExecDestroy(graph_);
    cudaEventDestroy(begin_);
    cudaEventDestroy(end_);
  }
  Timed(const Timed&) = delete;
  Timed& operator=(const Timed&) = delete;

  void Run() {
    Check(cudaEventRecord(begin_, stream_), "event");
    Check(cudaGraphLaunch(graph_, stream_), "graph");
    Check(cudaEventRecord(end_, stream_), "event");
    Check(cudaEventSynchronize(end_), "graph");
    float milliseconds = 0;
    Check(cudaEventElapsedTime(&milliseconds, begin_, end_), "event");
    seconds_.push_back(milliseconds * 1e-3 / launches_);
  }
  // Without the first, which was the warm-up.
  double Median() const {
    std::vector<double> sorted(seconds_.begin() + 1, seconds_.end());
    std::sort(sorted.begin(), sorted.end());
    return sorted[sorted.size() / 2];
  }

 private:
  cudaStream_t stream_;
  int launches_;
  cudaGraphExec_t graph_ = nullptr;
  cudaEvent_t begin_ = nullptr, end_ = nullptr;
  std::vector<double> seconds_;
};

// ---- Layers ----

struct LayerShape {
  const char* name;
  int64_t n, k;
  int leaves;
};
constexpr LayerShape kLayers[] = {
    {"30B qkv", 5120, 2048, kNumLeaves},   {"30B o", 2048, 4096, kNumLeaves},
    {"30B router", 128, 2048, kNumLeaves}, {"30B lm_head", 151936, 2048, kNumLeaves},
    {"8B qkv", 6144, 4096, kNumLeaves},    {"8B gate_up", 24576, 4096, kNumLeaves},
    {"8B down", 4096, 12288, kNumLeaves},  {"tower qkv", 3456, 1152, 1},
    {"tower proj", 1152, 1152, 1},         {"tower fc1", 4304, 1152, 1},
    {"tower fc2", 1152, 4304, 1}};
constexpr int64_t kRows[] = {1, 8, 16, 32, 64, 128, 256, 512, 2048, 3072, 8192, 32640};
constexpr int64_t kTowerRows[] = {3072,
                                  32640};  // of pictures of 1024x768 and 3840x2160: the tower's layers alone
constexpr int64_t kManyRows = 512;         // from here on a layer is bound by its products
constexpr int64_t kOutputMax = int64_t{1} << 31;

PackedWeight PackedOf(const LayerShape& shape) {
  PackedWeight weight = {.out_features = shape.n, .in_features = shape.k};
  weight.leaves = shape.leaves;
  weight.leaf_width = static_cast<int>(shape.leaves > 1 ? LeafWidth(shape.k) : (shape.k + 15) / 16 * 16);
  return weight;
}

// y = x W^T by cuBLASLt's first choice, bf16 in and out.
class CublasLinear {
 public:
  CublasLinear(cublasLtHandle_t handle, int64_t rows, int64_t n, int64_t k, void* workspace,
               size_t workspace_bytes)
      : handle_(handle), workspace_(workspace), workspace_bytes_(workspace_bytes) {
    Check(cublasLtMatmulDescCreate(&operation_, CUBLAS_COMPUTE_32F, CUDA_R_32F), "cublasLt");
    const cublasOperation_t transposed = CUBLAS_OP_T;
    Check(cublasLtMatmulDescSetAttribute(operation_, CUBLASLT_MATMUL_DESC_TRANSA, &transposed,
                                         sizeof(transposed)),
          "cublasLt");
    Check(cublasLtMatrixLayoutCreate(&a_, CUDA_R_16BF, static_cast<uint64_t>(k), static_cast<uint64_t>(n), k),
          "cublasLt");
    Check(cublasLtMatrixLayoutCreate(&b_, CUDA_R_16BF, static_cast<uint64_t>(k), static_cast<uint64_t>(rows),
                                     k),
          "cublasLt");
    Check(cublasLtMatrixLayoutCreate(&c_, CUDA_R_16BF, static_cast<uint64_t>(n), static_cast<uint64_t>(rows),
                                     n),
          "cublasLt");
    cublasLtMatmulPreference_t preference;
    Check(cublasLtMatmulPreferenceCreate(&preference), "cublasLt");
    Check(cublasLtMatmulPreferenceSetAttribute(preference, CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES,
                                               &workspace_bytes, sizeof(workspace_bytes)),
          "cublasLt");
    int found = 0;
    Check(cublasLtMatmulAlgoGetHeuristic(handle, operation_, a_, b_, c_, c_, preference, 1, &choice_, &found),
          "cublasLt");
    Check(cublasLtMatmulPreferenceDestroy(preference), "cublasLt");
  }
  ~CublasLinear() {
    cublasLtMatrixLayoutDestroy(a_);
    cublasLtMatrixLayoutDestroy(b_);
    cublasLtMatrixLayoutDestroy(c_);
    cublasLtMatmulDescDestroy(operation_);
  }
  CublasLinear(const CublasLinear&) = delete;
  CublasLinear& operator=(const CublasLinear&) = delete;

  void Launch(const void* weight, const void* x, void* y, cudaStream_t stream) const {
    const float one = 1, zero = 0;
    Check(cublasLtMatmul(handle_, operation_, &one, weight, a_, x, b_, &zero, y, c_, y, c_, &choice_.algo,
                         workspace_, workspace_bytes_, stream),
          "cublasLtMatmul");
  }

 private:
  cublasLtHandle_t handle_;
  void* workspace_;
  size_t workspace_bytes_;
  cublasLtMatmulDesc_t operation_ = nullptr;
  cublasLtMatrixLayout_t a_ = nullptr, b_ = nullptr, c_ = nullptr;
  cublasLtMatmulHeuristicResult_t choice_ = {};
};

void Layers(cudaStream_t stream, int rounds) {
  cublasLtHandle_t handle;
  Check(cublasLtCreate(&handle), "cublasLtCreate");
  constexpr size_t kWorkspaceBytes = size_t{64} << 20;
  const DeviceBytes workspace(kWorkspaceBytes);
  std::printf("\n%-12s %6s %6s %5s | %8s %8s %8s %8s | %6s %6s | %6s %6s\n", "layer", "N", "K", "rows",
              "floor us", "few us", "many us", "lt us", "ratio", "lt rat", "TB/s", "TFLOPs");
  for (const LayerShape& shape : kLayers) {
    PackedWeight packed = PackedOf(shape);
    const int64_t bytes = packed.size_bytes();
    const int copies = static_cast<int>(std::max<int64_t>(2, 4 * kCacheBytes / bytes + 1));
    const DeviceBytes weights(bytes * copies);
    weights.FillRandom(bytes * copies / 2, 0.05f, 1);
    for (const int64_t rows : kRows) {
      if (rows * shape.n > kOutputMax / 8 && shape.n > 100000) continue;
      if (shape.leaves == 1 && rows < kManyRows) continue;
      if (shape.leaves > 1 && std::count(std::begin(kTowerRows), std::end(kTowerRows), rows) > 0) continue;
      const DeviceBytes x(rows * shape.k * 2), y(rows * shape.n * 2);
      x.FillRandom(rows * shape.k, 1.0f, 2);
      const int launches = static_cast<int>(std::clamp<int64_t>(copies, 8, 64));
      const auto ours = [&](LinearForm form) {
        return [&, form](int i) {
          LinearParams params = {.x = x.data(), .weight = packed, .y = y.data(), .rows = rows};
          params.weight.data = weights.data() + i % copies * bytes;
          Check(LaunchLinear(params, form, stream), "LaunchLinear");
        };
      };
      const CublasLinear cublas(handle, rows, shape.n, shape.k, workspace.data(), kWorkspaceBytes);
      Timed few(stream, rows <= 256 ? launches : 1, ours(rows <= 256 ? LinearForm::kFew : LinearForm::kMany));
      Timed many(stream, launches, ours(shape.leaves == 1 ? LinearForm::kAuto : LinearForm::kMany));
      Timed theirs(stream, launches, [&](int i) {
        cublas.Launch(weights.data() + i % copies * bytes, x.data(), y.data(), stream);
      });
      for (int round = 0; round < rounds; ++round) {
        if (rows <= 256) few.Run();
        many.Run();
        theirs.Run();
      }
      const double weight_bytes = 2.0 * static_cast<double>(shape.n * shape.k);
      const double flops = 2.0 * static_cast<double>(rows) * static_cast<double>(shape.n * shape.k);
      const double floor = std::max(weight_bytes / kBytesPerSecond, flops / kFlopsPerSecond);
      const double few_seconds = rows <= 256 ? few.Median() : INFINITY;
      const double best = std::min(few_seconds, many.Median());
      std::printf("%-12s %6ld %6ld %5ld | %8.2f %8.2f %8.2f %8.2f | %6.3f %6.3f | %6.2f %6.1f\n", shape.name,
                  static_cast<long>(shape.n), static_cast<long>(shape.k), static_cast<long>(rows),
                  floor * 1e6, few_seconds * 1e6, many.Median() * 1e6, theirs.Median() * 1e6, floor / best,
                  floor / theirs.Median(), weight_bytes / best * 1e-12, flops / best * 1e-12);
      std::fflush(stdout);
    }
  }
  cublasLtDestroy(handle);
}

// ---- Experts of 30B-A3B ----

void Experts(cudaStream_t stream, int rounds) {
  constexpr int kHeld = 128, kChosen = 8;
  constexpr int64_t kHidden = 2048, kInner = 768;
  const PackedWeight gate_up_shape = PackedOf({"", 2 * kInner, kHidden, kNumLeaves});
  const PackedWeight down_shape = PackedOf({"", kHidden, kInner, kNumLeaves});
  const int64_t expert_bytes = gate_up_shape.size_bytes() + down_shape.size_bytes();
  constexpr int kCopies = 3;  // of 1.2 GB
  const DeviceBytes weights(kCopies * kHeld * expert_bytes);
  weights.FillRandom(kCopies * kHeld * expert_bytes / 2, 0.05f, 3);
  std::vector<ExpertWeights> gate_up(kCopies), down(kCopies);
  for (int copy = 0; copy < kCopies; ++copy) {
    gate_up[static_cast<size_t>(copy)].shape = gate_up_shape;
    down[static_cast<size_t>(copy)].shape = down_shape;
    for (int e = 0; e < kHeld; ++e) {
      const char* const at = weights.data() + (int64_t{copy} * kHeld + e) * expert_bytes;
      gate_up[static_cast<size_t>(copy)].data[e] = at;
      down[static_cast<size_t>(copy)].data[e] = at + gate_up_shape.size_bytes();
    }
  }
  std::printf("\nexperts of 30B-A3B: plan, gate_up, down and sum\n%5s %8s | %9s %9s %9s | %6s | %6s %6s\n",
              "rows", "experts", "floor us", "few us", "many us", "ratio", "TB/s", "TFLOPs");
  for (const int64_t rows : {1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 2048, 8192}) {
    constexpr int kChoices = 8;  // other experts at every launch
    std::vector<int32_t> ids(static_cast<size_t>(kChoices * rows * kChosen));
    std::vector<float> route(ids.size(), 0.125f);
    uint32_t state = 12345;
    double distinct = 0;
    for (int choice = 0; choice < kChoices; ++choice) {
      std::set<int32_t> seen;
      for (int64_t t = 0; t < rows; ++t) {
        std::set<int32_t> token;
        while (token.size() < kChosen) {
          state = state * 1664525u + 1013904223u;
          token.insert(static_cast<int32_t>(state >> 25));
        }
        std::copy(token.begin(), token.end(),
                  ids.begin() + static_cast<std::ptrdiff_t>((choice * rows + t) * kChosen));
        seen.insert(token.begin(), token.end());
      }
      distinct += static_cast<double>(seen.size()) / kChoices;
    }
    const DeviceBytes device_ids(static_cast<int64_t>(ids.size() * 4)),
        device_route(static_cast<int64_t>(ids.size() * 4));
    Check(cudaMemcpy(device_ids.data(), ids.data(), ids.size() * 4, cudaMemcpyHostToDevice), "copy");
    Check(cudaMemcpy(device_route.data(), route.data(), ids.size() * 4, cudaMemcpyHostToDevice), "copy");
    const DeviceBytes x(rows * kHidden * 2), y(rows * kHidden * 4);
    x.FillRandom(rows * kHidden, 1.0f, 4);
    ExpertsParams params = {
        .x = x.data(), .gate_up = &gate_up[0], .down = &down[0], .y = reinterpret_cast<float*>(y.data())};
    params.tokens = rows;
    params.chosen = kChosen;
    params.held = kHeld;
    params.num_experts = kHeld;
    const DeviceBytes scratch(ExpertsScratchBytes(params));
    params.scratch = scratch.data();
    const auto ours = [&](LinearForm form) {
      return [&, form](int i) {
        ExpertsParams here = params;
        here.gate_up = &gate_up[static_cast<size_t>(i % kCopies)];
        here.down = &down[static_cast<size_t>(i % kCopies)];
        here.ids = reinterpret_cast<const int32_t*>(device_ids.data()) + i % kChoices * rows * kChosen;
        here.weights = reinterpret_cast<const float*>(device_route.data()) + i % kChoices * rows * kChosen;
        Check(LaunchMoeExperts(here, form, stream), "LaunchMoeExperts");
      };
    };
    const int launches = rows <= 64 ? 24 : 6;
    Timed few(stream, launches, ours(LinearForm::kFew)), many(stream, launches, ours(LinearForm::kMany));
    for (int round = 0; round < rounds; ++round) {
      few.Run();
      many.Run();
    }
    const double bytes = distinct * static_cast<double>(expert_bytes);
    const double flops = 2.0 * static_cast<double>(rows * kChosen * 3 * kHidden * kInner);
    const double floor = std::max(bytes / kBytesPerSecond, flops / kFlopsPerSecond);
    const double best = std::min(few.Median(), many.Median());
    std::printf("%5ld %8.1f | %9.2f %9.2f %9.2f | %6.3f | %6.2f %6.1f\n", static_cast<long>(rows), distinct,
                floor * 1e6, few.Median() * 1e6, many.Median() * 1e6, floor / best, bytes / best * 1e-12,
                flops / best * 1e-12);
    std::fflush(stdout);
  }
}

}  // namespace
}  // namespace prism::cuda

int main(int argc, char** argv) {
  const int rounds = argc > 1 ? std::max(1, std::atoi(argv[1])) : 7;
  const std::string part = argc > 2 ? argv[2] : "";
  cudaDeviceProp properties = {};
  if (cudaGetDeviceProperties(&properties, 0) != cudaSuccess) {
    std::fprintf(stderr, "no CUDA device\n");
    return 1;
  }
  std::printf("%s, %d multiprocessors\n", properties.name, properties.multiProcessorCount);
  cudaStream_t stream;
  prism::cuda::Check(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking), "stream");
  if (part != "layers") prism::cuda::Experts(stream, rounds);
  if (part != "experts") prism::cuda::Layers(stream, rounds);
  return 0;
}
