// The CUDA ops that move, round, add or bend single elements, on awkward shapes between poison.
#include <cmath>
#include <numeric>

#include "kernels/ops/activation.h"
#include "kernels/ops/add.h"
#include "kernels/ops/cast.h"
#include "kernels/ops/concat_columns.h"
#include "kernels/ops/embedding_gather.h"
#include "kernels/ops/linear.h"
#include "kernels/ops/position_embedding.h"
#include "kernels/ops/rows.h"
#include "tests/kernels/cuda/device_tensors.h"

namespace prism {
namespace {

using test::CudaTest;
using test::OnDevice;
using test::RandomValues;
using test::Rounded;
using test::SameBits;

constexpr DType kF32 = DType::kF32;
constexpr DType kBF16 = DType::kBF16;

struct Case {
  int64_t rows, columns, guard;
};
// One element, odd widths, whole packs, packs off their alignment, more than a grid's threads.
constexpr Case kCases[] = {{1, 1, OnDevice::kWideGuard},     {3, 7, OnDevice::kWideGuard},
                           {5, 8, OnDevice::kWideGuard},     {5, 8, OnDevice::kOddGuard},
                           {37, 127, OnDevice::kOddGuard},   {33, 2048, OnDevice::kWideGuard},
                           {257, 1152, OnDevice::kOddGuard}, {2100, 2048, OnDevice::kWideGuard}};

std::vector<int32_t> Permutation(int64_t count, uint32_t seed) {
  std::vector<int32_t> order(static_cast<size_t>(count));
  std::iota(order.begin(), order.end(), 0);
  std::shuffle(order.begin(), order.end(), std::mt19937(seed));
  return order;
}

class CudaElementwiseTest : public CudaTest {
 protected:
  void ExpectOk(const absl::Status& status) { ASSERT_TRUE(status.ok()) << status; }
};

TEST_F(CudaElementwiseTest, AddGivesTheExactSums) {
  for (const Case& c : kCases) {
    const Shape shape = {c.rows, c.columns};
    const auto x = RandomValues(c.rows * c.columns, 1), y = RandomValues(c.rows * c.columns, 2);
    const OnDevice dx(stream(), kF32, shape, x, c.guard), dy(stream(), kF32, shape, y, c.guard);
    ExpectOk(Add(stream(), {.x = dx.view(), .y = dy.view()}));
    std::vector<float> want = x;
    for (size_t i = 0; i < want.size(); ++i) want[i] += y[i];
    EXPECT_TRUE(SameBits(dx.Values(), want)) << c.rows << " x " << c.columns;
    EXPECT_TRUE(dx.Intact());
  }
}

TEST_F(CudaElementwiseTest, CastRoundsToNearestEvenAndWidensExactly) {
  for (const Case& c : kCases) {
    const Shape shape = {c.rows, c.columns};
    std::vector<float> x = RandomValues(c.rows * c.columns, 3, 1000.0f);
    x[0] = 1.00390625f;  // halfway between two bf16 values
    const OnDevice wide(stream(), kF32, shape, x, c.guard), narrow(stream(), kBF16, shape, c.guard),
        again(stream(), kF32, shape, c.guard);
    ExpectOk(Cast(stream(), {.x = wide.view(), .y = narrow.view()}));
    ExpectOk(Cast(stream(), {.x = narrow.view(), .y = again.view()}));
    EXPECT_TRUE(SameBits(narrow.Values(), Rounded(x)));
    EXPECT_TRUE(SameBits(again.Values(), Rounded(x)));
    EXPECT_TRUE(narrow.Intact() && again.Intact());
  }
}

// One rounding to bf16 (2^-8 of the value) after a float32 function good to a few units.
void ExpectNear(const std::vector<float>& got, const std::vector<double>& want, const char* what) {
  ASSERT_EQ(got.size(), want.size());
  double worst = 0;
  for (size_t i = 0; i < got.size(); ++i) {
    const double bound = std::fabs(want[i]) * (0x1p-8 + 0x1p-19) + 0x1p-24;
    const double error = std::fabs(static_cast<double>(got[i]) - want[i]);
    worst = std::max(worst, error / bound);
    ASSERT_LE(error, bound) << what << " " << i << " is " << got[i] << ", want " << want[i];
  }
  std::printf("  %-10s worst %.3f of the bound\n", what, worst);
}

TEST_F(CudaElementwiseTest, SiluMulIsRoundedOnce) {
  for (const Case& c : kCases) {
    const auto x = Rounded(RandomValues(c.rows * 2 * c.columns, 4, 20.0f));
    const OnDevice dx(stream(), kBF16, {c.rows, 2 * c.columns}, x, c.guard),
        dy(stream(), kBF16, {c.rows, c.columns}, c.guard);
    ExpectOk(SiluMul(stream(), {.x = dx.view(), .y = dy.view()}));
    std::vector<double> want;
    for (int64_t t = 0; t < c.rows; ++t) {
      for (int64_t i = 0; i < c.columns; ++i) {
        const double gate = x[static_cast<size_t>(t * 2 * c.columns + i)];
        want.push_back(gate / (1 + std::exp(-gate)) * x[static_cast<size_t>((t * 2 + 1) * c.columns + i)]);
      }
    }
    ExpectNear(dy.Values(), want, "silu_mul");
    EXPECT_TRUE(dy.Intact());
  }
}

TEST_F(CudaElementwiseTest, GeluIsRoundedOnceInBothForms) {
  for (const Case& c : kCases) {
    const auto x = Rounded(RandomValues(c.rows * c.columns, 5, 4.0f));
    for (const GeluForm form : {GeluForm::kTanh, GeluForm::kErf}) {
      const OnDevice dx(stream(), kBF16, {c.rows, c.columns}, x, c.guard);
      ExpectOk(Gelu(stream(), {.x = dx.view(), .form = form}));
      const std::vector<float> got = dx.Values();
      for (size_t i = 0; i < got.size(); ++i) {
        const double z = x[i];
        const double bend = form == GeluForm::kErf
                                ? std::erf(z / std::sqrt(2.0))
                                : std::tanh(std::sqrt(2 / std::acos(-1.0)) * (z + 0.044715 * z * z * z));
        // 1 + bend cancels for negative z: there the error is one of the sum's, not the product's.
        const double want = 0.5 * z * (1 + bend);
        const double bound = std::fabs(want) * 0x1p-8 + std::fabs(z) * 0x1p-22;
        ASSERT_LE(std::fabs(static_cast<double>(got[i]) - want), bound) << z;
      }
      EXPECT_TRUE(dx.Intact());
    }
  }
}

TEST_F(CudaElementwiseTest, RowsAreGatheredScatteredAndAddedExactly) {
  for (const Case& c : kCases) {
    for (const DType type : {kF32, kBF16}) {
      const int64_t all_rows = 2 * c.rows + 1;
      const auto x = RandomValues(all_rows * c.columns, 6);
      auto y = RandomValues(c.rows * c.columns, 7);
      if (type == kBF16) y = Rounded(y);
      std::vector<int32_t> rows = Permutation(all_rows, 8);
      rows.resize(static_cast<size_t>(c.rows));
      const OnDevice drows(stream(), {c.rows}, rows);
      const Shape all = {all_rows, c.columns}, picked = {c.rows, c.columns};

      const OnDevice from(stream(), kF32, all, x, c.guard), gathered(stream(), type, picked, c.guard);
      ExpectOk(GatherRows(stream(), {.x = from.view(), .rows = drows.view(), .y = gathered.view()}));
      const OnDevice dy(stream(), type, picked, y, c.guard), into(stream(), kF32, all, x, c.guard),
          sum(stream(), kF32, all, x, c.guard);
      ExpectOk(ScatterRows(stream(), {.y = dy.view(), .rows = drows.view(), .x = into.view()}));
      ExpectOk(AddRows(stream(), {.y = dy.view(), .rows = drows.view(), .x = sum.view()}));

      std::vector<float> want_gathered, want_into = x, want_sum = x;
      for (int64_t i = 0; i < c.rows; ++i) {
        for (int64_t k = 0; k < c.columns; ++k) {
          const auto there = static_cast<size_t>(rows[static_cast<size_t>(i)] * c.columns + k);
          const auto here = static_cast<size_t>(i * c.columns + k);
          want_gathered.push_back(x[there]);
          want_into[there] = y[here];
          want_sum[there] += y[here];
        }
      }
      if (type == kBF16) want_gathered = Rounded(want_gathered);
      EXPECT_TRUE(SameBits(gathered.Values(), want_gathered));
      EXPECT_TRUE(SameBits(into.Values(), want_into));
      EXPECT_TRUE(SameBits(sum.Values(), want_sum));
      EXPECT_TRUE(gathered.Intact() && into.Intact() && sum.Intact());
    }
  }
}

TEST_F(CudaElementwiseTest, EmbeddingsAreWidenedExactly) {
  for (const Case& c : kCases) {
    for (const DType type : {kF32, kBF16}) {
      auto table = RandomValues(91 * c.columns, 9);
      if (type == kBF16) table = Rounded(table);
      std::vector<int32_t> ids;
      for (int64_t t = 0; t < c.rows; ++t) ids.push_back(static_cast<int32_t>(t * 31 % 91));
      const OnDevice dtable(stream(), type, {91, c.columns}, table, c.guard), dids(stream(), {c.rows}, ids),
          y(stream(), kF32, {c.rows, c.columns}, c.guard);
      ExpectOk(EmbeddingGather(stream(), {.table = dtable.view(), .ids = dids.view(), .y = y.view()}));
      std::vector<float> want;
      for (const int32_t id : ids) {
        want.insert(want.end(), table.begin() + id * c.columns, table.begin() + (id + 1) * c.columns);
      }
      EXPECT_TRUE(SameBits(y.Values(), want));
      EXPECT_TRUE(y.Intact());
    }
  }
}

TEST_F(CudaElementwiseTest, PositionsAreAddedInTheOrderOfTheOp) {
  for (const Case& c : kCases) {
    for (const DType type : {kF32, kBF16}) {
      auto table = RandomValues(49 * c.columns, 10);
      if (type == kBF16) table = Rounded(table);
      const auto x = RandomValues(c.rows * c.columns, 11), weight = RandomValues(4 * c.rows, 12);
      std::vector<int32_t> index;
      for (int64_t i = 0; i < 4 * c.rows; ++i) index.push_back(static_cast<int32_t>(i * 17 % 49));
      const OnDevice dtable(stream(), type, {49, c.columns}, table, c.guard),
          dindex(stream(), {4, c.rows}, index), dweight(stream(), kF32, {4, c.rows}, weight),
          dx(stream(), kF32, {c.rows, c.columns}, x, c.guard);
      ExpectOk(PositionEmbedding(
          stream(),
          {.table = dtable.view(), .index = dindex.view(), .weight = dweight.view(), .x = dx.view()}));
      std::vector<float> want = x;
      for (int64_t p = 0; p < c.rows; ++p) {
        for (int64_t k = 0; k < c.columns; ++k) {
          float sum = 0;
          for (int64_t j = 0; j < 4; ++j) {
            const float product =
                weight[static_cast<size_t>(j * c.rows + p)] *
                table[static_cast<size_t>(index[static_cast<size_t>(j * c.rows + p)] * c.columns + k)];
            sum = j == 0 ? product : sum + product;
          }
          want[static_cast<size_t>(p * c.columns + k)] += sum;
        }
      }
      EXPECT_TRUE(SameBits(dx.Values(), want));
      EXPECT_TRUE(dx.Intact());
    }
  }
}

TEST_F(CudaElementwiseTest, ColumnsOfRanksStandSideBySide) {
  for (const Case& c : kCases) {
    for (const int64_t ranks : {1, 2, 4}) {
      const int64_t columns = std::max<int64_t>(1, ranks * c.columns - 1);  // the last part is cut
      const auto parts = RandomValues(ranks * c.rows * c.columns, 13);
      const OnDevice dparts(stream(), kF32, {ranks, c.rows, c.columns}, parts, c.guard),
          y(stream(), kF32, {c.rows, columns}, c.guard);
      ExpectOk(ConcatColumns(stream(), {.parts = dparts.view(), .y = y.view()}));
      std::vector<float> want;
      for (int64_t t = 0; t < c.rows; ++t) {
        for (int64_t k = 0; k < columns; ++k) {
          want.push_back(
              parts[static_cast<size_t>(((k / c.columns) * c.rows + t) * c.columns + k % c.columns)]);
        }
      }
      EXPECT_TRUE(SameBits(y.Values(), want));
      EXPECT_TRUE(y.Intact());
    }
  }
}

TEST_F(CudaElementwiseTest, PartialSumsGoByTheTreeAndInPlace) {
  for (const Case& c : kCases) {
    for (const int64_t ranks : {1, 2, 4}) {
      const int64_t size = c.rows * c.columns;
      const auto p = RandomValues(ranks * size, 14);
      const OnDevice dp(stream(), kF32, {ranks, c.rows, c.columns}, p, c.guard);
      const TensorView first = dp.view().Rows(0, 1).Reshape({c.rows, c.columns});
      ExpectOk(SumPartials(stream(), {.partials = dp.view(), .y = first}));
      std::vector<float> want = p;
      for (int64_t i = 0; i < size; ++i) {
        const auto at = [&](int64_t r) { return p[static_cast<size_t>(r * size + i)]; };
        if (ranks == 2) want[static_cast<size_t>(i)] = at(0) + at(1);
        if (ranks == 4) want[static_cast<size_t>(i)] = (at(0) + at(1)) + (at(2) + at(3));
      }
      EXPECT_TRUE(SameBits(dp.Values(), want));
      EXPECT_TRUE(dp.Intact());
    }
  }
}

}  // namespace
}  // namespace prism
