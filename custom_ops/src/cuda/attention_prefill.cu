// SlidingWindowAttention over a piece of several tokens: tiles of keys, online softmax in float32.
//
// The query rows of one key/value head (tokens x query heads of its group) are cut into blocks;
// a block walks over the sinks and over the window of its rows, and every tile of keys and values
// that it stages serves all its rows. Eight neighbouring lanes own a row from its scores to its
// output, so that maxima and sums stay within a warp.
#include "attention_device.h"

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

// A tile of tokens [at, at + count), which a thread stages rows of.
template <typename Cache>
struct Tile {
  const Cache* keys[kStagedKeys];
  const Cache* values[kStagedKeys];

  // `ring` is batch and key/value head. All visible tokens of the past lie less than a window
  // before the piece, so that one subtraction brings a slot back into the ring.
  __device__ __forceinline__ Tile(const AttentionArgs& args, const AttentionScratch& scratch,
                                  int64_t position, int64_t ring, int64_t at, int count) {
    const int64_t past = ring * (args.sinks + args.window), piece = ring * args.time;
    const int64_t turn = at < args.sinks ? 0 : (at - args.sinks) % args.window;
#pragma unroll
    for (int k = 0; k < kStagedKeys; ++k) {
      const int n = (int)threadIdx.x / kRowLanes + k * kRowGroups;
      const int64_t t = at + n;
      keys[k] = values[k] = nullptr;
      if (n >= count) continue;
      if (t >= position) {
        const int64_t row = (piece + t - position) * args.head_dim;
        keys[k] = static_cast<const Cache*>(scratch.keys) + row;
        values[k] = static_cast<const Cache*>(scratch.values) + row;
      } else {
        int64_t slot = t;
        if (t >= args.sinks) {
          const int64_t turned = turn + n;
          slot = args.sinks + (turned < args.window ? turned : turned - args.window);
        }
        const int64_t row = (past + slot) * args.head_dim;
        keys[k] = static_cast<const Cache*>(args.past_key) + row;
        values[k] = static_cast<const Cache*>(args.past_value) + row;
      }
    }
  }
};

