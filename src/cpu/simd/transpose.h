#pragma once

// Transposition of matrices, one square of vectors at a time.

#include "cpu/simd/elements.h"
#include "cpu/simd/vec.h"

namespace attend::cpu {
namespace {

/// Transposes kLanes vectors in place. In each of log2(kLanes) rounds, row n is interleaved with row n +
/// kLanes / 2.
template <typename T>
[[gnu::always_inline]] inline void transpose_square(Vec<T>* rows) {
  constexpr int64_t W = kLanes<T>;
#pragma GCC unroll 4
  for (int64_t step = 1; step < W; step *= 2) {
    Vec<T> mixed[W];
#pragma GCC unroll 8
    for (int64_t n = 0; n < W / 2; ++n) {
      mixed[2 * n] = interleave<T, false>(rows[n], rows[n + W / 2]);
      mixed[2 * n + 1] = interleave<T, true>(rows[n], rows[n + W / 2]);
    }
#pragma GCC unroll 16
    for (int64_t n = 0; n < W; ++n) rows[n] = mixed[n];
  }
}

/// Loads `count` elements, at most a vector, and converts them to the compute type; the other lanes are
/// zeros.
template <typename Element>
inline Vec<Compute<Element>> load_widened(const Element* from, int64_t count) {
  using T = Compute<Element>;
  if constexpr (sizeof(Element) == sizeof(T)) {
    if (count >= kLanes<T>) return load(from);
  }
  Vec<T> result = {};
  for (int64_t lane = 0; lane < smaller(count, kLanes<T>); ++lane) result[lane] = widen(from[lane]);
  return result;
}

/// Computes to [columns, to_stride] = factor from^T, where `from` is [rows, columns].
template <typename Element>
void transpose_rows(const Element* from, int64_t from_stride, int64_t rows, int64_t columns,
                    Compute<Element> factor, Compute<Element>* to, int64_t to_stride) {
  using T = Compute<Element>;
  constexpr int64_t W = kLanes<T>;
  int64_t row = 0;
  for (; row + W <= rows; row += W) {
    for (int64_t column = 0; column < columns; column += W) {
      Vec<T> square[W];
      for (int64_t n = 0; n < W; ++n) {
        square[n] = load_widened(from + (row + n) * from_stride + column, columns - column) * factor;
      }
      transpose_square<T>(square);
      for (int64_t n = 0; n < smaller(W, columns - column); ++n) {
        store(to + (column + n) * to_stride + row, square[n]);
      }
    }
  }
  for (; row < rows; ++row) {
    for (int64_t column = 0; column < columns; ++column) {
      to[column * to_stride + row] = widen(from[row * from_stride + column]) * factor;
    }
  }
}

}  // namespace
}  // namespace attend::cpu
