// Attention of generated rows: one row against all its keys, at the speed of memory.
//
// Work is cut into leaves of 256 keys for the up to eight query heads that share a KV head. A block
// takes leaf after leaf; a fifth warp has the copy engine fill a ring of page tiles ahead of them.
// Four warps share a leaf without touching the order: warp w scores tile w (64 keys on the M side,
// heads on the N side of mma.sync); then the running maxima of all four tiles are known from four
// numbers a head; then warp w adds up elements [w D / 4, (w + 1) D / 4) of the output, tile after tile.
#include "kernels/cuda/attention/attention.h"
#include "kernels/cuda/attention/order.cuh"
#include "kernels/cuda/detail/launch.cuh"
#include "kernels/cuda/detail/mma.cuh"
#include "kernels/cuda/detail/pipeline.cuh"
#include "kernels/cuda/probe_kernel.h"

namespace prism::cuda {
namespace {

constexpr int kHeads = 8;  // of one pass over the keys: the N side
constexpr int kWarps = 4;
constexpr int kComputing = kWarps * 32;
constexpr int kThreads = kComputing + 32;
constexpr int kSequencesMax = 1536;
static_assert(kWarps == kTilesPerLeaf);

// Ring of tiles of K and V.
template <int kHeadSize>
struct Ring {
  static constexpr int kStages = 12;
  static constexpr int kTileBytes = kTile * kHeadSize * 2;
  static constexpr int kBytes = kStages * kTileBytes;
};

struct Plan {
  int rows_max;      // sequences with more new rows are not ours
  bool by_sequence;  // a row's place among the partial results is by sequence: rows_max each; else by row
  int num_places;    // of rows
  int leaves_max;    // of a row, by the width of the page table
  int heads_passes;  // passes of kHeads over one KV head's group
  DecodeSplit split;
  float* partials;
  uint32_t* arrived;  // of each place and pass: leaves whose partial results are there
};

// Floats of one leaf's partial result: o [D][8], then maxima [8], then sums [8].
__host__ __device__ constexpr int64_t PartialFloats(int head_size) { return (head_size + 2) * kHeads; }

__device__ __forceinline__ int64_t PartialIndex(const Plan& plan, int num_kv_heads, int place, int pass,
                                                int leaf) {
  return (static_cast<int64_t>(place) * num_kv_heads * plan.heads_passes + pass) * plan.leaves_max + leaf;
}

// One row, and the heads of one pass.
struct Work {
  int sequence;
  int row;    // of qkv
  int place;  // of its partial results
  int pass;   // of the row's
  int kv_head;
  int first_head;
  int num_heads;  // at most kHeads
  int visible;    // keys
  int leaf, leaf_end;
};

// Units of work of each sequence, in shared memory, and the way from a unit's number to the unit.
struct Schedule {
  const AttentionPagedParams& p;
  const Plan& plan;
  int* starts;   // [S + 1] of rows
  int* lengths;  // [S] of contexts
  int* before;   // [S + 1] units before each sequence
  bool whole;    // a unit is all leaves of a row and pass; else one leaf

  static constexpr int NumInts(int num_sequences) { return 3 * num_sequences + 2; }
  __device__ __forceinline__ int passes() const { return p.num_kv_heads * plan.heads_passes; }
  __device__ __forceinline__ int Leaves(int s) const { return max((lengths[s] + kLeaf - 1) / kLeaf, 1); }
  // Rows and passes of a sequence.
  __device__ __forceinline__ int Pairs(int s) const {
    const int rows = starts[s + 1] - starts[s];
    return rows <= plan.rows_max ? rows * passes() : 0;
  }

