#include <algorithm>
#include <numeric>

#include "kernels/ops/attention.h"
#include "tests/kernels/cpu/test_tensors.h"

namespace prism {
namespace {

using test::Guarded;
using test::kPoison;
using test::RandomFloats;
using test::SameBits;

struct Heads {
  int64_t num_heads;
  int64_t num_kv_heads;
  int64_t head_size;
  int64_t columns() const { return (num_heads + 2 * num_kv_heads) * head_size; }
  int64_t width() const { return num_heads * head_size; }
  int64_t group() const { return num_heads / num_kv_heads; }
  float scale() const { return 1.0f / std::sqrt(static_cast<float>(head_size)); }
};

// All rows of one sequence: q, k and v side by side.
struct Rows {
  int64_t length;
  std::vector<float> qkv;  // [length, columns]
};

Rows RandomRows(const Heads& heads, int64_t length, uint32_t seed) {
  return {length, RandomFloats(length * heads.columns(), seed)};
}

// The new rows one step brings: for each sequence, how many.
using Step = std::vector<int64_t>;

// Runs the steps over paged memory whose unused slots and pages are poison, and returns every
// sequence's rows of output, [length, width] each.
std::vector<std::vector<float>> Attend(const Heads& heads, const std::vector<Rows>& sequences,
                                       const std::vector<Step>& steps, int num_threads,
                                       uint32_t page_seed = 1) {
  auto backend = CreateCpuBackend();
  auto stream = test::MakeStream(*backend, num_threads);
  const int64_t num_sequences = static_cast<int64_t>(sequences.size());
  int64_t pages_max = 1;
  for (const Rows& rows : sequences)
    pages_max = std::max(pages_max, (rows.length + kAttentionTile - 1) / kAttentionTile);
  pages_max += 1;
  const int64_t num_pages = num_sequences * pages_max + 3;
  std::vector<int32_t> pages(static_cast<size_t>(num_pages));
  std::iota(pages.begin(), pages.end(), 0);
  std::shuffle(pages.begin(), pages.end(), std::mt19937(page_seed));

  const int64_t page_elements = heads.num_kv_heads * heads.head_size * kAttentionTile;
  Guarded k(num_pages * page_elements);
  Guarded v(num_pages * page_elements);
  const KvLayer kv{.k = k.view({num_pages, heads.num_kv_heads, heads.head_size, kAttentionTile}),
                   .v = v.view({num_pages, heads.num_kv_heads, kAttentionTile, heads.head_size})};
  std::vector<std::vector<float>> outputs(sequences.size());
  std::vector<int64_t> done(sequences.size(), 0);
  for (const Step& step : steps) {
    std::vector<float> qkv;
    std::vector<int32_t> slots, starts = {0}, lengths, tables;
    for (size_t s = 0; s < sequences.size(); ++s) {
      const int64_t count = std::min(step[s], sequences[s].length - done[s]);
      const int32_t* table = pages.data() + static_cast<int64_t>(s) * pages_max;
      const float* rows = sequences[s].qkv.data() + done[s] * heads.columns();
      qkv.insert(qkv.end(), rows, rows + count * heads.columns());
      for (int64_t i = done[s]; i < done[s] + count; ++i) {
        slots.push_back(
            static_cast<int32_t>(table[i / kAttentionTile] * kAttentionTile + i % kAttentionTile));
      }
      done[s] += count;
      starts.push_back(starts.back() + static_cast<int32_t>(count));
      lengths.push_back(static_cast<int32_t>(done[s]));
      // Entries past the context are not pages at all.
      for (int64_t j = 0; j < pages_max; ++j) tables.push_back(j * kAttentionTile < done[s] ? table[j] : -7);
    }
    const int64_t num_rows = starts.back();
    if (num_rows == 0) continue;
    const TensorView qkv_view(qkv.data(), Shape{num_rows, heads.columns()});
    EXPECT_EQ(KvWrite(*stream, {.qkv = qkv_view,
                                .k_column = heads.width(),
                                .v_column = heads.width() + heads.num_kv_heads * heads.head_size,
                                .slots = TensorView(slots.data(), Shape{num_rows}),
                                .kv = kv}),
              absl::OkStatus());
    Guarded out(num_rows * heads.width());
    EXPECT_EQ(
        AttentionPaged(*stream, {.qkv = qkv_view,
                                 .num_heads = heads.num_heads,
                                 .kv = kv,
                                 .query_starts = TensorView(starts.data(), Shape{num_sequences + 1}),
                                 .context_lengths = TensorView(lengths.data(), Shape{num_sequences}),
                                 .page_tables = TensorView(tables.data(), Shape{num_sequences, pages_max}),
                                 .out = out.view({num_rows, heads.width()}),
                                 .scale = heads.scale()}),
        absl::OkStatus());
    EXPECT_TRUE(out.Intact());
    for (size_t s = 0; s < sequences.size(); ++s) {
      outputs[s].insert(outputs[s].end(), out.data() + starts[s] * heads.width(),
                        out.data() + starts[s + 1] * heads.width());
    }
  }
  EXPECT_TRUE(k.Intact() && v.Intact());
  return outputs;
}

// Steps that bring `chunk` rows of every sequence at a time.
std::vector<Step> Chunks(const std::vector<Rows>& sequences, int64_t chunk) {
  int64_t longest = 0;
  for (const Rows& rows : sequences) longest = std::max(longest, rows.length);
  return std::vector<Step>(static_cast<size_t>((longest + chunk - 1) / chunk), Step(sequences.size(), chunk));
}

// Softmax attention of one sequence in double precision.
std::vector<double> Reference(const Heads& heads, const Rows& rows) {
  const int64_t size = heads.head_size;
  std::vector<double> out(static_cast<size_t>(rows.length * heads.width()));
  std::vector<double> p(static_cast<size_t>(rows.length));
  for (int64_t i = 0; i < rows.length; ++i) {
    for (int64_t h = 0; h < heads.num_heads; ++h) {
      const float* q = rows.qkv.data() + i * heads.columns() + h * size;
      double most = -1e300, sum = 0.0;
      for (int64_t j = 0; j <= i; ++j) {
        const float* k = rows.qkv.data() + j * heads.columns() + heads.width() + h / heads.group() * size;
        double score = 0.0;
        for (int64_t d = 0; d < size; ++d) score += static_cast<double>(q[d]) * static_cast<double>(k[d]);
        p[static_cast<size_t>(j)] = score * static_cast<double>(heads.scale());
        most = std::max(most, p[static_cast<size_t>(j)]);
      }
      for (int64_t j = 0; j <= i; ++j)
        sum += p[static_cast<size_t>(j)] = std::exp(p[static_cast<size_t>(j)] - most);
      for (int64_t j = 0; j <= i; ++j) {
        const float* v = rows.qkv.data() + j * heads.columns() + heads.width() + heads.num_kv_heads * size +
                         h / heads.group() * size;
        for (int64_t d = 0; d < size; ++d) {
          out[static_cast<size_t>(i * heads.width() + h * size + d)] +=
              p[static_cast<size_t>(j)] / sum * static_cast<double>(v[d]);
        }
      }
    }
  }
  return out;
}

// With |q|, |k|, |v| <= 1: a score is off by at most (D + 1) roundings of D scale, and so every
// weight by that share, twice (numerator and sum); an output's chain and its rescalings add at most
// one rounding a key of a leaf, three a tile and four a leaf, the exponential and the division four.
double Tolerance(const Heads& heads, int64_t length) {
  const double size = static_cast<double>(heads.head_size);
  const double score = (size + 1.0) * size * static_cast<double>(heads.scale());
  const double tiles = std::ceil(static_cast<double>(length) / 64.0);
  return 2.0 * test::kRounding * (score + 256.0 + 4.0 * tiles + 8.0);
}

class AttentionPagedTest : public testing::TestWithParam<Heads> {};

TEST_P(AttentionPagedTest, AgreesWithDoublePrecisionAtEveryContextLength) {
  const Heads heads = GetParam();
  for (const int64_t length : {1, 63, 64, 65, 255, 256, 257, 700}) {
    const std::vector<Rows> sequences = {RandomRows(heads, length, static_cast<uint32_t>(length))};
    const std::vector<float> out = Attend(heads, sequences, Chunks(sequences, length), 1)[0];
    const std::vector<double> want = Reference(heads, sequences[0]);
    ASSERT_EQ(out.size(), want.size());
    EXPECT_LE(test::WorstError(out, want), Tolerance(heads, length)) << length << " keys";
  }
}

TEST_P(AttentionPagedTest, GivesTheSameBitsForEveryChunkingBatchPageOrderAndThreadCount) {
  const Heads heads = GetParam();
  std::vector<Rows> alone = {RandomRows(heads, 700, 1)};
  const std::vector<float> want = Attend(heads, alone, Chunks(alone, 700), 1)[0];
  ASSERT_TRUE(std::none_of(want.begin(), want.end(), [](float v) { return std::isnan(v); }));
  for (const int64_t chunk : {1, 16, 64, 300}) {
    EXPECT_TRUE(SameBits(Attend(heads, alone, Chunks(alone, chunk), 1, 7)[0], want)) << "chunks of " << chunk;
  }
  EXPECT_TRUE(SameBits(Attend(heads, alone, Chunks(alone, 700), 2)[0], want));

  std::vector<Rows> batch;
  uint32_t seed = 10;
  for (const int64_t length : {1, 63, 64, 65}) batch.push_back(RandomRows(heads, length, ++seed));
  batch.push_back(alone[0]);
  for (const int64_t length : {255, 256, 257, 700}) batch.push_back(RandomRows(heads, length, ++seed));
  for (const int num_threads : {1, 2}) {
    EXPECT_TRUE(SameBits(Attend(heads, batch, Chunks(batch, 700), num_threads)[4], want));
    EXPECT_TRUE(SameBits(Attend(heads, batch, Chunks(batch, 50), num_threads)[4], want));
  }
  // Some of the others prefill while this one decodes, and the other way round.
  std::vector<Step> mixed;
  for (int64_t i = 0; i < 300; ++i) mixed.push_back(Step{1, 1, 64, 7, i % 2 == 0 ? 1 : 100, 0, 33, 2, 1});
  EXPECT_TRUE(SameBits(Attend(heads, batch, mixed, 2)[4], want));
}

INSTANTIATE_TEST_SUITE_P(Cpu, AttentionPagedTest,
                         testing::Values(Heads{4, 2, 16}, Heads{2, 2, 72}, Heads{8, 1, 8}, Heads{2, 1, 128},
                                         Heads{7, 1, 20}, Heads{3, 3, 1}));

class KvWriteTest : public testing::Test {
 protected:
  // Two tokens of one head of two elements, and two pages.
  absl::Status Write(std::vector<int32_t> slots) {
    return KvWrite(
        *stream_, {.qkv = TensorView(qkv_.data(), Shape{2, 5}),
                   .k_column = 1,
                   .v_column = 3,
                   .slots = TensorView(slots.data(), Shape{2}),
                   .kv = {.k = k_.view({2, 1, 2, kAttentionTile}), .v = v_.view({2, 1, kAttentionTile, 2})}});
  }
  int CountWritten() {
    int written = 0;
    for (Guarded* array : {&k_, &v_}) {
      for (const float value : array->values()) written += std::isnan(value) ? 0 : 1;
    }
    return written;
  }

