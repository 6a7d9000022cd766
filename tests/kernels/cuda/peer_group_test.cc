// Ranks are threads, as in a decoder; where there are fewer devices than ranks they share one, each with a
// stream of its own.
#include "kernels/cuda/peer_group.h"

#include <gtest/gtest.h>

#include <chrono>
#include <cmath>
#include <functional>
#include <memory>
#include <thread>
#include <vector>

#include "kernels/cuda/cuda_backend.h"

namespace prism {
namespace {

class PeerGroupTest : public testing::TestWithParam<int> {
 protected:
  void SetUp() override {
    absl::StatusOr<std::unique_ptr<Backend>> backend = CreateCudaBackend();
    if (!backend.ok()) GTEST_SKIP() << backend.status();
    backend_ = *std::move(backend);
  }

  // Runs the body on a thread a rank: a device each if there are so many, else all on device 0.
  void OnRanks(int num_ranks, double timeout_s, const std::function<void(Stream&, Communicator&)>& body,
               cuda::SumForm sum_form = cuda::SumForm::kAuto) {
    int count = 0;
    ASSERT_EQ(cudaGetDeviceCount(&count), cudaSuccess);
    std::vector<int> devices;
    for (int rank = 0; rank < num_ranks; ++rank) devices.push_back(count >= num_ranks ? rank : 0);
    auto group = cuda::CreatePeerGroup({.devices = devices, .timeout_s = timeout_s, .sum_form = sum_form});
    ASSERT_TRUE(group.ok()) << group.status();
    std::vector<std::unique_ptr<Stream>> streams;
    for (const int device : devices) {
      streams.push_back(backend_->CreateStream({.device_index = device}).value());
    }
    std::vector<std::thread> threads;
    for (int rank = 0; rank < num_ranks; ++rank) {
      threads.emplace_back([&, rank] {
        const auto place = static_cast<size_t>(rank);
        body(*streams[place], *(*group)[place]);
      });
    }
    for (std::thread& thread : threads) thread.join();
  }