  __device__ __forceinline__ Work Locate(int unit) const {
    int low = 0, high = p.num_sequences;  // before[low] <= unit < before[high]
    while (high - low > 1) {
      const int middle = (low + high) / 2;
      if (before[middle] <= unit) {
        low = middle;
      } else {
        high = middle;
      }
    }
    Work work;
    work.sequence = low;
    const int rows = starts[low + 1] - starts[low];
    int rest = unit - before[low];
    const int leaves = whole ? 1 : Leaves(low);
    work.leaf = rest % leaves;
    rest /= leaves;
    work.pass = rest % passes();
    rest /= passes();
    work.row = starts[low] + rest;
    work.place = plan.by_sequence ? low * plan.rows_max + rest : work.row;
    work.kv_head = work.pass / plan.heads_passes;
    const int group = p.num_heads / p.num_kv_heads;
    const int skipped = work.pass % plan.heads_passes * kHeads;
    work.first_head = work.kv_head * group + skipped;
    work.num_heads = min(kHeads, group - skipped);
    work.visible = max(lengths[low] - rows + rest + 1, 0);
    const int own_leaves = (work.visible + kLeaf - 1) / kLeaf;
    work.leaf_end = whole ? own_leaves : min(work.leaf + 1, own_leaves);
    return work;
  }
};

// Sum over the warp's lanes up to this one.
__device__ __forceinline__ int SumThrough(int value) {
#pragma unroll
  for (int apart = 1; apart < 32; apart *= 2) {
    const int other = __shfl_up_sync(0xffffffffu, value, apart);
    if (threadIdx.x % 32 >= apart) value += other;
  }
  return value;
}

// By one warp: fills the schedule. Work is cut by leaves unless whole rows keep the device about as
// busy, which saves the partial results.
__device__ __forceinline__ void FillSchedule(Schedule& schedule, bool* whole) {
  const AttentionPagedParams& p = schedule.p;
  const int lane = threadIdx.x % 32;
  for (int s = lane; s < p.num_sequences; s += 32) {
    schedule.starts[s] = p.query_starts[s];
    schedule.lengths[s] = p.context_lengths[s];
  }
  if (lane == 0) schedule.starts[p.num_sequences] = p.query_starts[p.num_sequences];
  __syncwarp();
  int pairs = 0, units = 0, leaves_most = 0;
  for (int s = lane; s < p.num_sequences; s += 32) {
    const int own = schedule.Pairs(s);
    pairs += own;
    units += own * schedule.Leaves(s);
    if (own > 0) leaves_most = max(leaves_most, schedule.Leaves(s));
  }
  pairs = __reduce_add_sync(0xffffffffu, pairs);
  units = __reduce_add_sync(0xffffffffu, units);
  leaves_most = __reduce_max_sync(0xffffffffu, leaves_most);
  const int blocks = gridDim.x;
  const int64_t rounds_whole = static_cast<int64_t>((pairs + blocks - 1) / blocks) * leaves_most;
  const int64_t rounds_split = (units + blocks - 1) / blocks;
  schedule.whole = schedule.plan.split == DecodeSplit::kWhole ||
                   (schedule.plan.split == DecodeSplit::kAuto && 4 * rounds_whole <= 5 * rounds_split);
  int total = 0;
  for (int base = 0; base < p.num_sequences; base += 32) {
    const int s = base + lane;
    const int own = s < p.num_sequences ? schedule.Pairs(s) * (schedule.whole ? 1 : schedule.Leaves(s)) : 0;
    const int through = SumThrough(own);
    if (s < p.num_sequences) schedule.before[s + 1] = total + through;
    total += __shfl_sync(0xffffffffu, through, 31);
  }
  if (lane == 0) {
    schedule.before[0] = 0;
    *whole = schedule.whole;
  }
}

// What the computing warps tell each other within a leaf.
template <int kHeadSize>
struct Exchange {
  alignas(16) __nv_bfloat16 weights[kTilesPerLeaf][kTile][kHeads];
  float sums[kTilesPerLeaf][kRowSums][kHeads];
  float largest[kTilesPerLeaf][kHeads];
};

// The factors of leaves being merged.
struct LeafFactors {
  static constexpr int kAtOnce = 32;
  alignas(16) float before[kAtOnce][kHeads];
  alignas(16) float next[kAtOnce][kHeads];
  float inverse[kHeads];
};

template <int kHeadSize>
struct SharedState {
  alignas(8) uint64_t full[Ring<kHeadSize>::kStages];
  alignas(8) uint64_t empty[Ring<kHeadSize>::kStages];
  Exchange<kHeadSize> exchange[2];  // of this leaf and the next
  LeafFactors factors;
  bool is_last;
};

// A tile's place in the ring, by its number.
template <int kHeadSize>
struct Place {
  uint32_t stage, parity;
  __device__ __forceinline__ explicit Place(uint32_t tile)
      : stage(tile % Ring<kHeadSize>::kStages), parity(tile / Ring<kHeadSize>::kStages % 2) {}
};

// The fifth warp: brings K, then V of leaf after leaf.
template <int kHeadSize>
__device__ __forceinline__ void Bring(const Schedule& schedule, SharedState<kHeadSize>& shared, uint32_t ring,
                                      int first, int last, int step) {
  using R = Ring<kHeadSize>;
  const AttentionPagedParams& p = schedule.p;
  const int lane = threadIdx.x % 32;
  uint32_t tile = 0;
  for (int unit = first; unit < last; unit += step) {
    const Work work = schedule.Locate(unit);
    const int32_t* pages = p.page_tables + static_cast<int64_t>(work.sequence) * p.pages_max;
    for (int leaf = work.leaf; leaf < work.leaf_end; ++leaf) {
      const int tiles = min(kTilesPerLeaf, (work.visible - leaf * kLeaf + kTile - 1) / kTile);
      const int page = lane < tiles ? pages[leaf * kTilesPerLeaf + lane] : 0;
      const int64_t offset = (static_cast<int64_t>(page) * p.num_kv_heads + work.kv_head) *
                             (static_cast<int64_t>(kTile) * kHeadSize);
      for (int i = 0; i < 2 * tiles; ++i, ++tile) {
        const Place<kHeadSize> place(tile);
        const int64_t from = __shfl_sync(0xffffffffu, offset, i % tiles);
        if (lane == 0) {
          const uint32_t full = SharedAddress(&shared.full[place.stage]);
          BarrierWait(SharedAddress(&shared.empty[place.stage]), place.parity ^ 1);
          BarrierArriveExpect(full, R::kTileBytes);
          BulkCopy(ring + place.stage * R::kTileBytes, (i < tiles ? p.k : p.v) + from, R::kTileBytes, full);
        }
        __syncwarp();
      }
    }
  }
}

// Scores of 64 keys by 8 heads: s[m][0, 1] of key 16 m + g, s[m][2, 3] of key 16 m + g + 8, heads
// 2 t and 2 t + 1.
template <int kHeadSize>
__device__ __forceinline__ void ScoreTile(uint32_t keys, const uint32_t (&q)[kHeadSize / kUnit][2],
                                          float (&s)[4][4]) {
  const int lane = threadIdx.x % 32;
  const uint32_t row = keys + ((lane / 16 * kTile) + lane / 8 % 2 * 8 + lane % 8) * 16;
#pragma unroll
  for (int m = 0; m < 4; ++m) {
#pragma unroll
    for (int i = 0; i < 4; ++i) s[m][i] = 0.0f;
  }
#pragma unroll
  for (int u = 0; u < kHeadSize / kUnit; ++u) {
#pragma unroll
    for (int m = 0; m < 4; ++m) {
      uint32_t a[4];
      LoadMatrices(a, row + (2 * u * kTile + 16 * m) * 16);
      Mma16x8x16(s[m], a, q[u]);
    }
  }
}

// A pair of values of neighbouring keys, those from `count` on made zero.
__device__ __forceinline__ uint32_t Seen(uint32_t pair, int key, int count) {
  return key + 1 < count ? pair : key < count ? pair & 0xffffu : 0u;
}

// By the four computing warps: merges a row's leaves, left to right, 32 at a time. A warp works out two
// heads' factors, a leaf a lane; then a thread has one element or two of four heads.
template <int kHeadSize>
__device__ __forceinline__ void MergeLeaves(const AttentionPagedParams& p, const Work& work,
                                            const float* partials, LeafFactors& factors) {
  constexpr int kQuads = kHeadSize * kHeads / 4 / kComputing;  // of heads, a thread's
  constexpr int kHeadsOfWarp = kHeads / kWarps;
  constexpr int kPartialFloats = static_cast<int>(PartialFloats(kHeadSize));
  const int warp = threadIdx.x / 32;
  const int lane = threadIdx.x % 32;
  const int num_leaves = (work.visible + kLeaf - 1) / kLeaf;
  float maximum_before[kHeadsOfWarp];  // of this warp's heads, over the rounds before
  float l[kHeadsOfWarp] = {};
#pragma unroll
  for (int i = 0; i < kHeadsOfWarp; ++i) maximum_before[i] = -INFINITY;
  float o[kQuads][4] = {};
  for (int base = 0; base < num_leaves; base += LeafFactors::kAtOnce) {
    const int here = min(LeafFactors::kAtOnce, num_leaves - base);
    MergeFactors of_head[kHeadsOfWarp];
    float sums[kHeadsOfWarp];
#pragma unroll
    for (int i = 0; i < kHeadsOfWarp; ++i) {
      const int head = warp * kHeadsOfWarp + i;
      const float* tail = partials + static_cast<int64_t>(base + lane) * kPartialFloats + kHeadSize * kHeads;
      const float own = lane < here ? __ldcg(tail + head) : -INFINITY;
      const float sum = lane < here ? __ldcg(tail + kHeads + head) : 0.0f;
      float through = fmaxf(own, maximum_before[i]);  // the maximum up to this leaf
#pragma unroll
      for (int apart = 1; apart < 32; apart *= 2) {
        const float other = __shfl_up_sync(0xffffffffu, through, apart);
        if (lane >= apart) through = fmaxf(through, other);
      }
      float before = __shfl_up_sync(0xffffffffu, through, 1);
      if (lane == 0) before = maximum_before[i];
      const MergeFactors of_leaf = Merge(before, own);
      factors.before[lane][head] = of_leaf.before;
      factors.next[lane][head] = of_leaf.next;
      maximum_before[i] = __shfl_sync(0xffffffffu, through, 31);
      of_head[i] = of_leaf;
      sums[i] = sum;
    }
    for (int leaf = 0; leaf < here; ++leaf) {
#pragma unroll
      for (int i = 0; i < kHeadsOfWarp; ++i) {
        const MergeFactors now = {.maximum = 0.0f,
                                  .before = __shfl_sync(0xffffffffu, of_head[i].before, leaf),
                                  .next = __shfl_sync(0xffffffffu, of_head[i].next, leaf)};
        l[i] = Merged(l[i], __shfl_sync(0xffffffffu, sums[i], leaf), now);
      }
    }
    if (lane == 0) {
#pragma unroll
      for (int i = 0; i < kHeadsOfWarp; ++i) factors.inverse[warp * kHeadsOfWarp + i] = Inverse(l[i]);
    }
    NamedBarrier(1, kComputing);
#pragma unroll 16
    for (int leaf = 0; leaf < here; ++leaf) {
      const float4* from =
          reinterpret_cast<const float4*>(partials + static_cast<int64_t>(base + leaf) * kPartialFloats);
#pragma unroll
      for (int q = 0; q < kQuads; ++q) {
        const int quad = threadIdx.x + q * kComputing;
        const float4 next = __ldcg(from + quad);
        const float4 before = *reinterpret_cast<const float4*>(&factors.before[leaf][quad % 2 * 4]);
        const float4 factor = *reinterpret_cast<const float4*>(&factors.next[leaf][quad % 2 * 4]);
        o[q][0] = Merged(o[q][0], next.x, {0.0f, before.x, factor.x});
        o[q][1] = Merged(o[q][1], next.y, {0.0f, before.y, factor.y});
        o[q][2] = Merged(o[q][2], next.z, {0.0f, before.z, factor.z});
        o[q][3] = Merged(o[q][3], next.w, {0.0f, before.w, factor.w});
      }
    }
    if (base + LeafFactors::kAtOnce < num_leaves) NamedBarrier(1, kComputing);
  }
#pragma unroll
  for (int q = 0; q < kQuads; ++q) {
    const int quad = threadIdx.x + q * kComputing;
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const int head = quad % 2 * 4 + i;
      if (head >= work.num_heads) break;
      p.out[(static_cast<int64_t>(work.row) * p.num_heads + work.first_head + head) * kHeadSize + quad / 2] =
          __float2bfloat16_rn(Normalized(o[q][i], factors.inverse[head]));
    }
  }
  NamedBarrier(1, kComputing);
}

// Grid: one block an SM. Blocks take equal runs of the units of work.
template <int kHeadSize>
__global__ void __launch_bounds__(kThreads, 1)
    sm90_attention_decode_kernel(const __grid_constant__ AttentionPagedParams p,
                                 const __grid_constant__ Plan plan) {
#ifdef __CUDA_ARCH_FEAT_SM90_ALL
  using R = Ring<kHeadSize>;
  constexpr int kBlocks = kHeadSize / (16 * kWarps);  // of 16 elements, a warp's share of the output
  extern __shared__ __align__(128) uint8_t dynamic[];
  __shared__ SharedState<kHeadSize> shared;
  const uint32_t ring = SharedAddress(dynamic);
  __shared__ bool whole;
  int* table = reinterpret_cast<int*>(dynamic + R::kBytes);
  Schedule schedule{.p = p,
                    .plan = plan,
                    .starts = table,
                    .lengths = table + p.num_sequences + 1,
                    .before = table + 2 * p.num_sequences + 1,
                    .whole = false};
  LetNextStart();
  if (threadIdx.x < 32) FillSchedule(schedule, &whole);
  if (threadIdx.x == 32) {
    for (int i = 0; i < R::kStages; ++i) {
      BarrierInit(SharedAddress(&shared.full[i]), 1);
      BarrierInit(SharedAddress(&shared.empty[i]), kWarps);
    }
    BarrierInitFence();
  }
  WaitForEarlier();
  __syncthreads();
  schedule.whole = whole;
  const int64_t units = schedule.before[p.num_sequences];
  const int first = schedule.whole ? blockIdx.x : static_cast<int>(units * blockIdx.x / gridDim.x);
  const int last = static_cast<int>(schedule.whole ? units : units * (blockIdx.x + 1) / gridDim.x);
  const int step = schedule.whole ? gridDim.x : 1;

  const int warp = threadIdx.x / 32;
  if (warp == kWarps) {
    Bring(schedule, shared, ring, first, last, step);
    return;
  }
  const int lane = threadIdx.x % 32;
  const int g = lane / 4;
  const int t = lane % 4;
  uint32_t ring_tile = 0;
  uint32_t run = 0;  // leaves of a row done and not yet told of
  int parity = 0;
  for (int unit = first; unit < last; unit += step) {
    const Work work = schedule.Locate(unit);
    // The heads' queries, one a column: elements 16 u + 2 t, + 1 and 8 further of head g.
    uint32_t q[kHeadSize / kUnit][2];
    const __nv_bfloat16* query = p.qkv + work.row * p.columns + (work.first_head + g) * kHeadSize + 2 * t;
#pragma unroll
    for (int u = 0; u < kHeadSize / kUnit; ++u) {
#pragma unroll
      for (int i = 0; i < 2; ++i) {
        q[u][i] = g < work.num_heads ? *reinterpret_cast<const uint32_t*>(query + u * kUnit + 8 * i) : 0u;
      }
    }
    // Of heads 2 t and 2 t + 1, over the leaves so far.
    float o_before[kBlocks][4] = {};
    float l_before[2] = {0.0f, 0.0f};
    float maximum_before[2] = {-INFINITY, -INFINITY};
    // Whether this block sees all of the row's leaves.
    const bool has_all = schedule.whole || work.visible <= kLeaf;

    for (int leaf = work.leaf; leaf < work.leaf_end; ++leaf) {
      Exchange<kHeadSize>& exchange = shared.exchange[parity];
      parity ^= 1;
      const int count = min(kLeaf, work.visible - leaf * kLeaf);
      const int tiles = (count + kTile - 1) / kTile;

      // Scores of tile `warp`.
      float s[4][4];
      if (warp < tiles) {
        const Place<kHeadSize> place(ring_tile + warp);
        BarrierWait(SharedAddress(&shared.full[place.stage]), place.parity);
        ScoreTile<kHeadSize>(ring + place.stage * R::kTileBytes, q, s);
        __syncwarp();
        if (lane == 0) BarrierArrive(SharedAddress(&shared.empty[place.stage]), kWarps);
        float largest[2] = {-INFINITY, -INFINITY};
#pragma unroll
        for (int m = 0; m < 4; ++m) {
#pragma unroll
          for (int i = 0; i < 4; ++i) {
            if (warp * kTile + 16 * m + g + 8 * (i / 2) >= count) s[m][i] = -INFINITY;
            largest[i % 2] = fmaxf(largest[i % 2], s[m][i]);
          }
        }
#pragma unroll
        for (int apart = 4; apart < 32; apart *= 2) {
          largest[0] = fmaxf(largest[0], __shfl_xor_sync(0xffffffffu, largest[0], apart));
          largest[1] = fmaxf(largest[1], __shfl_xor_sync(0xffffffffu, largest[1], apart));
        }
        if (g == 0)
          *reinterpret_cast<float2*>(&exchange.largest[warp][2 * t]) = make_float2(largest[0], largest[1]);
      }
      NamedBarrier(1, kComputing);

      // The running maxima of all tiles; this warp's weights and their sums.
      float maximum[2] = {-INFINITY, -INFINITY};
      float factor[kTilesPerLeaf][2];
      float subtrahend[2] = {};
#pragma unroll
      for (int tile = 0; tile < kTilesPerLeaf; ++tile) {
        if (tile >= tiles) break;
#pragma unroll
        for (int e = 0; e < 2; ++e) {
          const float after = MaximumAfter(maximum[e], exchange.largest[tile][2 * t + e], p.scale_log2);
          const float subtracted = Subtrahend(after);
          factor[tile][e] = Rescale(maximum[e], subtracted);
          maximum[e] = after;
          if (tile == warp) subtrahend[e] = subtracted;
        }
      }
      if (warp < tiles) {
        float sum[2] = {0.0f, 0.0f};
#pragma unroll
        for (int m = 0; m < 4; ++m) {
#pragma unroll
          for (int i = 0; i < 4; ++i) {
            s[m][i] = Weight(s[m][i], p.scale_log2, subtrahend[i % 2]);
            sum[i % 2] = __fadd_rn(sum[i % 2], s[m][i]);
          }
#pragma unroll
          for (int i = 0; i < 2; ++i) {
            *reinterpret_cast<uint32_t*>(&exchange.weights[warp][16 * m + 8 * i + g][2 * t]) =
                PackRounded(s[m][2 * i], s[m][2 * i + 1]);
          }
        }
        *reinterpret_cast<float2*>(&exchange.sums[warp][g][2 * t]) = make_float2(sum[0], sum[1]);
      }
      NamedBarrier(1, kComputing);

      // This warp's elements of the output.
      float o[kBlocks][4] = {};
#pragma unroll
      for (int tile = 0; tile < kTilesPerLeaf; ++tile) {
        if (tile >= tiles) break;
        const Place<kHeadSize> place(ring_tile + tiles + tile);
        uint32_t weights[2][4];  // 32 keys each
        LoadMatricesTransposed(weights[0], SharedAddress(&exchange.weights[tile][lane][0]));
        LoadMatricesTransposed(weights[1], SharedAddress(&exchange.weights[tile][32 + lane][0]));
#pragma unroll
        for (int b = 0; b < kBlocks; ++b) {
#pragma unroll
          for (int i = 0; i < 4; ++i) o[b][i] = __fmul_rn(o[b][i], factor[tile][i % 2]);
        }
        BarrierWait(SharedAddress(&shared.full[place.stage]), place.parity);
        const int chunk = warp * 2 * kBlocks + lane / 8 % 2;
        const uint32_t row =
            ring + place.stage * R::kTileBytes + (chunk * kTile + lane / 16 * 8 + lane % 8) * 16;
        const int seen = count - tile * kTile;
#pragma unroll
        for (int u = 0; u < kTile / kUnit; ++u) {
          const uint32_t b[2] = {weights[u / 2][u % 2 * 2], weights[u / 2][u % 2 * 2 + 1]};
#pragma unroll
          for (int block = 0; block < kBlocks; ++block) {
            uint32_t a[4];
            LoadMatricesTransposed(a, row + (2 * block * kTile + u * kUnit) * 16);
            if (seen < kTile) {
              // What lies past the context is no value: zero weights would not undo a NaN.
#pragma unroll
              for (int i = 0; i < 4; ++i) a[i] = Seen(a[i], u * kUnit + 8 * (i / 2) + 2 * t, seen);
            }
            Mma16x8x16(o[block], a, b);
          }
        }
        __syncwarp();
        if (lane == 0) BarrierArrive(SharedAddress(&shared.empty[place.stage]));
      }
      ring_tile += 2 * tiles;

      // The leaf's sums.
      float l[2] = {0.0f, 0.0f};
#pragma unroll
      for (int tile = 0; tile < kTilesPerLeaf; ++tile) {
        if (tile >= tiles) break;
#pragma unroll
        for (int e = 0; e < 2; ++e)
          l[e] = __fmaf_rn(l[e], factor[tile][e], exchange.sums[tile][g][2 * t + e]);
      }
#pragma unroll
      for (int apart = 4; apart < 32; apart *= 2) {
        l[0] = __fadd_rn(l[0], __shfl_xor_sync(0xffffffffu, l[0], apart));
        l[1] = __fadd_rn(l[1], __shfl_xor_sync(0xffffffffu, l[1], apart));
      }

      if (has_all) {
#pragma unroll
        for (int e = 0; e < 2; ++e) {
          const MergeFactors factors = Merge(maximum_before[e], maximum[e]);
          maximum_before[e] = factors.maximum;
          l_before[e] = Merged(l_before[e], l[e], factors);
#pragma unroll
          for (int b = 0; b < kBlocks; ++b) {
            o_before[b][e] = Merged(o_before[b][e], o[b][e], factors);
            o_before[b][2 + e] = Merged(o_before[b][2 + e], o[b][2 + e], factors);
          }
        }
      } else {
        float* partial = plan.partials + PartialIndex(plan, p.num_kv_heads, work.place, work.pass, leaf) *
                                             PartialFloats(kHeadSize);
#pragma unroll
        for (int b = 0; b < kBlocks; ++b) {
#pragma unroll
          for (int i = 0; i < 2; ++i) {
            const int d = (warp * kBlocks + b) * 16 + 8 * i + g;
            *reinterpret_cast<float2*>(partial + d * kHeads + 2 * t) =
                make_float2(o[b][2 * i], o[b][2 * i + 1]);
          }
        }
        if (warp == 0 && g == 0) {
          float* tail = partial + kHeadSize * kHeads + 2 * t;
          *reinterpret_cast<float2*>(tail) = make_float2(maximum[0], maximum[1]);
          *reinterpret_cast<float2*>(tail + kHeads) = make_float2(l[0], l[1]);
        }
      }
    }
    if (!has_all) {
      if (work.leaf >= work.leaf_end) continue;
      // Whoever brings a row's last leaf merges them all, and leaves the count as it was. A block's run of
      // leaves arrives together: waiting for every leaf's results to be seen would hold up the next.
      ++run;
      const int leaves = (work.visible + kLeaf - 1) / kLeaf;
      if (unit + 1 < last && work.leaf + 1 < leaves) continue;
      const int64_t pair = static_cast<int64_t>(work.place) * schedule.passes() + work.pass;
      __threadfence();
      NamedBarrier(1, kComputing);
      if (threadIdx.x == 0) {
        shared.is_last = atomicAdd(plan.arrived + pair, run) + run == static_cast<uint32_t>(leaves);
        if (shared.is_last) plan.arrived[pair] = 0;
        __threadfence();
      }
      run = 0;
      NamedBarrier(1, kComputing);
      if (shared.is_last) {
        MergeLeaves<kHeadSize>(p, work,
                               plan.partials + PartialIndex(plan, p.num_kv_heads, work.place, work.pass, 0) *
                                                   PartialFloats(kHeadSize),
                               shared.factors);
      }
      continue;
    }
    if (!schedule.whole && work.leaf > 0) continue;  // past the row's last leaf
#pragma unroll
    for (int e = 0; e < 2; ++e) {
      if (2 * t + e >= work.num_heads) continue;
      const float inverse = Inverse(l_before[e]);
      __nv_bfloat16* out =
          p.out + (static_cast<int64_t>(work.row) * p.num_heads + work.first_head + 2 * t + e) * kHeadSize;
#pragma unroll
      for (int b = 0; b < kBlocks; ++b) {
#pragma unroll
        for (int i = 0; i < 2; ++i) {
          out[(warp * kBlocks + b) * 16 + 8 * i + g] =
              __float2bfloat16_rn(Normalized(o_before[b][2 * i + e], inverse));
        }
      }
    }
  }
#else
  __trap();  // the host takes this kernel on Hopper alone
#endif
}

Plan MakePlan(const AttentionPagedParams& params, int rows_max) {
  const int group = params.num_heads / params.num_kv_heads;
  const bool by_sequence = static_cast<int64_t>(rows_max) * params.num_sequences < params.num_rows;
  return {.rows_max = rows_max,
          .by_sequence = by_sequence,
          .num_places = by_sequence ? rows_max * params.num_sequences : params.num_rows,
          .leaves_max = (params.pages_max + kTilesPerLeaf - 1) / kTilesPerLeaf,
          .heads_passes = (group + kHeads - 1) / kHeads,
          .split = DecodeSplit::kAuto,
          .partials = nullptr,
          .arrived = nullptr};
}

template <int kHeadSize>
cudaError_t Launch(const AttentionPagedParams& params, const Plan& plan, cudaStream_t stream) {
  int device = 0, num_sms = 0;
  cudaError_t error = cudaGetDevice(&device);
  if (error == cudaSuccess) error = cudaDeviceGetAttribute(&num_sms, cudaDevAttrMultiProcessorCount, device);
  if (error != cudaSuccess) return error;
  const auto kernel = sm90_attention_decode_kernel<kHeadSize>;
  const int bytes =
      Ring<kHeadSize>::kBytes + Schedule::NumInts(params.num_sequences) * static_cast<int>(sizeof(int));
  error = cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, bytes);
  if (error != cudaSuccess) return error;
  const int64_t passes = static_cast<int64_t>(params.num_kv_heads) * plan.heads_passes;
  const int64_t units_max =
      plan.num_places * passes * (plan.split == DecodeSplit::kWhole ? 1 : plan.leaves_max);
  const int blocks = static_cast<int>(units_max < num_sms ? units_max : num_sms);
  return LaunchAfter(kernel, dim3(static_cast<unsigned>(blocks)), kThreads, bytes, stream, params, plan);
}

}  // namespace

