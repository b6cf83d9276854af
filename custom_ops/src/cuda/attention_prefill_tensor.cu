// SlidingWindowAttention over a piece of several tokens, with matrix instructions.
//
// For activations and a ring of the same 16-bit type. Scores and sums are float32; queries and the
// softmax's weights are rounded to the 16-bit type. Each warp owns 16 query rows, whose scores
// become the left side of the second product without leaving their registers. While scores are
// computed the tile's values are on their way, and the next tile's keys while values are summed.
#include "attention_mma.h"
#include "attention_tiles.h"

namespace allmem {
namespace cuda {
namespace {

constexpr int kWarpRows = 16;
constexpr int kRows = kAttentionThreads / kWarp * kWarpRows;
constexpr int kPad = 8;  // 16 bytes: the eight rows of a matrix lie in different banks

// Of a tile: as many as leave its keys and values within 48 KiB, and all sums in registers (without
// asynchronous copies, on 7.5, copies need some as well).
__host__ __device__ constexpr int tile_keys(int width) {
  return width <= 128 ? 64 : (ALLMEM_TILE_ARCH == 750 ? 16 : 32);
}

// Starts the copy of a tile's keys or values; rows past the end and coordinates past the head
// become 0.
template <typename T, int Width, bool Values>
__device__ __forceinline__ void start_copy(const AttentionArgs& args,
                                           const AttentionScratch& scratch, const RowBlock& block,
                                           const Walk& walk, T* tile) {
  const TileRows<T> rows(args, scratch, block, walk);
  constexpr int kKeys = tile_keys(Width), kParts = Width / 8;
#pragma unroll 2
  for (int i = (int)threadIdx.x; i < kKeys * kParts; i += kAttentionThreads) {
    const int n = i / kParts, d = i % kParts * 8;
    const bool exists = n < walk.count && d < args.head_dim;
    const T* const row = Values ? rows.value(exists ? n : 0) : rows.key(exists ? n : 0);
    copy_16_bytes(tile + n * (Width + kPad) + d, row + (exists ? d : 0), exists);
  }
}

// Width: coordinates of a head, a multiple of 16.
template <typename T, int Width>
__global__ void __launch_bounds__(kAttentionThreads, 2)
    attend_tensor(AttentionArgs args, AttentionScratch scratch, int64_t row_blocks) {
  constexpr int kKeys = tile_keys(Width);
  constexpr int kSteps = Width / 16, kColumns = Width / 8, kStride = Width + kPad;
  constexpr bool kHoldQueries = Width <= 128;  // in registers; wider heads need them for sums
  [[maybe_unused]] constexpr int kUnrolledSteps = kHoldQueries ? kSteps : 1;  // nvcc's pragma
  alignas(16) __shared__ T keys[kKeys * kStride];
  alignas(16) __shared__ T values[kKeys * kStride];
  const int lane = (int)threadIdx.x % kWarp, warp = (int)threadIdx.x / kWarp;
  const int quad = lane / 4, pair = lane % 4 * 2;
  const int matrix = lane / 8, matrix_row = lane % 8;
  const float factor = score_factor(args);
  const RowBlock block(args, row_blocks, kRows);
  QueryRow rows[2];
#pragma unroll
  for (int i = 0; i < 2; ++i) rows[i] = block.row(args, scratch, warp * kWarpRows + quad + 8 * i);

  float sums[kColumns][4];  // as in multiply: two columns of row 0, then of row 1
  float high[2], total[2];
#pragma unroll
  for (int i = 0; i < 2; ++i) {
    high[i] = rows[i].high;
    total[i] = pair == 0 ? opening_total(high[i]) : 0.0f;
  }
#pragma unroll
  for (int c = 0; c < kColumns; ++c) {
#pragma unroll
    for (int e = 0; e < 4; ++e) sums[c][e] = 0.0f;
  }
  unsigned queries[kHoldQueries ? kSteps : 1][4];
  bool loaded = false, loaded_sinks = false;

  Walk walk(args, block, kKeys);
  start_copy<T, Width, false>(args, scratch, block, walk, keys);
  while (!walk.done()) {
    const T* const from =
        static_cast<const T*>(walk.in_sinks ? scratch.sink_queries : scratch.queries);
    const auto load_queries = [&](int step, unsigned(&to)[4]) {
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        to[i] = load_pair(from + rows[i % 2].query + step * 16 + i / 2 * 8 + pair);
      }
    };
    if (kHoldQueries && (!loaded || loaded_sinks != walk.in_sinks)) {  // twice at most
#pragma unroll
      for (int s = 0; s < (kHoldQueries ? kSteps : 0); ++s) load_queries(s, queries[s]);
      loaded = true;
      loaded_sinks = walk.in_sinks;
    }
    copies_arrived();
    __syncthreads();  // the keys are there, and the values before have been read
    start_copy<T, Width, true>(args, scratch, block, walk, values);

    float scores[kKeys / 8][4];
#pragma unroll
    for (int n = 0; n < kKeys / 8; ++n) {
#pragma unroll
      for (int e = 0; e < 4; ++e) scores[n][e] = 0.0f;
    }
#pragma unroll kUnrolledSteps
    for (int s = 0; s < kSteps; ++s) {
      constexpr int kHeld = kHoldQueries ? 1 : 0;
      if (!kHoldQueries) load_queries(s, queries[0]);
#pragma unroll
      for (int n = 0; n < kKeys / 16; ++n) {
        unsigned part[4];  // two blocks of 8 keys, each 16 coordinates
        load_matrices<false>(
            keys + (n * 16 + matrix / 2 * 8 + matrix_row) * kStride + s * 16 + matrix % 2 * 8,
            part);
        multiply(T{}, scores[2 * n], queries[s * kHeld], part[0], part[1]);
        multiply(T{}, scores[2 * n + 1], queries[s * kHeld], part[2], part[3]);
      }
    }

#pragma unroll
    for (int n = 0; n < kKeys / 8; ++n) {
#pragma unroll
      for (int e = 0; e < 4; ++e) {
        scores[n][e] = capped(args, scores[n][e] * factor);
        if (!walk.whole && !walk.sees(rows[e / 2], n * 8 + pair + e % 2)) {
          scores[n][e] = -INFINITY;
        }
      }
    }
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      float top = high[i];
#pragma unroll
      for (int n = 0; n < kKeys / 8; ++n) {
        top = fmaxf(top, fmaxf(scores[n][2 * i], scores[n][2 * i + 1]));
      }
      top = warp_reduce<Max, 4>(top);
      const float zero = exponent_zero(top), rescale = exp2f(high[i] - zero);
      high[i] = top;
      total[i] *= rescale;
#pragma unroll
      for (int n = 0; n < kKeys / 8; ++n) {
#pragma unroll
        for (int e = 0; e < 2; ++e) {
          float& score = scores[n][2 * i + e];
          score = exp2f(score - zero);
          total[i] += score;  // of this lane's keys; lanes are added up at the end
        }
      }
#pragma unroll
      for (int c = 0; c < kColumns; ++c) {
        sums[c][2 * i] *= rescale;
        sums[c][2 * i + 1] *= rescale;
      }
    }

