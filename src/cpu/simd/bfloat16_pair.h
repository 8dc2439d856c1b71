#pragma once

// Pairs of bfloat16, for the instruction that multiplies the pairs of two vectors element by element and adds
// both products of a pair to a float32.

#if defined(__AVX512BF16__)

#include <immintrin.h>

#include "cpu/simd/elements.h"
#include "cpu/simd/transpose.h"

namespace attend::cpu {
namespace {

/// One factor of each of two consecutive terms of a dot product.
struct [[gnu::may_alias]] BFloat16Pair {
  BFloat16 first, second;
};

template <>
struct VecOf<BFloat16Pair> {
  using Bits = int32_t;
  typedef int32_t type __attribute__((vector_size(kVectorBytes)));
  typedef int32_t unaligned __attribute__((vector_size(kVectorBytes), aligned(2), may_alias));
  typedef int32_t bits __attribute__((vector_size(kVectorBytes)));
};
template <>
struct SumOf<BFloat16Pair> {
  using type = float;
};

using PairVec = Vec<BFloat16Pair>;
constexpr int64_t kPairLanes = kLanes<BFloat16Pair>;

inline PairVec broadcast(BFloat16Pair pair) { return __builtin_bit_cast(int32_t, pair) - PairVec{}; }

template <>
inline void add_product<BFloat16Pair>(Vec<float>& sum, PairVec a, PairVec b) {
#if defined(__clang__) && __clang_major__ < 17  // which crashes on conversions to __m512bh
  asm("vdpbf16ps %2, %1, %0" : "+v"(sum) : "v"(a), "v"(b));
#else
  sum = _mm512_dpbf16_ps(sum, (__m512bh)a, (__m512bh)b);
#endif
}

/// Rounds first[0], first[1], ..., second[0], ... to the nearest bfloat16; consecutive elements form the
/// pairs.
inline PairVec round_to_pairs(Vec<float> first, Vec<float> second) {
#if defined(__clang__) && __clang_major__ < 17
  PairVec pairs;
  asm("vcvtne2ps2bf16 %2, %1, %0" : "=v"(pairs) : "v"(second), "v"(first));
  return pairs;
#else
  return (PairVec)_mm512_cvtne2ps_pbh(second, first);
#endif
}

/// Returns the pairs (first[n], second[n]), rounded to the nearest bfloat16.
inline PairVec round_to_pairs_across(Vec<float> first, Vec<float> second) {
  PairVec indices;  // two indices of 16 bits in each lane
  for (int32_t lane = 0; lane < kPairLanes; ++lane) indices[lane] = lane | (lane + 16) << 16;
  return (PairVec)_mm512_permutexvar_epi16((__m512i)indices, (__m512i)round_to_pairs(first, second));
}

/// Loads a vector of pairs from a row with `columns` elements left; missing elements are zeros.
inline PairVec load_pairs(const BFloat16* from, int64_t columns) {
  if (columns >= 2 * kPairLanes) return load(reinterpret_cast<const BFloat16Pair*>(from));
  BFloat16Pair pairs[kPairLanes] = {};
  for (int64_t column = 0; column < columns; ++column) {
    (column % 2 == 0 ? pairs[column / 2].first : pairs[column / 2].second) = from[column];
  }
  return load(pairs);
}

/// Copies rows as pairs, with zeros after their last column.
inline void copy_pairs(const BFloat16* from, int64_t from_stride, int64_t rows, int64_t columns,
                       BFloat16Pair* to, int64_t to_stride) {
  for (int64_t row = 0; row < rows; ++row) {
    for (int64_t pair = 0; pair < to_stride; pair += kPairLanes) {
      store(to + row * to_stride + pair, load_pairs(from + row * from_stride + 2 * pair, columns - 2 * pair));
    }
  }
}

/// Writes rows 2 n and 2 n + 1 as row n of pairs, with zeros after the last column and the last row.
/// row_at(row) returns the address of a row.
template <typename RowAt>
void interleave_rows(int64_t rows, int64_t columns, RowAt row_at, BFloat16Pair* to, int64_t to_stride) {
  for (int64_t row = 0; row < rows; row += 2, to += to_stride) {
    const BFloat16* first = row_at(row);
    if (row + 1 < rows) {
      const BFloat16* second = row_at(row + 1);
      for (int64_t column = 0; column < columns; ++column) to[column] = {first[column], second[column]};
    } else {
      for (int64_t column = 0; column < columns; ++column) to[column] = {first[column], {}};
    }
    for (int64_t column = columns; column < to_stride; ++column) to[column] = {};
  }
}

/// Writes the pairs of each row of `from` [rows, columns] as a column of `to` [ceil(columns / 2), to_stride].
inline void transpose_pairs(const BFloat16* from, int64_t from_stride, int64_t rows, int64_t columns,
                            BFloat16Pair* to, int64_t to_stride) {
  for (int64_t row = 0; row < rows; row += kPairLanes) {
    const int64_t height = smaller(kPairLanes, rows - row);
    for (int64_t column = 0; column < columns; column += 2 * kPairLanes) {
      PairVec square[kPairLanes] = {};
      for (int64_t n = 0; n < height; ++n) {
        square[n] = load_pairs(from + (row + n) * from_stride + column, columns - column);
      }
      transpose_square<BFloat16Pair>(square);
      for (int64_t n = 0; n < smaller(kPairLanes, divide_up(columns - column, 2)); ++n) {
        __builtin_memcpy(to + (column / 2 + n) * to_stride + row, &square[n],
                         static_cast<uint64_t>(height) * sizeof(BFloat16Pair));
      }
    }
  }
}

}  // namespace
}  // namespace attend::cpu

#endif
