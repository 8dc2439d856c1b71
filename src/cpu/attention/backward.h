#pragma once

// The backward: recomputes the weights of each tile from the logsumexp (Dao 2022, algorithm 4).
//
//     dV = P^T dO    dP = dO V^T    dS = P (dP - delta)    dQ = scale dS K    dK = scale dS^T Q
//
// with delta_i = dO_i . O_i - dlogsumexp_i. With dropout, P and dP are multiplied by the dropout factors.
// Only the products that the wanted gradients need are computed: dV alone needs neither dP nor dS.

#include "cpu/attention/dropout.h"
#include "cpu/attention/tile.h"

namespace attend::cpu {
namespace {

/// A block of queries: the queries and the output gradients as columns and as rows, the statistics from which
/// weights are recomputed, and the accumulated gradient of the queries.
template <typename Element>
struct BackwardBlock {
  Block block;
  Operand<Element>*query_t, *grad_t, *query_copy, *grad_copy;
  Rows<const Operand<Element>> query, grad;  ///< right factors of products that sum over queries: dK and dV
  Compute<Element>*logsumexp, *logsumexp_low, *delta, *grad_query;
  bool has_grad_query;  ///< false before the first tile that is not empty
};

/// Whether the backward of the score modification reads the scores before their modification.
inline bool keeps_raw_scores(const AttentionArgs& args) {
  return args.score_mod != nullptr && args.score_mod->reads_scores();
}

template <typename Element>
struct BackwardScratch {
  using T = Compute<Element>;
  BackwardBlock<Element> blocks[kMaxBlocksPerTask];
  T *scores, *raw_scores, *grad_scores, *kept;            // values of the tile, [keys, kBlockQueries]
  Operand<Element>*key, *value, *key_over, *tile_factor;  // copies in the layout that matrix products read
  uint8_t* allowed;
  int64_t bytes;  ///< the total size of the arrays

