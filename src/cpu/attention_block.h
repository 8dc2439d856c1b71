#pragma once

// What forward and backward share: a block of queries against a tile of keys.
//
// Scores are kept transposed, S^T [keys, queries]: neighbouring lanes are neighbouring queries, so that no
// step of the softmax works across lanes, and keys and values are read as they are.

#include "attention_kernel.h"
#include "rows.h"
#include "scratch.h"
#include "transpose.h"

namespace attend::cpu {
namespace {

/// Queries of a block: a multiple of two vectors and of the register tile's rows.
constexpr int64_t kBlockQueries = kVectorBytes == 64 ? 96 : 48;
/// Keys of a tile.
constexpr int64_t kTileKeys = 96;

/// The rows of a kv head's queries: those of all heads of its group, one head after the other.
struct Block {
  int64_t batch, kv_head;
  int64_t row, rows;  ///< among group * Lq
};

/// The part of a block that lies in one head.
struct Segment {
  int64_t head, query, queries;
  int64_t offset;  ///< in the block
};

/// Calls action(segment) for each head that the block has rows of.
template <typename Action>
void for_each_segment(const AttentionArgs& args, const Block& block, Action action) {
  int64_t row = block.row;
  const int64_t end = block.row + block.rows;
  while (row < end) {
    const int64_t head = row / args.queries, query = row % args.queries;
    const int64_t queries = smaller(args.queries - query, end - row);
    action(Segment{block.kv_head * args.group() + head, query, queries, row - block.row});
    row += queries;
  }
}

struct Range {
  int64_t begin, end;
};

/// The keys of a split: whole tiles, as far as the mask lets them be read.
inline Range split_range(const AttentionArgs& args, int64_t batch, int64_t split) {
  const int64_t tiles = divide_up(args.keys, kTileKeys);
  const int64_t end = args.mask == nullptr ? args.keys : args.mask->key_end(batch);
  return {tiles * split / args.splits * kTileKeys,
          smaller(tiles * (split + 1) / args.splits * kTileKeys, end)};
}

/// Blocks of queries of one kv head.
inline int64_t blocks_of(const AttentionArgs& args) {
  return divide_up(args.group() * args.queries, kBlockQueries);
}

inline Block block_at(const AttentionArgs& args, int64_t batch, int64_t kv_head, int64_t index) {
  const int64_t row = index * kBlockQueries;
  return {batch, kv_head, row, smaller(kBlockQueries, args.group() * args.queries - row)};
}

/// The state of the whole block's tile of keys [key, key + keys).
inline TileState state_of(const AttentionArgs& args, const Block& block, int64_t key, int64_t keys) {
  if (args.mask == nullptr) return TileState::full;
  bool any_empty = false, any_other = false, all_full = true;
  for_each_segment(args, block, [&](const Segment& segment) {
    const auto state =
        args.mask->state({block.batch, segment.head, segment.query, segment.queries, key, keys});
    any_empty |= state == TileState::empty;
    any_other |= state != TileState::empty;
    all_full &= state == TileState::full;
  });
  return !any_other ? TileState::empty : all_full ? TileState::full : TileState::partial;
}

/// Whether a block has so few queries that vectors run along the rows of keys, not across queries.
template <typename T>
bool is_narrow(const Block& block) {
  return kLanes<T> >= kFewRows && block.rows <= kFewRows;
}

/// Writes the block's query rows, times `factor`, as columns of `to` [d, kBlockQueries], with zeros up to a
/// whole vector of rows.
template <typename Element>
void transpose_block(const AttentionArgs& args, const Block& block, const Heads& tensor, int64_t columns,
                     Compute<Element> factor, Compute<Element>* to) {
  using T = Compute<Element>;
  for_each_segment(args, block, [&](const Segment& segment) {
    transpose_rows(row_of<const Element>(tensor, block.batch, segment.head, segment.query), tensor.row_stride,
                   segment.queries, columns, factor, to + segment.offset, kBlockQueries);
  });
  for (int64_t column = 0; column < columns; ++column) {
    for (int64_t i = block.rows; i < padded<T>(block.rows); ++i) to[column * kBlockQueries + i] = 0;
  }
}

/// The block's query rows, times the scale, as `score_block` reads them: as columns, or of a narrow block
/// kFewRows rows.
template <typename Element>
void load_queries(const AttentionArgs& args, const Block& block, Compute<Element>* to) {
  using T = Compute<Element>;
  const auto scale = static_cast<T>(args.scale);
  if (!is_narrow<T>(block)) return transpose_block<Element>(args, block, args.query, args.d, scale, to);
  const int64_t width = padded<T>(args.d);
  for_each_segment(args, block, [&](const Segment& segment) {
    widen_rows(row_of<const Element>(args.query, block.batch, segment.head, segment.query),
               args.query.row_stride, segment.queries, args.d, to + segment.offset * width, width);
  });
  for (int64_t n = 0; n < kFewRows * width; ++n) to[n] = n < block.rows * width ? to[n] * scale : 0;
}

/// Elements that `load_queries` writes.
template <typename T>
constexpr int64_t query_size(int64_t d) {
  return padded<T>(d) * kBlockQueries;
}

/// A tile of keys and values as the products read them.
template <typename T>
struct KeyTile {
  int64_t key, keys;
  Rows<const T> key_rows, value_rows;
};

template <typename Element>
KeyTile<Compute<Element>> load_tile(const AttentionArgs& args, const Block& block, int64_t key, int64_t keys,
                                    Compute<Element>* key_copy, Compute<Element>* value_copy) {
  const bool often = !is_narrow<Compute<Element>>(block);
  return {key, keys,
          rows_of(row_of<const Element>(args.key, block.batch, block.kv_head, key), args.key.row_stride, keys,
                  args.d, key_copy, often),
          rows_of(row_of<const Element>(args.value, block.batch, block.kv_head, key), args.value.row_stride,
                  keys, args.d_v, value_copy, often)};
}

/// Asks for a row that is read soon.
template <typename T>
void prefetch_row(const T* row, int64_t columns) {
  constexpr int64_t kLine = 64 / sizeof(T);
  for (int64_t column = 0; column < columns; column += kLine) __builtin_prefetch(row + column, 0, 2);
}

/// S^T = K (scale Q)^T
template <typename T>
void score_block(const AttentionArgs& args, const Block& block, const KeyTile<T>& tile, const T* query,
                 T* scores) {
  if constexpr (kLanes<T> >= kFewRows) {
    if (is_narrow<T>(block)) {
      const int64_t width = padded<T>(args.d);
      const auto prefetch = [&](int64_t row) {
        prefetch_row(tile.value_rows.data + row * tile.value_rows.stride, args.d_v);
        prefetch_row(tile.key_rows.data + (row + kTileKeys) * tile.key_rows.stride, args.d);
      };
      return dots<T>(tile.keys, block.rows, width, tile.key_rows, {query, width}, {scores, kBlockQueries},
                     prefetch);
    }
  }
  gemm_dots<T>(tile.keys, padded<T>(block.rows), args.d, {tile.key_rows.data, tile.key_rows.stride, 1},
               {query, kBlockQueries}, {scores, kBlockQueries});
}

/// Groups of blocks_together blocks of one kv head.
inline int64_t groups_of_blocks(const AttentionArgs& args) {
  return divide_up(blocks_of(args), args.blocks_together);
}

/// Writes the blocks of a group and returns their number.
inline int64_t blocks_at(const AttentionArgs& args, int64_t batch, int64_t kv_head, int64_t group,
                         Block* blocks) {
  const int64_t first = group * args.blocks_together;
  const int64_t count = smaller(args.blocks_together, blocks_of(args) - first);
  for (int64_t n = 0; n < count; ++n) blocks[n] = block_at(args, batch, kv_head, first + n);
  return count;
}

/// Writes the state of each block's tile, and returns whether any is not empty.
inline bool find_states(const AttentionArgs& args, const Block* blocks, int64_t count, int64_t key,
                        int64_t keys, TileState* states) {
  bool any = false;
  for (int64_t n = 0; n < count; ++n) {
    states[n] = state_of(args, blocks[n], key, keys);
    any |= states[n] != TileState::empty;
  }
  return any;
}

/// Sets the scores to -inf that the mask hides.
template <typename T>
void hide_masked(const AttentionArgs& args, const Block& block, int64_t key, int64_t keys, T* scores,
                 uint8_t* allowed) {
  for_each_segment(args, block, [&](const Segment& segment) {
    args.mask->fill({block.batch, segment.head, segment.query, segment.queries, key, keys},
                    allowed + segment.offset, kBlockQueries);
  });
  for (int64_t j = 0; j < keys; ++j) {
    for (int64_t i = 0; i < block.rows; ++i) {
      T& score = scores[j * kBlockQueries + i];
      score = allowed[j * kBlockQueries + i] != 0 ? score : -kInfinity<T>;
    }
  }
}

template <typename T>
void modify_scores(const AttentionArgs& args, const Block& block, int64_t key, int64_t keys, T* scores) {
  if (args.score_mod == nullptr) return;
  for_each_segment(args, block, [&](const Segment& segment) {
    args.score_mod->forward({block.batch, segment.head, segment.query, segment.queries, key, keys},
                            scores + segment.offset, kBlockQueries);
  });
}

}  // namespace
}  // namespace attend::cpu
