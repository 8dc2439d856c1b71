#pragma once

// The forward pass: online softmax over tiles of keys (Milakov & Gimelshein 2018; Dao 2023).

#include "attention_block.h"
#include "dropout.h"

namespace attend::cpu {
namespace {

template <typename Element>
struct ForwardScratch {
  using T = Compute<Element>;
  T *query, *scores, *kept, *key, *value, *sums, *maximum, *denominator, *factor;
  uint8_t* allowed;
  int64_t bytes;

  ForwardScratch(const ForwardArgs& args, void* buffer) {
    Scratch scratch(buffer);
    query = scratch.take<T>(args.d * kBlockQueries);
    scores = scratch.take<T>(kTileKeys * kBlockQueries);
    kept = scratch.take<T>(args.dropout_p > 0 ? kTileKeys * kBlockQueries : 0);
    key = scratch.take<T>(kTileKeys * padded<T>(args.d));
    value = scratch.take<T>(kTileKeys * padded<T>(args.d_v));
    sums = scratch.take<T>(kBlockQueries * padded<T>(args.d_v));
    maximum = scratch.take<T>(kBlockQueries);
    denominator = scratch.take<T>(kBlockQueries);
    factor = scratch.take<T>(kBlockQueries);
    allowed = scratch.take<uint8_t>(kTileKeys * kBlockQueries);
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
      const auto weight = exp(load(place) - maximum);
      sums[n] += weight;
      store(place, weight);
    }
  }
  if (j < keys) {
    const auto weight = exp(load(scores + j * kBlockQueries) - maximum);
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
    const auto shrink = exp(before - finite);
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

template <typename T>
void multiply_scores(T* scores, const T* factors, int64_t rows, int64_t keys) {
  for (int64_t j = 0; j < keys; ++j) {
    for (int64_t i = 0; i < rows; i += kLanes<T>) {
      const int64_t place = j * kBlockQueries + i;
      store(scores + place, load(scores + place) * load(factors + place));
    }
  }
}

/// One tile of keys for one block of queries.
template <typename Element>
void forward_tile(const ForwardArgs& args, const Block& block, int64_t key, int64_t keys, TileState state,
                  const ForwardScratch<Element>& own) {
  using T = Compute<Element>;
  const int64_t rows = padded<T>(block.rows), width = padded<T>(args.d_v);
  const auto key_rows = rows_of(row_of<const Element>(args.key, block.batch, block.kv_head, key),
                                args.key.row_stride, keys, args.d, own.key);
  gemm_dots<T>(keys, rows, args.d, {key_rows.data, key_rows.stride, 1}, {own.query, kBlockQueries},
               {own.scores, kBlockQueries});
  modify_scores(args, block, key, keys, own.scores);
  if (state == TileState::partial) hide_masked(args, block, key, keys, own.scores, own.allowed);

  if (args.weighting == KernelWeighting::softmax) {
    online_softmax(own.scores, rows, keys, own.maximum, own.denominator, own.factor);
  } else {
    weigh_alone(args.weighting, own.scores, rows, keys);
  }
  if (args.dropout_p > 0) {
    dropout_factors(args, block, key, keys, own.kept);
    multiply_scores(own.scores, own.kept, rows, keys);
  }

  const auto value_rows = rows_of(row_of<const Element>(args.value, block.batch, block.kv_head, key),
                                  args.value.row_stride, keys, args.d_v, own.value);
  const Strided<T> weights{own.scores, 1, kBlockQueries};
  gemm<T, Update::scale_add>(block.rows, width, keys, weights, value_rows, {own.sums, width}, own.factor);
}

/// Output and logsumexp of a row from its sums.
template <typename Element>
void write_row(const ForwardArgs& args, int64_t b, int64_t h, int64_t i, const Compute<Element>* sums,
               Compute<Element> maximum, Compute<Element> denominator) {
  using T = Compute<Element>;
  const bool is_softmax = args.weighting == KernelWeighting::softmax;
  const T divisor = !is_softmax || denominator == 0 ? 1 : denominator;
  Element* output = row_of<Element>(args.output, b, h, i);
  for (int64_t d = 0; d < args.d_v; ++d) narrow(sums[d] / divisor, output[d]);
  if (!is_softmax) return;
  const int64_t place = (b * args.heads + h) * args.queries + i;
  const T logarithm = static_cast<T>(__builtin_log(denominator));
  const T logsumexp = denominator == 0 ? -kInfinity<T> : maximum + logarithm;
  static_cast<T*>(args.logsumexp)[place] = logsumexp;
  static_cast<T*>(args.logsumexp_rest)[place] = denominator == 0 ? 0 : (maximum - logsumexp) + logarithm;
}

template <typename Element>
void write_block(const ForwardArgs& args, const Block& block, int64_t split,
                 const ForwardScratch<Element>& own) {
  using T = Compute<Element>;
  const int64_t width = padded<T>(args.d_v);
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
void forward(const ForwardArgs& args, int64_t task, void* scratch) {
  using T = Compute<Element>;
  const ForwardScratch<Element> own(args, scratch);
  const int64_t split = task % args.splits, blocks = blocks_of(args);
  const int64_t head = task / args.splits / blocks;
  // The last blocks first: under a causal mask they have the most to do.
  const int64_t index = blocks - 1 - task / args.splits % blocks;
  const Block block = block_at(args, head / args.kv_heads, head % args.kv_heads, index);

  transpose_block<Element>(args, block, args.query, args.d, static_cast<T>(args.scale), own.query);
  const int64_t width = padded<T>(args.d_v);
  for (int64_t n = 0; n < block.rows * width; ++n) own.sums[n] = 0;
  for (int64_t i = 0; i < kBlockQueries; ++i) {
    own.maximum[i] = -kInfinity<T>;
    own.denominator[i] = 0;
    own.factor[i] = 1;
  }
  const Range range = split_range(args, block.batch, split);
  for (int64_t key = range.begin; key < range.end; key += kTileKeys) {
    const int64_t keys = smaller(kTileKeys, range.end - key);
    const auto state = state_of(args, block, key, keys);
    if (state != TileState::empty) forward_tile<Element>(args, block, key, keys, state, own);
  }
  write_block<Element>(args, block, split, own);
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