  BackwardScratch(const BackwardArgs& args, void* buffer) {
    ScratchAllocator allocator(buffer);
    for (int64_t n = 0; n < args.blocks_per_task; ++n) {
      auto& block = blocks[n];
      block.query_t = allocator.take<Operand<Element>>(query_size<Element>(args.d));
      block.grad_t = allocator.take<Operand<Element>>(operands<Element>(args.d_v) * kBlockQueries);
      block.query_copy =
          allocator.take<Operand<Element>>(operands<Element>(kBlockQueries) * padded<T>(args.d));
      block.grad_copy =
          allocator.take<Operand<Element>>(operands<Element>(kBlockQueries) * padded<T>(args.d_v));
      block.logsumexp = allocator.take<T>(kBlockQueries);
      block.logsumexp_low = allocator.take<T>(kBlockQueries);
      block.delta = allocator.take<T>(kBlockQueries);
      block.grad_query = allocator.take<T>(kBlockQueries * padded<T>(args.d));
    }
    const int64_t tile = kTileKeys * kBlockQueries;
    scores = allocator.take<T>(tile);
    raw_scores = allocator.take<T>(keeps_raw_scores(args) ? tile : 0);
    grad_scores = allocator.take<T>(tile);
    kept = allocator.take<T>(args.dropout_threshold > 0 ? tile : 0);
    key = allocator.take<Operand<Element>>(kTileKeys * row_operands<Element>(args.d));
    value = allocator.take<Operand<Element>>(kTileKeys * row_operands<Element>(args.d_v));
    key_over = allocator.take<Operand<Element>>(
        kInPairs<Element> ? operands<Element>(kTileKeys) * padded<T>(args.d) : 0);
    tile_factor = allocator.take<Operand<Element>>(kTileCopy<Element>);
    allowed = allocator.take<uint8_t>(args.mask != nullptr ? tile : 0);
    bytes = allocator.used();
  }
};

/// Returns the rows of a tensor that belong to the block, for products that sum over queries. The rows are
/// read in place if the block lies within one head and they need no conversion.
template <typename Element>
Rows<const Operand<Element>> block_rows(const AttentionArgs& args, const Block& block,
                                        const StridedTensor& tensor, int64_t columns,
                                        Operand<Element>* copy) {
  const int64_t width = padded<Compute<Element>>(columns);
  Rows<const Operand<Element>> rows{copy, width};
  [[maybe_unused]] const Element* row_at[kBlockQueries];
  for_each_segment(args, block, [&](const Segment& segment) {
    const auto* from = row_of<const Element>(tensor, block.batch, segment.head, segment.query);
    if constexpr (kInPairs<Element>) {
      for (int64_t n = 0; n < segment.queries; ++n) row_at[segment.offset + n] = from + n * tensor.row_stride;
    } else if (segment.queries == block.rows) {
      rows = compute_rows(from, tensor.row_stride, segment.queries, columns, copy);
    } else {
      widen_rows(from, tensor.row_stride, segment.queries, columns, copy + segment.offset * width, width);
    }
  });
  if constexpr (kInPairs<Element>) {
    interleave_rows(block.rows, columns, [&](int64_t row) { return row_at[row]; }, copy, width);
  }
  return rows;
}

/// Returns operand `index` of a row of `columns` elements; the second element of the last pair may be
/// missing.
template <typename Element>
Operand<Element> operand_at(const Element* row, int64_t index, [[maybe_unused]] int64_t columns) {
  if constexpr (kInPairs<Element>) {
    return {row[2 * index], 2 * index + 1 < columns ? row[2 * index + 1] : Element{}};
  } else {
    return widen(row[index]);
  }
}

/// Replaces dlogsumexp by delta = dO . O - dlogsumexp. dO_i . O_i is summed in the same order as the product
/// V dO^T, so that dP - delta is exactly 0 where one key has all the weight. `output` holds the addresses of
/// the output rows of the block.
template <typename Element>
void compute_delta(const BackwardArgs& args, const BackwardBlock<Element>& query_block,
                   const Element* const* output) {
  using T = Compute<Element>;
  const auto& block = query_block.block;
  for (int64_t i = 0; i < block.rows; i += kLanes<T>) {
    Vec<T> delta = {};
    const int64_t lanes = smaller(kLanes<T>, block.rows - i);
    const int64_t depth = operands<Element>(args.d_v);
    for (int64_t begin = 0; begin < depth; begin += kDotChunk) {
      Vec<T> chunk_sum = {};
      for (int64_t d = begin; d < smaller(begin + kDotChunk, depth); ++d) {
        Operand<Element> outputs[kLanes<T>] = {};
        for (int64_t lane = 0; lane < lanes; ++lane)
          outputs[lane] = operand_at(output[i + lane], d, args.d_v);
        add_product<Operand<Element>>(chunk_sum, load(outputs),
                                      load(query_block.grad_t + d * kBlockQueries + i));
      }
      delta += chunk_sum;
    }
    store(query_block.delta + i, delta - load(query_block.delta + i));
  }
}

/// Loads the logsumexp, and computes delta if the gradients of the scores are needed. The logsumexp of a
/// fully masked row is replaced by 0, so that no infinities are subtracted; the weights exp(-inf) of such a
/// row are 0.
template <typename Element>
void load_statistics(const BackwardArgs& args, const BackwardBlock<Element>& query_block) {
  using T = Compute<Element>;
  const auto& block = query_block.block;
  const Element* output[kBlockQueries] = {};
  for (int64_t i = 0; i < kBlockQueries; ++i)
    query_block.logsumexp[i] = query_block.logsumexp_low[i] = query_block.delta[i] = 0;
  if (args.weighting != KernelWeighting::softmax) return;
  for_each_segment(args, block, [&](const Segment& segment) {
    for (int64_t n = 0; n < segment.queries; ++n) {
      const int64_t row = segment.offset + n, i = segment.query + n;
      const int64_t place = (block.batch * args.heads + segment.head) * args.queries + i;
      const T logsumexp = static_cast<const T*>(args.logsumexp)[place];
      output[row] = row_of<const Element>(args.output, block.batch, segment.head, i);
      query_block.logsumexp[row] = logsumexp == -kInfinity<T> ? 0 : logsumexp;
      query_block.logsumexp_low[row] = static_cast<const T*>(args.logsumexp_low)[place];
      if (args.grad_logsumexp != nullptr)
        query_block.delta[row] = static_cast<const T*>(args.grad_logsumexp)[place];
    }
  });
  if (args.needs_grad_scores) compute_delta(args, query_block, output);
}

/// The logsumexp and delta of a vector of queries.
template <typename T>
struct Statistics {
  Vec<T> logsumexp, logsumexp_low, delta;
};

/// The formulas of a weight P, and of the gradient dS of its score, for each weighting:
///
///     softmax  P = exp(S - logsumexp)   dS = P (dP - delta)
///     sigmoid  P = 1 / (1 + exp(-S))    dS = P (1 - P) dP
///     relu     P = max(S, 0)            dS = [S > 0] dP
template <typename T, KernelWeighting weighting>
inline Vec<T> recompute_weight(Vec<T> score, const Statistics<T>& statistics) {
  if constexpr (weighting == KernelWeighting::softmax) {
    return exp_without_overflow((score - statistics.logsumexp) - statistics.logsumexp_low);
  } else if constexpr (weighting == KernelWeighting::sigmoid) {
    return 1 / (1 + exp(-score));
  } else {
    return score <= 0 ? Vec<T>{} : score;  // a NaN stays
  }
}

/// Returns dS, given P and dP.
template <typename T, KernelWeighting weighting>
inline Vec<T> differentiate_weight(Vec<T> score, Vec<T> weight, Vec<T> grad_weight,
                                   const Statistics<T>& statistics) {
  if constexpr (weighting == KernelWeighting::softmax) {
    return weight * (grad_weight - statistics.delta);
  } else if constexpr (weighting == KernelWeighting::sigmoid) {
    return weight * (1 - weight) * grad_weight;
  } else {
    return score <= 0 ? Vec<T>{} : grad_weight;
  }
}

/// Multiplies a weight or its gradient by the dropout factor.
template <bool drops, typename T>
inline Vec<T> dropped(Vec<T> value, [[maybe_unused]] const T* factor) {
  if constexpr (drops) return value * load(factor);
  return value;
}

/// Replaces S by dropout(P), and if they are needed the gradients of dropout(P) by the gradients of S times
/// `factor`.
template <typename Element, KernelWeighting weighting, bool drops, bool needs_grads>
void differentiate_tile(const BackwardScratch<Element>& scratch, const BackwardBlock<Element>& query_block,
                        int64_t keys, Compute<Element> factor) {
  using T = Compute<Element>;
  for (int64_t i = 0; i < query_block.block.rows; i += kLanes<T>) {
    const Statistics<T> statistics{.logsumexp = load(query_block.logsumexp + i),
                                   .logsumexp_low = load(query_block.logsumexp_low + i),
                                   .delta = load(query_block.delta + i)};
    for (int64_t j = 0; j < keys; ++j) {
      const int64_t place = j * kBlockQueries + i;
      const T* kept = scratch.kept + place;
      const auto score = load(scratch.scores + place);
      const auto weight = recompute_weight<T, weighting>(score, statistics);
      store(scratch.scores + place, dropped<drops, T>(weight, kept));
      if constexpr (needs_grads) {
        const auto grad_weight = dropped<drops, T>(load(scratch.grad_scores + place), kept);
        const auto grad_score = differentiate_weight<T, weighting>(score, weight, grad_weight, statistics);
        store(scratch.grad_scores + place, grad_score * factor);
      }
    }
  }
}

template <typename Element, bool drops, bool needs_grads>
void differentiate_tile(KernelWeighting weighting, const BackwardScratch<Element>& scratch,
                        const BackwardBlock<Element>& query_block, int64_t keys, Compute<Element> factor) {
  using enum KernelWeighting;
  switch (weighting) {
    case softmax:
      return differentiate_tile<Element, softmax, drops, needs_grads>(scratch, query_block, keys, factor);
    case sigmoid:
      return differentiate_tile<Element, sigmoid, drops, needs_grads>(scratch, query_block, keys, factor);
    case relu:
      return differentiate_tile<Element, relu, drops, needs_grads>(scratch, query_block, keys, factor);
  }
}

template <typename Element>
void differentiate_tile(const BackwardArgs& args, const BackwardScratch<Element>& scratch,
                        const BackwardBlock<Element>& query_block, int64_t keys) {
  const auto weighting = args.weighting;
  const auto factor = args.score_mod != nullptr ? 1 : static_cast<Compute<Element>>(args.scale);
  const bool drops = args.dropout_threshold > 0;
  if (drops && args.needs_grad_scores)
    return differentiate_tile<Element, true, true>(weighting, scratch, query_block, keys, factor);
  if (drops) return differentiate_tile<Element, true, false>(weighting, scratch, query_block, keys, factor);
  if (args.needs_grad_scores)
    return differentiate_tile<Element, false, true>(weighting, scratch, query_block, keys, factor);
  differentiate_tile<Element, false, false>(weighting, scratch, query_block, keys, factor);
}

/// The backward of the score modification and of the scale: turns gradients of modified scores into gradients
/// of Q K^T.
template <typename T>
void score_mod_backward(const AttentionArgs& args, const Block& block, int64_t task, int64_t key,
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

/// Computes scratch.scores = dropout(P)^T of a tile and, if they are needed, scratch.grad_scores = scale
/// dS^T.
template <typename Element>
void backward_scores(const BackwardArgs& args, const BackwardBlock<Element>& query_block, int64_t task,
                     TileState state, const KeyTile<Element>& tile, const BackwardScratch<Element>& scratch) {
  using T = Compute<Element>;
  const auto& block = query_block.block;
  const int64_t key = tile.key, keys = tile.keys;
  score_block<Element>(args, block, tile, query_block.query_t, scratch.scores);
  const T* raw_scores = keeps_raw_scores(args) ? scratch.raw_scores : scratch.scores;
  if (keeps_raw_scores(args)) {
    __builtin_memcpy(scratch.raw_scores, scratch.scores,
                     static_cast<uint64_t>(keys * kBlockQueries) * sizeof(T));
  }
  modify_scores(args, block, key, keys, scratch.scores);
  if (state == TileState::partial) apply_mask(args, block, key, keys, scratch.scores, scratch.allowed);

  if (args.needs_grad_scores) {  // dP^T = V dO^T
    gemm_dots<Operand<Element>>(keys, padded<T>(block.rows), operands<Element>(args.d_v),
                                {tile.value.data, tile.value.stride, 1}, {query_block.grad_t, kBlockQueries},
                                {scratch.grad_scores, kBlockQueries});
  }
  if (args.dropout_threshold > 0) dropout_factors(args, block, key, keys, scratch.kept);
  differentiate_tile(args, scratch, query_block, keys);
  if (args.needs_grad_scores && args.score_mod != nullptr) {
    score_mod_backward(args, block, task, key, keys, raw_scores, scratch.grad_scores);
  }
}

/// Computes dK += scale dS^T Q and dQ += scale dS K.
template <typename Element>
void add_score_gradients(const BackwardArgs& args, BackwardBlock<Element>& query_block,
                         const KeyTile<Element>& tile, Compute<Element>* grad_key,
                         const BackwardScratch<Element>& scratch) {
  using F = Operand<Element>;
  const auto& block = query_block.block;
  const int64_t width = padded<Compute<Element>>(args.d);
  const int64_t queries = operands<Element>(block.rows), keys = operands<Element>(tile.keys);
  if (args.grad_key != nullptr) {
    const auto grads_t =
        along_queries<Element>(scratch.grad_scores, block.rows, tile.keys, scratch.tile_factor);
    gemm<F, Update::add>(tile.keys, width, queries, grads_t, query_block.query, {grad_key, width});
  }
  if (args.grad_query == nullptr) return;
  const auto grads = along_keys<Element>(scratch.grad_scores, block.rows, tile.keys, scratch.tile_factor);
  if (query_block.has_grad_query) {
    gemm<F, Update::add>(block.rows, width, keys, grads, tile.key_over, {query_block.grad_query, width});
  } else {
    gemm<F, Update::set>(block.rows, width, keys, grads, tile.key_over, {query_block.grad_query, width});
  }
  query_block.has_grad_query = true;
}

/// Accumulates the wanted gradients of one tile of keys and one block of queries.
template <typename Element>
void backward_tile(const BackwardArgs& args, BackwardBlock<Element>& query_block, int64_t task,
                   TileState state, const KeyTile<Element>& tile, const BackwardScratch<Element>& scratch) {
  using T = Compute<Element>;
  const auto& block = query_block.block;
  const int64_t width = padded<T>(args.d), width_v = padded<T>(args.d_v);
  backward_scores<Element>(args, query_block, task, state, tile, scratch);

  const int64_t first = (block.batch * args.kv_heads + block.kv_head) * args.keys + tile.key;
  if (args.grad_value != nullptr) {  // dV += dropout(P)^T dO
    T* grad_value = static_cast<T*>(args.grad_value) + first * width_v;
    const auto weights = along_queries<Element>(scratch.scores, block.rows, tile.keys, scratch.tile_factor);
    gemm<Operand<Element>, Update::add>(tile.keys, width_v, operands<Element>(block.rows), weights,
                                        query_block.grad, {grad_value, width_v});
  }
  T* grad_key = args.grad_key == nullptr ? nullptr : static_cast<T*>(args.grad_key) + first * width;
  if (args.needs_grad_scores) add_score_gradients(args, query_block, tile, grad_key, scratch);
}

template <typename Element>
void write_grad_query(const BackwardArgs& args, const BackwardBlock<Element>& query_block, int64_t split) {
  using T = Compute<Element>;
  const int64_t width = padded<T>(args.d);
  for (int64_t n = 0; !query_block.has_grad_query && n < query_block.block.rows * width; ++n)
    query_block.grad_query[n] = 0;
  for_each_segment(args, query_block.block, [&](const Segment& segment) {
    const int64_t head = (split * args.batch + query_block.block.batch) * args.heads + segment.head;
    T* to = static_cast<T*>(args.grad_query) + (head * args.queries + segment.query) * width;
    __builtin_memcpy(to, query_block.grad_query + segment.offset * width,
                     static_cast<uint64_t>(segment.queries * width) * sizeof(T));
  });
}

template <typename Element>
void begin_block(const BackwardArgs& args, const Block& block, BackwardBlock<Element>& query_block) {
  query_block.block = block;
  query_block.has_grad_query = false;
  load_queries<Element>(args, block, query_block.query_t);
  if (args.needs_grad_scores) {
    transpose_block<Element>(args, block, args.grad_output, args.d_v, Compute<Element>{1},
                             query_block.grad_t);
  }
  if (args.grad_key != nullptr)
    query_block.query = block_rows<Element>(args, block, args.query, args.d, query_block.query_copy);
  if (args.grad_value != nullptr)
    query_block.grad = block_rows<Element>(args, block, args.grad_output, args.d_v, query_block.grad_copy);
  load_statistics<Element>(args, query_block);
}

template <typename Element>
KeyTile<Element> load_tile(const BackwardArgs& args, const Block& block, int64_t key, int64_t keys,
                           const BackwardScratch<Element>& scratch) {
  KeyTile<Element> tile{
      key, keys, load_along<Element>(block, args.key, key, keys, args.d, scratch.key), {}, {}};
  if (args.needs_grad_scores)
    tile.value = load_along<Element>(block, args.value, key, keys, args.d_v, scratch.value);
  tile.key_over = tile.key_along;
  if constexpr (kInPairs<Element>) {
    if (args.grad_query != nullptr)
      tile.key_over = load_over<Element>(block, args.key, key, keys, args.d, scratch.key_over);
  }
  return tile;
}

/// Computes the gradients of a group of blocks of queries and a range of keys.
template <typename Element>
void backward_blocks(const BackwardArgs& args, const Block* blocks, int64_t count, int64_t task, Range range,
                     BackwardScratch<Element>& scratch) {
  for (int64_t n = 0; n < count; ++n) begin_block<Element>(args, blocks[n], scratch.blocks[n]);
  for (int64_t key = range.begin; key < range.end; key += kTileKeys) {
    const int64_t keys = smaller(kTileKeys, range.end - key);
    TileState states[kMaxBlocksPerTask];
    if (!block_states(args, blocks, count, key, keys, states)) continue;
    const auto tile = load_tile(args, blocks[0], key, keys, scratch);
    for (int64_t n = 0; n < count; ++n) {
      if (states[n] == TileState::empty) continue;
      backward_tile<Element>(args, scratch.blocks[n], task, states[n], tile, scratch);
    }
  }
  for (int64_t n = 0; n < count && args.grad_query != nullptr; ++n) {
    write_grad_query<Element>(args, scratch.blocks[n], task % args.splits);
  }
}

template <typename Element>
int64_t backward_scratch_bytes(const BackwardArgs& args) {
  return BackwardScratch<Element>(args, nullptr).bytes;
}

/// Computes a task: all blocks of queries of a key/value head and the keys of one split.
template <typename Element>
void backward(const BackwardArgs& args, int64_t task, void* buffer) {
  BackwardScratch<Element> scratch(args, buffer);
  const int64_t head = task / args.splits, batch = head / args.kv_heads;
  const Range range = split_range(args, batch, task % args.splits);
  for (int64_t group = 0; group < groups_of_blocks(args); ++group) {
    Block blocks[kMaxBlocksPerTask];
    const int64_t count = blocks_at(args, batch, head % args.kv_heads, group, blocks);
    backward_blocks<Element>(args, blocks, count, task, range, scratch);
  }
}

}  // namespace
}  // namespace attend::cpu
