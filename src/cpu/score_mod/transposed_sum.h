#pragma once

// Additions of a tile of scores, stored as [keys, queries], and a matrix stored as [queries, keys].

#include "cpu/mask/tiles.h"
#include "cpu/simd/transpose.h"

namespace attend::cpu {
namespace {

/// Calls on_square(i, j) for each whole square of vectors of a tile, and on_element(i, j) for each score
/// outside of these squares.
template <typename T, typename OnSquare, typename OnElement>
inline void for_each_square(const Tile& tile, OnSquare on_square, OnElement on_element) {
  constexpr int64_t W = kLanes<T>;
  for (int64_t i = 0; i < tile.queries; i += W) {
    for (int64_t j = 0; j < tile.keys; j += W) {
      if (i + W <= tile.queries && j + W <= tile.keys) {
        on_square(i, j);
        continue;
      }
      for (int64_t n = i; n < smaller(i + W, tile.queries); ++n) {
        for (int64_t m = j; m < smaller(j + W, tile.keys); ++m) on_element(n, m);
      }
    }
  }
}

/// Loads kLanes x kLanes elements of `from` and transposes them into `square`.
template <typename T>
inline void load_transposed(const T* from, int64_t stride, Vec<T>* square) {
  for (int64_t n = 0; n < kLanes<T>; ++n) square[n] = load(from + n * stride);
  transpose_square<T>(square);
}

/// Prefetches the rows of the next tile's square, which begins `columns` elements after this one. The
/// hardware does not prefetch rows that are far apart.
template <typename T>
inline void prefetch_next(const T* square, int64_t stride, int64_t columns) {
  for (int64_t n = 0; n < kLanes<T>; ++n) __builtin_prefetch(square + n * stride + columns, 0, 2);
}

/// Adds `square` to `to`, or, unless `adds`, copies it to `to`.
template <typename T, bool adds = true>
inline void store_square(T* to, int64_t stride, const Vec<T>* square) {
  for (int64_t n = 0; n < kLanes<T>; ++n) {
    store(to + n * stride, adds ? load(to + n * stride) + square[n] : square[n]);
  }
}

/// Computes scores += values^T.
template <typename T>
void add_transposed(const Tile& tile, const T* values, int64_t row_stride, T* scores, int64_t stride) {
  for_each_square<T>(
      tile,
      [=](int64_t i, int64_t j) {
        Vec<T> square[kLanes<T>];
        load_transposed(values + i * row_stride + j, row_stride, square);
        prefetch_next(values + i * row_stride + j, row_stride, tile.keys);
        store_square(scores + j * stride + i, stride, square);
      },
      [=](int64_t i, int64_t j) { scores[j * stride + i] += values[i * row_stride + j]; });
}

/// Computes sums += gradients^T, or, unless `adds`, sums = gradients^T.
template <typename T, bool adds>
void sum_transposed(const Tile& tile, const T* gradients, int64_t stride, T* sums, int64_t row_stride) {
  for_each_square<T>(
      tile,
      [=](int64_t i, int64_t j) {
        Vec<T> square[kLanes<T>];
        load_transposed(gradients + j * stride + i, stride, square);
        store_square<T, adds>(sums + i * row_stride + j, row_stride, square);
        if (adds) prefetch_next(sums + i * row_stride + j, row_stride, tile.keys);
      },
      [=](int64_t i, int64_t j) {
        T& sum = sums[i * row_stride + j];
        sum = adds ? sum + gradients[j * stride + i] : gradients[j * stride + i];
      });
}

}  // namespace
}  // namespace attend::cpu
