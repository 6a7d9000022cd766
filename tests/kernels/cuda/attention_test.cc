#include "kernels/cuda/attention/attention.h"

#include <algorithm>
#include <cstdio>
#include <limits>
#include <numeric>
#include <optional>
#include <string>

#include "tests/kernels/cuda/guarded_array.h"

namespace prism::cuda {
namespace {

using test::AsBf16;
using test::Bf16;
using test::Check;
using test::GuardedArray;
using test::kPoison;
using test::NumDifferent;
using test::RandomBf16;
using test::Widen;

constexpr int64_t kTile = 64;
constexpr double kBf16Rounding = 0x1p-8;

struct Heads {
  int num_heads;
  int num_kv_heads;
  int head_size;
  int group() const { return num_heads / num_kv_heads; }
  int64_t columns() const { return static_cast<int64_t>(num_heads + 2 * num_kv_heads) * head_size; }
  float scale() const { return 1.0f / std::sqrt(static_cast<float>(head_size)); }
  float scale_log2() const { return scale() * 1.44269504f; }
};

std::string Name(const Heads& heads) {
  return std::to_string(heads.num_heads) + ":" + std::to_string(heads.num_kv_heads) + " heads of " +
         std::to_string(heads.head_size);
}

// Attention of one query in double precision, and how far a result in the kernels' arithmetic may
// be from it.
struct Exact {
  std::vector<double> out;
  std::vector<double> bound;
};

// Keys and values [n, D].
Exact AttendExactly(const Bf16* q, const std::vector<const Bf16*>& keys,
                    const std::vector<const Bf16*>& values, int head_size, double scale) {
  const size_t n = keys.size();
  std::vector<double> scores(n), sizes(n);
  double most = -std::numeric_limits<double>::infinity();
  double size_most = 0;
  for (size_t j = 0; j < n; ++j) {
    for (int d = 0; d < head_size; ++d) {
      const double product = static_cast<double>(Widen(q[d])) * Widen(keys[j][d]);
      scores[j] += product;
      sizes[j] += std::abs(product);
    }
    scores[j] *= scale;
    most = std::max(most, scores[j]);
    size_most = std::max(size_most, sizes[j] * scale);
  }
  double l = 0;
  std::vector<double> out(static_cast<size_t>(head_size)), sum_of_sizes(static_cast<size_t>(head_size));
  for (size_t j = 0; j < n; ++j) {
    const double p = std::exp(scores[j] - most);
    l += p;
    for (int d = 0; d < head_size; ++d) {
      out[static_cast<size_t>(d)] += p * Widen(values[j][d]);
      sum_of_sizes[static_cast<size_t>(d)] += p * std::abs(Widen(values[j][d]));
    }
  }
  // A unit errs by at most kUnit of the sum of its terms' sizes (docs/numerics.md); the exponential and
  // the maximum below it by a few roundings more. A weight is in error by that much twice (in the
  // numerator and in the sum), is rounded to bf16 for the numerator alone, and the result is rounded
  // once more. Sums of values err at every unit of 16 keys, rescaling and merge.
  constexpr double kUnit = 17 * 0x1p-25 + 0x1p-23;
  const double score_error = size_most * std::ceil(head_size / 16.0) * kUnit + (size_most + 4) * 0x1p-23;
  const double share = 2 * score_error + kBf16Rounding * 1.01 +
                       (static_cast<double>(n) / 16 + 2) * (kUnit + 2 * 0x1p-24) + 0x1p-20;
  Exact exact;
  for (int d = 0; d < head_size; ++d) {
    const double value = out[static_cast<size_t>(d)] / l;
    exact.out.push_back(value);
    exact.bound.push_back(share * sum_of_sizes[static_cast<size_t>(d)] / l +
                          kBf16Rounding * 1.01 * std::abs(value) + 1e-30);
  }
  return exact;
}

// A sequence: its whole context, of which the last `rows` are new.
struct Sequence {
  int context;
  int rows;
  int shared = -1;  // shares its first pages with this earlier sequence, all that are full in both
};

// Where leaves meet; the counters must be zero again in the end.
class Workspace {
 public:
  Workspace(const AttentionPagedParams& params, int rows_max)
      : partials_(DecodeWorkspaceBytes(params, rows_max) / 4),
        counters_(std::vector<uint32_t>(static_cast<size_t>(DecodeCounters(params, rows_max)), 0)) {}
  ~Workspace() {
    EXPECT_TRUE(partials_.Intact() && counters_.Intact()) << "wrote past the workspace";
    for (const uint32_t counter : counters_.Get()) EXPECT_EQ(counter, 0u);
  }
  DecodeWorkspace get() { return {.partials = partials_.data(), .counters = counters_.data()}; }

