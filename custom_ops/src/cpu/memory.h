// What the piece and the single-token form of TTTMemory share: scales, control, commit, tail.
#pragma once

#include "functions.h"
#include "tasks.h"

namespace allmem {
namespace ALLMEM_TARGET {

constexpr int kGate = 0, kUp = 1, kDown = 2;          // matrices of a head
constexpr int kMomentum = 3, kOutputGate = 4;         // rows of control after the three rates

ALLMEM_INLINE int64_t matrix_size(const MemoryArgs& args) { return args.hidden * args.memory_dim; }
ALLMEM_INLINE int64_t norm_count(const MemoryArgs& args) {
  return 2 * args.hidden + args.memory_dim;
}
ALLMEM_INLINE bool needs_scales(const MemoryArgs& args) {
  return args.read_normal || args.gradient_normal;
}
ALLMEM_INLINE bool commits(const MemoryArgs& args) {
  return args.time > 0 && args.position % args.chunk + args.time == args.chunk;
}

// The weights that this call reads, [3][hidden][memory_dim]; `unit` is batch row * heads + head.
ALLMEM_INLINE const float* weights_of(const MemoryArgs& args, int64_t unit) {
  const int64_t size = 3 * matrix_size(args);
  return args.position == 0 ? args.initial_weights + unit % args.heads * size
                            : args.past_weights + unit * size;
}

// Factors that give each row of gate and up and each column of the transposed down the norm of
// the initial weights: scales[2 hidden + memory_dim]. n(W) is never stored: its products are
// products of W with scaled rows.
void weight_scales(const MemoryArgs& args, int64_t head, const float* weights, float* scales);

// Row `token` (which may be negative: in the tail) of part 0..2, first channel of a head.
ALLMEM_INLINE const float* raw_row(const MemoryArgs& args, int64_t batch, int part, int64_t token,
                                   int64_t channel) {
  const int64_t width = args.heads * args.memory_dim;
  if (token >= 0) return args.qkv + ((batch * args.time + token) * 3 + part) * width + channel;
  const int64_t tail = args.kernel - 1;
  return args.past_conv_tail + ((batch * 3 + part) * tail + tail + token) * width + channel;
}

// Convolves and activates one token's channels of one head. `taps` is [kernel][width] of the part,
// from transpose_taps; lanes past memory_dim of `out` are set to zero.
void convolve(const MemoryArgs& args, const float* taps, int64_t batch, int part, int64_t token,
              int64_t head, float* out, int64_t out_stride);

// conv_weight [3][width][kernel] to [3][kernel][width].
void transpose_taps(const MemoryArgs& args, float* taps);

// Scales `x` to norm 1 after the gain.
void to_unit(const MemoryArgs& args, const float* gain, float* x);

// value_norm.
void normalize_value(const MemoryArgs& args, float* value);

// Adds the piece's momenta to the sum and, if the chunk is full, commits head `unit`; copies
// what stays into the present state. All reads of the head's past state lie before it.
void finish_head(const MemoryArgs& args, int64_t unit, const float* scales);

// Moves the last rows of the piece into the convolution tail. Comes after everything else.
void shift_tail(const MemoryArgs& args);

size_t piece_scratch(const MemoryArgs& args, int workers);
void piece(const MemoryArgs& args, const Parallel& parallel, void* scratch);
size_t token_scratch(const MemoryArgs& args, int workers);
void token(const MemoryArgs& args, const Parallel& parallel, void* scratch);

}  // namespace ALLMEM_TARGET
}  // namespace allmem
