#pragma once

// Dropout by Philox4x32-7 (Salmon 2011), a vector of queries at a time; the same factors as in ../philox.h.

#include "attention_block.h"

namespace attend::cpu {
namespace {

/// Words as wide as the lanes of T, so that comparisons fit them; the upper half of a 64-bit lane is zero.
template <typename T>
struct Words {
  typedef uint32_t type __attribute__((vector_size(kLanes<T> * 4)));
  typedef uint64_t wide __attribute__((vector_size(kLanes<T> * 8)));
};

template <typename W, typename Wide>
inline void multiply(uint32_t factor, W value, W* high, W* low) {
  const auto product = __builtin_convertvector(value, Wide) * static_cast<uint64_t>(factor);
  *high = __builtin_convertvector(product >> 32, W);
  *low = __builtin_convertvector(product, W);
}

/// The random words of queries[lane] in heads[lane] and the four keys from 4 * counter on.
template <typename T>
inline void philox(uint64_t seed, uint32_t batch, const uint32_t* heads, const uint32_t* queries,
                   int64_t counter, typename Words<T>::type words[4]) {
  using W = typename Words<T>::type;
  using Wide = typename Words<T>::wide;
  words[0] = W{} + static_cast<uint32_t>(counter);
  __builtin_memcpy(&words[1], queries, sizeof(W));
  __builtin_memcpy(&words[2], heads, sizeof(W));
  words[3] = W{} + batch;
  auto key0 = static_cast<uint32_t>(seed), key1 = static_cast<uint32_t>(seed >> 32);
  for (int round = 0; round < 7; ++round) {
    W high0, low0, high1, low1;
    multiply<W, Wide>(0xD2511F53, words[0], &high0, &low0);
    multiply<W, Wide>(0xCD9E8D57, words[2], &high1, &low1);
    words[0] = high1 ^ words[1] ^ key0;
    words[1] = low1;
    words[2] = high0 ^ words[3] ^ key1;
    words[3] = low0;
    key0 += 0x9E3779B9;
    key1 += 0xBB67AE85;
  }
}

/// What the weights of a tile are multiplied by: 0 or 1 / (1 - p).
template <typename T>
void dropout_factors(const AttentionArgs& args, const Block& block, int64_t key, int64_t keys, T* factors) {
  const auto threshold = static_cast<uint64_t>(args.dropout_p * 4294967296.0);
  const auto least = static_cast<uint32_t>(threshold > 0xffffffffU ? 0xffffffffU : threshold);
  const T kept = args.dropout_p < 1 ? static_cast<T>(static_cast<float>(1 / (1 - args.dropout_p))) : 0;
  uint32_t heads[kBlockQueries] = {}, queries[kBlockQueries] = {};
  for_each_segment(args, block, [&](const Segment& segment) {
    for (int64_t n = 0; n < segment.queries; ++n) {
      heads[segment.offset + n] = static_cast<uint32_t>(segment.head);
      queries[segment.offset + n] = static_cast<uint32_t>(segment.query + n);
    }
  });
  for (int64_t i = 0; i < block.rows; i += kLanes<T>) {
    for (int64_t counter = key / 4; counter * 4 < key + keys; ++counter) {
      typename Words<T>::type words[4];
      philox<T>(args.dropout_seed, static_cast<uint32_t>(block.batch), heads + i, queries + i, counter,
                words);
      for (int64_t n = 0; n < 4; ++n) {
        const int64_t j = counter * 4 + n - key;
        if (j < 0 || j >= keys) continue;
        const auto is_kept = __builtin_convertvector(words[n] >= least, VecBits<T>);
        store(factors + j * kBlockQueries + i, is_kept ? all(kept) : Vec<T>{});
      }
    }
  }
}

}  // namespace
}  // namespace attend::cpu
