#pragma once

// The backward pass: recomputes the weights of each tile from the logsumexp (Dao 2022, algorithm 4).

#include "cpu/attention/dropout.h"
#include "cpu/attention/tile.h"

namespace attend::cpu {
namespace {

/// What a block of queries keeps while it goes over the keys: its queries and output gradients, as columns
/// and as rows, and for each query the statistics that its weights are recomputed from.
template <typename Element>
struct BackwardBlock {
  Block block;
  Operand<Element>*query_t, *grad_t, *query_copy, *grad_copy;
  Rows<const Operand<Element>> query, grad;  ///< summed over
  Compute<Element>*logsumexp, *logsumexp_rest, *delta, *grad_query;
  bool has_grad_query;  ///< false until the first tile that is not empty
};

/// Whether the way back needs the scores as they were before the score modification.
inline bool keeps_raw_scores(const AttentionArgs& args) {
  return args.score_mod != nullptr && args.score_mod->reads_scores();
}

template <typename Element>
struct BackwardScratch {
  using T = Compute<Element>;
  BackwardBlock<Element> blocks[kMostBlocksTogether];
  T *scores, *raw_scores, *grad_scores, *kept;            // the tile, [keys, kBlockQueries]
  Operand<Element>*key, *value, *key_over, *tile_factor;  // copies as the products read them
  uint8_t* allowed;
  int64_t bytes;

