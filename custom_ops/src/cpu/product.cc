// QuantisedMatMul: activations to eight bits, block by block, then tiles of rows and outputs.
#include "product_tile.h"
#include "tasks.h"

namespace allmem {
namespace ALLMEM_TARGET {

size_t product_scratch(const ProductArgs& args, int workers);
void product(const ProductArgs& args, const Parallel& parallel, void* scratch);

namespace {

constexpr int64_t kTaskBytes = 48 << 10;         // of weights, so that handing out costs little
constexpr int64_t kFewRowsTaskBytes = 24 << 10;  // no thread waits long for another's last task
constexpr int64_t kTaskRows = (127 / kMostRows + 1) * kMostRows;  // they stay in the second cache

Activations take(Scratch& scratch, const ProductArgs& args) {
  Activations x{};
  x.blocks = (args.inputs + kProductBlock - 1) / kProductBlock;
  x.beside = max64(1, min64(args.rows, kMostRows));
  x.rounded = scratch.take<RoundedBlock>(round_up(args.rows, x.beside) * x.blocks);
  return x;
}

// The only row by all tiles, in `streams` places at a time.
template <int streams>
void single_row(const Work& work, int64_t tiles, const Parallel& parallel) {
  const int64_t apart = (tiles + streams - 1) / streams;
  const int64_t column = streams * work.x.blocks * work.block_bytes;
  const int64_t step = max64(1, kFewRowsTaskBytes / column);
  for_each_share(parallel, (apart + step - 1) / step, [&](int64_t task, int) {
    const int64_t begin = task * step, end = min64(apart, begin + step);
    if (work.args.bits == 4) {
      one_row<4, streams>(work, tiles, apart, begin, end);
    } else {
      one_row<8, streams>(work, tiles, apart, begin, end);
    }
  });
}

}  // namespace

size_t product_scratch(const ProductArgs& args, int) {
  if (args.rows == 0) return 0;
  Scratch scratch(nullptr);
  take(scratch, args);
  return scratch.used();
}

void product(const ProductArgs& args, const Parallel& parallel, void* block) {
  if (args.rows == 0) return;
  Scratch scratch(block);
  const Work work{args, take(scratch, args), kGroups * kGroupBytes * args.bits / 8,
                  (args.bits == 4 ? 2 : 1) * kProductTile};
  if (args.rows < 8) {
    for (int64_t row = 0; row < args.rows; ++row) round_row(args, work.x, row);
  } else {
    for_each_task(parallel, (args.rows + 7) / 8, [&](int64_t task, int) {
      const int64_t end = min64(args.rows, task * 8 + 8);
      for (int64_t row = task * 8; row < end; ++row) round_row(args, work.x, row);
    });
  }
  const int64_t tiles = (args.width + kProductTile - 1) / kProductTile;
  if (args.rows == 1) {
    if (args.one_stream) {
      single_row<1>(work, tiles, parallel);
    } else {
      single_row<kStreams>(work, tiles, parallel);
    }
    return;
  }
  const int64_t bytes = args.rows < 8 ? kFewRowsTaskBytes : kTaskBytes;
  const int64_t step = max64(1, bytes / (work.x.blocks * work.block_bytes));
  const int64_t across = (tiles + step - 1) / step;
  const int64_t down = (args.rows + kTaskRows - 1) / kTaskRows;
  for_each_share(parallel, across * down, [&](int64_t task, int) {
    const int64_t end = min64(tiles, (task % across + 1) * step);
    const int64_t row = task / across * kTaskRows, last = min64(args.rows, row + kTaskRows);
    for (int64_t tile = task % across * step; tile < end; ++tile) {
      if (args.bits == 4) {
        tile_product_rows<4>(work, tile, row, last);
      } else {
        tile_product_rows<8>(work, tile, row, last);
      }
    }
  });
}

}  // namespace ALLMEM_TARGET
}  // namespace allmem
