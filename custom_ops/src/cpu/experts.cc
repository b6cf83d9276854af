// ExpertMatMul: rows are brought together by their experts, and the kernels of plain products do the
// rest. A matrix that nobody chose is not read.
#include "experts.h"

#include <string.h>

namespace allmem {
namespace {

struct Layout {
  int64_t* first;  // [experts + 1]: where each expert's rows begin in `order`
  int64_t* order;  // [rows]: rows of the output, expert after expert
  float* x;        // [rows, row_width]
  float* y;        // [rows, width]
  char* products;  // scratch of the products
  size_t bytes;

  Layout(const ExpertArgs& args, void* block) {
    char* const begin = static_cast<char*>(block);
    bytes = 0;
    const auto take = [&](int64_t count, size_t size) {
      char* const at = begin == nullptr ? nullptr : begin + bytes;
      bytes += (static_cast<size_t>(count) * size + kScratchAlignment - 1) / kScratchAlignment *
               kScratchAlignment;
      return at;
    };
    first = reinterpret_cast<int64_t*>(take(args.experts + 1, sizeof(int64_t)));
    order = reinterpret_cast<int64_t*>(take(args.rows(), sizeof(int64_t)));
    x = reinterpret_cast<float*>(take(args.rows() * args.row_width(), sizeof(float)));
    y = reinterpret_cast<float*>(take(args.rows() * args.width, sizeof(float)));
    products = begin == nullptr ? nullptr : begin + bytes;
  }
};

FloatProductArgs float_args(const ExpertArgs& args, int64_t rows) {
  FloatProductArgs out{};
  out.rows = rows;
  out.inputs = args.inputs;
  out.width = args.width;
  out.gated = args.gated;
  return out;
}

ProductArgs integer_args(const ExpertArgs& args, int64_t rows) {
  ProductArgs out{};
  out.width = out.first_width = args.width;
  out.bits = args.bits;
  out.gated = args.gated;
  out.rows = rows;
  out.inputs = args.inputs;
  out.x_width = args.row_width();
  out.one_stream = args.one_stream;
  out.activation = Element::kFloat32;
  return out;
}

// Rows in the order of their experts; among those of one expert they keep theirs.
void sort_rows(const ExpertArgs& args, const Layout& layout) {
  memset(layout.first, 0, static_cast<size_t>(args.experts + 1) * sizeof(int64_t));
  for (int64_t row = 0; row < args.rows(); ++row) ++layout.first[args.expert[row] + 1];
  for (int64_t e = 0; e < args.experts; ++e) layout.first[e + 1] += layout.first[e];
  for (int64_t row = 0; row < args.rows(); ++row) {
    layout.order[layout.first[args.expert[row]]++] = row;
  }
  for (int64_t e = args.experts; e > 0; --e) layout.first[e] = layout.first[e - 1];
  layout.first[0] = 0;
}

const float* input_of(const ExpertArgs& args, int64_t row) {
  const int64_t at = args.beside == 1 ? row / args.choices : row;
  return args.x + at * args.row_width();
}

void multiply(const ExpertArgs& args, int64_t expert, const float* x, int64_t rows, float* y,
              const Parallel& parallel, void* scratch) {
  const float* const bias = args.bias == nullptr ? nullptr : args.bias + expert * args.width;
  if (args.matrix != nullptr) {
    FloatProductArgs one = float_args(args, rows);
    one.x = x;
    one.matrix = args.matrix + expert * args.width * args.inputs;
    one.bias = bias;
    one.output = y;
    args.kernels->float_product(one, parallel, scratch);
    return;
  }
  ProductArgs one = integer_args(args, rows);
  const int64_t blocks = (args.inputs + kProductBlock - 1) / kProductBlock *
                         ((args.width + kProductTile - 1) / kProductTile);
  const int64_t kinds = args.bits == 4 ? 2 : 1;
  one.x = x;
  one.numbers = args.numbers + expert * blocks * kProductTile * kProductBlock * args.bits / 8;
  one.scales = static_cast<const uint16_t*>(args.scales) + expert * blocks * kinds * kProductTile;
  one.bias = bias;
  one.output = y;
  args.kernels->product(one, parallel, scratch);
}

}  // namespace

size_t experts_scratch(const ExpertArgs& args, int workers) {
  if (args.rows() == 0) return 0;
  const size_t products =
      args.matrix != nullptr
          ? args.kernels->float_product_scratch(float_args(args, args.rows()), workers)
          : args.kernels->product_scratch(integer_args(args, args.rows()), workers);
  return Layout(args, nullptr).bytes + products;
}

void experts(const ExpertArgs& args, const Parallel& parallel, void* scratch) {
  if (args.rows() == 0) return;
  const Layout layout(args, scratch);
  sort_rows(args, layout);
  const size_t in = static_cast<size_t>(args.row_width()) * sizeof(float);
  const size_t out = static_cast<size_t>(args.width) * sizeof(float);
  for (int64_t e = 0; e < args.experts; ++e) {
    const int64_t* const rows = layout.order + layout.first[e];
    const int64_t count = layout.first[e + 1] - layout.first[e];
    if (count == 0) continue;
    if (count == 1) {  // as a token alone: nothing is brought together
      multiply(args, e, input_of(args, rows[0]), 1, args.output + rows[0] * args.width, parallel,
               layout.products);
      continue;
    }
    for (int64_t i = 0; i < count; ++i) {
      memcpy(layout.x + i * args.row_width(), input_of(args, rows[i]), in);
    }
    multiply(args, e, layout.x, count, layout.y, parallel, layout.products);
    for (int64_t i = 0; i < count; ++i) {
      memcpy(args.output + rows[i] * args.width, layout.y + i * args.width, out);
    }
  }
}

}  // namespace allmem
