#pragma once

// The forward: O = softmax(S) V with online softmax over tiles of keys (Milakov & Gimelshein 2018; Dao 2023).
// For each tile
//
//     m' = max(m, max_j s_j)    l' = exp(m - m') l + sum_j exp(s_j - m')    o' = exp(m - m') o + sum_j
//     exp(s_j - m') v_j
//
// and at the end O = o / l, logsumexp = m + log(l). With sigmoid (Ramapuram 2024) or relu weights, o' = o +
// sum_j w(s_j) v_j.

#include "cpu/attention/dropout.h"
#include "cpu/attention/tile.h"

namespace attend::cpu {
namespace {

/// The accumulators of a block of queries.
template <typename Element>
struct ForwardBlock {
  Block block;
  Operand<Element>* query;
  Compute<Element>*sums, *maximum, *denominator;
  bool has_sums;  ///< whether the sums were initialised, by the first tile that is not empty
};

template <typename Element>
struct ForwardScratch {
  using T = Compute<Element>;
  ForwardBlock<Element> blocks[kMaxBlocksPerTask];
  T *scores, *factor;
  Operand<Element>*key, *value, *weights;  // copies in the layout that matrix products read
  uint8_t* allowed;
  int64_t bytes;  ///< the total size of the arrays

  ForwardScratch(const ForwardArgs& args, void* buffer) {
    ScratchAllocator allocator(buffer);
    for (int64_t n = 0; n < args.blocks_per_task; ++n) {
      blocks[n].query = allocator.take<Operand<Element>>(query_size<Element>(args.d));
      blocks[n].sums = allocator.take<T>(kBlockQueries * padded<T>(args.d_v));
      blocks[n].maximum = allocator.take<T>(kBlockQueries);
      blocks[n].denominator = allocator.take<T>(kBlockQueries);
    }
    scores = allocator.take<T>(kTileKeys * kBlockQueries);
    key = allocator.take<Operand<Element>>(kTileKeys * row_operands<Element>(args.d));
    value = allocator.take<Operand<Element>>(operands<Element>(kTileKeys) * padded<T>(args.d_v));
    weights = allocator.take<Operand<Element>>(kTileCopy<Element>);
    factor = allocator.take<T>(kBlockQueries);
    allowed = allocator.take<uint8_t>(args.mask != nullptr ? kTileKeys * kBlockQueries : 0);
    bytes = allocator.used();
  }
};

/// Returns the maximum of `keys` vectors of scores, lane by lane.
template <typename T>
Vec<T> largest_score(const T* scores, int64_t keys) {
  Vec<T> most[4] = {broadcast(-kInfinity<T>), broadcast(-kInfinity<T>), broadcast(-kInfinity<T>),
                    broadcast(-kInfinity<T>)};
  int64_t j = 0;
  for (; j + 4 <= keys; j += 4) {
    for (int n = 0; n < 4; ++n) most[n] = larger<T>(load(scores + (j + n) * kBlockQueries), most[n]);
  }
  for (; j < keys; ++j) most[0] = larger<T>(load(scores + j * kBlockQueries), most[0]);
  return larger<T>(larger<T>(most[0], most[1]), larger<T>(most[2], most[3]));
}

/// Replaces `keys` vectors of scores by exp(score - maximum), and returns the sum of the new vectors.
template <typename T>
Vec<T> exponentiate(T* scores, int64_t keys, Vec<T> maximum) {
  Vec<T> sums[2] = {};
  int64_t j = 0;
  for (; j + 2 <= keys; j += 2) {
    for (int n = 0; n < 2; ++n) {
      T* place = scores + (j + n) * kBlockQueries;
      const auto weight = exp_without_overflow(load(place) - maximum);
      sums[n] += weight;
      store(place, weight);
    }
  }
  if (j < keys) {
    const auto weight = exp_without_overflow(load(scores + j * kBlockQueries) - maximum);
    sums[0] += weight;
    store(scores + j * kBlockQueries, weight);
  }
  return sums[0] + sums[1];
}

/// Computes m' = max(m, max_j s_j), l' = exp(m - m') l + sum_j exp(s_j - m') and factor = exp(m - m').
template <typename T>
void online_softmax(T* scores, int64_t rows, int64_t keys, T* maximum, T* denominator, T* factor) {
  for (int64_t i = 0; i < rows; i += kLanes<T>) {
    const auto before = load(maximum + i);
    const auto now = larger<T>(largest_score(scores + i, keys), before);
    const auto finite = now == -kInfinity<T> ? Vec<T>{} : now;  // -inf: all keys so far are masked
    const auto shrink = exp_without_overflow(before - finite);
    const auto sum = exponentiate(scores + i, keys, finite);
    store(maximum + i, now);
    store(denominator + i, load(denominator + i) * shrink + sum);
    store(factor + i, shrink);
  }
}

/// Replaces scores by their sigmoid or relu weights.
template <typename T>
void apply_elementwise_weighting(KernelWeighting weighting, T* scores, int64_t rows, int64_t keys) {
  for (int64_t j = 0; j < keys; ++j) {
    for (int64_t i = 0; i < rows; i += kLanes<T>) {
      T* place = scores + j * kBlockQueries + i;
      const auto score = load(place);
      if (weighting == KernelWeighting::sigmoid) {
        store(place, 1 / (1 + exp(-score)));
      } else {
        store(place, score < 0 ? Vec<T>{} : score);
      }
    }
  }
}

/// Accumulates one tile of keys for one block of queries.
template <typename Element>
void forward_tile(const ForwardArgs& args, ForwardBlock<Element>& query_block, TileState state,
                  const KeyTile<Element>& tile, const ForwardScratch<Element>& scratch) {
  using T = Compute<Element>;
  const auto& block = query_block.block;
  const int64_t rows = padded<T>(block.rows), width = padded<T>(args.d_v);
  score_block<Element>(args, block, tile, query_block.query, scratch.scores);
  modify_scores(args, block, tile.key, tile.keys, scratch.scores);
  if (state == TileState::partial) {
    apply_mask(args, block, tile.key, tile.keys, scratch.scores, scratch.allowed);
  }
  if (args.weighting == KernelWeighting::softmax) {
    online_softmax(scratch.scores, rows, tile.keys, query_block.maximum, query_block.denominator,
                   scratch.factor);
  } else {
    apply_elementwise_weighting(args.weighting, scratch.scores, rows, tile.keys);
  }
  if (args.dropout_threshold > 0) drop(args, block, tile.key, tile.keys, scratch.scores);

  using F = Operand<Element>;
  const auto weights = along_keys<Element>(scratch.scores, rows, tile.keys, scratch.weights);
  const int64_t depth = operands<Element>(tile.keys);
  const Rows<T> sums{query_block.sums, width};
  if (!query_block.has_sums) {
    gemm<F, Update::set>(block.rows, width, depth, weights, tile.value, sums);
  } else if (args.weighting == KernelWeighting::softmax) {
    gemm<F, Update::scale_add>(block.rows, width, depth, weights, tile.value, sums, scratch.factor);
  } else {
    gemm<F, Update::add>(block.rows, width, depth, weights, tile.value, sums);
  }
  query_block.has_sums = true;
}

/// Computes the output and the logsumexp of a row from its sums.
template <typename Element>
void write_row(const ForwardArgs& args, int64_t b, int64_t h, int64_t i, const Compute<Element>* sums,
               Compute<Element> maximum, Compute<Element> denominator) {
  using T = Compute<Element>;
  const bool is_softmax = args.weighting == KernelWeighting::softmax;
  const T factor =
      (!is_softmax || denominator == 0 ? 1 : 1 / denominator) * static_cast<T>(args.dropout_scale);
  Element* output = row_of<Element>(args.output, b, h, i);
  for (int64_t d = 0; d < args.d_v; ++d) narrow(sums[d] * factor, output[d]);
  if (!is_softmax) return;
  const int64_t place = (b * args.heads + h) * args.queries + i;
  const T logarithm = static_cast<T>(__builtin_log(denominator));
  const T logsumexp = denominator == 0          ? -kInfinity<T>
                      : maximum == kInfinity<T> ? maximum
                                                : maximum + logarithm;
  static_cast<T*>(args.logsumexp)[place] = logsumexp;
  static_cast<T*>(args.logsumexp_low)[place] = denominator == 0 ? 0 : (maximum - logsumexp) + logarithm;
}

/// Writes the results of a block, or its accumulators if the keys are split.
template <typename Element>
void write_block(const ForwardArgs& args, const ForwardBlock<Element>& query_block, int64_t split) {
  using T = Compute<Element>;
  const auto& block = query_block.block;
  const int64_t width = padded<T>(args.d_v);
  for (int64_t n = 0; !query_block.has_sums && n < block.rows * width; ++n) query_block.sums[n] = 0;
  for_each_segment(args, block, [&](const Segment& segment) {
    for (int64_t n = 0; n < segment.queries; ++n) {
      const int64_t row = segment.offset + n, i = segment.query + n;
      const T* sums = query_block.sums + row * width;
      if (args.splits == 1) {
        write_row<Element>(args, block.batch, segment.head, i, sums, query_block.maximum[row],
                           query_block.denominator[row]);
        continue;
      }
      const int64_t place =
          ((split * args.batch + block.batch) * args.heads + segment.head) * args.queries + i;
      T* partial = static_cast<T*>(args.partials) + place * (args.d_v + 2);
      for (int64_t d = 0; d < args.d_v; ++d) partial[d] = sums[d];
      partial[args.d_v] = query_block.maximum[row];
      partial[args.d_v + 1] = query_block.denominator[row];
    }
  });
}

template <typename Element>
int64_t forward_scratch_bytes(const ForwardArgs& args) {
  return ForwardScratch<Element>(args, nullptr).bytes;
}

template <typename Element>
void begin_block(const ForwardArgs& args, const Block& block, ForwardBlock<Element>& query_block) {
  using T = Compute<Element>;
  query_block.block = block;
  query_block.has_sums = false;
  load_queries<Element>(args, block, query_block.query);
  for (int64_t i = 0; i < kBlockQueries; ++i) {
    query_block.maximum[i] = -kInfinity<T>;
    query_block.denominator[i] = 0;
  }
}

/// Prefetches part n of `parts` of the rows of the next tile. It is called between the blocks of the current
/// tile.
template <typename Element>
[[gnu::always_inline]] inline void prefetch_part(const ForwardArgs& args, const Block& block, Range next,
                                                 int64_t n, int64_t parts) {
  if (is_narrow<Compute<Element>>(block)) return;  // narrow_scores prefetches
  const int64_t end = smaller(next.begin + kTileKeys * (n + 1) / parts, next.end);
  for (int64_t key = next.begin + kTileKeys * n / parts; key < end; ++key) {
    prefetch_row(row_of<const Element>(args.key, block.batch, block.kv_head, key), args.d);
    prefetch_row(row_of<const Element>(args.value, block.batch, block.kv_head, key), args.d_v);
  }
}

/// Computes a task: a group of blocks of queries and the keys of one split.
template <typename Element>
void forward(const ForwardArgs& args, int64_t task, void* buffer) {
  ForwardScratch<Element> scratch(args, buffer);
  const int64_t split = task % args.splits, groups = groups_of_blocks(args);
  const int64_t head = task / args.splits / groups, batch = head / args.kv_heads;
  // The last blocks are computed first, since they have the most keys under a causal mask.
  const int64_t group = groups - 1 - task / args.splits % groups;
  Block blocks[kMaxBlocksPerTask];
  const int64_t count = blocks_at(args, batch, head % args.kv_heads, group, blocks);
  for (int64_t n = 0; n < count; ++n) begin_block<Element>(args, blocks[n], scratch.blocks[n]);
  const Range range = split_range(args, batch, split);
  for (int64_t key = range.begin; key < range.end; key += kTileKeys) {
    const int64_t keys = smaller(kTileKeys, range.end - key);
    TileState states[kMaxBlocksPerTask];
    if (!block_states(args, blocks, count, key, keys, states)) continue;
    const KeyTile<Element> tile{key,
                                keys,
                                load_along<Element>(blocks[0], args.key, key, keys, args.d, scratch.key),
                                load_over<Element>(blocks[0], args.value, key, keys, args.d_v, scratch.value),
                                {}};
    for (int64_t n = 0; n < count; ++n) {
      prefetch_part<Element>(args, blocks[n], {key + kTileKeys, range.end}, n, count);
      if (states[n] != TileState::empty) forward_tile(args, scratch.blocks[n], states[n], tile, scratch);
    }
  }
  for (int64_t n = 0; n < count; ++n) write_block<Element>(args, scratch.blocks[n], split);
}

/// Merges the partial sums of a row into those of the first split, in the order of the splits, and writes its
/// result.
template <typename Element>
void merge_splits(const ForwardArgs& args, int64_t row) {
  using T = Compute<Element>;
  const int64_t rows = args.batch * args.heads * args.queries, stride = args.d_v + 2;
  T* first = static_cast<T*>(args.partials) + row * stride;
  T maximum = -kInfinity<T>;
  for (int64_t split = 0; split < args.splits; ++split) {
    const T other = first[split * rows * stride + args.d_v];
    maximum = other > maximum ? other : maximum;
  }
  T denominator = 0;
  for (int64_t split = 0; split < args.splits; ++split) {
    const T* part = first + split * rows * stride;
    const bool is_softmax = args.weighting == KernelWeighting::softmax;
    const T shrink = !is_softmax                ? 1
                     : maximum == -kInfinity<T> ? 0
                                                : exp(broadcast(part[args.d_v] - maximum))[0];
    denominator += part[args.d_v + 1] * shrink;
    for (int64_t d = 0; d < args.d_v; ++d) first[d] = (split == 0 ? 0 : first[d]) + part[d] * shrink;
  }
  const int64_t i = row % args.queries, h = row / args.queries % args.heads;
  write_row<Element>(args, row / args.queries / args.heads, h, i, first, maximum, denominator);
}

}  // namespace
}  // namespace attend::cpu