 private:
  GuardedArray<float> partials_;
  GuardedArray<uint32_t> counters_;
};

// A step of paged attention: everything that may not be read is NaN.
class PagedStep {
 public:
  PagedStep(const Heads& heads, std::vector<Sequence> sequences, uint32_t seed)
      : heads_(heads), sequences_(std::move(sequences)) {
    int64_t most = 1;
    for (const Sequence& s : sequences_) most = std::max<int64_t>(most, (s.context + kTile - 1) / kTile);
    pages_max_ = most + 1;
    const int64_t num_pages = static_cast<int64_t>(sequences_.size()) * most + 5;
    std::vector<int32_t> free(static_cast<size_t>(num_pages));
    std::iota(free.begin(), free.end(), 0);
    std::shuffle(free.begin(), free.end(), std::mt19937(seed));
    const int64_t page_elements = kTile * heads_.num_kv_heads * heads_.head_size;
    k_.assign(static_cast<size_t>(num_pages * page_elements), kPoison);
    v_ = k_;
    starts_.push_back(0);
    for (size_t i = 0; i < sequences_.size(); ++i) {
      const Sequence& s = sequences_[i];
      const uint32_t own_seed = seed * 1000 + static_cast<uint32_t>(i);
      const int64_t width = static_cast<int64_t>(heads_.num_kv_heads) * heads_.head_size;
      keys_.push_back(RandomBf16(s.context * width, own_seed + 100));
      values_.push_back(RandomBf16(s.context * width, own_seed + 200));
      for (int64_t page = 0; page < pages_max_; ++page) {
        int32_t number = -7;  // entries past the context are no pages
        if (page * kTile < s.context) {
          number = free.back();
          free.pop_back();
        }
        tables_.push_back(number);
      }
      if (s.shared >= 0) Share(i, static_cast<size_t>(s.shared));
      for (int64_t token = 0; token < s.context; ++token) {
        for (int64_t g = 0; g < heads_.num_kv_heads; ++g) {
          for (int64_t d = 0; d < heads_.head_size; ++d) {
            const size_t at = PageElement(i, token, g, d);
            k_[at] = keys_[i][static_cast<size_t>(token * width + g * heads_.head_size + d)];
            v_[at] = values_[i][static_cast<size_t>(token * width + g * heads_.head_size + d)];
          }
        }
      }
      starts_.push_back(starts_.back() + s.rows);
      contexts_.push_back(s.context);
      // Queries belong to the token, whatever step brings it.
      const std::vector<Bf16> queries = RandomBf16(
          static_cast<int64_t>(s.context) * heads_.num_heads * heads_.head_size, own_seed + 300, 1.5f);
      const int64_t query_width = static_cast<int64_t>(heads_.num_heads) * heads_.head_size;
      for (int64_t row = s.context - s.rows; row < s.context; ++row) {
        const Bf16* query = queries.data() + row * query_width;
        qkv_.insert(qkv_.end(), query, query + query_width);
        qkv_.insert(qkv_.end(), static_cast<size_t>(2 * width), kPoison);
      }
    }
    device_qkv_.emplace(qkv_);
    device_k_.emplace(k_);
    device_v_.emplace(v_);
    device_starts_.emplace(starts_);
    device_contexts_.emplace(contexts_);
    device_tables_.emplace(tables_);
    device_out_.emplace(num_rows() * out_columns());
  }

  int64_t num_rows() const { return starts_.back(); }
  int64_t out_columns() const { return static_cast<int64_t>(heads_.num_heads) * heads_.head_size; }
  AttentionPagedParams params() {
    return {.qkv = AsBf16(*device_qkv_),
            .columns = heads_.columns(),
            .k = AsBf16(*device_k_),
            .v = AsBf16(*device_v_),
            .query_starts = device_starts_->data(),
            .context_lengths = device_contexts_->data(),
            .page_tables = device_tables_->data(),
            .out = AsBf16(*device_out_),
            .num_rows = static_cast<int32_t>(num_rows()),
            .num_sequences = static_cast<int32_t>(sequences_.size()),
            .pages_max = static_cast<int32_t>(pages_max_),
            .num_heads = heads_.num_heads,
            .num_kv_heads = heads_.num_kv_heads,
            .head_size = heads_.head_size,
            .scale_log2 = heads_.scale_log2()};
  }