bool HasDecodeKernel(const AttentionPagedParams& params) {
  return (params.head_size == 64 || params.head_size == 128) && params.columns % kChunk == 0 &&
         IsAligned(params.qkv) && IsAligned(params.k) && IsAligned(params.v) && IsAligned(params.out) &&
         params.num_sequences <= kSequencesMax && RunsHopperCode();
}

int64_t DecodeWorkspaceBytes(const AttentionPagedParams& params, int rows_max) {
  const Plan plan = MakePlan(params, rows_max);
  return static_cast<int64_t>(plan.num_places) * params.num_kv_heads * plan.heads_passes * plan.leaves_max *
         PartialFloats(params.head_size) * static_cast<int64_t>(sizeof(float));
}

int64_t DecodeCounters(const AttentionPagedParams& params, int rows_max) {
  const Plan plan = MakePlan(params, rows_max);
  return static_cast<int64_t>(plan.num_places) * params.num_kv_heads * plan.heads_passes;
}

cudaError_t LaunchAttentionDecode(const AttentionPagedParams& params, int rows_max, DecodeSplit split,
                                  const DecodeWorkspace& workspace, cudaStream_t stream) {
  if (params.num_rows == 0 || params.num_sequences == 0 || rows_max <= 0) return cudaSuccess;
  Plan plan = MakePlan(params, rows_max);
  plan.split = split;
  plan.partials = workspace.partials;
  plan.arrived = workspace.counters;
  return params.head_size == 64 ? Launch<64>(params, plan, stream) : Launch<128>(params, plan, stream);
}

}  // namespace prism::cuda
