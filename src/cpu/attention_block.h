#pragma once

// What forward and backward share: a block of queries against a tile of keys.
//
// Scores are kept transposed, S^T [keys, queries]: neighbouring lanes are neighbouring queries, so that no
// step of the softmax works across lanes, and keys and values are read as they are.

#include "attention_kernel.h"
#include "rows.h"
#include "scratch.h"

namespace attend::cpu {
namespace {

/// Queries of a block: a multiple of two vectors and of the register tile's rows.
constexpr int64_t kBlockQueries = kVectorBytes == 64 ? 96 : 48;
/// Keys of a tile.
constexpr int64_t kTileKeys = 192;

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

/// Writes rows [offset, offset + rows) of a block as columns of `to` [columns, kBlockQueries], times
/// `factor`.
template <typename Element>
void transpose_rows(const Element* from, int64_t from_stride, int64_t rows, int64_t columns,
                    Compute<Element> factor, Compute<Element>* to) {
  for (int64_t row = 0; row < rows; ++row) {
    for (int64_t column = 0; column < columns; ++column) {
      to[column * kBlockQueries + row] = widen(from[row * from_stride + column]) * factor;
    }
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

/// Writes the block's query rows, times `factor`, as columns of `to` [d, kBlockQueries], with zeros up to a
/// whole vector of rows.
template <typename Element>
void transpose_block(const AttentionArgs& args, const Block& block, const Heads& tensor, int64_t columns,
                     Compute<Element> factor, Compute<Element>* to) {
  using T = Compute<Element>;
  for_each_segment(args, block, [&](const Segment& segment) {
    transpose_rows(row_of<const Element>(tensor, block.batch, segment.head, segment.query), tensor.row_stride,
                   segment.queries, columns, factor, to + segment.offset);
  });
  for (int64_t column = 0; column < columns; ++column) {
    for (int64_t i = block.rows; i < padded<T>(block.rows); ++i) to[column * kBlockQueries + i] = 0;
  }
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
