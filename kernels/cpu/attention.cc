#include <algorithm>
#include <array>
#include <vector>

#include "common/base/status.h"
#include "kernels/cpu/attention_check.h"
#include "kernels/cpu/attention_kernels.h"
#include "kernels/cpu/cpu_ops.h"
#include "kernels/cpu/cpu_stream.h"

namespace prism::cpu {
namespace {

int64_t CeilDiv(int64_t value, int64_t by) { return (value + by - 1) / by; }

// What a block of queries is worked out in, the thread's own.
float* QueryState(CpuStream& stream, int thread, int64_t head_size) {
  return stream.scratch(ScratchUse::kQueryState, thread).Floats(AttentionScratchSize(head_size));
}

// Some tokens of one sequence, and the query heads that share one KV head.
struct PagedPart {
  int64_t sequence;
  int64_t kv_head;
  int64_t first_row, num_rows;  // of qkv
};

}  // namespace

absl::Status AttentionPaged(Stream& stream, const AttentionPagedArgs& args) {
  PRISM_RETURN_IF_ERROR(CheckPaged(args));
  const int64_t num_kv_heads = args.kv.k.dim(1);
  const int64_t head_size = args.kv.k.dim(2);
  const int64_t group = args.num_heads / num_kv_heads;
  // The heads of a group that go together, and the tokens that do.
  const int64_t heads_at_once = std::min(group, kQueryBlock);
  const int64_t tokens_at_once = kQueryBlock / heads_at_once;
  const int32_t* starts = args.query_starts.data<int32_t>();

  std::vector<PagedPart> parts;
  for (int64_t s = 0; s < args.context_lengths.dim(0); ++s) {
    for (int64_t g = 0; g < num_kv_heads; ++g) {
      for (int64_t row = starts[s]; row < starts[s + 1]; row += tokens_at_once) {
        parts.push_back({s, g, row, std::min<int64_t>(tokens_at_once, starts[s + 1] - row)});
      }
    }
  }
  CpuStream& cpu = static_cast<CpuStream&>(stream);
  cpu.pool().Run(static_cast<int64_t>(parts.size()), [&](int64_t index, int thread) {
    const PagedPart& part = parts[static_cast<size_t>(index)];
    const int64_t length = args.context_lengths.data<int32_t>()[part.sequence];
    const int64_t tile_elements = kAttentionTile * head_size;
    AttentionBlock block = {
        .kv = {.k = args.kv.k.data<float>() + part.kv_head * tile_elements,
               .v = args.kv.v.data<float>() + part.kv_head * tile_elements,
               .stride = num_kv_heads * tile_elements,
               .v_columns = head_size,
               .tiles = args.page_tables.data<int32_t>() + part.sequence * args.page_tables.dim(1)},
        .head_size = head_size,
        .scale = args.scale,
        .scratch = QueryState(cpu, thread, head_size)};
    std::array<Query, kQueryBlock> queries;
    for (int64_t first = 0; first < group; first += heads_at_once) {
      size_t count = 0;
      for (int64_t row = part.first_row; row < part.first_row + part.num_rows; ++row) {
        for (int64_t i = first; i < std::min(group, first + heads_at_once); ++i) {
          const int64_t head = part.kv_head * group + i;
          queries[count++] = {.q = args.qkv.data<float>() + row * args.qkv.dim(1) + head * head_size,
                              .num_keys = length - starts[part.sequence + 1] + row + 1,
                              .out = args.out.data<float>() + (row * args.num_heads + head) * head_size};
        }
      }
      block.queries = absl::MakeConstSpan(queries.data(), count);
      AttendBlock(block);
    }
  });
  return absl::OkStatus();
}

namespace {

// Floats that packed keys and values may take at once; more heads wait for the next round.
constexpr int64_t kPackedFloatsMax = 8 << 20;

// One head of one segment.
struct SegmentHead {
  int64_t first_row, num_rows;
  int64_t head;
  int64_t packed;  // where its tiles lie among the packed floats
};

// Attention of heads whose packed keys and values fit the memory together.
class VarlenRound {
 public:
  VarlenRound(const AttentionVarlenArgs& args, std::vector<SegmentHead> heads, float* packed)
      : args_(args),
        head_size_(args.out.dim(1) / args.num_heads),
        tile_floats_(kAttentionTile * PaddedHeadSize(head_size_)),
        heads_(std::move(heads)),
        packed_(packed) {
    for (size_t begin = 0, end = 0; begin < heads_.size(); begin = end) {
      while (end < heads_.size() && heads_[end].first_row == heads_[begin].first_row) ++end;
      const int64_t rows = heads_[begin].num_rows;
      for (int64_t row = 0; row < rows; row += kAttentionTile) tiles_.push_back({begin, end, row});
      for (size_t i = begin; i < end; ++i) {
        for (int64_t row = 0; row < rows; row += kQueryBlock) blocks_.push_back({i, i + 1, row});
      }
    }
  }