  // Runs launch(params) and gives what it wrote.
  template <typename Launch>
  std::vector<Bf16> Run(const Launch& launch) {
    device_out_->Poison();
    Check(launch(params()));
    Check(cudaDeviceSynchronize());
    EXPECT_TRUE(device_out_->Intact()) << "wrote past the end";
    return device_out_->Get();
  }
  std::vector<Bf16> RunReference() {
    return Run([](const AttentionPagedParams& p) { return reference::LaunchAttentionPaged(p, nullptr); });
  }
  std::vector<Bf16> RunDecode(int rows_max, DecodeSplit split) {
    Workspace workspace(params(), rows_max);
    return Run([&](const AttentionPagedParams& p) {
      return LaunchAttentionDecode(p, rows_max, split, workspace.get(), nullptr);
    });
  }
  std::vector<Bf16> RunPrompt(int rows_min) {
    return Run([&](const AttentionPagedParams& p) { return LaunchAttentionPrompt(p, rows_min, nullptr); });
  }
  std::vector<Bf16> RunBoth(int rows_border) {
    Workspace workspace(params(), rows_border);
    return Run([&](const AttentionPagedParams& p) {
      const cudaError_t error =
          LaunchAttentionDecode(p, rows_border, DecodeSplit::kAuto, workspace.get(), nullptr);
      return error == cudaSuccess ? LaunchAttentionPrompt(p, rows_border, nullptr) : error;
    });
  }

  // The share of the bound that the worst of some rows' elements takes; above 1 is wrong.
  double WorstShare(const std::vector<Bf16>& out) const {
    double worst = 0;
    for (size_t i = 0; i < sequences_.size(); ++i) {
      const Sequence& s = sequences_[i];
      const int stride = std::max(1, s.rows / 5);
      for (int r = s.rows - 1; r >= 0; r -= stride) {
        const int64_t row = starts_[i] + r;
        const int64_t visible = s.context - s.rows + r + 1;
        for (int h = 0; h < heads_.num_heads; h += std::max(1, heads_.num_heads / 5)) {
          const int64_t width = static_cast<int64_t>(heads_.num_kv_heads) * heads_.head_size;
          std::vector<const Bf16*> keys, values;
          for (int64_t j = 0; j < visible; ++j) {
            keys.push_back(keys_[i].data() + j * width + h / heads_.group() * heads_.head_size);
            values.push_back(values_[i].data() + j * width + h / heads_.group() * heads_.head_size);
          }
          const Exact exact = AttendExactly(qkv_.data() + row * heads_.columns() + h * heads_.head_size, keys,
                                            values, heads_.head_size, heads_.scale());
          for (int d = 0; d < heads_.head_size; ++d) {
            const double got =
                Widen(out[static_cast<size_t>(row * out_columns() + h * heads_.head_size + d)]);
            const double share =
                std::abs(got - exact.out[static_cast<size_t>(d)]) / exact.bound[static_cast<size_t>(d)];
            worst = std::isnan(share) ? std::numeric_limits<double>::infinity() : std::max(worst, share);
          }
        }
      }
    }
    return worst;
  }

  // One sequence's rows of an output.
  std::vector<Bf16> RowsOf(const std::vector<Bf16>& out, size_t sequence) const {
    return {out.begin() + starts_[sequence] * out_columns(),
            out.begin() + starts_[sequence + 1] * out_columns()};
  }

 private:
  void Share(size_t i, size_t other) {
    const int64_t width = static_cast<int64_t>(heads_.num_kv_heads) * heads_.head_size;
    const int64_t pages = std::min(sequences_[i].context, sequences_[other].context) / kTile;
    for (int64_t page = 0; page < pages; ++page) {
      tables_[i * static_cast<size_t>(pages_max_) + static_cast<size_t>(page)] =
          tables_[other * static_cast<size_t>(pages_max_) + static_cast<size_t>(page)];
    }
    std::copy_n(keys_[other].begin(), pages * kTile * width, keys_[i].begin());
    std::copy_n(values_[other].begin(), pages * kTile * width, values_[i].begin());
  }
  // [pages, G, D / 8, 64, 8]
  size_t PageElement(size_t sequence, int64_t token, int64_t g, int64_t d) const {
    const int64_t page =
        tables_[sequence * static_cast<size_t>(pages_max_) + static_cast<size_t>(token / kTile)];
    return static_cast<size_t>(
        (((page * heads_.num_kv_heads + g) * (heads_.head_size / 8) + d / 8) * kTile + token % kTile) * 8 +
        d % 8);
  }

