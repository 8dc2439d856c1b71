#pragma once

// The backward pass: recomputes the weights of each tile from the logsumexp (Dao 2022, algorithm 4).

#include "attention_block.h"
#include "dropout.h"

namespace attend::cpu {
namespace {

template <typename Element>
struct BackwardScratch {
  using T = Compute<Element>;
  T *query_t, *grad_t, *query, *grad;  // the block's queries and output gradients, as columns and as rows
  T *scores, *raw_scores, *grad_scores, *kept;  // the tile, [keys, kBlockQueries]
  T *key, *value, *grad_query, *logsumexp, *logsumexp_rest, *delta;
  uint8_t* allowed;
  int64_t bytes;

  BackwardScratch(const BackwardArgs& args, void* buffer) {
    Scratch scratch(buffer);
    const int64_t tile = kTileKeys * kBlockQueries;
    query_t = scratch.take<T>(args.d * kBlockQueries);
    grad_t = scratch.take<T>(args.d_v * kBlockQueries);
    query = scratch.take<T>(kBlockQueries * padded<T>(args.d));
    grad = scratch.take<T>(kBlockQueries * padded<T>(args.d_v));
    scores = scratch.take<T>(tile);
    raw_scores = scratch.take<T>(args.score_mod != nullptr ? tile : 0);
    grad_scores = scratch.take<T>(tile);
    kept = scratch.take<T>(args.dropout_p > 0 ? tile : 0);
    key = scratch.take<T>(kTileKeys * padded<T>(args.d));
    value = scratch.take<T>(kTileKeys * padded<T>(args.d_v));
    grad_query = scratch.take<T>(kBlockQueries * padded<T>(args.d));
    logsumexp = scratch.take<T>(kBlockQueries);
    logsumexp_rest = scratch.take<T>(kBlockQueries);
    delta = scratch.take<T>(kBlockQueries);
    allowed = scratch.take<uint8_t>(args.mask != nullptr ? tile : 0);
    bytes = scratch.used();
  }
};

/// What a tile's products read of its block.
template <typename T>
struct BlockRows {
  Rows<const T> query, grad;
};

/// The block's rows of a tensor as the products read them: in place, where it lies in one head.
template <typename Element>
Rows<const Compute<Element>> block_rows(const AttentionArgs& args, const Block& block, const Heads& tensor,
                                        int64_t columns, Compute<Element>* copy) {
  using T = Compute<Element>;
  const int64_t width = padded<T>(columns);
  Rows<const T> rows{copy, width};
  for_each_segment(args, block, [&](const Segment& segment) {
    const auto* from = row_of<const Element>(tensor, block.batch, segment.head, segment.query);
    if (segment.queries == block.rows) {
      rows = rows_of(from, tensor.row_stride, segment.queries, columns, copy);
    } else {
      widen_rows(from, tensor.row_stride, segment.queries, columns, copy + segment.offset * width, width);
    }
  });
  return rows;
}

/// delta_i = sum_j P_ij dP_ij - dlogsumexp_i, where the sum is dO_i . O_i, added up in the order in which the
/// product V dO^T adds: where one key has all the weight, dP - delta is exactly 0. And the logsumexp, 0 for a
/// row that sees nothing: its weights exp(-inf) are 0 all the same.
template <typename Element>
void load_statistics(const BackwardArgs& args, const Block& block, const BackwardScratch<Element>& own) {
  using T = Compute<Element>;
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
    for (int64_t begin = 0; begin < args.d_v; begin += kDotChunk) {
      Vec<T> of_chunk = {};
      for (int64_t d = begin; d < smaller(begin + kDotChunk, args.d_v); ++d) {
        Vec<T> outputs = {};
        for (int64_t lane = 0; lane < lanes; ++lane) outputs[lane] = widen(output[i + lane][d]);
        of_chunk += outputs * load(own.grad_t + d * kBlockQueries + i);
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
    const auto weight = exp((score - of_row.logsumexp) - of_row.logsumexp_rest);
    return {weight, weight * (grad_weight - of_row.delta)};
  }
  if constexpr (weighting == KernelWeighting::sigmoid) {
    const Vec<T> weight = 1 / (1 + exp(-score));
    return {weight, weight * (1 - weight) * grad_weight};
  }
  return {score > 0 ? score : Vec<T>{}, score > 0 ? grad_weight : Vec<T>{}};
}

/// Turns S into dropout(P) and the gradients of dropout(P) into those of S, times `factor`.
template <typename Element, KernelWeighting weighting>
void differentiate_tile(const BackwardScratch<Element>& own, int64_t rows, int64_t keys, bool drops,
                        Compute<Element> factor) {
  using T = Compute<Element>;
  for (int64_t i = 0; i < rows; i += kLanes<T>) {
    const Statistics<T> of_row{load(own.logsumexp + i), load(own.logsumexp_rest + i), load(own.delta + i)};
    for (int64_t j = 0; j < keys; ++j) {
      const int64_t place = j * kBlockQueries + i;
      const auto kept = drops ? load(own.kept + place) : all(T{1});
      auto [weight, grad_score] =
          differentiate<T, weighting>(load(own.scores + place), load(own.grad_scores + place) * kept, of_row);
      store(own.scores + place, weight * kept);
      store(own.grad_scores + place, grad_score * factor);
    }
  }
}

template <typename Element>
void differentiate_tile(KernelWeighting weighting, const BackwardScratch<Element>& own, int64_t rows,
                        int64_t keys, bool drops, Compute<Element> factor) {
  switch (weighting) {
    case KernelWeighting::softmax:
      return differentiate_tile<Element, KernelWeighting::softmax>(own, rows, keys, drops, factor);
    case KernelWeighting::sigmoid:
      return differentiate_tile<Element, KernelWeighting::sigmoid>(own, rows, keys, drops, factor);
    case KernelWeighting::relu:
      return differentiate_tile<Element, KernelWeighting::relu>(own, rows, keys, drops, factor);
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
void backward_scores(const BackwardArgs& args, const Block& block, int64_t task, int64_t key, int64_t keys,
                     TileState state, Rows<const Compute<Element>> key_rows,
                     Rows<const Compute<Element>> value_rows, const BackwardScratch<Element>& own) {
  using T = Compute<Element>;
  const int64_t rows = padded<T>(block.rows);
  // S^T = K (scale Q)^T
  gemm_dots<T>(keys, rows, args.d, {key_rows.data, key_rows.stride, 1}, {own.query_t, kBlockQueries},
               {own.scores, kBlockQueries});
  if (args.score_mod != nullptr) {
    __builtin_memcpy(own.raw_scores, own.scores, static_cast<uint64_t>(keys * kBlockQueries) * sizeof(T));
    modify_scores(args, block, key, keys, own.scores);
  }
  if (state == TileState::partial) hide_masked(args, block, key, keys, own.scores, own.allowed);

  // dP^T = V dO^T
  gemm_dots<T>(keys, rows, args.d_v, {value_rows.data, value_rows.stride, 1}, {own.grad_t, kBlockQueries},
               {own.grad_scores, kBlockQueries});
  if (args.dropout_p > 0) dropout_factors(args, block, key, keys, own.kept);
  const T factor = args.score_mod != nullptr ? 1 : static_cast<T>(args.scale);
  differentiate_tile<Element>(args.weighting, own, rows, keys, args.dropout_p > 0, factor);
  if (args.score_mod != nullptr) {
    unmodify_gradients(args, block, task, key, keys, own.raw_scores, own.grad_scores);
  }
}

template <typename Element>
void backward_tile(const BackwardArgs& args, const Block& block, int64_t task, int64_t key, int64_t keys,
                   TileState state, const BlockRows<Compute<Element>>& rows,
                   const BackwardScratch<Element>& own) {
  using T = Compute<Element>;
  const int64_t width = padded<T>(args.d), width_v = padded<T>(args.d_v);
  const auto key_rows = rows_of(row_of<const Element>(args.key, block.batch, block.kv_head, key),
                                args.key.row_stride, keys, args.d, own.key);
  const auto value_rows = rows_of(row_of<const Element>(args.value, block.batch, block.kv_head, key),
                                  args.value.row_stride, keys, args.d_v, own.value);
  backward_scores<Element>(args, block, task, key, keys, state, key_rows, value_rows, own);

  const int64_t first = (block.batch * args.kv_heads + block.kv_head) * args.keys + key;
  T* grad_key = static_cast<T*>(args.grad_key) + first * width;
  T* grad_value = static_cast<T*>(args.grad_value) + first * width_v;
  // dV += dropout(P)^T dO;  dK += scale dS^T Q;  dQ += scale dS K
  gemm<T, Update::add>(keys, width_v, block.rows, {own.scores, kBlockQueries, 1}, rows.grad,
                       {grad_value, width_v});
  gemm<T, Update::add>(keys, width, block.rows, {own.grad_scores, kBlockQueries, 1}, rows.query,
                       {grad_key, width});
  gemm<T, Update::add>(block.rows, width, keys, {own.grad_scores, 1, kBlockQueries}, key_rows,
                       {own.grad_query, width});
}

template <typename Element>
void write_grad_query(const BackwardArgs& args, const Block& block, int64_t split,
                      const BackwardScratch<Element>& own) {
  using T = Compute<Element>;
  const int64_t width = padded<T>(args.d);
  for_each_segment(args, block, [&](const Segment& segment) {
    const int64_t head = (split * args.batch + block.batch) * args.heads + segment.head;
    T* to = static_cast<T*>(args.grad_query) + (head * args.queries + segment.query) * width;
    __builtin_memcpy(to, own.grad_query + segment.offset * width,
                     static_cast<uint64_t>(segment.queries * width) * sizeof(T));
  });
}

template <typename Element>
void backward_block(const BackwardArgs& args, const Block& block, int64_t task, Range range,
                    const BackwardScratch<Element>& own) {
  using T = Compute<Element>;
  transpose_block<Element>(args, block, args.query, args.d, static_cast<T>(args.scale), own.query_t);
  transpose_block<Element>(args, block, args.grad_output, args.d_v, T{1}, own.grad_t);
  const BlockRows<T> rows{block_rows<Element>(args, block, args.query, args.d, own.query),
                          block_rows<Element>(args, block, args.grad_output, args.d_v, own.grad)};
  load_statistics<Element>(args, block, own);
  for (int64_t n = 0; n < block.rows * padded<T>(args.d); ++n) own.grad_query[n] = 0;
  for (int64_t key = range.begin; key < range.end; key += kTileKeys) {
    const int64_t keys = smaller(kTileKeys, range.end - key);
    const auto state = state_of(args, block, key, keys);
    if (state != TileState::empty) backward_tile<Element>(args, block, task, key, keys, state, rows, own);
  }
  write_grad_query<Element>(args, block, task % args.splits, own);
}

template <typename Element>
int64_t backward_scratch(const BackwardArgs& args) {
  return BackwardScratch<Element>(args, nullptr).bytes;
}

template <typename Element>
void backward(const BackwardArgs& args, int64_t task, void* scratch) {
  const BackwardScratch<Element> own(args, scratch);
  const int64_t head = task / args.splits, batch = head / args.kv_heads;
  const Range range = split_range(args, batch, task % args.splits);
  for (int64_t index = 0; index < blocks_of(args); ++index) {
    backward_block<Element>(args, block_at(args, batch, head % args.kv_heads, index), task, range, own);
  }
}

}  // namespace
}  // namespace attend::cpu