    copies_arrived();
    __syncthreads();  // the values are there, and the keys have been read
    walk.next();
    if (!walk.done()) start_copy<T, Width, false>(args, scratch, block, walk, keys);
#pragma unroll
    for (int k = 0; k < kKeys / 16; ++k) {
      unsigned weights[4];
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        const float* const two = scores[2 * k + i / 2] + i % 2 * 2;
        weights[i] = pair_bits(from_float<T>(two[0]), from_float<T>(two[1]));
      }
#pragma unroll
      for (int c = 0; c < kColumns / 2; ++c) {
        unsigned part[4];  // 16 keys, two blocks of 8 coordinates
        load_matrices<true>(
            values + (k * 16 + matrix % 2 * 8 + matrix_row) * kStride + c * 16 + matrix / 2 * 8,
            part);
        multiply(T{}, sums[2 * c], weights, part[0], part[1]);
        multiply(T{}, sums[2 * c + 1], weights, part[2], part[3]);
      }
    }
  }

#pragma unroll
  for (int i = 0; i < 2; ++i) {
    const float inverse = 1.0f / warp_reduce<Sum, 4>(total[i]);
    if (!rows[i].exists) continue;
    T* const to = static_cast<T*>(args.output) + rows[i].output;
#pragma unroll
    for (int c = 0; c < kColumns; ++c) {
      const int d = c * 8 + pair;
      if (d >= args.head_dim) continue;
      to[d] = from_float<T>(sums[c][2 * i] * inverse);
      to[d + 1] = from_float<T>(sums[c][2 * i + 1] * inverse);
    }
  }
}

template <typename T, int Width>
void launch(const AttentionArgs& args, const AttentionScratch& scratch, Stream stream) {
  const auto kernel = attend_tensor<T, Width>;
  const int64_t group = args.query_heads / args.kv_heads;
  const int64_t row_blocks = divide_up(args.time * group, kRows);
  ALLMEM_LAUNCH(kernel, (unsigned)(args.batch * args.kv_heads * row_blocks), kAttentionThreads, 0,
                stream, args, scratch, row_blocks);
}

template <typename T>
void launch_type(const AttentionArgs& args, const AttentionScratch& scratch, Stream stream) {
  switch (scratch.query_stride) {
    case 64:
      return launch<T, 64>(args, scratch, stream);
    case 80:
      return launch<T, 80>(args, scratch, stream);
    case 96:
      return launch<T, 96>(args, scratch, stream);
    case 128:
      return launch<T, 128>(args, scratch, stream);
    default:
      return launch<T, kMostHeadDim>(args, scratch, stream);
  }
}

}  // namespace

void launch_prefill_tensor(const AttentionArgs& args, const AttentionScratch& scratch,
                           Stream stream) {
  if (args.cache == Element::kFloat16) {
    launch_type<Half>(args, scratch, stream);
  } else {
    launch_type<BFloat16>(args, scratch, stream);
  }
}

}  // namespace cuda
}  // namespace allmem
