#include "kernels/cpu/multiply.h"

#include <algorithm>
#include <vector>

#include "kernels/cpu/linear_kernels.h"

namespace prism::cpu {
namespace {

// Rows turned at a time, to bound the memory for them; of those, the rows that go through a group
// of panels together, and the panels of a group. They fit the
// caches; no result depends on them.
constexpr int64_t kPassRows = 960;
constexpr int64_t kPartRows = 480;
constexpr int64_t kPartPanels = 8;
// A part with little work does not pay for being handed out: multiply-adds.
constexpr int64_t kPartWork = 1 << 16;

// Rows [begin, begin + blocks.rows) of a product.
struct RowPart {
  const Product* product;
  int64_t begin;
  RowBlocks blocks;
  SumRuns runs;
  const float* x = nullptr;  // turned
};

struct Part {
  const RowPart* rows;
  int64_t first_panel;
  int64_t num_panels;
};

int64_t PanelsOfPart(const RowPart& rows, int num_threads) {
  const LinearWeight& weight = *rows.product->weight;
  const int64_t panels = NumPanels(weight.out_features);
  const int64_t panel_work = std::max<int64_t>(1, weight.in_features * kPanelWidth * rows.blocks.rows);
  const int64_t enough = (kPartWork + panel_work - 1) / panel_work;
  // A few parts for each thread, so that none waits long for the last.
  const int64_t fair = std::max<int64_t>(1, panels / (4 * num_threads));
  return std::max(enough, std::min(kPartPanels, fair));
}

void MultiplyPass(Stream& stream, std::vector<RowPart>& row_parts) {
  ParallelPool& pool = PoolOf(stream);
  CpuStream& cpu = static_cast<CpuStream&>(stream);

  // A single row needs no turning.
  struct Block {
    RowPart* rows;
    int64_t index;
    float* to;
  };
  std::vector<Block> blocks;
  int64_t turned_size = 0;
  for (RowPart& rows : row_parts) {
    if (rows.blocks.rows > 1) turned_size += rows.blocks.rows * rows.product->weight->in_features;
  }
  float* turned = cpu.scratch(ScratchUse::kTurnedRows).Floats(turned_size);
  for (RowPart& rows : row_parts) {
    const Product& product = *rows.product;
    const int64_t in_features = product.weight->in_features;
    if (rows.blocks.rows == 1) {
      rows.x =
          product.x + (product.x_rows != nullptr ? product.x_rows[rows.begin] : rows.begin) * in_features;
      continue;
    }
    rows.x = turned;
    for (int64_t b = 0; b < rows.blocks.count; ++b) {
      blocks.push_back({&rows, b, turned + rows.blocks.Begin(b) * in_features});
    }
    turned += rows.blocks.rows * in_features;
  }
  pool.Run(static_cast<int64_t>(blocks.size()), [&](int64_t index, int) {
    const Block& block = blocks[static_cast<size_t>(index)];
    const Product& product = *block.rows->product;
    const int64_t begin = block.rows->begin + block.rows->blocks.Begin(block.index);
    const int64_t end = block.rows->begin + block.rows->blocks.Begin(block.index + 1);
    const float* from[kBlockRowsLimit];
    for (int64_t r = begin; r < end; ++r) {
      from[r - begin] =
          product.x + (product.x_rows != nullptr ? product.x_rows[r] : r) * product.weight->in_features;
    }
    PackRows(from, end - begin, product.weight->in_features, block.to);
  });

  std::vector<Part> parts;
  for (const RowPart& rows : row_parts) {
    const int64_t panels = NumPanels(rows.product->weight->out_features);
    const int64_t each = PanelsOfPart(rows, pool.num_threads());
    for (int64_t p = 0; p < panels; p += each) parts.push_back({&rows, p, std::min(each, panels - p)});
  }
  pool.Run(static_cast<int64_t>(parts.size()), [&](int64_t index, int thread) {
    const Part& part = parts[static_cast<size_t>(index)];
    const Product& product = *part.rows->product;
    const LinearWeight& weight = *product.weight;
    const int64_t rows = part.rows->blocks.rows;
    const int64_t n = part.first_panel * kPanelWidth;
    const int64_t panel_bytes = weight.in_features * kPanelWidth * static_cast<int64_t>(SizeOf(weight.dtype));
    MultiplyPanels(
        {.panels = static_cast<const char*>(weight.packed.view().raw()) + part.first_panel * panel_bytes,
         .dtype = weight.dtype,
         .num_panels = part.num_panels,
         .in_features = weight.in_features,
         .runs = &part.rows->runs,
         .x = part.rows->x,
         .blocks = part.rows->blocks,
         .bias = product.bias != nullptr ? product.bias + n : nullptr,
         .y = product.y + part.rows->begin * weight.out_features + n,
         .y_stride = weight.out_features,
         .out_features = std::min(weight.out_features - n, part.num_panels * kPanelWidth),
         .scratch =
             cpu.scratch(ScratchUse::kPartialSums, thread).Floats(PanelsScratchSize(part.num_panels, rows))});
  });
}

}  // namespace

void Multiply(Stream& stream, absl::Span<const Product> products) {
  const int64_t block_rows = BlockRowsMax();
  std::vector<RowPart> pass;
  int64_t pass_rows = 0;
  for (const Product& product : products) {
    const LinearWeight& weight = *product.weight;
    const SumRuns runs = RunsOf(weight.order, weight.in_total, weight.in_begin, weight.in_features);
    const RowBlocks cut(product.rows, kPartRows);
    for (int64_t i = 0; i < cut.count; ++i) {
      const int64_t begin = cut.Begin(i);
      const int64_t rows = cut.Begin(i + 1) - begin;
      if (pass_rows + rows > kPassRows) {
        MultiplyPass(stream, pass);
        pass.clear();
        pass_rows = 0;
      }
      pass.push_back(
          {.product = &product, .begin = begin, .blocks = RowBlocks(rows, block_rows), .runs = runs});
      pass_rows += rows;
    }
  }
  if (!pass.empty()) MultiplyPass(stream, pass);
}

}  // namespace prism::cpu
