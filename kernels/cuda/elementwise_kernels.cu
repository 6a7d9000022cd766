#include <cuda_bf16.h>

#include <algorithm>
#include <cstdint>

#include "kernels/cuda/detail/launch.cuh"
#include "kernels/cuda/detail/pipeline.cuh"
#include "kernels/cuda/elementwise_kernels.h"
#include "kernels/cuda/elementwise_math.cuh"

namespace prism::cuda {
namespace {

constexpr int kThreads = 256;
constexpr int64_t kBlocksMax = 16384;

// One thread takes this many neighbours where they are aligned; 16 bytes of bf16.
constexpr int kPack = 8;

template <typename T, int kCount>
struct alignas(sizeof(T) * kCount) Pack {
  T values[kCount];
};

template <typename T, int kCount>
__device__ __forceinline__ Pack<float, kCount> Load(const T* data) {
  const Pack<T, kCount> raw = *reinterpret_cast<const Pack<T, kCount>*>(data);
  Pack<float, kCount> wide;
#pragma unroll
  for (int i = 0; i < kCount; ++i) wide.values[i] = ToFloat(raw.values[i]);
  return wide;
}

template <typename T, int kCount>
__device__ __forceinline__ void Store(T* data, const Pack<float, kCount>& wide) {
  Pack<T, kCount> raw;
#pragma unroll
  for (int i = 0; i < kCount; ++i) raw.values[i] = FromFloat<T>(wide.values[i]);
  *reinterpret_cast<Pack<T, kCount>*>(data) = raw;
}

template <typename T>
bool Aligned(const T* data) {
  return reinterpret_cast<uintptr_t>(data) % (sizeof(T) * kPack) == 0;
}

unsigned BlocksFor(int64_t threads) {
  return static_cast<unsigned>(std::clamp<int64_t>((threads + kThreads - 1) / kThreads, 1, kBlocksMax));
}

// Grid: any; each thread takes packs a grid apart. size is a multiple of kCount.
template <typename T, int kCount, typename Body>
__global__ void __launch_bounds__(kThreads) pack_kernel(int64_t size, Body body) {
  LetNextStart();
  WaitForEarlier();
  const int64_t step = static_cast<int64_t>(gridDim.x) * kThreads * kCount;
  for (int64_t i = (static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x) * kCount; i < size;
       i += step) {
    body.template Run<kCount>(i);
  }
}

// Runs body.Run<kCount>(first element) over all packs of `size` elements.
template <typename Body>
cudaError_t ForPacks(int64_t size, bool packed, const Body& body, cudaStream_t stream) {
  if (size <= 0) return cudaSuccess;
  if (packed && size % kPack == 0) {
    return LaunchAfter(pack_kernel<float, kPack, Body>, dim3(BlocksFor(size / kPack)), kThreads, 0, stream,
                       size, body);
  }
  return LaunchAfter(pack_kernel<float, 1, Body>, dim3(BlocksFor(size)), kThreads, 0, stream, size, body);
}

struct AddBody {
  float* x;
  const float* y;
  template <int kCount>
  __device__ void Run(int64_t i) const {
    Pack<float, kCount> sum = Load<float, kCount>(x + i);
    const Pack<float, kCount> term = Load<float, kCount>(y + i);
#pragma unroll
    for (int j = 0; j < kCount; ++j) sum.values[j] = __fadd_rn(sum.values[j], term.values[j]);
    Store<float, kCount>(x + i, sum);
  }
};

template <typename From, typename To>
struct CastBody {
  const From* x;
  To* y;
  template <int kCount>
  __device__ void Run(int64_t i) const {
    Store<To, kCount>(y + i, Load<From, kCount>(x + i));
  }
};

template <typename From, typename To>
cudaError_t CastAs(const void* x, void* y, int64_t size, cudaStream_t stream) {
  const CastBody<From, To> body{static_cast<const From*>(x), static_cast<To*>(y)};
  return ForPacks(size, Aligned(body.x) && Aligned(body.y), body, stream);
}

struct SiluMulBody {
  const __nv_bfloat16* x;
  __nv_bfloat16* y;
  int64_t columns;
  template <int kCount>
  __device__ void Run(int64_t i) const {
    const int64_t row = i / columns;
    const __nv_bfloat16* gate = x + row * columns + i;  // row * 2 columns + column
    const Pack<float, kCount> a = Load<__nv_bfloat16, kCount>(gate);
    const Pack<float, kCount> b = Load<__nv_bfloat16, kCount>(gate + columns);
    Pack<float, kCount> product;
#pragma unroll
    for (int j = 0; j < kCount; ++j) product.values[j] = SiluMul(a.values[j], b.values[j]);
    Store<__nv_bfloat16, kCount>(y + i, product);
  }
};

template <bool kTanh>
struct GeluBody {
  __nv_bfloat16* x;
  template <int kCount>
  __device__ void Run(int64_t i) const {
    Pack<float, kCount> z = Load<__nv_bfloat16, kCount>(x + i);
#pragma unroll
    for (int j = 0; j < kCount; ++j) z.values[j] = kTanh ? GeluTanh(z.values[j]) : GeluErf(z.values[j]);
    Store<__nv_bfloat16, kCount>(x + i, z);
  }
};

template <int kRanks>
struct SumPartialsBody {
  const float* p;
  float* y;
  int64_t size;
  template <int kCount>
  __device__ void Run(int64_t i) const {
    Pack<float, kCount> sum = Load<float, kCount>(p + i);
    if (kRanks >= 2) Accumulate(sum, Load<float, kCount>(p + size + i));
    if (kRanks == 4) {
      Pack<float, kCount> other = Load<float, kCount>(p + 2 * size + i);
      Accumulate(other, Load<float, kCount>(p + 3 * size + i));
      Accumulate(sum, other);
    }
    Store<float, kCount>(y + i, sum);
  }
  template <int kCount>
  static __device__ void Accumulate(Pack<float, kCount>& sum, const Pack<float, kCount>& term) {
#pragma unroll
    for (int j = 0; j < kCount; ++j) sum.values[j] = __fadd_rn(sum.values[j], term.values[j]);
  }
};

struct ConcatColumnsBody {
  const float* parts;
  float* y;
  int64_t rows, width, columns;
  template <int kCount>
  __device__ void Run(int64_t i) const {
    const int64_t row = i / columns, column = i % columns;
    const int64_t rank = column / width;
    Store<float, kCount>(y + i, Load<float, kCount>(parts + (rank * rows + row) * width + column % width));
  }
};

// A run of `columns` elements in every row; a pack never crosses a row's end.
template <typename T, RowMove kMove>
struct RowsBody {
  float* all;
  T* picked;
  const int32_t* rows;
  int64_t columns;
  template <int kCount>
  __device__ void Run(int64_t i) const {
    float* const there = all + rows[i / columns] * columns + i % columns;
    if (kMove == RowMove::kGather) {
      Store<T, kCount>(picked + i, Load<float, kCount>(there));
    } else if (kMove == RowMove::kScatter) {
      Store<float, kCount>(there, Load<T, kCount>(picked + i));
    } else {
      Pack<float, kCount> sum = Load<float, kCount>(there);
      const Pack<float, kCount> term = Load<T, kCount>(picked + i);
#pragma unroll
      for (int j = 0; j < kCount; ++j) sum.values[j] = __fadd_rn(sum.values[j], term.values[j]);
      Store<float, kCount>(there, sum);
    }
  }
};

template <typename T, RowMove kMove>
cudaError_t MoveRows(const RowsParams& p, cudaStream_t stream) {
  const RowsBody<T, kMove> body{p.all, static_cast<T*>(p.picked.data), p.rows, p.columns};
  const bool packed = p.columns % kPack == 0 && Aligned(body.all) && Aligned(body.picked);
  return ForPacks(p.num_rows * p.columns, packed, body, stream);
}

template <typename T>
struct EmbeddingBody {
  const T* table;
  const int32_t* ids;
  float* y;
  int64_t columns;
  template <int kCount>
  __device__ void Run(int64_t i) const {
    Store<float, kCount>(y + i, Load<T, kCount>(table + ids[i / columns] * columns + i % columns));
  }
};

template <typename T>
cudaError_t GatherEmbedding(const void* table, const int32_t* ids, float* y, int64_t rows, int64_t columns,
                            cudaStream_t stream) {
  const EmbeddingBody<T> body{static_cast<const T*>(table), ids, y, columns};
  return ForPacks(rows * columns, columns % kPack == 0 && Aligned(body.table) && Aligned(y), body, stream);
}

template <typename T>
struct PositionBody {
  const T* table;
  const int32_t* index;
  const float* weight;
  float* x;
  int64_t rows, columns;
  // The four products ascending, then x: each operation rounded, as in kernels/ops.
  template <int kCount>
  __device__ void Run(int64_t i) const {
    const int64_t row = i / columns, column = i % columns;
    Pack<float, kCount> sum;
#pragma unroll
    for (int j = 0; j < 4; ++j) {
      const float share = weight[j * rows + row];
      const Pack<float, kCount> corner = Load<T, kCount>(table + index[j * rows + row] * columns + column);
#pragma unroll
      for (int k = 0; k < kCount; ++k) {
        const float product = __fmul_rn(share, corner.values[k]);
        sum.values[k] = j == 0 ? product : __fadd_rn(sum.values[k], product);
      }
    }
    Pack<float, kCount> old = Load<float, kCount>(x + i);
#pragma unroll
    for (int k = 0; k < kCount; ++k) old.values[k] = __fadd_rn(old.values[k], sum.values[k]);
    Store<float, kCount>(x + i, old);
  }
};

template <typename T>
cudaError_t AddPositions(const PositionEmbeddingParams& p, cudaStream_t stream) {
  const PositionBody<T> body{static_cast<const T*>(p.table.data), p.index, p.weight, p.x, p.rows, p.columns};
  return ForPacks(p.rows * p.columns, p.columns % kPack == 0 && Aligned(body.table) && Aligned(p.x), body,
                  stream);
}

}  // namespace

cudaError_t LaunchAdd(float* x, const float* y, int64_t size, cudaStream_t stream) {
  return ForPacks(size, Aligned(x) && Aligned(y), AddBody{x, y}, stream);
}

cudaError_t LaunchCast(Elements x, Elements y, int64_t size, cudaStream_t stream) {
  if (x.f32 && y.f32) return CastAs<float, float>(x.data, y.data, size, stream);
  if (x.f32) return CastAs<float, __nv_bfloat16>(x.data, y.data, size, stream);
  if (y.f32) return CastAs<__nv_bfloat16, float>(x.data, y.data, size, stream);
  return CastAs<__nv_bfloat16, __nv_bfloat16>(x.data, y.data, size, stream);
}

cudaError_t LaunchSiluMul(const void* x, void* y, int64_t rows, int64_t columns, cudaStream_t stream) {
  const SiluMulBody body{static_cast<const __nv_bfloat16*>(x), static_cast<__nv_bfloat16*>(y), columns};
  return ForPacks(rows * columns, columns % kPack == 0 && Aligned(body.x) && Aligned(body.y), body, stream);
}

cudaError_t LaunchGelu(void* x, int64_t size, bool tanh_form, cudaStream_t stream) {
  auto* const data = static_cast<__nv_bfloat16*>(x);
  return tanh_form ? ForPacks(size, Aligned(data), GeluBody<true>{data}, stream)
                   : ForPacks(size, Aligned(data), GeluBody<false>{data}, stream);
}

cudaError_t LaunchSumPartials(const float* p, float* y, int64_t size, int ranks, cudaStream_t stream) {
  const bool packed = size % kPack == 0 && Aligned(p) && Aligned(y);
  if (ranks == 1) return ForPacks(size, packed, SumPartialsBody<1>{p, y, size}, stream);
  if (ranks == 2) return ForPacks(size, packed, SumPartialsBody<2>{p, y, size}, stream);
  return ForPacks(size, packed, SumPartialsBody<4>{p, y, size}, stream);
}

cudaError_t LaunchConcatColumns(const float* parts, float* y, int64_t rows, int64_t width, int64_t columns,
                                cudaStream_t stream) {
  const bool packed = columns % kPack == 0 && width % kPack == 0 && Aligned(parts) && Aligned(y);
  return ForPacks(rows * columns, packed, ConcatColumnsBody{parts, y, rows, width, columns}, stream);
}

cudaError_t LaunchRows(RowMove move, const RowsParams& p, cudaStream_t stream) {
  switch (move) {
    case RowMove::kGather:
      return p.picked.f32 ? MoveRows<float, RowMove::kGather>(p, stream)
                          : MoveRows<__nv_bfloat16, RowMove::kGather>(p, stream);
    case RowMove::kScatter:
      return p.picked.f32 ? MoveRows<float, RowMove::kScatter>(p, stream)
                          : MoveRows<__nv_bfloat16, RowMove::kScatter>(p, stream);
    case RowMove::kAdd:
      break;
  }
  return p.picked.f32 ? MoveRows<float, RowMove::kAdd>(p, stream)
                      : MoveRows<__nv_bfloat16, RowMove::kAdd>(p, stream);
}

cudaError_t LaunchEmbeddingGather(Elements table, const int32_t* ids, float* y, int64_t rows, int64_t columns,
                                  cudaStream_t stream) {
  return table.f32 ? GatherEmbedding<float>(table.data, ids, y, rows, columns, stream)
                   : GatherEmbedding<__nv_bfloat16>(table.data, ids, y, rows, columns, stream);
}

cudaError_t LaunchPositionEmbedding(const PositionEmbeddingParams& params, cudaStream_t stream) {
  return params.table.f32 ? AddPositions<float>(params, stream) : AddPositions<__nv_bfloat16>(params, stream);
}

}  // namespace prism::cuda
