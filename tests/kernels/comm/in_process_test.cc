#include <atomic>
#include <functional>
#include <thread>

#include "gtest/gtest.h"
#include "kernels/comm/communicator.h"
#include "tests/kernels/device/fake_device.h"

namespace prism {
namespace {

// Runs body(communicator, stream) on a thread for each rank.
void OnEveryRank(int size, const std::function<void(Communicator&, FakeStream&)>& body) {
  FakeBackend backend;
  std::vector<std::unique_ptr<Communicator>> endpoints = CreateInProcessGroup(size);
  ASSERT_EQ(static_cast<int>(endpoints.size()), size);
  std::vector<std::thread> threads;
  for (std::unique_ptr<Communicator>& endpoint : endpoints) {
    threads.emplace_back([&] {
      FakeStream stream(&backend);
      body(*endpoint, stream);
    });
  }
  for (std::thread& thread : threads) thread.join();
}

class InProcessTest : public testing::TestWithParam<int> {};

// What rank `rank` brings to round `round`.
float Value(int round, int rank, int64_t i) { return static_cast<float>(round * 10000 + rank * 1000 + i); }

TEST_P(InProcessTest, AllGatherBringsEveryRanksPartToEveryRankTimeAfterTime) {
  const int size = GetParam();
  std::atomic<int> wrong{0};
  OnEveryRank(size, [&](Communicator& comm, FakeStream& stream) {
    EXPECT_EQ(comm.size(), size);
    std::vector<float> part(12), gathered(static_cast<size_t>(size) * 12);
    for (int round = 0; round < 300; ++round) {
      const int64_t count = 1 + round % 12;
      for (int64_t i = 0; i < count; ++i) part[static_cast<size_t>(i)] = Value(round, comm.rank(), i);
      EXPECT_EQ(comm.AllGather(stream, TensorView(part.data(), Shape{count}),
                               TensorView(gathered.data(), Shape{size, count})),
                absl::OkStatus());
      for (int rank = 0; rank < size; ++rank) {
        for (int64_t i = 0; i < count; ++i) {
          if (gathered[static_cast<size_t>(rank * count + i)] != Value(round, rank, i)) ++wrong;
        }
      }
    }
  });
  EXPECT_EQ(wrong, 0);
}

TEST_P(InProcessTest, AllGatherTakesAPartThatLiesInItsPlaceAlready) {
  const int size = GetParam();
  OnEveryRank(size, [&](Communicator& comm, FakeStream& stream) {
    std::vector<float> gathered(static_cast<size_t>(size) * 3, -1.0f);
    for (int round = 0; round < 50; ++round) {
      const TensorView view(gathered.data(), Shape{size, 3});
      const TensorView part = view.Rows(comm.rank(), 1).Reshape(Shape{3});
      for (int64_t i = 0; i < 3; ++i) part.data<float>()[i] = Value(round, comm.rank(), i);
      EXPECT_EQ(comm.AllGather(stream, part, view), absl::OkStatus());
      for (int rank = 0; rank < size; ++rank) {
        for (int64_t i = 0; i < 3; ++i)
          EXPECT_EQ(gathered[static_cast<size_t>(rank * 3 + i)], Value(round, rank, i));
      }
    }
  });
}

TEST_P(InProcessTest, AbortReleasesThoseWhoWaitAndAllWhoComeLater) {
  const int size = GetParam();
  OnEveryRank(size, [&](Communicator& comm, FakeStream& stream) {
    std::vector<float> part(2), gathered(static_cast<size_t>(size) * 2);
    const auto gather = [&] {
      return comm.AllGather(stream, TensorView(part.data(), Shape{2}),
                            TensorView(gathered.data(), Shape{size, 2}));
    };
    EXPECT_EQ(gather(), absl::OkStatus());
    // The last rank fails; the others are waiting for it, or come after.
    if (comm.rank() == comm.size() - 1) comm.Abort();
    EXPECT_EQ(gather(), absl::AbortedError("tensor-parallel group was aborted"));
    EXPECT_EQ(gather(), absl::AbortedError("tensor-parallel group was aborted"));
  });
}

TEST_P(InProcessTest, AGatheredTensorOfTheWrongSizeOrTypeIsRefusedBeforeAnyoneIsMet) {
  const int size = GetParam();
  OnEveryRank(size, [&](Communicator& comm, FakeStream& stream) {
    std::vector<float> part(2), gathered(static_cast<size_t>(size) * 2 + 1);
    EXPECT_EQ(comm.AllGather(stream, TensorView(part.data(), Shape{2}),
                             TensorView(gathered.data(), Shape{size * 2 + 1})),
              absl::InvalidArgumentError("AllGather: gathered has " + std::to_string(size * 8 + 4) +
                                         " bytes, want " + std::to_string(size) + " x 8"));
    EXPECT_EQ(comm.AllGather(stream, TensorView(part.data(), Shape{2}),
                             TensorView(gathered.data(), DType::kI32, Shape{size, 2}))
                  .code(),
              absl::StatusCode::kInvalidArgument);
  });
}

INSTANTIATE_TEST_SUITE_P(Ranks, InProcessTest, testing::Values(1, 2, 4));

TEST(InProcessGroupTest, RanksThatBringDifferentSizesAreAllTold) {
  std::atomic<int> told{0};
  OnEveryRank(2, [&](Communicator& comm, FakeStream& stream) {
    const int64_t count = comm.rank() == 0 ? 2 : 3;
    std::vector<float> part(3), gathered(6);
    const absl::Status status = comm.AllGather(stream, TensorView(part.data(), Shape{count}),
                                               TensorView(gathered.data(), Shape{2, count}));
    const std::string want = comm.rank() == 0 ? "AllGather: rank 1 brought 12 bytes, rank 0 8"
                                              : "AllGather: rank 0 brought 8 bytes, rank 1 12";
    if (status == absl::InternalError(want)) ++told;
  });
  EXPECT_EQ(told, 2);
}

TEST(InProcessGroupTest, AStreamThatFailedBringsNothingAndItsErrorComesBack) {
  OnEveryRank(1, [](Communicator& comm, FakeStream& stream) {
    stream.synchronized = absl::DataLossError("an op before failed");
    float part = 1.0f, gathered = 2.0f;
    EXPECT_EQ(comm.AllGather(stream, TensorView(&part, Shape{1}), TensorView(&gathered, Shape{1, 1})),
              absl::DataLossError("an op before failed"));
    EXPECT_EQ(gathered, 2.0f);
  });
}

TEST(InProcessGroupTest, AGroupThatOnlyGathersSaysSo) {
  OnEveryRank(1, [](Communicator& comm, FakeStream& stream) {
    const Tensor part = Tensor::HostZeros(DType::kF32, {4});
    EXPECT_FALSE(comm.can_sum());
    EXPECT_TRUE(absl::IsUnimplemented(comm.SumParts(stream, part.view(), part.view())));
  });
}

TEST(InProcessGroupTest, RanksMeet) {
  std::atomic<int> arrived{0}, early{0};
  OnEveryRank(4, [&](Communicator& comm, FakeStream&) {
    for (int round = 1; round <= 50; ++round) {
      ++arrived;
      EXPECT_EQ(comm.Meet(), absl::OkStatus());
      if (arrived < 4 * round) ++early;
      EXPECT_EQ(comm.Meet(), absl::OkStatus());
    }
  });
  EXPECT_EQ(early, 0);
  EXPECT_EQ(arrived, 200);
}

TEST(InProcessGroupTest, GroupsDoNotHearOfEachOther) {
  std::vector<std::unique_ptr<Communicator>> first = CreateInProcessGroup(1),
                                             second = CreateInProcessGroup(1);
  FakeBackend backend;
  FakeStream stream(&backend);
  float part = 1.0f, gathered = 0.0f;
  EXPECT_EQ(first[0]->Check(), absl::OkStatus());
  first[0]->Abort();
  EXPECT_EQ(first[0]->Check(), absl::AbortedError("tensor-parallel group was aborted"));
  EXPECT_EQ(second[0]->Check(), absl::OkStatus());
  EXPECT_EQ(second[0]->AllGather(stream, TensorView(&part, Shape{1}), TensorView(&gathered, Shape{1, 1})),
            absl::OkStatus());
  EXPECT_EQ(gathered, 1.0f);
}

}  // namespace
}  // namespace prism