  BackwardScratch(const BackwardArgs& args, void* buffer) {
    Scratch scratch(buffer);
    for (int64_t n = 0; n < args.blocks_together; ++n) {
      auto& block = blocks[n];
      block.query_t = scratch.take<Operand<Element>>(query_size<Element>(args.d));
      block.grad_t = scratch.take<Operand<Element>>(operands<Element>(args.d_v) * kBlockQueries);
      block.query_copy = scratch.take<Operand<Element>>(operands<Element>(kBlockQueries) * padded<T>(args.d));
      block.grad_copy =
          scratch.take<Operand<Element>>(operands<Element>(kBlockQueries) * padded<T>(args.d_v));
      block.logsumexp = scratch.take<T>(kBlockQueries);
      block.logsumexp_rest = scratch.take<T>(kBlockQueries);
      block.delta = scratch.take<T>(kBlockQueries);
      block.grad_query = scratch.take<T>(kBlockQueries * padded<T>(args.d));
    }
    const int64_t tile = kTileKeys * kBlockQueries;
    scores = scratch.take<T>(tile);
    raw_scores = scratch.take<T>(keeps_raw_scores(args) ? tile : 0);
    grad_scores = scratch.take<T>(tile);
    kept = scratch.take<T>(args.dropout_threshold > 0 ? tile : 0);
    key = scratch.take<Operand<Element>>(kTileKeys * row_operands<Element>(args.d));
    value = scratch.take<Operand<Element>>(kTileKeys * row_operands<Element>(args.d_v));
    key_over = scratch.take<Operand<Element>>(
        kInPairs<Element> ? operands<Element>(kTileKeys) * padded<T>(args.d) : 0);
    tile_factor = scratch.take<Operand<Element>>(kTileCopy<Element>);
    allowed = scratch.take<uint8_t>(args.mask != nullptr ? tile : 0);
    bytes = scratch.used();
  }
};

/// The block's rows of a tensor, to be summed over: of numbers in place, where they lie in one head.
template <typename Element>
Rows<const Operand<Element>> block_rows(const AttentionArgs& args, const Block& block, const Heads& tensor,
                                        int64_t columns, Operand<Element>* copy) {
  const int64_t width = padded<Compute<Element>>(columns);
  Rows<const Operand<Element>> rows{copy, width};
  [[maybe_unused]] const Element* row_at[kBlockQueries];
  for_each_segment(args, block, [&](const Segment& segment) {
    const auto* from = row_of<const Element>(tensor, block.batch, segment.head, segment.query);
    if constexpr (kInPairs<Element>) {
      for (int64_t n = 0; n < segment.queries; ++n) row_at[segment.offset + n] = from + n * tensor.row_stride;
    } else if (segment.queries == block.rows) {
      rows = rows_of(from, tensor.row_stride, segment.queries, columns, copy);
    } else {
      widen_rows(from, tensor.row_stride, segment.queries, columns, copy + segment.offset * width, width);
    }
  });
  if constexpr (kInPairs<Element>) {
    interleave_rows(block.rows, columns, [&](int64_t row) { return row_at[row]; }, copy, width);
  }
  return rows;
}

/// An operand of a row of `columns`, which may end within it.
template <typename Element>
Operand<Element> operand_at(const Element* row, int64_t index, [[maybe_unused]] int64_t columns) {
  if constexpr (kInPairs<Element>) {
    return {row[2 * index], 2 * index + 1 < columns ? row[2 * index + 1] : Element{}};
  } else {
    return widen(row[index]);
  }
}

/// delta_i = sum_j P_ij dP_ij - dlogsumexp_i, where the sum is dO_i . O_i, added up in the order in which the
/// product V dO^T adds: where one key has all the weight, dP - delta is exactly 0. And the logsumexp, 0 for a
/// row that sees nothing: its weights exp(-inf) are 0 all the same.
template <typename Element>
void load_statistics(const BackwardArgs& args, const BackwardBlock<Element>& own) {
  using T = Compute<Element>;
  const auto& block = own.block;
  const Element* output[kBlockQueries] = {};
  for (int64_t i = 0; i < kBlockQueries; ++i) own.logsumexp[i] = own.logsumexp_rest[i] = own.delta[i] = 0;
  if (args.weighting != KernelWeighting::softmax) return;
  for_each_segment(args, block, [&](const Segment& segment) {
    for (int64_t n = 0; n < segment.queries; ++n) {
      const int64_t row = segment.offset + n, i = segment.query + n;
      const int64_t place = (block.batch * args.heads + segment.head) * args.queries + i;
      const T logsumexp = static_cast<const T*>(args.logsumexp)[place];
      output[row] = row_of<const Element>(args.output, block.batch, segment.head, i);
      own.logsumexp[row] = logsumexp == -kInfinity<T> ? 0 : logsumexp;
      own.logsumexp_rest[row] = static_cast<const T*>(args.logsumexp_rest)[place];
      if (args.grad_logsumexp != nullptr) own.delta[row] = static_cast<const T*>(args.grad_logsumexp)[place];
    }
  });
  for (int64_t i = 0; i < block.rows; i += kLanes<T>) {
    Vec<T> delta = {};
    const int64_t lanes = smaller(kLanes<T>, block.rows - i);
    const int64_t depth = operands<Element>(args.d_v);
    for (int64_t begin = 0; begin < depth; begin += kDotChunk) {
      Vec<T> of_chunk = {};
      for (int64_t d = begin; d < smaller(begin + kDotChunk, depth); ++d) {
        Operand<Element> outputs[kLanes<T>] = {};
        for (int64_t lane = 0; lane < lanes; ++lane)
          outputs[lane] = operand_at(output[i + lane], d, args.d_v);
        add_product<Operand<Element>>(of_chunk, load(outputs), load(own.grad_t + d * kBlockQueries + i));
      }
      delta += of_chunk;
    }
    store(own.delta + i, delta - load(own.delta + i));
  }
}

/// What the weights of a vector of queries are recomputed from.
template <typename T>
struct Statistics {
  Vec<T> logsumexp, logsumexp_rest, delta;
};

template <typename T>
struct Differentiated {
  Vec<T> weight, grad_score;
};

///     softmax  P = exp(S - logsumexp)   dS = P (dP - delta)
///     sigmoid  P = 1 / (1 + exp(-S))    dS = P (1 - P) dP
///     relu     P = max(S, 0)            dS = [S > 0] dP
template <typename T, KernelWeighting weighting>
inline Differentiated<T> differentiate(Vec<T> score, Vec<T> grad_weight, const Statistics<T>& of_row) {
  if constexpr (weighting == KernelWeighting::softmax) {
    const auto weight = exp_without_overflow((score - of_row.logsumexp) - of_row.logsumexp_rest);
    return {weight, weight * (grad_weight - of_row.delta)};
  }
  if constexpr (weighting == KernelWeighting::sigmoid) {
    const Vec<T> weight = 1 / (1 + exp(-score));
    return {weight, weight * (1 - weight) * grad_weight};
  }
  return {score > 0 ? score : Vec<T>{}, score > 0 ? grad_weight : Vec<T>{}};
}

/// A weight or its gradient times the dropout factor.
template <bool drops, typename T>
inline Vec<T> dropped(Vec<T> value, [[maybe_unused]] const T* factor) {
  if constexpr (drops) return value * load(factor);
  return value;
}

/// Turns S into dropout(P) and the gradients of dropout(P) into those of S, times `factor`.
template <typename Element, KernelWeighting weighting, bool drops>
void differentiate_tile(const BackwardScratch<Element>& scratch, const BackwardBlock<Element>& own,
                        int64_t keys, Compute<Element> factor) {
  using T = Compute<Element>;
  for (int64_t i = 0; i < own.block.rows; i += kLanes<T>) {
    const Statistics<T> of_row{load(own.logsumexp + i), load(own.logsumexp_rest + i), load(own.delta + i)};
    for (int64_t j = 0; j < keys; ++j) {
      const int64_t place = j * kBlockQueries + i;
      const T* kept = scratch.kept + place;
      const auto grad_weight = dropped<drops, T>(load(scratch.grad_scores + place), kept);
      const auto [weight, grad_score] =
          differentiate<T, weighting>(load(scratch.scores + place), grad_weight, of_row);
      store(scratch.scores + place, dropped<drops, T>(weight, kept));
      store(scratch.grad_scores + place, grad_score * factor);
    }
  }
}

template <typename Element, bool drops>
void differentiate_tile(KernelWeighting weighting, const BackwardScratch<Element>& scratch,
                        const BackwardBlock<Element>& own, int64_t keys, Compute<Element> factor) {
  switch (weighting) {
    case KernelWeighting::softmax:
      return differentiate_tile<Element, KernelWeighting::softmax, drops>(scratch, own, keys, factor);
    case KernelWeighting::sigmoid:
      return differentiate_tile<Element, KernelWeighting::sigmoid, drops>(scratch, own, keys, factor);
    case KernelWeighting::relu:
      return differentiate_tile<Element, KernelWeighting::relu, drops>(scratch, own, keys, factor);
  }
}

/// The way back through the score modification and the scale.
template <typename T>
void unmodify_gradients(const AttentionArgs& args, const Block& block, int64_t task, int64_t key,
                        int64_t keys, const T* raw_scores, T* grads) {
  for_each_segment(args, block, [&](const Segment& segment) {
    args.score_mod->backward({block.batch, segment.head, segment.query, segment.queries, key, keys}, task,
                             raw_scores + segment.offset, grads + segment.offset, kBlockQueries);
  });
  const auto scale = static_cast<T>(args.scale);
  for (int64_t j = 0; j < keys; ++j) {
    for (int64_t i = 0; i < block.rows; ++i) grads[j * kBlockQueries + i] *= scale;
  }
}

/// scores = dropout(P)^T and grad_scores = scale dS^T of a tile.
template <typename Element>
void backward_scores(const BackwardArgs& args, const BackwardBlock<Element>& own, int64_t task,
                     TileState state, const KeyTile<Element>& tile, const BackwardScratch<Element>& scratch) {
  using T = Compute<Element>;
  const auto& block = own.block;
  const int64_t key = tile.key, keys = tile.keys;
  score_block<Element>(args, block, tile, own.query_t, scratch.scores);
  const T* raw_scores = keeps_raw_scores(args) ? scratch.raw_scores : scratch.scores;
  if (keeps_raw_scores(args)) {
    __builtin_memcpy(scratch.raw_scores, scratch.scores,
                     static_cast<uint64_t>(keys * kBlockQueries) * sizeof(T));
  }
  modify_scores(args, block, key, keys, scratch.scores);
  if (state == TileState::partial) hide_masked(args, block, key, keys, scratch.scores, scratch.allowed);

  // dP^T = V dO^T
  gemm_dots<Operand<Element>>(keys, padded<T>(block.rows), operands<Element>(args.d_v),
                              {tile.value.data, tile.value.stride, 1}, {own.grad_t, kBlockQueries},
                              {scratch.grad_scores, kBlockQueries});
  const T factor = args.score_mod != nullptr ? 1 : static_cast<T>(args.scale);
  if (args.dropout_threshold > 0) {
    dropout_factors(args, block, key, keys, scratch.kept);
    differentiate_tile<Element, true>(args.weighting, scratch, own, keys, factor);
  } else {
    differentiate_tile<Element, false>(args.weighting, scratch, own, keys, factor);
  }
  if (args.score_mod != nullptr) {
    unmodify_gradients(args, block, task, key, keys, raw_scores, scratch.grad_scores);
  }
}

template <typename Element>
void backward_tile(const BackwardArgs& args, BackwardBlock<Element>& own, int64_t task, TileState state,
                   const KeyTile<Element>& tile, const BackwardScratch<Element>& scratch) {
  using T = Compute<Element>;
  const auto& block = own.block;
  const int64_t width = padded<T>(args.d), width_v = padded<T>(args.d_v);
  backward_scores<Element>(args, own, task, state, tile, scratch);

  const int64_t first = (block.batch * args.kv_heads + block.kv_head) * args.keys + tile.key;
  T* grad_key = static_cast<T*>(args.grad_key) + first * width;
  T* grad_value = static_cast<T*>(args.grad_value) + first * width_v;
  using F = Operand<Element>;
  const int64_t queries = operands<Element>(block.rows), keys = operands<Element>(tile.keys);
  // dV += dropout(P)^T dO
  const auto weights = along_queries<Element>(scratch.scores, block.rows, tile.keys, scratch.tile_factor);
  gemm<F, Update::add>(tile.keys, width_v, queries, weights, own.grad, {grad_value, width_v});
  // dK += scale dS^T Q
  const auto grads_t =
      along_queries<Element>(scratch.grad_scores, block.rows, tile.keys, scratch.tile_factor);
  gemm<F, Update::add>(tile.keys, width, queries, grads_t, own.query, {grad_key, width});
  // dQ += scale dS K
  const auto grads = along_keys<Element>(scratch.grad_scores, block.rows, tile.keys, scratch.tile_factor);
  if (own.has_grad_query) {
    gemm<F, Update::add>(block.rows, width, keys, grads, tile.key_over, {own.grad_query, width});
  } else {
    gemm<F, Update::set>(block.rows, width, keys, grads, tile.key_over, {own.grad_query, width});
  }
  own.has_grad_query = true;
}

template <typename Element>
void write_grad_query(const BackwardArgs& args, const BackwardBlock<Element>& own, int64_t split) {
  using T = Compute<Element>;
  const int64_t width = padded<T>(args.d);
  for (int64_t n = 0; !own.has_grad_query && n < own.block.rows * width; ++n) own.grad_query[n] = 0;
  for_each_segment(args, own.block, [&](const Segment& segment) {
    const int64_t head = (split * args.batch + own.block.batch) * args.heads + segment.head;
    T* to = static_cast<T*>(args.grad_query) + (head * args.queries + segment.query) * width;
    __builtin_memcpy(to, own.grad_query + segment.offset * width,
                     static_cast<uint64_t>(segment.queries * width) * sizeof(T));
  });
}

template <typename Element>
void begin_block(const BackwardArgs& args, const Block& block, BackwardBlock<Element>& own) {
  own.block = block;
  own.has_grad_query = false;
  load_queries<Element>(args, block, own.query_t);
  transpose_block<Element>(args, block, args.grad_output, args.d_v, Compute<Element>{1}, own.grad_t);
  own.query = block_rows<Element>(args, block, args.query, args.d, own.query_copy);
  own.grad = block_rows<Element>(args, block, args.grad_output, args.d_v, own.grad_copy);
  load_statistics<Element>(args, own);
}

template <typename Element>
KeyTile<Element> load_tile(const BackwardArgs& args, const Block& block, int64_t key, int64_t keys,
                           const BackwardScratch<Element>& scratch) {
  KeyTile<Element> tile{key,
                        keys,
                        load_along<Element>(block, args.key, key, keys, args.d, scratch.key),
                        load_along<Element>(block, args.value, key, keys, args.d_v, scratch.value),
                        {}};
  tile.key_over = tile.key_along;
  if constexpr (kInPairs<Element>) {
    tile.key_over = load_over<Element>(block, args.key, key, keys, args.d, scratch.key_over);
  }
  return tile;
}

/// A group of blocks of queries against the keys of the range.
template <typename Element>
void backward_blocks(const BackwardArgs& args, const Block* blocks, int64_t count, int64_t task, Range range,
                     BackwardScratch<Element>& scratch) {
  for (int64_t n = 0; n < count; ++n) begin_block<Element>(args, blocks[n], scratch.blocks[n]);
  for (int64_t key = range.begin; key < range.end; key += kTileKeys) {
    const int64_t keys = smaller(kTileKeys, range.end - key);
    TileState states[kMostBlocksTogether];
    if (!find_states(args, blocks, count, key, keys, states)) continue;
    const auto tile = load_tile(args, blocks[0], key, keys, scratch);
    for (int64_t n = 0; n < count; ++n) {
      if (states[n] == TileState::empty) continue;
      backward_tile<Element>(args, scratch.blocks[n], task, states[n], tile, scratch);
    }
  }
  for (int64_t n = 0; n < count; ++n) {
    write_grad_query<Element>(args, scratch.blocks[n], task % args.splits);
  }
}

template <typename Element>
int64_t backward_scratch(const BackwardArgs& args) {
  return BackwardScratch<Element>(args, nullptr).bytes;
}

template <typename Element>
void backward(const BackwardArgs& args, int64_t task, void* buffer) {
  BackwardScratch<Element> scratch(args, buffer);
  const int64_t head = task / args.splits, batch = head / args.kv_heads;
  const Range range = split_range(args, batch, task % args.splits);
  for (int64_t group = 0; group < groups_of_blocks(args); ++group) {
    Block blocks[kMostBlocksTogether];
    const int64_t count = blocks_at(args, batch, head % args.kv_heads, group, blocks);
    backward_blocks<Element>(args, blocks, count, task, range, scratch);
  }
}

}  // namespace
}  // namespace attend::cpu
