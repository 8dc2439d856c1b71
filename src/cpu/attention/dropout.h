#pragma once

// Dropout by Philox4x32-7 (Salmon 2011) for vectors of queries, with the same bits as core/philox.h. A weight
// is kept if its 16 random bits, as an integer, are at least the threshold.

#include "cpu/attention/tile.h"

namespace attend::cpu {
namespace {

/// 32-bit words in the low halves of 64-bit lanes; the upper halves are ignored.
typedef uint64_t Words __attribute__((vector_size(kVectorBytes)));
constexpr int64_t kWordLanes = kVectorBytes / 8;

/// Returns the 64-bit products of the low halves of the lanes and `factor`.
inline Words multiply_low(Words a, uint32_t factor) {
  const Words b = Words{} + factor;
#if defined(__AVX512F__)
  return (Words)_mm512_maskz_mul_epu32(0xff, (__m512i)a, (__m512i)b);  // _mm512_mul_epu32 warns with GCC 12
#elif defined(__AVX2__)
  return (Words)_mm256_mul_epu32((__m256i)a, (__m256i)b);
#else
  return (a & 0xffffffff) * b;
#endif
}

inline void philox(uint64_t seed, Words words[4]) {
  auto key0 = static_cast<uint32_t>(seed), key1 = static_cast<uint32_t>(seed >> 32);
#pragma GCC unroll 7
  for (int round = 0; round < 7; ++round) {
    const Words product0 = multiply_low(words[0], 0xD2511F53), product1 = multiply_low(words[2], 0xCD9E8D57);
    words[0] = (product1 >> 32) ^ words[1] ^ key0;
    words[1] = product1;
    words[2] = (product0 >> 32) ^ words[3] ^ key1;
    words[3] = product0;
    key0 += 0x9E3779B9;
    key1 += 0xBB67AE85;
  }
}

/// Returns words of the width of the lanes of T. For double these are one vector of words; for float, the low
/// halves of the first vector become the even lanes, and those of the second vector the odd lanes.
template <typename T>
inline VecBits<T> interleaved_words(const Words* even_and_odd) {
  if constexpr (sizeof(T) == 8) {
    return (VecBits<T>)even_and_odd[0];
  } else {
    return (VecBits<T>)((even_and_odd[0] & 0xffffffff) | (even_and_odd[1] << 32));
  }
}

/// The number of vectors of words that belong to a vector of T.
template <typename T>
constexpr int64_t kWordVectors = 8 / sizeof(T);

/// The head and the query of each row of a block, as words of the Philox counter.
template <typename T>
struct RowCounters {
  Words heads[kBlockQueries / kLanes<T>][kWordVectors<T>],
      queries[kBlockQueries / kLanes<T>][kWordVectors<T>];

  RowCounters(const AttentionArgs& args, const Block& block) : heads{}, queries{} {
    for_each_segment(args, block, [&](const Segment& segment) {
      for (int64_t n = 0; n < segment.queries; ++n) {
        const int64_t row = segment.offset + n, vector = row / kLanes<T>, lane = row % kLanes<T>;
        const int64_t part = lane % kWordVectors<T>, place = lane / kWordVectors<T>;
        heads[vector][part][place] = static_cast<uint32_t>(segment.head);
        queries[vector][part][place] = static_cast<uint32_t>(segment.query + n);
      }
    });
  }
};

/// Calls action(index, is_kept) for each vector of weights in the tile, where `index` is that of its first
/// weight. `key` must be a multiple of 8, the number of keys that share a Philox counter.
template <typename T, typename Action>
void for_each_drop(const AttentionArgs& args, const Block& block, int64_t key, int64_t keys, Action action) {
  static_assert(kTileKeys % 8 == 0);
  const auto threshold = static_cast<typename VecOf<T>::Bits>(args.dropout_threshold);
  const RowCounters<T> rows(args, block);
  for (int64_t i = 0; i < block.rows; i += kLanes<T>) {
    for (int64_t first = 0; first < keys; first += 8) {
      Words words[4][kWordVectors<T>];
      for (int64_t part = 0; part < kWordVectors<T>; ++part) {
        Words counter[4] = {Words{} + static_cast<uint64_t>((key + first) / 8),
                            rows.queries[i / kLanes<T>][part], rows.heads[i / kLanes<T>][part],
                            Words{} + static_cast<uint64_t>(block.batch)};
        philox(args.dropout_seed, counter);
        for (int n = 0; n < 4; ++n) words[n][part] = counter[n];
      }
      for (int64_t n = 0; n < smaller(8, keys - first); ++n) {
        const auto word = interleaved_words<T>(words[n / 2]);
        const auto random_bits = (n % 2 == 0 ? word : word >> 16) & 0xffff;
        action((first + n) * kBlockQueries + i, random_bits >= threshold);
      }
    }
  }
}

/// Sets the dropped weights of a tile to 0.
template <typename T>
void drop(const AttentionArgs& args, const Block& block, int64_t key, int64_t keys, T* weights) {
  for_each_drop<T>(args, block, key, keys, [&](int64_t place, VecBits<T> is_kept) {
    store(weights + place, is_kept ? load(weights + place) : Vec<T>{});
  });
}

/// Computes the dropout factors of the weights of a tile, 0 or 1 / (1 - p).
template <typename T>
void dropout_factors(const AttentionArgs& args, const Block& block, int64_t key, int64_t keys, T* factors) {
  const auto kept = broadcast(static_cast<T>(args.dropout_scale));
  for_each_drop<T>(args, block, key, keys, [&](int64_t place, VecBits<T> is_kept) {
    store(factors + place, is_kept ? kept : Vec<T>{});
  });
}

}  // namespace
}  // namespace attend::cpu
