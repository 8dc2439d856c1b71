#pragma once

// The forward pass: online softmax over tiles of keys (Milakov & Gimelshein 2018; Dao 2023).

#include "cpu/attention/dropout.h"
#include "cpu/attention/tile.h"

namespace attend::cpu {
namespace {

/// What a block of queries keeps while it goes over the keys.
template <typename Element>
struct ForwardBlock {
  Block block;
  Operand<Element>* query;
  Compute<Element>*sums, *maximum, *denominator;
  bool has_sums;  ///< false until the first tile that is not empty
};

template <typename Element>
struct ForwardScratch {
  using T = Compute<Element>;
  ForwardBlock<Element> blocks[kMostBlocksTogether];
  T *scores, *factor;
  Operand<Element>*key, *value, *weights;  // copies as the products read them
  uint8_t* allowed;
  int64_t bytes;

  ForwardScratch(const ForwardArgs& args, void* buffer) {
    Scratch scratch(buffer);
    for (int64_t n = 0; n < args.blocks_together; ++n) {
      blocks[n].query = scratch.take<Operand<Element>>(query_size<Element>(args.d));
      blocks[n].sums = scratch.take<T>(kBlockQueries * padded<T>(args.d_v));
      blocks[n].maximum = scratch.take<T>(kBlockQueries);
      blocks[n].denominator = scratch.take<T>(kBlockQueries);
    }
    scores = scratch.take<T>(kTileKeys * kBlockQueries);
    key = scratch.take<Operand<Element>>(kTileKeys * row_operands<Element>(args.d));
    value = scratch.take<Operand<Element>>(operands<Element>(kTileKeys) * padded<T>(args.d_v));
    weights = scratch.take<Operand<Element>>(kTileCopy<Element>);
    factor = scratch.take<T>(kBlockQueries);
    allowed = scratch.take<uint8_t>(args.mask != nullptr ? kTileKeys * kBlockQueries : 0);
    bytes = scratch.used();
  }
};

/// The largest of a column of `keys` vectors.
template <typename T>
Vec<T> largest_score(const T* scores, int64_t keys) {
  Vec<T> most[4] = {all(-kInfinity<T>), all(-kInfinity<T>), all(-kInfinity<T>), all(-kInfinity<T>)};
  int64_t j = 0;
  for (; j + 4 <= keys; j += 4) {
    for (int n = 0; n < 4; ++n) most[n] = larger<T>(load(scores + (j + n) * kBlockQueries), most[n]);
  }
  for (; j < keys; ++j) most[0] = larger<T>(load(scores + j * kBlockQueries), most[0]);
  return larger<T>(larger<T>(most[0], most[1]), larger<T>(most[2], most[3]));
}

/// Turns a column of scores into exp(score - maximum) and returns their sum.
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

/// m' = max(m, max_j s_j), l' = exp(m - m') l + sum_j exp(s_j - m'); factor = exp(m - m').
template <typename T>
void online_softmax(T* scores, int64_t rows, int64_t keys, T* maximum, T* denominator, T* factor) {
  for (int64_t i = 0; i < rows; i += kLanes<T>) {
    const auto before = load(maximum + i);
    const auto now = larger<T>(largest_score(scores + i, keys), before);
    const auto finite = now == -kInfinity<T> ? Vec<T>{} : now;  // nothing was visible so far
    const auto shrink = exp_without_overflow(before - finite);
    const auto sum = exponentiate(scores + i, keys, finite);
    store(maximum + i, now);
    store(denominator + i, load(denominator + i) * shrink + sum);
    store(factor + i, shrink);
  }
}

/// Sigmoid and relu weights, each for itself.
template <typename T>
void weigh_alone(KernelWeighting weighting, T* scores, int64_t rows, int64_t keys) {
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

/// One tile of keys for one block of queries.
template <typename Element>
void forward_tile(const ForwardArgs& args, ForwardBlock<Element>& own, TileState state,
                  const KeyTile<Element>& tile, const ForwardScratch<Element>& scratch) {
  using T = Compute<Element>;
  const auto& block = own.block;
  const int64_t rows = padded<T>(block.rows), width = padded<T>(args.d_v);
  score_block<Element>(args, block, tile, own.query, scratch.scores);
  modify_scores(args, block, tile.key, tile.keys, scratch.scores);
  if (state == TileState::partial) {
    hide_masked(args, block, tile.key, tile.keys, scratch.scores, scratch.allowed);
  }
  if (args.weighting == KernelWeighting::softmax) {
    online_softmax(scratch.scores, rows, tile.keys, own.maximum, own.denominator, scratch.factor);
  } else {
    weigh_alone(args.weighting, scratch.scores, rows, tile.keys);
  }
  if (args.dropout_threshold > 0) drop(args, block, tile.key, tile.keys, scratch.scores);

  using F = Operand<Element>;
  const auto weights = along_keys<Element>(scratch.scores, rows, tile.keys, scratch.weights);
  const int64_t depth = operands<Element>(tile.keys);
  const Rows<T> sums{own.sums, width};
  if (!own.has_sums) {
    gemm<F, Update::set>(block.rows, width, depth, weights, tile.value, sums);
  } else if (args.weighting == KernelWeighting::softmax) {
    gemm<F, Update::scale_add>(block.rows, width, depth, weights, tile.value, sums, scratch.factor);
  } else {
    gemm<F, Update::add>(block.rows, width, depth, weights, tile.value, sums);
  }
  own.has_sums = true;
}

/// Output and logsumexp of a row from its sums.
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
  const T logsumexp = denominator == 0 ? -kInfinity<T> : maximum + logarithm;
  static_cast<T*>(args.logsumexp)[place] = logsumexp;
  static_cast<T*>(args.logsumexp_rest)[place] = denominator == 0 ? 0 : (maximum - logsumexp) + logarithm;
}

template <typename Element>
void write_block(const ForwardArgs& args, const ForwardBlock<Element>& own, int64_t split) {
  using T = Compute<Element>;
  const auto& block = own.block;
  const int64_t width = padded<T>(args.d_v);
  for (int64_t n = 0; !own.has_sums && n < block.rows * width; ++n) own.sums[n] = 0;
  for_each_segment(args, block, [&](const Segment& segment) {
    for (int64_t n = 0; n < segment.queries; ++n) {
      const int64_t row = segment.offset + n, i = segment.query + n;
      const T* sums = own.sums + row * width;
      if (args.splits == 1) {
        write_row<Element>(args, block.batch, segment.head, i, sums, own.maximum[row], own.denominator[row]);
        continue;
      }
      const int64_t place =
          ((split * args.batch + block.batch) * args.heads + segment.head) * args.queries + i;
      T* partial = static_cast<T*>(args.partial) + place * (args.d_v + 2);
      for (int64_t d = 0; d < args.d_v; ++d) partial[d] = sums[d];
      partial[args.d_v] = own.maximum[row];
      partial[args.d_v + 1] = own.denominator[row];
    }
  });
}

template <typename Element>
int64_t forward_scratch(const ForwardArgs& args) {
  return ForwardScratch<Element>(args, nullptr).bytes;
}

template <typename Element>
void begin_block(const ForwardArgs& args, const Block& block, ForwardBlock<Element>& own) {
  using T = Compute<Element>;
  own.block = block;
  own.has_sums = false;
  load_queries<Element>(args, block, own.query);
  for (int64_t i = 0; i < kBlockQueries; ++i) {
    own.maximum[i] = -kInfinity<T>;
    own.denominator[i] = 0;
  }
}

/// Asks for part n of `parts` of the next tile's rows: they come while the blocks work on this tile.
template <typename Element>
[[gnu::always_inline]] inline void prefetch_part(const ForwardArgs& args, const Block& block, Range next,
                                                 int64_t n, int64_t parts) {
  if (is_narrow<Compute<Element>>(block)) return;  // few_scores asks itself
  const int64_t end = smaller(next.begin + kTileKeys * (n + 1) / parts, next.end);
  for (int64_t key = next.begin + kTileKeys * n / parts; key < end; ++key) {
    prefetch_row(row_of<const Element>(args.key, block.batch, block.kv_head, key), args.d);
    prefetch_row(row_of<const Element>(args.value, block.batch, block.kv_head, key), args.d_v);
  }
}

template <typename Element>
void forward(const ForwardArgs& args, int64_t task, void* buffer) {
  ForwardScratch<Element> scratch(args, buffer);
  const int64_t split = task % args.splits, groups = groups_of_blocks(args);
  const int64_t head = task / args.splits / groups, batch = head / args.kv_heads;
  // The last blocks first: under a causal mask they have the most to do.
  const int64_t group = groups - 1 - task / args.splits % groups;
  Block blocks[kMostBlocksTogether];
  const int64_t count = blocks_at(args, batch, head % args.kv_heads, group, blocks);
  for (int64_t n = 0; n < count; ++n) begin_block<Element>(args, blocks[n], scratch.blocks[n]);
  const Range range = split_range(args, batch, split);
  for (int64_t key = range.begin; key < range.end; key += kTileKeys) {
    const int64_t keys = smaller(kTileKeys, range.end - key);
    TileState states[kMostBlocksTogether];
    if (!find_states(args, blocks, count, key, keys, states)) continue;
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

/// The splits of a row, merged in their order.
template <typename Element>
void join(const ForwardArgs& args, int64_t row) {
  using T = Compute<Element>;
  const int64_t rows = args.batch * args.heads * args.queries, stride = args.d_v + 2;
  T* first = static_cast<T*>(args.partial) + row * stride;
  T maximum = -kInfinity<T>;
  for (int64_t split = 0; split < args.splits; ++split) {
    const T other = first[split * rows * stride + args.d_v];
    maximum = other > maximum ? other : maximum;
  }
  T denominator = 0;
  for (int64_t split = 0; split < args.splits; ++split) {
    const T* part = first + split * rows * stride;
    const bool is_softmax = args.weighting == KernelWeighting::softmax;
    const T shrink = !is_softmax ? 1 : maximum == -kInfinity<T> ? 0 : exp(all(part[args.d_v] - maximum))[0];
    denominator += part[args.d_v + 1] * shrink;
    for (int64_t d = 0; d < args.d_v; ++d) first[d] = (split == 0 ? 0 : first[d]) + part[d] * shrink;
  }
  const int64_t i = row % args.queries, h = row / args.queries % args.heads;
  write_row<Element>(args, row / args.queries / args.heads, h, i, first, maximum, denominator);
}

}  // namespace
}  // namespace attend::cpu
