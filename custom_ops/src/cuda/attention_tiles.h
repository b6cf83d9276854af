// How prefill cuts its work: blocks of query rows, and the tiles of keys that a block walks over.
//
// The query rows of one key/value head are its tokens times the query heads of its group, one
// token's heads side by side, so that every tile of keys serves all heads of the group.
#pragma once

#include "attention_device.h"

namespace allmem {
namespace cuda {

// One query row, as the lanes that own it need it.
struct QueryRow {
  bool exists;     // rows past the end repeat the last one, and are not stored
  int token;       // counted from the block's first
  float high;      // the score that its softmax begins with
  int64_t query;   // where it begins in the scratch of queries
  int64_t output;  // and in the output
};

// The rows of a block.
struct RowBlock {
  Ring ring;
  int64_t ring_index;  // among those of all
  int64_t first_row, rows, group, position;
  int64_t first, last;  // tokens of the first and the last row

  __device__ __forceinline__ RowBlock(const AttentionArgs& args, int64_t row_blocks,
                                      int block_rows) {
    group = args.query_heads / args.kv_heads;
    rows = args.time * group;
    ring_index = blockIdx.x / row_blocks;
    ring = ring_at(args, ring_index);
    first_row = blockIdx.x % row_blocks * block_rows;
    position = attention_position(args);
    first = position + first_row / group;
    last = position + smaller(first_row + block_rows - 1, rows - 1) / group;
  }

  __device__ __forceinline__ QueryRow row(const AttentionArgs& args,
                                          const AttentionScratch& scratch, int index) const {
    const int64_t at = smaller(first_row + index, rows - 1), t = at / group;
    const int64_t head = ring.head * group + at % group, batch = ring_index / args.kv_heads;
    QueryRow out;
    out.exists = first_row + index < rows;
    out.token = (int)(position + t - first);
    out.high = sink_score(args, head);
    out.query = ((batch * args.query_heads + head) * args.time + t) * scratch.query_stride;
    out.output = ((batch * args.time + t) * args.query_heads + head) * args.head_dim;
    return out;
  }
};

// The tiles that the rows of a block see: first the sinks, then from the first row's window on.
struct Walk {
  int64_t at;      // first token of the tile
  int count;       // tokens of the tile, at most `keys`
  bool in_sinks;
  bool whole;      // every row of the block sees every key of a full tile
  int first_key;   // first token, seen from the block's first; sinks may lie further back than
                   // an int reaches, where the exact distance does not matter
  int reach;       // a row sees keys that lie fewer than this many tokens behind it
  int keys, window;
  int64_t sinks_end, window_begin, first, last;

  __device__ __forceinline__ Walk(const AttentionArgs& args, const RowBlock& block, int tile_keys)
      : keys(tile_keys), window((int)block.ring.window), first(block.first), last(block.last) {
    sinks_end = smaller(args.sinks, last + 1);
    window_begin = larger(args.sinks, first - block.ring.window + 1);
    move_to(sinks_end > 0 ? 0 : window_begin);
  }
  __device__ __forceinline__ bool done() const { return at > last; }
  __device__ __forceinline__ void next() {
    const int64_t end = at + count;
    move_to(in_sinks && end >= sinks_end ? window_begin : end);
  }
  // Whether the row sees key n of the tile.
  __device__ __forceinline__ bool sees(const QueryRow& row, int n) const {
    const int behind = row.token - (first_key + n);
    return n < count && behind >= 0 && behind < reach;
  }

 private:
  __device__ __forceinline__ void move_to(int64_t token) {
    at = token;
    in_sinks = at < sinks_end;
    count = (int)smaller<int64_t>(keys, (in_sinks ? sinks_end : last + 1) - at);
    first_key = (int)larger(at - first, -(int64_t{1} << 30));
    reach = in_sinks ? INT32_MAX : window;
    whole = count == keys && first_key + keys - 1 <= 0 && (in_sinks || last - at < window);
  }
};

// Where the keys and values of a tile's tokens lie: in the old ring, or in the piece.
template <typename Cache>
class TileRows {
 public:
  __device__ __forceinline__ TileRows(const AttentionArgs& args, const AttentionScratch& scratch,
                                      const RowBlock& block, const Walk& walk)
      : args_(args),
        scratch_(scratch),
        position_(block.position),
        past_(block.ring.row),
        piece_(block.ring_index * args.time - block.position),
        at_(walk.at),
        window_(block.ring.window),
        turn_(walk.in_sinks ? 0 : (walk.at - args.sinks) % block.ring.window) {}

  __device__ __forceinline__ const Cache* key(int n) const {
    const Place place = place_of(n);
    return static_cast<const Cache*>(place.old ? args_.past_key : scratch_.keys) + place.offset;
  }
  __device__ __forceinline__ const Cache* value(int n) const {
    const Place place = place_of(n);
    return static_cast<const Cache*>(place.old ? args_.past_value : scratch_.values) + place.offset;
  }

 private:
  struct Place {
    bool old;
    int64_t offset;
  };
  // What a block sees of the past lies less than a window before the piece, so that one
  // subtraction brings a slot back into the ring.
  __device__ __forceinline__ Place place_of(int n) const {
    const int64_t t = at_ + n;
    if (t >= position_) return {false, (piece_ + t) * args_.head_dim};
    if (t < args_.sinks) return {true, (past_ + t) * args_.head_dim};
    const int64_t turned = turn_ + n;
    const int64_t slot = turned < window_ ? turned : turned - window_;
    return {true, (past_ + args_.sinks + slot) * args_.head_dim};
  }

  const AttentionArgs& args_;
  const AttentionScratch& scratch_;
  int64_t position_, past_, piece_, at_, window_, turn_;
};

}  // namespace cuda
}  // namespace allmem