// Chunk number `chunk` of the rows, as float32; missing rows and coordinates become 0.
template <typename Cache>
__device__ __forceinline__ void stage(const Cache* const (&rows)[kStagedKeys], int chunk,
                                      int64_t head_dim, bool aligned, float* staged) {
  const int d = (int)threadIdx.x % kRowLanes * 4;
  const int64_t at = chunk * kChunk + d;
  Pack<Cache, 4> packs[kStagedKeys];
#pragma unroll
  for (int k = 0; k < kStagedKeys; ++k) {
    packs[k] = load_pack<Cache, 4>(rows[k] + (rows[k] == nullptr ? 0 : at),
                                   rows[k] == nullptr ? 0 : head_dim - at, aligned);
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
__global__ void __launch_bounds__(kAttentionThreads)
    attend(AttentionArgs args, AttentionScratch scratch, int64_t row_blocks, bool aligned) {
  constexpr int kRows = Rows * kRowGroups;
  alignas(16) __shared__ float staged_queries[kRows * kStageStride];
  alignas(16) __shared__ float staged[kKeys * kStageStride];
  alignas(16) __shared__ float weights[kRows * kWeightStride];
  const int lane = (int)threadIdx.x % kRowLanes, row_group = (int)threadIdx.x / kRowLanes;
  const int64_t group = args.query_heads / args.kv_heads, rows = args.time * group;
  const int64_t ring = blockIdx.x / row_blocks;
  const int64_t first_row = blockIdx.x % row_blocks * kRows;
  const int64_t position = attention_position(args);
  const int64_t first = position + first_row / group;  // token of the first row
  const int64_t last = position + smaller(first_row + kRows - 1, rows - 1) / group;

  const int chunks = (int)(scratch.query_stride / kChunk);

  int token[Rows];         // counted from `first`
  int64_t query_at[Rows];  // row of the queries; rows past the end repeat the last one
  int64_t output_at[Rows];
#pragma unroll
  for (int i = 0; i < Rows; ++i) {
    const int64_t row = smaller(first_row + row_group + i * kRowGroups, rows - 1);
    const int64_t t = row / group, head = ring % args.kv_heads * group + row % group;
    const int64_t batch = ring / args.kv_heads;
    token[i] = (int)(position + t - first);
    query_at[i] = ((batch * args.query_heads + head) * args.time + t) * scratch.query_stride;
    output_at[i] = ((batch * args.time + t) * args.query_heads + head) * args.head_dim;
  }

  float4 sums[Rows][Chunks];
  float high[Rows], total[Rows];
#pragma unroll
  for (int i = 0; i < Rows; ++i) {
    high[i] = -INFINITY;
    total[i] = 0.0f;
#pragma unroll
    for (int c = 0; c < Chunks; ++c) sums[i][c] = make_float4(0.0f, 0.0f, 0.0f, 0.0f);
  }

  // First the sinks, then the tokens from the window of the first row on.
  const int64_t sinks_end = smaller(args.sinks, last + 1);
  const int64_t window_begin = larger(args.sinks, first - args.window + 1);
  int64_t at = sinks_end > 0 ? 0 : window_begin;
  while (at <= last) {
    const bool in_sinks = at < sinks_end;
    const int count = (int)smaller<int64_t>(kKeys, (in_sinks ? sinks_end : last + 1) - at);
    const Tile<Cache> tile(args, scratch, position, ring, at, count);
    const float* const queries = in_sinks ? scratch.sink_queries : scratch.queries;

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
        *reinterpret_cast<float4*>(staged_queries + (row_group + i * kRowGroups) * kStageStride +
                                   lane * 4) = load4(queries + query_at[i] + c * kChunk + lane * 4);
      }
      stage(tile.keys, c, args.head_dim, aligned, staged);
      __syncthreads();
#pragma unroll
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

    // Keys as seen from the first row's token; sinks may lie further back than an int reaches.
    const int first_key = (int)larger(at - first, -(int64_t{1} << 30));
    const int reach = in_sinks ? INT32_MAX : (int)args.window;
#pragma unroll
    for (int i = 0; i < Rows; ++i) {
      float top = high[i];
#pragma unroll
      for (int k = 0; k < kLaneKeys; ++k) {
        const int n = lane + k * kRowLanes, behind = token[i] - (first_key + n);
        if (n >= count || behind < 0 || behind >= reach) scores[i][k] = -INFINITY;
        top = fmaxf(top, scores[i][k]);
      }
      top = warp_reduce<Max, kRowLanes>(top);
      const float zero = top == -INFINITY ? 0.0f : top;  // the row sees none of these keys yet
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
    for (int c = 0; c < Chunks; ++c) {
      if (c >= chunks) break;
      __syncthreads();  // what was staged before has been read; the weights are written
      stage(tile.values, c, args.head_dim, aligned, staged);
      __syncthreads();
#pragma unroll 4
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
    at += count;
    if (in_sinks && at >= sinks_end) at = window_begin;
  }

#pragma unroll
  for (int i = 0; i < Rows; ++i) {
    const float inverse = 1.0f / warp_reduce<Sum, kRowLanes>(total[i]);
    if (first_row + row_group + i * kRowGroups >= rows) continue;
#pragma unroll
    for (int c = 0; c < Chunks; ++c) {
      const float values[4] = {sums[i][c].x, sums[i][c].y, sums[i][c].z, sums[i][c].w};
#pragma unroll
      for (int e = 0; e < 4; ++e) {
        const int64_t d = c * kChunk + lane * 4 + e;
        if (d < args.head_dim) {
          store_element(args.activation, args.output, output_at[i] + d, values[e] * inverse);
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
