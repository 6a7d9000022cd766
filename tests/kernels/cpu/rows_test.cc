#include "kernels/ops/rows.h"

#include "kernels/ops/add.h"
#include "kernels/ops/embedding_gather.h"
#include "kernels/ops/position_embedding.h"
#include "tests/kernels/cpu/test_tensors.h"

namespace prism {
namespace {

using test::Guarded;
using test::kRounding;
using test::RandomFloats;
using test::SameBits;

class RowsTest : public testing::TestWithParam<int> {
 protected:
  std::unique_ptr<Backend> backend_ = CreateCpuBackend();
  std::unique_ptr<Stream> stream_ = test::MakeStream(*backend_, GetParam());
};

TEST_P(RowsTest, GatherScatterAndAddTouchTheRowsTheyWereGiven) {
  const int64_t rows = 700, picked = 400, columns = 37;
  std::vector<int32_t> index;
  for (int32_t i = 0; i < picked; ++i) index.push_back((i * 3 + 1) % static_cast<int32_t>(rows));
  const TensorView index_view(index.data(), Shape{picked});
  const std::vector<float> x = RandomFloats(rows * columns, 1);
  const std::vector<float> y = RandomFloats(picked * columns, 2);

  Guarded from(x), gathered(picked * columns);
  ASSERT_EQ(GatherRows(
                *stream_,
                {.x = from.view({rows, columns}), .rows = index_view, .y = gathered.view({picked, columns})}),
            absl::OkStatus());
  Guarded source(y), scattered(rows * columns), added(x);
  ASSERT_EQ(ScatterRows(*stream_, {.y = source.view({picked, columns}),
                                   .rows = index_view,
                                   .x = scattered.view({rows, columns})}),
            absl::OkStatus());
  ASSERT_EQ(
      AddRows(*stream_,
              {.y = source.view({picked, columns}), .rows = index_view, .x = added.view({rows, columns})}),
      absl::OkStatus());
  EXPECT_TRUE(gathered.Intact() && scattered.Intact() && added.Intact());
  std::vector<int64_t> place(static_cast<size_t>(rows), -1);
  for (int64_t i = 0; i < picked; ++i) place[static_cast<size_t>(index[static_cast<size_t>(i)])] = i;
  for (int64_t t = 0; t < rows; ++t) {
    const int64_t i = place[static_cast<size_t>(t)];
    for (int64_t c = 0; c < columns; ++c) {
      const float before = x[static_cast<size_t>(t * columns + c)];
      if (i < 0) {
        ASSERT_TRUE(std::isnan(scattered[t * columns + c])) << "row " << t << " was not asked for";
        ASSERT_EQ(added[t * columns + c], before);
        continue;
      }
      const float value = y[static_cast<size_t>(i * columns + c)];
      ASSERT_EQ(gathered[i * columns + c], before);
      ASSERT_EQ(scattered[t * columns + c], value);
      ASSERT_EQ(added[t * columns + c], before + value);
    }
  }
}

TEST_P(RowsTest, ARowOutOfRangeIsRefusedBeforeAnythingIsWritten) {
  for (const int32_t wrong : {-1, 4}) {
    std::vector<int32_t> index = {0, wrong};
    const TensorView rows(index.data(), Shape{2});
    Guarded x(4 * 3, 1.0f), y(2 * 3, 2.0f);
    const TensorView all = x.view({4, 3}), some = y.view({2, 3});
    const std::string tail = ": rows[1] is " + std::to_string(wrong) + ", want [0, 4)";
    EXPECT_EQ(GatherRows(*stream_, {.x = all, .rows = rows, .y = some}),
              absl::InvalidArgumentError("GatherRows" + tail));
    EXPECT_EQ(ScatterRows(*stream_, {.y = some, .rows = rows, .x = all}),
              absl::InvalidArgumentError("ScatterRows" + tail));
    EXPECT_EQ(AddRows(*stream_, {.y = some, .rows = rows, .x = all}),
              absl::InvalidArgumentError("AddRows" + tail));
    EXPECT_THAT(x.values(), testing::Each(1.0f));
    EXPECT_THAT(y.values(), testing::Each(2.0f));
  }
}

TEST_P(RowsTest, AddAddsEveryElement) {
  const int64_t rows = 321, columns = 129;
  const std::vector<float> x = RandomFloats(rows * columns, 3), y = RandomFloats(rows * columns, 4);
  Guarded sum(x), other(y);
  ASSERT_EQ(Add(*stream_, {.x = sum.view({rows, columns}), .y = other.view({rows, columns})}),
            absl::OkStatus());
  EXPECT_TRUE(sum.Intact());
  for (int64_t i = 0; i < rows * columns; ++i) {
    ASSERT_EQ(sum[i], x[static_cast<size_t>(i)] + y[static_cast<size_t>(i)]);
  }
}

TEST_P(RowsTest, EmbeddingGatherWidensExactlyAndReadsNoOtherRow) {
  const int64_t vocabulary = 50, tokens = 300, columns = 65;
  std::vector<int32_t> ids;
  for (int32_t t = 0; t < tokens; ++t) ids.push_back(t * 7 % 25 * 2);
  // Odd rows of the table are poison.
  std::vector<float> wide = RandomFloats(vocabulary * columns, 5);
  for (int64_t id = 1; id < vocabulary; id += 2)
    std::fill_n(wide.begin() + id * columns, columns, test::kPoison);
  std::vector<BFloat16> narrow;
  for (const float value : wide) narrow.push_back(BFloat16(value));
  const TensorView id_view(ids.data(), Shape{tokens});
  const Shape shape{vocabulary, columns};
  Guarded from_wide(tokens * columns), from_narrow(tokens * columns);
  ASSERT_EQ(EmbeddingGather(*stream_, {.table = TensorView(wide.data(), shape),
                                       .ids = id_view,
                                       .y = from_wide.view({tokens, columns})}),
            absl::OkStatus());
  ASSERT_EQ(EmbeddingGather(*stream_, {.table = TensorView(narrow.data(), shape),
                                       .ids = id_view,
                                       .y = from_narrow.view({tokens, columns})}),
            absl::OkStatus());
  EXPECT_TRUE(from_wide.Intact() && from_narrow.Intact());
  for (int64_t t = 0; t < tokens; ++t) {
    for (int64_t c = 0; c < columns; ++c) {
      const size_t from = static_cast<size_t>(ids[static_cast<size_t>(t)] * columns + c);
      ASSERT_EQ(from_wide[t * columns + c], wide[from]);
      ASSERT_EQ(from_narrow[t * columns + c], static_cast<float>(narrow[from]));
    }
  }
}

TEST_P(RowsTest, EmbeddingGatherRefusesAnIdOutsideTheVocabulary) {
  for (const int32_t wrong : {-1, 5}) {
    std::vector<int32_t> ids = {4, wrong};
    Guarded table(5 * 2, 1.0f), y(2 * 2);
    EXPECT_EQ(
        EmbeddingGather(
            *stream_,
            {.table = table.view({5, 2}), .ids = TensorView(ids.data(), Shape{2}), .y = y.view({2, 2})}),
        absl::InvalidArgumentError("EmbeddingGather: ids[1] is " + std::to_string(wrong) + ", want [0, 5)"));
    EXPECT_TRUE(std::isnan(y[0]));
  }
}

TEST_P(RowsTest, PositionEmbeddingAddsFourWeightedRows) {
  const int64_t side = 9, patches = 200, columns = 70;
  std::vector<int32_t> index;
  for (int32_t i = 0; i < 4 * patches; ++i) index.push_back(i * 5 % static_cast<int32_t>(side));
  const std::vector<float> table = RandomFloats(side * columns, 6), x = RandomFloats(patches * columns, 8);
  std::vector<BFloat16> narrow;
  for (const float value : table) narrow.push_back(BFloat16(value));
  Guarded weight(RandomFloats(4 * patches, 7));
  for (const bool is_narrow : {false, true}) {
    Guarded y(x);
    const Shape shape{side, columns};
    ASSERT_EQ(PositionEmbedding(*stream_, {.table = is_narrow ? TensorView(narrow.data(), shape)
                                                              : TensorView(table.data(), shape),
                                           .index = TensorView(index.data(), Shape{4, patches}),
                                           .weight = weight.view({4, patches}),
                                           .x = y.view({patches, columns})}),
              absl::OkStatus());
    EXPECT_TRUE(y.Intact());
    for (int64_t p = 0; p < patches; ++p) {
      for (int64_t c = 0; c < columns; ++c) {
        double want = static_cast<double>(x[static_cast<size_t>(p * columns + c)]);
        for (int64_t j = 0; j < 4; ++j) {
          const size_t from = static_cast<size_t>(index[static_cast<size_t>(j * patches + p)] * columns + c);
          want += static_cast<double>(weight[j * patches + p]) *
                  static_cast<double>(is_narrow ? static_cast<float>(narrow[from]) : table[from]);
        }
        // Four products and four sums of at most 5.
        ASSERT_NEAR(static_cast<double>(y[p * columns + c]), want, (4.0 + 4.0 * 5.0) * kRounding);
      }
    }
  }
}

TEST_P(RowsTest, PositionEmbeddingRefusesARowOutsideTheTable) {
  std::vector<int32_t> index = {0, 1, 2, 3};
  Guarded table(3 * 2, 1.0f), weight(4, 1.0f), x(2, 7.0f);
  EXPECT_EQ(PositionEmbedding(*stream_, {.table = table.view({3, 2}),
                                         .index = TensorView(index.data(), Shape{4, 1}),
                                         .weight = weight.view({4, 1}),
                                         .x = x.view({1, 2})}),
            absl::InvalidArgumentError("PositionEmbedding: index[3] is 3, want [0, 3)"));
  EXPECT_THAT(x.values(), testing::Each(7.0f));
}

INSTANTIATE_TEST_SUITE_P(Threads, RowsTest, testing::Values(1, 2));

}  // namespace
}  // namespace prism
