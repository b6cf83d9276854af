// A product with a matrix of float32, each row of which is read once for all rows of x.
#include "../common/expert_args.h"
#include "functions.h"
#include "tasks.h"

namespace allmem {
namespace ALLMEM_TARGET {

size_t float_product_scratch(const FloatProductArgs& args, int workers);
void float_product(const FloatProductArgs& args, const Parallel& parallel, void* scratch);

namespace {

constexpr int kBeside = 4;                // rows of x that share a reading of the matrix
constexpr int64_t kTaskBytes = 48 << 10;  // of the matrix, so that handing out costs little

// Row `w` of the matrix times `Rows` rows of x.
template <int Rows>
ALLMEM_INLINE void dot(const float* matrix, const float* x, int64_t inputs, float* sums) {
  Vector sum[Rows];
  for (int r = 0; r < Rows; ++r) sum[r] = zero();
  int64_t i = 0;
  for (; i + kLanes <= inputs; i += kLanes) {
    const Vector weights = load(matrix + i);
    for (int r = 0; r < Rows; ++r) sum[r] = weights * load(x + r * inputs + i) + sum[r];
  }
  if (i < inputs) {
    const Vector weights = load_first(matrix + i, inputs - i);
    for (int r = 0; r < Rows; ++r) {
      sum[r] = weights * load_first(x + r * inputs + i, inputs - i) + sum[r];
    }
  }
  for (int r = 0; r < Rows; ++r) sums[r] = sum_lanes(sum[r]);
}

// silu(gate) * up of one row.
void open_gate(const float* row, int64_t inputs, float* to) {
  for (int64_t i = 0; i < inputs; i += kLanes) {
    const int64_t here = min64(kLanes, inputs - i);
    float lanes[kLanes];
    store(lanes, silu(load_first(row + i, here)) * load_first(row + inputs + i, here));
    memcpy(to + i, lanes, (size_t)here * sizeof(float));
  }
}

}  // namespace

size_t float_product_scratch(const FloatProductArgs& args, int) {
  Scratch scratch(nullptr);
  scratch.take<float>(args.gated ? args.rows * args.inputs : 0);
  return scratch.used();
}

void float_product(const FloatProductArgs& args, const Parallel& parallel, void* block) {
  const float* x = args.x;
  if (args.gated) {
    Scratch scratch(block);
    float* const gated = scratch.take<float>(args.rows * args.inputs);
    for_each_task(parallel, args.rows, [&](int64_t row, int) {
      open_gate(args.x + row * 2 * args.inputs, args.inputs, gated + row * args.inputs);
    });
    x = gated;
  }
  const int64_t step = max64(1, kTaskBytes / (args.inputs * (int64_t)sizeof(float)));
  for_each_share(parallel, (args.width + step - 1) / step, [&](int64_t task, int) {
    const int64_t end = min64(args.width, (task + 1) * step);
    for (int64_t w = task * step; w < end; ++w) {
      const float* const weights = args.matrix + w * args.inputs;
      const float bias = args.bias == nullptr ? 0.0f : args.bias[w];
      for (int64_t row = 0; row < args.rows;) {
        const bool several = args.rows - row >= kBeside;
        float sums[kBeside];
        if (several) {
          dot<kBeside>(weights, x + row * args.inputs, args.inputs, sums);
        } else {
          dot<1>(weights, x + row * args.inputs, args.inputs, sums);
        }
        for (int r = 0; r < (several ? kBeside : 1); ++r, ++row) {
          args.output[row * args.width + w] = sums[r] + bias;
        }
      }
    }
  });
}

}  // namespace ALLMEM_TARGET
}  // namespace allmem
