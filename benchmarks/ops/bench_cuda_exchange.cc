// Sums over ranks on CUDA devices of one host: microseconds of one message in a recording of many, each form
// of SumParts() beside AllGather() with SumPartials, on 2 ranks and on 4 where there are so many devices.
//
//   bench_cuda_exchange [ROUNDS]
//
// torch_all_reduce.py gives NCCL's figures for the same sizes.
#include <cuda_runtime_api.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <thread>
#include <vector>

#include "common/base/status.h"
#include "kernels/cuda/cuda_backend.h"
#include "kernels/cuda/peer_group.h"
#include "kernels/ops/linear.h"

namespace prism {
namespace {

enum class Way { kGather, kAuto, kQuick, kSplit };

constexpr int64_t kSizesKib[] = {4, 8, 16, 32, 64, 128, 256, 512, 1024, 4096, 16384, 65536};
constexpr int64_t kSteps = 4;  // recordings in a row that are timed

cuda::SumForm FormOf(Way way) {
  return way == Way::kQuick   ? cuda::SumForm::kQuick
         : way == Way::kSplit ? cuda::SumForm::kSplit
                              : cuda::SumForm::kAuto;
}

// Messages in one recording: less time than a wait may last, more than starting it takes.
int MessagesFor(int64_t kib) { return kib <= 1024 ? 200 : 20; }

// What one rank does; microseconds of a message, a value a round.
std::vector<double> RunRank(Backend& backend, Communicator& comm, Way way, int64_t kib, int rounds) {
  const std::unique_ptr<Stream> stream = backend.CreateStream({.device_index = comm.rank()}).value();
  const int64_t columns = 1024, rows = kib * 1024 / (columns * int64_t{sizeof(float)});
  const Tensor part = stream->Allocate(DType::kF32, {rows, columns}).value();
  const Tensor y = stream->Allocate(DType::kF32, {rows, columns}).value();
  const Tensor gathered = stream->Allocate(DType::kF32, {comm.size(), rows, columns}).value();
  const Tensor zeros = Tensor::HostZeros(DType::kF32, {rows, columns});
  PRISM_CHECK(stream->CopyToDevice(zeros.view(), part.view()).ok());
  const int messages = MessagesFor(kib);
  const auto body = [&]() -> absl::Status {
    for (int i = 0; i < messages; ++i) {
      if (way == Way::kGather) {
        PRISM_RETURN_IF_ERROR(comm.AllGather(*stream, part.view(), gathered.view()));
        PRISM_RETURN_IF_ERROR(SumPartials(*stream, {.partials = gathered.view(), .y = y.view()}));
      } else {
        PRISM_RETURN_IF_ERROR(comm.SumParts(*stream, part.view(), y.view()));
      }
    }
    return absl::OkStatus();
  };
  PRISM_CHECK(comm.Meet().ok() && body().ok() && stream->Synchronize().ok());
  const std::unique_ptr<RecordedWork> recorded = stream->Record(body).value();
  std::vector<double> us;
  for (int round = -2; round < rounds; ++round) {
    PRISM_CHECK(comm.Meet().ok());
    const auto began = std::chrono::steady_clock::now();
    for (int step = 0; step < kSteps; ++step) PRISM_CHECK(stream->Replay(*recorded).value());
    PRISM_CHECK(stream->Synchronize().ok());
    const std::chrono::duration<double, std::micro> took = std::chrono::steady_clock::now() - began;
    if (round >= 0) us.push_back(took.count() / static_cast<double>(kSteps * messages));
  }
  const absl::Status status = comm.Check();
  if (!status.ok()) std::printf("rank %d: %s\n", comm.rank(), status.ToString().c_str());
  PRISM_CHECK(comm.Meet().ok());
  return us;
}

double Median(Backend& backend, int num_ranks, Way way, int64_t kib, int rounds) {
  std::vector<int> devices;
  for (int rank = 0; rank < num_ranks; ++rank) devices.push_back(rank);
  auto group = cuda::CreatePeerGroup({.devices = devices, .sum_form = FormOf(way)});
  PRISM_CHECK(group.ok());
  std::vector<double> us;
  std::vector<std::thread> threads;
  for (int rank = 0; rank < num_ranks; ++rank) {
    threads.emplace_back([&, rank] {
      std::vector<double> mine = RunRank(backend, *(*group)[static_cast<size_t>(rank)], way, kib, rounds);
      if (rank == 0) us = std::move(mine);
    });
  }
  for (std::thread& thread : threads) thread.join();
  std::sort(us.begin(), us.end());
  return us[us.size() / 2];
}

int Main(int argc, char** argv) {
  const int rounds = argc > 1 ? std::max(1, std::atoi(argv[1])) : 5;
  auto backend = CreateCudaBackend();
  if (!backend.ok()) {
    std::fprintf(stderr, "bench_cuda_exchange: %s\n", backend.status().ToString().c_str());
    return 1;
  }
  int devices = 0;
  cudaGetDeviceCount(&devices);
  std::printf("microseconds of one sum over ranks, medians of %d\n\n", rounds);
  std::printf(
      "| ranks | KiB | SumParts | quick | split | AllGather, SumPartials |\n|---|---|---|---|---|---|\n");
  for (const int ranks : {2, 4}) {
    if (ranks > devices) {
      std::printf("%d ranks need as many devices; there are %d\n", ranks, devices);
      continue;
    }
    for (const int64_t kib : kSizesKib) {
      std::printf("| %d | %lld |", ranks, static_cast<long long>(kib));
      for (const Way way : {Way::kAuto, Way::kQuick, Way::kSplit, Way::kGather}) {
        if (way == Way::kQuick && kib * 1024 > cuda::kQuickBytesMax) {
          std::printf(" - |");
        } else {
          std::printf(" %.2f |", Median(**backend, ranks, way, kib, rounds));
        }
      }
      std::printf("\n");
      std::fflush(stdout);
    }
  }
  return 0;
}

}  // namespace
}  // namespace prism

int main(int argc, char** argv) { return prism::Main(argc, argv); }