  std::unique_ptr<Backend> backend_;
};

float ValueOf(int round, int rank, int64_t i) {
  return static_cast<float>((round * 131 + rank * 7919 + static_cast<int>(i % 65521)) % 1000003);
}

TEST_P(PeerGroupTest, EveryRankGathersEveryPartManyTimes) {
  const int num_ranks = GetParam();
  OnRanks(num_ranks, 20, [num_ranks](Stream& stream, Communicator& comm) {
    const int64_t largest = 900000;
    const Tensor part = stream.Allocate(DType::kF32, {largest}).value();
    const Tensor gathered = stream.Allocate(DType::kF32, {num_ranks * largest + 1}).value();
    const Tensor host = Tensor::Host(DType::kF32, {num_ranks * largest + 1});
    int round = 0;
    int64_t wrong = 0;
    for (int repeat = 0; repeat < 12; ++repeat) {
      for (const int64_t size :
           {int64_t{1}, int64_t{4}, int64_t{1024}, int64_t{8191}, int64_t{32768}, largest}) {
        ++round;
        const Tensor mine = Tensor::Host(DType::kF32, {size});
        for (int64_t i = 0; i < size; ++i) mine.data<float>()[i] = ValueOf(round, comm.rank(), i);
        const TensorView to = gathered.view().Rows(0, num_ranks * size).Reshape({num_ranks, size});
        // Every third time the part is gathered in its own place.
        const TensorView from =
            round % 3 == 0 ? to.Rows(comm.rank(), 1).Reshape({size}) : part.view().Rows(0, size);
        ASSERT_TRUE(stream.CopyToDevice(mine.view(), from).ok());
        const absl::Status status = comm.AllGather(stream, from, to);
        ASSERT_TRUE(status.ok()) << status;
        const TensorView back = host.view().Rows(0, num_ranks * size).Reshape({num_ranks, size});
        ASSERT_TRUE(stream.CopyToHost(to, back).ok());
        ASSERT_TRUE(comm.Check().ok()) << comm.Check();
        for (int rank = 0; rank < num_ranks; ++rank) {
          for (int64_t i = 0; i < size; ++i) {
            wrong += back.data<float>()[rank * size + i] != ValueOf(round, rank, i);
          }
        }
      }
    }
    EXPECT_EQ(wrong, 0) << "on rank " << comm.rank();
  });
}

TEST_P(PeerGroupTest, MessagesFollowEachOtherWithoutTheHost) {
  const int num_ranks = GetParam();
  OnRanks(num_ranks, 20, [num_ranks](Stream& stream, Communicator& comm) {
    const int64_t size = 2048;
    const Tensor part = stream.Allocate(DType::kF32, {size}).value();
    const Tensor memory = stream.Allocate(DType::kF32, {2, num_ranks, size}).value();
    const auto gathered = [&](int round) {
      return memory.view().Rows(round % 2, 1).Reshape({num_ranks, size});
    };
    const Tensor mine = Tensor::Host(DType::kF32, {size});
    for (int64_t i = 0; i < size; ++i) mine.data<float>()[i] = ValueOf(0, comm.rank(), i);
    ASSERT_TRUE(stream.CopyToDevice(mine.view(), part.view()).ok());
    ASSERT_TRUE(comm.AllGather(stream, part.view(), gathered(0)).ok());
    // Each round gives what the next rank gave in the round before.
    const int next = (comm.rank() + 1) % num_ranks;
    constexpr int kRounds = 500;
    const auto began = std::chrono::steady_clock::now();
    for (int round = 0; round < kRounds; ++round) {
      const TensorView from = gathered(round).Rows(next, 1).Reshape({size});
      ASSERT_TRUE(comm.AllGather(stream, from, gathered(round + 1)).ok());
    }
    const Tensor host = Tensor::Host(DType::kF32, {num_ranks, size});
    ASSERT_TRUE(stream.CopyToHost(gathered(kRounds), host.view()).ok());
    const double us =
        std::chrono::duration<double, std::micro>(std::chrono::steady_clock::now() - began).count();
    if (comm.rank() == 0) std::printf("%d ranks, 8 KiB: %.2f us an exchange\n", num_ranks, us / kRounds);
    ASSERT_TRUE(comm.Check().ok()) << comm.Check();
    int64_t wrong = 0;
    for (int rank = 0; rank < num_ranks; ++rank) {
      const int source = (rank + kRounds) % num_ranks;
      for (int64_t i = 0; i < size; ++i) {
        wrong += host.data<float>()[rank * size + i] != ValueOf(0, source, i);
      }
    }
    EXPECT_EQ(wrong, 0) << "on rank " << comm.rank();
  });
}

// Numbers whose sum tells the order in which they were added.
float TermOf(int round, int rank, int64_t i) {
  const auto mixed = static_cast<uint32_t>((i * 2654435761 + rank * 40503 + round * 97) % 16777213);
  return std::ldexp(static_cast<float>(mixed) - 8388606.0f,
                    static_cast<int>((i + 5 * rank + round) % 24) - 12);
}

float SumOf(int num_ranks, int round, int64_t i) {
  const float low = TermOf(round, 0, i) + TermOf(round, 1, i);
  return num_ranks == 2 ? low : low + (TermOf(round, 2, i) + TermOf(round, 3, i));
}

TEST_P(PeerGroupTest, SumsGoByTheTreeInBothFormsAndInPlace) {
  const int num_ranks = GetParam();
  if (num_ranks == 1) GTEST_SKIP() << "one rank has nothing to add";
  for (const cuda::SumForm form : {cuda::SumForm::kAuto, cuda::SumForm::kQuick, cuda::SumForm::kSplit}) {
    OnRanks(
        num_ranks, 20,
        [num_ranks](Stream& stream, Communicator& comm) {
          ASSERT_TRUE(comm.can_sum());
          const int64_t largest = 700001, guard = 8;
          const Tensor part = stream.Allocate(DType::kF32, {largest + guard}).value();
          const Tensor sums = stream.Allocate(DType::kF32, {largest + guard}).value();
          const Tensor host = Tensor::Host(DType::kF32, {largest + guard});
          int round = 0;
          int64_t wrong = 0, touched = 0;
          for (int repeat = 0; repeat < 6; ++repeat) {
            // Small and large by turns: what a larger message left behind must not be taken for a smaller's.
            for (const int64_t size : {int64_t{1}, int64_t{131072}, int64_t{2}, int64_t{4099}, largest,
                                       int64_t{2048}, int64_t{65536}, int64_t{32767}}) {
              ++round;
              // Now and then away from a vector's border, on some ranks only.
              const int64_t shift = round % 5 == 0 && comm.rank() == 1 ? 1 : 0;
              for (int64_t i = 0; i < size; ++i) host.data<float>()[i] = TermOf(round, comm.rank(), i);
              const TensorView from = part.view().Rows(shift, size);
              const TensorView to = round % 3 == 0 ? from : sums.view().Rows(0, size);
              ASSERT_TRUE(stream.CopyToDevice(host.view().Rows(0, size), from).ok());
              const Tensor mark = Tensor::Host(DType::kF32, {guard - 1});
              for (float& value : mark.span<float>()) value = -7;
              const TensorView behind =
                  (round % 3 == 0 ? part : sums).view().Rows((round % 3 == 0 ? shift : 0) + size, guard - 1);
              ASSERT_TRUE(stream.CopyToDevice(mark.view(), behind).ok());
              const absl::Status status = comm.SumParts(stream, from, to);
              ASSERT_TRUE(status.ok()) << status;
              ASSERT_TRUE(stream.CopyToHost(to, host.view().Rows(0, size)).ok());
              ASSERT_TRUE(stream.CopyToHost(behind, mark.view()).ok());
              ASSERT_TRUE(comm.Check().ok()) << comm.Check();
              for (int64_t i = 0; i < size; ++i) wrong += host.data<float>()[i] != SumOf(num_ranks, round, i);
              for (const float value : mark.span<float>()) touched += value != -7;
            }
          }
          EXPECT_EQ(wrong, 0) << "on rank " << comm.rank();
          EXPECT_EQ(touched, 0) << "on rank " << comm.rank();
        },
        form);
  }
}

TEST_P(PeerGroupTest, SumsFollowEachOtherWithoutTheHost) {
  const int num_ranks = GetParam();
  if (num_ranks == 1) GTEST_SKIP() << "one rank has nothing to add";
  for (const cuda::SumForm form : {cuda::SumForm::kQuick, cuda::SumForm::kSplit}) {
    OnRanks(
        num_ranks, 20,
        [num_ranks](Stream& stream, Communicator& comm) {
          const int64_t size = 8192;
          constexpr int kRounds = 40;
          const Tensor memory = stream.Allocate(DType::kF32, {size}).value();
          const Tensor host = Tensor::Host(DType::kF32, {size});
          for (int64_t i = 0; i < size; ++i) host.data<float>()[i] = ValueOf(0, comm.rank(), i);
          ASSERT_TRUE(stream.CopyToDevice(host.view(), memory.view()).ok());
          for (int round = 0; round < kRounds; ++round) {
            ASSERT_TRUE(comm.SumParts(stream, memory.view(), memory.view()).ok());
          }
          ASSERT_TRUE(stream.CopyToHost(memory.view(), host.view()).ok());
          ASSERT_TRUE(comm.Check().ok()) << comm.Check();
          int64_t wrong = 0;
          for (int64_t i = 0; i < size; ++i) {
            float v[4];
            for (int rank = 0; rank < 4; ++rank) v[rank] = ValueOf(0, rank, i);
            float sum = v[0] + v[1];
            if (num_ranks == 4) sum += v[2] + v[3];
            // Every later round multiplies by the number of ranks, a power of two.
            sum = std::ldexp(sum, (kRounds - 1) * (num_ranks == 2 ? 1 : 2));
            wrong += host.data<float>()[i] != sum;
          }
          EXPECT_EQ(wrong, 0) << "on rank " << comm.rank();
        },
        form);
  }
}

TEST_P(PeerGroupTest, ASumThatARankNeverJoinsEnds) {
  const int num_ranks = GetParam();
  if (num_ranks == 1) GTEST_SKIP() << "one rank waits for nobody";
  for (const cuda::SumForm form : {cuda::SumForm::kQuick, cuda::SumForm::kSplit}) {
    OnRanks(
        num_ranks, 0.5,
        [](Stream& stream, Communicator& comm) {
          if (comm.rank() == 1) return;
          const Tensor part = stream.Allocate(DType::kF32, {5000}).value();
          ASSERT_TRUE(comm.SumParts(stream, part.view(), part.view()).ok());
          ASSERT_TRUE(stream.Synchronize().ok());
          EXPECT_NE(comm.Check().message().find("waited 0.5 s for rank 1"), absl::string_view::npos)
              << comm.Check();
          EXPECT_TRUE(absl::IsAborted(comm.SumParts(stream, part.view(), part.view())));
        },
        form);
  }
}

TEST_P(PeerGroupTest, ARankThatGivesUpFreesThoseThatWait) {
  const int num_ranks = GetParam();
  if (num_ranks == 1) GTEST_SKIP() << "one rank waits for nobody";
  const auto began = std::chrono::steady_clock::now();
  OnRanks(num_ranks, 60, [](Stream& stream, Communicator& comm) {
    if (comm.rank() == 1) {
      std::this_thread::sleep_for(std::chrono::milliseconds(200));
      comm.Abort();
      return;
    }
    const Tensor part = stream.Allocate(DType::kF32, {16}).value();
    const Tensor gathered = stream.Allocate(DType::kF32, {comm.size(), 16}).value();
    ASSERT_TRUE(comm.AllGather(stream, part.view(), gathered.view()).ok());
    ASSERT_TRUE(stream.Synchronize().ok());
    EXPECT_TRUE(absl::IsAborted(comm.Check()));
    EXPECT_TRUE(absl::IsAborted(comm.AllGather(stream, part.view(), gathered.view())));
  });
  EXPECT_LT(std::chrono::steady_clock::now() - began, std::chrono::seconds(30));
}

TEST_P(PeerGroupTest, ARankThatNeverComesIsNamed) {
  const int num_ranks = GetParam();
  if (num_ranks == 1) GTEST_SKIP() << "one rank waits for nobody";
  OnRanks(num_ranks, 0.5, [](Stream& stream, Communicator& comm) {
    if (comm.rank() == 1) return;
    const Tensor part = stream.Allocate(DType::kF32, {16}).value();
    const Tensor gathered = stream.Allocate(DType::kF32, {comm.size(), 16}).value();
    ASSERT_TRUE(comm.AllGather(stream, part.view(), gathered.view()).ok());
    ASSERT_TRUE(stream.Synchronize().ok());
    EXPECT_TRUE(absl::IsAborted(comm.Check()));
    EXPECT_NE(comm.Check().message().find("waited 0.5 s for rank 1"), absl::string_view::npos)
        << comm.Check();
  });
}

TEST_P(PeerGroupTest, GatheredMustBeAsLargeAsAllParts) {
  OnRanks(1, 5, [](Stream& stream, Communicator& comm) {
    const Tensor part = stream.Allocate(DType::kF32, {16}).value();
    const Tensor gathered = stream.Allocate(DType::kF32, {2, 16}).value();
    EXPECT_TRUE(absl::IsInvalidArgument(comm.AllGather(stream, part.view(), gathered.view())));
  });
}

INSTANTIATE_TEST_SUITE_P(Ranks, PeerGroupTest, testing::Values(1, 2, 4));

TEST(PeerGroupOptionsTest, ADeviceThatIsNotThereIsNamedAndLeavesNoError) {
  int count = 0;
  if (cudaGetDeviceCount(&count) != cudaSuccess || count == 0) GTEST_SKIP() << "no CUDA device";
  const absl::Status status = cuda::CreatePeerGroup({.devices = {0, count}}).status();
  EXPECT_TRUE(absl::IsNotFound(status)) << status;
  EXPECT_EQ(cudaGetLastError(), cudaSuccess);
}

TEST(PeerGroupOptionsTest, AGroupIsOfOneToFourRanks) {
  EXPECT_TRUE(absl::IsInvalidArgument(cuda::CreatePeerGroup({}).status()));
  EXPECT_TRUE(absl::IsInvalidArgument(cuda::CreatePeerGroup({.devices = {0, 0, 0, 0, 0}}).status()));
}

}  // namespace
}  // namespace prism
