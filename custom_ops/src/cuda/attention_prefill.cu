// SlidingWindowAttention over a piece of several tokens: tiles of keys, online softmax in float32.
//
// For any types and sizes. Eight neighboring lanes own a query row from its scores to its output,
// so that maxima and sums stay within a warp.
#include "attention_tiles.h"

namespace allmem {
namespace cuda {
namespace {

constexpr int kKeys = 64;                              // of a tile
constexpr int kChunk = (int)kQueryChunk;               // coordinates staged at a time
constexpr int kRowLanes = 8;                           // lanes that own a row
constexpr int kRowGroups = kAttentionThreads / kRowLanes;
constexpr int kLaneKeys = kKeys / kRowLanes;
constexpr int kStagedKeys = kKeys / kRowGroups;        // rows that a thread stages
constexpr int kStageStride = kChunk + 4;  // 4 banks on: eight rows read as float4 meet all 32 banks
constexpr int kWeightStride = kKeys + 4;

__device__ __forceinline__ float4 load4(const float* from) {
  return *reinterpret_cast<const float4*>(from);
}
__device__ __forceinline__ float dot4(float4 a, float4 b, float sum) {
  return fmaf(a.w, b.w, fmaf(a.z, b.z, fmaf(a.y, b.y, fmaf(a.x, b.x, sum))));
}
__device__ __forceinline__ float4 multiply_add(float a, float4 b, float4 sum) {
  return make_float4(fmaf(a, b.x, sum.x), fmaf(a, b.y, sum.y), fmaf(a, b.z, sum.z),
                     fmaf(a, b.w, sum.w));
}

// Chunk number `chunk` of the rows, as float32; missing rows (nullptr) and coordinates become 0.
template <typename Cache>
__device__ __forceinline__ void stage(const Cache* const (&rows)[kStagedKeys], int chunk,
                                      int64_t head_dim, bool aligned, float* staged) {
  const int d = (int)threadIdx.x % kRowLanes * 4;
  const int64_t at = chunk * kChunk + d;
  Pack<Cache, 4> packs[kStagedKeys];
#pragma unroll
  for (int k = 0; k < kStagedKeys; ++k) {
    const bool exists = rows[k] != nullptr;
    packs[k] =
        load_pack<Cache, 4>(rows[k] + (exists ? at : 0), exists ? head_dim - at : 0, aligned);
  }
#pragma unroll
  for (int k = 0; k < kStagedKeys; ++k) {
    const int n = (int)threadIdx.x / kRowLanes + k * kRowGroups;
    *reinterpret_cast<float4*>(staged + n * kStageStride + d) =
        make_float4(to_float(packs[k].values[0]), to_float(packs[k].values[1]),
                    to_float(packs[k].values[2]), to_float(packs[k].values[3]));
  }
}

// Chunks: of kChunk coordinates that hold a head. Rows: of a thread.
template <typename Cache, int Chunks, int Rows>
__global__ void __launch_bounds__(kAttentionThreads, 2)
    attend(AttentionArgs args, AttentionScratch scratch, int64_t row_blocks, bool aligned) {
  constexpr int kRows = Rows * kRowGroups;
  alignas(16) __shared__ float staged_queries[kRows * kStageStride];
  alignas(16) __shared__ float staged[kKeys * kStageStride];
  alignas(16) __shared__ float weights[kRows * kWeightStride];
  const int lane = (int)threadIdx.x % kRowLanes, row_group = (int)threadIdx.x / kRowLanes;
  const int chunks = (int)(scratch.query_stride / kChunk);
  const RowBlock block(args, row_blocks, kRows);
  QueryRow rows[Rows];
#pragma unroll
  for (int i = 0; i < Rows; ++i) rows[i] = block.row(args, scratch, row_group + i * kRowGroups);

  float4 sums[Rows][Chunks];
  float high[Rows], total[Rows];
#pragma unroll
  for (int i = 0; i < Rows; ++i) {
    high[i] = rows[i].high;
    total[i] = lane == 0 ? opening_total(high[i]) : 0.0f;
#pragma unroll
    for (int c = 0; c < Chunks; ++c) sums[i][c] = make_float4(0.0f, 0.0f, 0.0f, 0.0f);
  }

  for (Walk walk(args, block, kKeys); !walk.done(); walk.next()) {
    const TileRows<Cache> tile(args, scratch, block, walk);
    const Cache* staged_rows[kStagedKeys];
#pragma unroll
    for (int k = 0; k < kStagedKeys; ++k) {
      const int n = row_group + k * kRowGroups;
      staged_rows[k] = n < walk.count ? tile.key(n) : nullptr;
    }
    const float* const queries =
        static_cast<const float*>(walk.in_sinks ? scratch.sink_queries : scratch.queries);

    float scores[Rows][kLaneKeys];
#pragma unroll
    for (int i = 0; i < Rows; ++i) {
#pragma unroll
      for (int k = 0; k < kLaneKeys; ++k) scores[i][k] = 0.0f;
    }
#pragma unroll 1
    for (int c = 0; c < chunks; ++c) {
      __syncthreads();  // the chunk before has been read
#pragma unroll
      for (int i = 0; i < Rows; ++i) {
        float* const to = staged_queries + (row_group + i * kRowGroups) * kStageStride + lane * 4;
        *reinterpret_cast<float4*>(to) = load4(queries + rows[i].query + c * kChunk + lane * 4);
      }
      stage(staged_rows, c, args.head_dim, aligned, staged);
      __syncthreads();
#pragma unroll 1
      for (int d = 0; d < kChunk; d += 4) {
        float4 query[Rows];
#pragma unroll
        for (int i = 0; i < Rows; ++i) {
          query[i] = load4(staged_queries + (row_group + i * kRowGroups) * kStageStride + d);
        }
#pragma unroll
        for (int k = 0; k < kLaneKeys; ++k) {
          const float4 key = load4(staged + (lane + k * kRowLanes) * kStageStride + d);
#pragma unroll
          for (int i = 0; i < Rows; ++i) scores[i][k] = dot4(query[i], key, scores[i][k]);
        }
      }
    }

#pragma unroll
    for (int i = 0; i < Rows; ++i) {
      float top = high[i];
#pragma unroll
      for (int k = 0; k < kLaneKeys; ++k) {
        scores[i][k] = capped(args, scores[i][k]);
        if (!walk.whole && !walk.sees(rows[i], lane + k * kRowLanes)) scores[i][k] = -INFINITY;
        top = fmaxf(top, scores[i][k]);
      }
      top = warp_reduce<Max, kRowLanes>(top);
      const float zero = exponent_zero(top);
      const float rescale = exp2f(high[i] - zero);
      high[i] = top;
      total[i] *= rescale;
      float* const row_weights = weights + (row_group + i * kRowGroups) * kWeightStride;
#pragma unroll
      for (int k = 0; k < kLaneKeys; ++k) {
        const float weight = exp2f(scores[i][k] - zero);
        total[i] += weight;  // of this lane's keys; lanes are added up at the end
        row_weights[lane + k * kRowLanes] = weight;
      }
#pragma unroll
      for (int c = 0; c < Chunks; ++c) {
        sums[i][c].x *= rescale;
        sums[i][c].y *= rescale;
        sums[i][c].z *= rescale;
        sums[i][c].w *= rescale;
      }
    }

#pragma unroll
    for (int k = 0; k < kStagedKeys; ++k) {
      const int n = row_group + k * kRowGroups;
      staged_rows[k] = n < walk.count ? tile.value(n) : nullptr;
    }
#pragma unroll
    for (int c = 0; c < Chunks; ++c) {
      if (c >= chunks) break;
      __syncthreads();  // what was staged before has been read; the weights are written
      stage(staged_rows, c, args.head_dim, aligned, staged);
      __syncthreads();
#pragma unroll 1
      for (int n = 0; n < kKeys; n += 4) {
        float4 value[4];
#pragma unroll
        for (int k = 0; k < 4; ++k) value[k] = load4(staged + (n + k) * kStageStride + lane * 4);
#pragma unroll
        for (int i = 0; i < Rows; ++i) {
          const float4 weight = load4(weights + (row_group + i * kRowGroups) * kWeightStride + n);
          sums[i][c] = multiply_add(weight.x, value[0], sums[i][c]);
          sums[i][c] = multiply_add(weight.y, value[1], sums[i][c]);
          sums[i][c] = multiply_add(weight.z, value[2], sums[i][c]);
          sums[i][c] = multiply_add(weight.w, value[3], sums[i][c]);
        }
      }
    }
  }

#pragma unroll
  for (int i = 0; i < Rows; ++i) {
    const float inverse = 1.0f / warp_reduce<Sum, kRowLanes>(total[i]);
    if (!rows[i].exists) continue;
#pragma unroll
    for (int c = 0; c < Chunks; ++c) {
      const float values[4] = {sums[i][c].x, sums[i][c].y, sums[i][c].z, sums[i][c].w};
#pragma unroll
      for (int e = 0; e < 4; ++e) {
        const int64_t d = c * kChunk + lane * 4 + e;
        if (d < args.head_dim) {
          store_element(args.activation, args.output, rows[i].output + d, values[e] * inverse);
        }
      }
    }
  }
}

template <typename Cache, int Chunks, int Rows>
void launch(const AttentionArgs& args, const AttentionScratch& scratch, Stream stream) {
  const auto kernel = attend<Cache, Chunks, Rows>;
  const int64_t group = args.query_heads / args.kv_heads;
  const int64_t row_blocks = divide_up(args.time * group, Rows * kRowGroups);
  const bool aligned = rows_aligned(args, sizeof(Cache), 4 * sizeof(Cache));
  ALLMEM_LAUNCH(kernel, (unsigned)(args.batch * args.kv_heads * row_blocks), kAttentionThreads, 0,
                stream, args, scratch, row_blocks, aligned);
}

}  // namespace

void launch_prefill(const AttentionArgs& args, const AttentionScratch& scratch, Stream stream) {
  with_type(args.cache, [&](auto type) {
    using Cache = decltype(type);
    if (args.head_dim <= 2 * kChunk) {
      launch<Cache, 2, 4>(args, scratch, stream);
    } else if (args.head_dim <= 3 * kChunk) {  // 80 and 96
      launch<Cache, 3, 4>(args, scratch, stream);
    } else if (args.head_dim <= 4 * kChunk) {
      launch<Cache, 4, 4>(args, scratch, stream);
    } else {
      launch<Cache, kMostHeadDim / kChunk, 2>(args, scratch, stream);
    }
  });
}

}  // namespace cuda
}  // namespace allmem
