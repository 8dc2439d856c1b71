#pragma once

// The scores of a block of queries and a tile of keys, for forward and backward: S = scale Q K^T, score
// modification, mask (Dao 2022, 2023; tiles as in Dong 2024).
//
// Scores are stored transposed, S^T [keys, queries]: the lanes of a vector are consecutive queries, so that
// the softmax needs no operation across lanes, and keys and values are read without transposing them.

#include "cpu/attention/kernel.h"
#include "cpu/simd/exp.h"
#include "cpu/simd/operands.h"
#include "cpu/simd/scratch.h"
#include "cpu/simd/transpose.h"

namespace attend::cpu {
namespace {

/// The number of queries of a block: a multiple of two vectors and of the rows of a register tile.
constexpr int64_t kBlockQueries = kVectorBytes == 64 ? 96 : 48;
/// The number of keys of a tile.
constexpr int64_t kTileKeys = 96;
static_assert(kBlockQueries <= kMaxTileQueries && kTileKeys <= kMaxTileKeys);
static_assert(kBlockQueries % kCellQueries == 0 && kTileKeys % kCellKeys == 0);

/// A range of the query rows of a key/value head: the rows of all heads of its group, one head after another.
struct Block {
  int64_t batch, kv_head;
  int64_t row, rows;  ///< the first row, in 0 ... group * Lq - 1, and the number of rows
};

/// The rows of a block that belong to one head.
struct Segment {
  int64_t head, query, queries;
  int64_t offset;  ///< the index of the segment's first row within the block
};

/// Calls action(segment) for each head of which the block has rows.
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

/// Returns the keys of a split: whole tiles, up to the last key that the mask may allow.
inline Range split_range(const AttentionArgs& args, int64_t batch, int64_t split) {
  const int64_t tiles = divide_up(args.keys, kTileKeys);
  const int64_t end = args.mask == nullptr ? args.keys : args.mask->key_end(batch);
  return {tiles * split / args.splits * kTileKeys,
          smaller(tiles * (split + 1) / args.splits * kTileKeys, end)};
}

/// Returns the number of blocks of queries of one key/value head.
inline int64_t blocks_of(const AttentionArgs& args) {
  return divide_up(args.group() * args.queries, kBlockQueries);
}

inline Block block_at(const AttentionArgs& args, int64_t batch, int64_t kv_head, int64_t index) {
  const int64_t row = index * kBlockQueries;
  return {batch, kv_head, row, smaller(kBlockQueries, args.group() * args.queries - row)};
}

/// Returns the mask state of the keys [key, key + keys) for all rows of the block.
inline TileState block_state(const AttentionArgs& args, const Block& block, int64_t key, int64_t keys) {
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

/// Whether a block has so few queries that the lanes of vectors are elements of a key rather than queries.
template <typename T>
bool is_narrow(const Block& block) {
  return kLanes<T> >= kMaxSmallRows && block.rows <= kMaxSmallRows;
}

/// Writes the rows of a tensor that belong to the block as columns of `to` [operands(columns),
/// kBlockQueries], with zeros up to a whole vector of rows. Elements are multiplied by `factor`, except for
/// pairs of bfloat16.
template <typename Element>
void transpose_block(const AttentionArgs& args, const Block& block, const StridedTensor& tensor,
                     int64_t columns, [[maybe_unused]] Compute<Element> factor, Operand<Element>* to) {
  for_each_segment(args, block, [&](const Segment& segment) {
    const auto* from = row_of<const Element>(tensor, block.batch, segment.head, segment.query);
    if constexpr (kInPairs<Element>) {
      transpose_pairs(from, tensor.row_stride, segment.queries, columns, to + segment.offset, kBlockQueries);
    } else {
      transpose_rows(from, tensor.row_stride, segment.queries, columns, factor, to + segment.offset,
                     kBlockQueries);
    }
  });
  for (int64_t column = 0; column < operands<Element>(columns); ++column) {
    for (int64_t i = block.rows; i < padded<Compute<Element>>(block.rows); ++i)
      to[column * kBlockQueries + i] = {};
  }
}

/// Copies the rows of a narrow block, with zeros up to kMaxSmallRows rows. Elements are multiplied by
/// `factor`, except for pairs of bfloat16.
template <typename Element>
void load_narrow_queries(const AttentionArgs& args, const Block& block,
                         [[maybe_unused]] Compute<Element> factor, Operand<Element>* to) {
  const int64_t width = row_operands<Element>(args.d);
  for_each_segment(args, block, [&](const Segment& segment) {
    const auto* from = row_of<const Element>(args.query, block.batch, segment.head, segment.query);
    auto* place = to + segment.offset * width;
    if constexpr (kInPairs<Element>) {
      copy_pairs(from, args.query.row_stride, segment.queries, args.d, place, width);
    } else {
      widen_rows(from, args.query.row_stride, segment.queries, args.d, place, width);
      for (int64_t n = 0; n < segment.queries * width; ++n) place[n] *= factor;
    }
  });
  for (int64_t n = block.rows * width; n < kMaxSmallRows * width; ++n) to[n] = {};
}

/// Loads the query rows of the block in the layout that `score_block` reads: as columns, or for a narrow
/// block as kMaxSmallRows rows. The elements are multiplied by the scale here, except for pairs of bfloat16,
/// whose products would be rounded; there the scores are multiplied.
template <typename Element>
void load_queries(const AttentionArgs& args, const Block& block, Operand<Element>* to) {
  const auto scale = static_cast<Compute<Element>>(args.scale);
  if (is_narrow<Compute<Element>>(block)) return load_narrow_queries<Element>(args, block, scale, to);
  transpose_block<Element>(args, block, args.query, args.d, scale, to);
}

/// Returns the number of operands that `load_queries` writes.
template <typename Element>
constexpr int64_t query_size(int64_t d) {
  return row_operands<Element>(d) * kBlockQueries;
}

/// A tile of keys and values in the layouts that matrix products read.
template <typename Element>
struct KeyTile {
  using Factor = Rows<const Operand<Element>>;
  int64_t key, keys;
  Factor key_along;  ///< for products that sum over the elements of a key
  /// For products that sum over keys (forward), or over the elements of a value (backward; null if not
  /// needed).
  Factor value;
  Factor key_over;  ///< for products that sum over keys; backward only
};

template <typename Element>
Rows<const Operand<Element>> load_along(const Block& block, const StridedTensor& tensor, int64_t key,
                                        int64_t keys, int64_t columns, Operand<Element>* copy) {
  return rows_along(row_of<const Element>(tensor, block.batch, block.kv_head, key), tensor.row_stride, keys,
                    columns, copy, !is_narrow<Compute<Element>>(block));
}

template <typename Element>
Rows<const Operand<Element>> load_over(const Block& block, const StridedTensor& tensor, int64_t key,
                                       int64_t keys, int64_t columns, Operand<Element>* copy) {
  return rows_over(row_of<const Element>(tensor, block.batch, block.kv_head, key), tensor.row_stride, keys,
                   columns, copy, !is_narrow<Compute<Element>>(block));
}

/// Prefetches a row. This function and its callers must be inlined, since GCC removes calls of functions
/// whose only effect is to prefetch.
template <typename T>
[[gnu::always_inline]] inline void prefetch_row(const T* row, int64_t columns) {
  constexpr int64_t kLine = 64 / sizeof(T);
  for (int64_t column = 0; column < columns; column += kLine) __builtin_prefetch(row + column, 0, 2);
}

template <typename T>
void scale_scores(T scale, int64_t rows, int64_t keys, T* scores) {
  for (int64_t j = 0; j < keys; ++j) {
    for (int64_t i = 0; i < rows; i += kLanes<T>) {
      store(scores + j * kBlockQueries + i, load(scores + j * kBlockQueries + i) * scale);
    }
  }
}

/// Computes S^T = K Q^T of a narrow block, and prefetches the values of this tile and the keys of the next
/// tile.
template <typename Element>
void narrow_scores(const AttentionArgs& args, const Block& block, const KeyTile<Element>& tile,
                   const Operand<Element>* query, Compute<Element>* scores) {
  const int64_t width = row_operands<Element>(args.d);
  const auto prefetch = [&](int64_t row) __attribute__((always_inline)) {
    if constexpr (!kInPairs<Element>) {
      if (tile.value.data != nullptr) prefetch_row(tile.value.data + row * tile.value.stride, args.d_v);
    }
    const int64_t next = tile.key + row + kTileKeys;
    if (next >= args.keys) return;
    prefetch_row(row_of<const Element>(args.key, block.batch, block.kv_head, next), args.d);
  };
  dots<Operand<Element>>(tile.keys, block.rows, width, tile.key_along, {query, width},
                         {scores, kBlockQueries}, prefetch);
}

/// Computes S^T = scale K Q^T.
template <typename Element>
void score_block(const AttentionArgs& args, const Block& block, const KeyTile<Element>& tile,
                 const Operand<Element>* query, Compute<Element>* scores) {
  using T = Compute<Element>;
  if constexpr (kLanes<T> >= kMaxSmallRows) {
    if (is_narrow<T>(block)) narrow_scores(args, block, tile, query, scores);
  }
  if (!is_narrow<T>(block)) {
    gemm_dots<Operand<Element>>(tile.keys, padded<T>(block.rows), operands<Element>(args.d),
                                {tile.key_along.data, tile.key_along.stride, 1}, {query, kBlockQueries},
                                {scores, kBlockQueries});
  }
  if constexpr (kInPairs<Element>)
    scale_scores(static_cast<T>(args.scale), padded<T>(block.rows), tile.keys, scores);
}

/// Returns a tile of weights or of gradients as the left factor of a product that sums over the keys.
template <typename Element>
Strided<Operand<Element>> along_keys(const Compute<Element>* tile, [[maybe_unused]] int64_t rows,
                                     [[maybe_unused]] int64_t keys, [[maybe_unused]] Operand<Element>* copy) {
  using T = Compute<Element>;
  if constexpr (kInPairs<Element>) {
    for (int64_t j = 0; j < keys; j += 2) {
      for (int64_t i = 0; i < rows; i += kLanes<T>) {
        const T* first = tile + j * kBlockQueries + i;
        const auto second = j + 1 < keys ? load(first + kBlockQueries) : Vec<T>{};
        store(copy + j / 2 * kBlockQueries + i, round_to_pairs_across(load(first), second));
      }
    }
    return {copy, 1, kBlockQueries};
  } else {
    return {tile, 1, kBlockQueries};
  }
}

/// Returns a tile of weights or of gradients as the left factor of a product that sums over the queries of
/// the block.
template <typename Element>
Strided<Operand<Element>> along_queries(const Compute<Element>* tile, [[maybe_unused]] int64_t rows,
                                        [[maybe_unused]] int64_t keys,
                                        [[maybe_unused]] Operand<Element>* copy) {
  using T = Compute<Element>;
  if constexpr (kInPairs<Element>) {
    static_assert(kBlockQueries % (2 * kLanes<T>) == 0);
    for (int64_t j = 0; j < keys; ++j) {
      for (int64_t i = 0; i < rows; i += 2 * kLanes<T>) {
        const T* first = tile + j * kBlockQueries + i;
        store(copy + (j * kBlockQueries + i) / 2, round_to_pairs(load(first), load(first + kLanes<T>)));
      }
      if (rows % 2 != 0)
        copy[(j * kBlockQueries + rows) / 2].second = {};  // the element of no query, which could be NaN
    }
    return {copy, kBlockQueries / 2, 1};
  } else {
    return {tile, kBlockQueries, 1};
  }
}

/// Returns the number of operands that `along_keys` and `along_queries` copy.
template <typename Element>
constexpr int64_t kTileCopy = kInPairs<Element> ? kTileKeys * kBlockQueries / 2 : 0;

/// Returns the number of groups of blocks_per_task blocks of one key/value head.
inline int64_t groups_of_blocks(const AttentionArgs& args) {
  return divide_up(blocks_of(args), args.blocks_per_task);
}

/// Sets `blocks` to the blocks of a group, and returns the number of blocks.
inline int64_t blocks_at(const AttentionArgs& args, int64_t batch, int64_t kv_head, int64_t group,
                         Block* blocks) {
  const int64_t first = group * args.blocks_per_task;
  const int64_t count = smaller(args.blocks_per_task, blocks_of(args) - first);
  for (int64_t n = 0; n < count; ++n) blocks[n] = block_at(args, batch, kv_head, first + n);
  return count;
}

/// Sets `states` to the mask state of each block, and returns whether any state is not empty.
inline bool block_states(const AttentionArgs& args, const Block* blocks, int64_t count, int64_t key,
                         int64_t keys, TileState* states) {
  bool any = false;
  for (int64_t n = 0; n < count; ++n) {
    states[n] = block_state(args, blocks[n], key, keys);
    any |= states[n] != TileState::empty;
  }
  return any;
}

/// Sets scores that the mask does not allow to -inf.
template <typename T>
void apply_mask(const AttentionArgs& args, const Block& block, int64_t key, int64_t keys, T* scores,
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