  const Heads heads_;
  const std::vector<Sequence> sequences_;
  int64_t pages_max_;
  std::vector<std::vector<Bf16>> keys_, values_;  // of each sequence, [context, G D]
  std::vector<Bf16> qkv_, k_, v_;
  std::vector<int32_t> starts_, contexts_, tables_;
  std::optional<GuardedArray<Bf16>> device_qkv_, device_k_, device_v_, device_out_;
  std::optional<GuardedArray<int32_t>> device_starts_, device_contexts_, device_tables_;
};

const std::vector<Heads> kHeads = {
    {4, 1, 128},  {4, 2, 128},  {6, 2, 128},  {8, 4, 128},   // the micro models
    {32, 4, 128}, {32, 8, 128}, {16, 8, 128}, {16, 1, 128},  // the published sizes, and a group of 16
    {8, 8, 64},   {8, 1, 64},   {4, 4, 32},   {8, 1, 32},   {4, 2, 72}};  // other sizes of a head

const std::vector<std::vector<Sequence>> kSteps = {
    {{1, 1}},
    {{63, 1}, {64, 1}, {65, 1}, {255, 1}, {256, 1}, {257, 1}, {1031, 1}},
    {{63, 63}, {64, 64}, {65, 65}, {1, 1}, {257, 257}},
    {{1000, 17}, {300, 1}, {64, 2}, {129, 128}, {511, 1}, {512, 3}, {70, 70}},
    {{400, 1}, {390, 1, 0}, {513, 100, 0}, {256, 5, 2}},
    {{1400, 200}, {2600, 1}, {40, 1}}};

TEST(CudaAttentionPagedTest, EveryKernelAgreesWithDoublePrecisionAndBitForBitWithTheReference) {
  PRISM_NEEDS_CUDA_DEVICE();
  double worst = 0;
  for (const Heads& heads : kHeads) {
    for (size_t i = 0; i < kSteps.size(); ++i) {
      SCOPED_TRACE(Name(heads) + ", step " + std::to_string(i));
      PagedStep step(heads, kSteps[i], static_cast<uint32_t>(i + 1));
      const std::vector<Bf16> reference = step.RunReference();
      const double share = step.WorstShare(reference);
      worst = std::max(worst, share);
      EXPECT_LE(share, 1.0);
      if (HasDecodeKernel(step.params())) {
        constexpr int kAll = std::numeric_limits<int>::max();
        EXPECT_EQ(NumDifferent(step.RunDecode(kAll, DecodeSplit::kLeaves), reference), 0) << "decode, split";
        EXPECT_EQ(NumDifferent(step.RunDecode(kAll, DecodeSplit::kWhole), reference), 0) << "decode, whole";
        EXPECT_EQ(NumDifferent(step.RunDecode(kAll, DecodeSplit::kAuto), reference), 0)
            << "decode, by itself";
      }
      if (HasPromptKernel(step.params())) {
        const std::vector<Bf16> out = step.RunPrompt(0);
        EXPECT_EQ(NumDifferent(out, reference), 0)
            << "prompt, its own share of the bound " << step.WorstShare(out);
      }
      if (HasPromptKernel(step.params()) && HasDecodeKernel(step.params())) {
        EXPECT_EQ(NumDifferent(step.RunBoth(1), reference), 0) << "both, rows up to 1 by decode";
        EXPECT_EQ(NumDifferent(step.RunBoth(4), reference), 0) << "both, rows up to 4 by decode";
      }
    }
  }
  std::printf("worst share of the bound: %.3f\n", worst);
}

TEST(CudaAttentionPagedTest, ARowHasTheSameBitsInEveryChunkingAndBatch) {
  PRISM_NEEDS_CUDA_DEVICE();
  PRISM_NEEDS_HOPPER_CODE();
  const Heads heads{32, 4, 128};
  constexpr int kLength = 601;
  PagedStep whole(heads, {{kLength, kLength}}, 7);
  const std::vector<Bf16> want = whole.RunReference();
  EXPECT_EQ(NumDifferent(whole.RunPrompt(0), want), 0);
  for (const int chunk : {64, 100, 511}) {
    for (int begin = 0; begin < kLength; begin += chunk) {
      const int end = std::min(begin + chunk, kLength);
      // The same sequence up to `end`: what follows is not written yet. Others beside it.
      PagedStep step(heads, {{end, end - begin}, {333, 1}, {90, 40}}, 7);
      const std::vector<Bf16> part(want.begin() + begin * step.out_columns(),
                                   want.begin() + end * step.out_columns());
      EXPECT_EQ(NumDifferent(step.RowsOf(step.RunBoth(1), 0), part), 0) << chunk << " at " << begin;
    }
  }
  for (const int end : {1, 2, 64, 65, 256, 257, 512, 600}) {
    PagedStep step(heads, {{end, 1}, {700, 1}}, 7);
    const std::vector<Bf16> part(want.begin() + (end - 1) * step.out_columns(),
                                 want.begin() + end * step.out_columns());
    EXPECT_EQ(NumDifferent(step.RowsOf(step.RunDecode(1, DecodeSplit::kLeaves), 0), part), 0)
        << "row " << end;
  }
}

TEST(CudaAttentionPagedTest, ARowWithoutKeysGivesZeros) {
  PRISM_NEEDS_CUDA_DEVICE();
  PRISM_NEEDS_HOPPER_CODE();
  const Heads heads{32, 4, 128};
  PagedStep step(heads, {{0, 0}, {100, 1}, {0, 0}}, 3);
  const std::vector<Bf16> want = step.RunReference();
  EXPECT_EQ(NumDifferent(step.RunDecode(1, DecodeSplit::kLeaves), want), 0);
  EXPECT_EQ(NumDifferent(step.RunPrompt(0), want), 0);

  // A padded row of a graph: a sequence of one row and no context.
  GuardedArray<int32_t> one_row(std::vector<int32_t>{0, 1});
  GuardedArray<int32_t> no_context(std::vector<int32_t>{0});
  Workspace workspace(step.params(), 1);
  const std::vector<Bf16> zeros(want.size(), 0);
  for (const bool decode : {true, false}) {
    const std::vector<Bf16> out = step.Run([&](AttentionPagedParams p) {
      p.query_starts = one_row.data();
      p.context_lengths = no_context.data();
      p.num_sequences = 1;
      return decode ? LaunchAttentionDecode(p, 1, DecodeSplit::kLeaves, workspace.get(), nullptr)
                    : LaunchAttentionPrompt(p, 0, nullptr);
    });
    EXPECT_EQ(NumDifferent(out, zeros), 0) << decode;
  }
}

// Segments side by side.
class VarlenStep {
 public:
  VarlenStep(int num_heads, int head_size, const std::vector<int>& lengths, uint32_t seed)
      : num_heads_(num_heads), head_size_(head_size) {
    for (const int length : lengths) starts_.push_back(starts_.back() + length);
    qkv_ = RandomBf16(num_rows() * 3 * width(), seed, 1.2f);
    device_qkv_.emplace(qkv_);
    device_starts_.emplace(starts_);
    device_out_.emplace(num_rows() * width());
  }
  int64_t num_rows() const { return starts_.back(); }
  int64_t width() const { return static_cast<int64_t>(num_heads_) * head_size_; }
  AttentionVarlenParams params() {
    return {.qkv = AsBf16(*device_qkv_),
            .segment_starts = device_starts_->data(),
            .out = AsBf16(*device_out_),
            .num_rows = static_cast<int32_t>(num_rows()),
            .num_segments = static_cast<int32_t>(starts_.size() - 1),
            .num_heads = num_heads_,
            .head_size = head_size_,
            .scale_log2 = 1.44269504f / std::sqrt(static_cast<float>(head_size_))};
  }
  // Everything outside one segment becomes NaN.
  void PoisonOthers(size_t segment) {
    std::vector<Bf16> qkv(qkv_.size(), kPoison);
    std::copy(qkv_.begin() + starts_[segment] * 3 * width(),
              qkv_.begin() + starts_[segment + 1] * 3 * width(),
              qkv.begin() + starts_[segment] * 3 * width());
    device_qkv_->Set(qkv);
  }
  template <typename Launch>
  std::vector<Bf16> Run(const Launch& launch) {
    device_out_->Poison();
    Check(launch(params(), nullptr));
    Check(cudaDeviceSynchronize());
    EXPECT_TRUE(device_out_->Intact()) << "wrote past the end";
    return device_out_->Get();
  }
  std::vector<Bf16> RowsOf(const std::vector<Bf16>& out, size_t segment) const {
    return {out.begin() + starts_[segment] * width(), out.begin() + starts_[segment + 1] * width()};
  }
  double WorstShare(const std::vector<Bf16>& out) const {
    double worst = 0;
    for (size_t s = 0; s + 1 < starts_.size(); ++s) {
      const int64_t first = starts_[s], length = starts_[s + 1] - first;
      for (int64_t row = length - 1; row >= 0; row -= std::max<int64_t>(1, length / 4)) {
        for (int h = 0; h < num_heads_; h += std::max(1, num_heads_ / 3)) {
          std::vector<const Bf16*> keys, values;
          for (int64_t j = 0; j < length; ++j) {
            const Bf16* at = qkv_.data() + (first + j) * 3 * width() + h * head_size_;
            keys.push_back(at + width());
            values.push_back(at + 2 * width());
          }
          const Exact exact =
              AttendExactly(qkv_.data() + (first + row) * 3 * width() + h * head_size_, keys, values,
                            head_size_, 1.0 / std::sqrt(static_cast<double>(head_size_)));
          for (int d = 0; d < head_size_; ++d) {
            const double got = Widen(out[static_cast<size_t>((first + row) * width() + h * head_size_ + d)]);
            const double share =
                std::abs(got - exact.out[static_cast<size_t>(d)]) / exact.bound[static_cast<size_t>(d)];
            worst = std::isnan(share) ? std::numeric_limits<double>::infinity() : std::max(worst, share);
          }
        }
      }
    }
    return worst;
  }