  std::unique_ptr<Backend> backend_ = CreateCpuBackend();
  std::unique_ptr<Stream> stream_ = test::MakeStream(*backend_);
  std::vector<float> qkv_ = {0, 1, 2, 3, 4, 10, 11, 12, 13, 14};
  Guarded k_{2 * 2 * kAttentionTile};
  Guarded v_{2 * 2 * kAttentionTile};
};

TEST_F(KvWriteTest, StoresKeysTransposedAndValuesAsTheyAre) {
  ASSERT_EQ(Write({127, 3}), absl::OkStatus());
  EXPECT_EQ(k_[(1 * 2 + 0) * kAttentionTile + 63], 1.0f);
  EXPECT_EQ(k_[(1 * 2 + 1) * kAttentionTile + 63], 2.0f);
  EXPECT_EQ(v_[(1 * kAttentionTile + 63) * 2 + 0], 3.0f);
  EXPECT_EQ(v_[(1 * kAttentionTile + 63) * 2 + 1], 4.0f);
  EXPECT_EQ(k_[0 * kAttentionTile + 3], 11.0f);
  EXPECT_EQ(v_[3 * 2 + 1], 14.0f);
  EXPECT_EQ(CountWritten(), 8);
  EXPECT_TRUE(k_.Intact() && v_.Intact());
}

TEST_F(KvWriteTest, StoresNothingForANegativeSlot) {
  ASSERT_EQ(Write({-1, 0}), absl::OkStatus());
  EXPECT_EQ(CountWritten(), 4);
}

TEST_F(KvWriteTest, RefusesASlotPastTheLastPageAndWritesNothing) {
  EXPECT_EQ(Write({0, 128}), absl::InvalidArgumentError("KvWrite: slots[1] is 128, want below 128"));
  EXPECT_EQ(CountWritten(), 0);
}

// One sequence of two rows over one of two pages.
absl::Status AttendWith(std::vector<int32_t> starts, int32_t length, std::vector<int32_t> table) {
  auto backend = CreateCpuBackend();
  auto stream = test::MakeStream(*backend);
  Guarded qkv(2 * 4, 1.0f), k(2 * 4 * kAttentionTile, 1.0f), v(2 * 4 * kAttentionTile, 1.0f), out(2 * 4);
  absl::Status status = AttentionPaged(
      *stream, {.qkv = qkv.view({2, 4}),
                .num_heads = 1,
                .kv = {.k = k.view({2, 1, 4, kAttentionTile}), .v = v.view({2, 1, kAttentionTile, 4})},
                .query_starts = TensorView(starts.data(), Shape{2}),
                .context_lengths = TensorView(&length, Shape{1}),
                .page_tables = TensorView(table.data(), Shape{1, 2}),
                .out = out.view({2, 4}),
                .scale = 0.5f});
  if (!status.ok()) {
    EXPECT_TRUE(std::isnan(out[0])) << "wrote although it refused";
  }
  return status;
}

TEST(AttentionPagedArgsTest, RefusesContextsPagesAndRowsThatDoNotExist) {
  EXPECT_EQ(AttendWith({0, 2}, 128, {1, 0}), absl::OkStatus());
  EXPECT_EQ(AttendWith({0, 2}, 64, {1, -5}), absl::OkStatus());
  EXPECT_EQ(AttendWith({0, 2}, 1, {0, 1}).message(),
            "AttentionPaged: context_lengths[0] is 1, want 2 to 128");
  EXPECT_EQ(AttendWith({0, 2}, 129, {0, 1}).message(),
            "AttentionPaged: context_lengths[0] is 129, want 2 to 128");
  EXPECT_EQ(AttendWith({0, 2}, 65, {0, 2}).message(), "AttentionPaged: page_tables[0, 1] is 2, want [0, 2)");
  EXPECT_EQ(AttendWith({0, 2}, 65, {-1, 0}).message(),
            "AttentionPaged: page_tables[0, 0] is -1, want [0, 2)");
  EXPECT_EQ(AttendWith({1, 2}, 64, {0, 1}).message(),
            "AttentionPaged: query_starts[0] is 1, want ascending from 0 to 2");
  EXPECT_EQ(AttendWith({0, 1}, 64, {0, 1}).message(),
            "AttentionPaged: query_starts[1] is 1, want ascending from 0 to 2");
  EXPECT_EQ(AttendWith({0, 3}, 64, {0, 1}).message(),
            "AttentionPaged: query_starts[1] is 3, want ascending from 0 to 2");
}

}  // namespace
}  // namespace prism