  void Run(CpuStream& stream) const {
    stream.pool().Run(static_cast<int64_t>(tiles_.size()),
                      [&](int64_t i, int) { Pack(tiles_[static_cast<size_t>(i)]); });
    stream.pool().Run(static_cast<int64_t>(blocks_.size()), [&](int64_t i, int thread) {
      Attend(blocks_[static_cast<size_t>(i)], QueryState(stream, thread, head_size_));
    });
  }

 private:
  // Some heads of one segment, from one of its rows on.
  struct Piece {
    size_t head, head_end;
    int64_t row;
  };

  const float* Rows(const SegmentHead& head, int64_t row) const {
    return args_.qkv.data<float>() + (head.first_row + row) * args_.qkv.dim(1) + head.head * head_size_;
  }
  // A tile's keys, then its values.
  float* Packed(const SegmentHead& head, int64_t tile) const {
    return packed_ + head.packed + tile * 2 * tile_floats_;
  }

  // One tile of every head: the heads lie side by side in each row.
  void Pack(const Piece& piece) const {
    const int64_t width = args_.out.dim(1);
    const int64_t count = std::min(kAttentionTile, heads_[piece.head].num_rows - piece.row);
    for (int64_t j = 0; j < kAttentionTile; j += kKeysTurned) {
      for (size_t i = piece.head; i < piece.head_end; ++i) {
        const SegmentHead& head = heads_[i];
        float* packed = Packed(head, piece.row / kAttentionTile);
        const float* q = Rows(head, piece.row + std::min(j, count));
        PackKeysAndValues({.k = q + width,
                           .v = q + 2 * width,
                           .stride = args_.qkv.dim(1),
                           .count = std::clamp<int64_t>(count - j, 0, kKeysTurned),
                           .head_size = head_size_,
                           .k_tile = packed + j,
                           .v_tile = packed + tile_floats_ + j * PaddedHeadSize(head_size_)});
      }
    }
  }

  void Attend(const Piece& piece, float* scratch) const {
    const SegmentHead& head = heads_[piece.head];
    const int64_t count = std::min(kQueryBlock, head.num_rows - piece.row);
    std::array<Query, kQueryBlock> queries;
    for (int64_t i = 0; i < count; ++i) {
      const int64_t row = head.first_row + piece.row + i;
      queries[static_cast<size_t>(i)] = {
          .q = Rows(head, piece.row + i),
          .num_keys = head.num_rows,
          .out = args_.out.data<float>() + row * args_.out.dim(1) + head.head * head_size_};
    }
    AttendBlock({.queries = absl::MakeConstSpan(queries.data(), static_cast<size_t>(count)),
                 .kv = {.k = Packed(head, 0),
                        .v = Packed(head, 0) + tile_floats_,
                        .stride = 2 * tile_floats_,
                        .v_columns = PaddedHeadSize(head_size_),
                        .tiles = nullptr},
                 .head_size = head_size_,
                 .scale = args_.scale,
                 .scratch = scratch});
  }

  const AttentionVarlenArgs& args_;
  const int64_t head_size_;
  const int64_t tile_floats_;
  const std::vector<SegmentHead> heads_;
  float* const packed_;
  std::vector<Piece> tiles_;   // to pack
  std::vector<Piece> blocks_;  // of one head's queries
};

}  // namespace

absl::Status AttentionVarlen(Stream& stream, const AttentionVarlenArgs& args) {
  const auto starts = args.segment_starts.span<int32_t>();
  PRISM_RETURN_IF_ERROR(CheckStarts("AttentionVarlen", "segment_starts", starts, args.qkv.dim(0)));
  const int64_t head_size = args.out.dim(1) / args.num_heads;
  const int64_t floats_per_tile = 2 * kAttentionTile * PaddedHeadSize(head_size);

  // Rounds of heads, each as many as fit, at least one.
  std::vector<std::vector<SegmentHead>> rounds(1);
  int64_t used = 0, used_most = 0;
  for (size_t s = 0; s + 1 < starts.size(); ++s) {
    const int64_t rows = starts[s + 1] - starts[s];
    const int64_t floats = CeilDiv(rows, kAttentionTile) * floats_per_tile;
    for (int64_t h = 0; h < args.num_heads && rows > 0; ++h) {
      if (used + floats > kPackedFloatsMax && !rounds.back().empty()) {
        rounds.emplace_back();
        used = 0;
      }
      rounds.back().push_back({.first_row = starts[s], .num_rows = rows, .head = h, .packed = used});
      used += floats;
      used_most = std::max(used_most, used);
    }
  }
  CpuStream& cpu = static_cast<CpuStream&>(stream);
  float* packed = cpu.scratch(ScratchUse::kPackedTiles).Floats(used_most);
  for (std::vector<SegmentHead>& heads : rounds) VarlenRound(args, std::move(heads), packed).Run(cpu);
  return absl::OkStatus();
}

}  // namespace prism::cpu