 private:
  const int num_heads_, head_size_;
  std::vector<int32_t> starts_ = {0};
  std::vector<Bf16> qkv_;
  std::optional<GuardedArray<Bf16>> device_qkv_, device_out_;
  std::optional<GuardedArray<int32_t>> device_starts_;
};

TEST(CudaAttentionVarlenTest, EveryKernelAgreesWithDoublePrecisionAndBitForBitWithTheReference) {
  PRISM_NEEDS_CUDA_DEVICE();
  const std::vector<std::vector<int>> segments = {
      {1}, {63, 64, 65}, {4, 0, 256, 257, 255}, {1000, 16, 100}, {128, 127, 129, 520}};
  double worst = 0;
  for (const auto& [num_heads, head_size] :
       std::vector<std::pair<int, int>>{{2, 64}, {2, 72}, {1, 72}, {16, 72}, {16, 64}, {3, 32}, {2, 128}}) {
    for (size_t i = 0; i < segments.size(); ++i) {
      SCOPED_TRACE(std::to_string(num_heads) + " heads of " + std::to_string(head_size) + ", segments " +
                   std::to_string(i));
      VarlenStep step(num_heads, head_size, segments[i], static_cast<uint32_t>(i + 11));
      const std::vector<Bf16> reference = step.Run(reference::LaunchAttentionVarlen);
      const double share = step.WorstShare(reference);
      worst = std::max(worst, share);
      EXPECT_LE(share, 1.0);
      if (!HasVarlenKernel(step.params())) continue;
      const std::vector<Bf16> out = step.Run(LaunchAttentionVarlen);
      EXPECT_EQ(NumDifferent(out, reference), 0) << "its own share of the bound " << step.WorstShare(out);
    }
  }
  std::printf("worst share of the bound: %.3f\n", worst);
}

TEST(CudaAttentionVarlenTest, ASegmentReadsNothingOfItsNeighbours) {
  PRISM_NEEDS_CUDA_DEVICE();
  PRISM_NEEDS_HOPPER_CODE();
  const std::vector<int> lengths = {70, 300, 128, 1, 65};
  for (const int head_size : {64, 72}) {
    VarlenStep step(4, head_size, lengths, 5);
    const std::vector<Bf16> together = step.Run(LaunchAttentionVarlen);
    for (size_t s = 0; s < lengths.size(); ++s) {
      step.PoisonOthers(s);
      EXPECT_EQ(NumDifferent(step.RowsOf(step.Run(LaunchAttentionVarlen), s), step.RowsOf(together, s)), 0)
          << head_size << ", segment " << s;
    }
  }
}

}  // namespace
}  // namespace prism::cuda
