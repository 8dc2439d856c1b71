#pragma once

// Matrix products C = A B for small matrices. A is read element by element with any strides; B and C are
// accessed by vectors along their rows, which are padded to whole vectors. T is the type of the elements of A
// and B: numbers, or pairs of numbers, where the product of two pairs is the sum of the products of their
// elements.

#include "cpu/simd/vec.h"

namespace attend::cpu {
namespace {

// The number of rows of a register tile. With two vectors per row, the sums, a row of B and an element of A
// fit into the registers.
#if defined(__AVX512F__) || defined(__aarch64__)
constexpr int kTileRows = 12;
#else
constexpr int kTileRows = 6;
#endif

/// With at most this many rows, the time of a product is that of reading B, which is therefore read in wide
/// column strips.
constexpr int kMaxSmallRows = 4;

/// A matrix whose element (row, column) is data[row * row_stride + column * column_stride].
template <typename T>
struct Strided {
  const T* data;
  int64_t row_stride;
  int64_t column_stride;

  Strided from_row(int64_t row) const { return {data + row * row_stride, row_stride, column_stride}; }
};

/// A matrix whose rows are contiguous.
template <typename T>
struct Rows {
  T* data;
  int64_t stride;
};

enum class Update {
  set,        ///< C = A B
  add,        ///< C = C + A B
  scale_add,  ///< C = diag(factor) C + A B
};

/// Computes a register tile of C. All loops except the one over k are unrolled, so that the sums stay in
/// registers.
template <typename T, Update update, int kRows, int kVectors>
[[gnu::always_inline]] inline void gemm_tile(int64_t depth, Strided<T> a, Rows<const T> b, Rows<Sum<T>> c,
                                             const Sum<T>* factor) {
  constexpr int64_t W = kLanes<T>;
  Vec<Sum<T>> sums[kRows][kVectors];
#pragma GCC unroll 12
  for (int row = 0; row < kRows; ++row) {
#pragma GCC unroll 8
    for (int v = 0; v < kVectors; ++v) sums[row][v] = Vec<Sum<T>>{};
  }
  for (int64_t k = 0; k < depth; ++k) {
    Vec<T> b_row[kVectors];
#pragma GCC unroll 8
    for (int v = 0; v < kVectors; ++v) b_row[v] = load(b.data + k * b.stride + v * W);
    const T* a_column = a.data + k * a.column_stride;
#pragma GCC unroll 12
    for (int row = 0; row < kRows; ++row) {
      const auto element = broadcast(a_column[row * a.row_stride]);
#pragma GCC unroll 8
      for (int v = 0; v < kVectors; ++v) add_product<T>(sums[row][v], element, b_row[v]);
    }
  }
#pragma GCC unroll 12
  for (int row = 0; row < kRows; ++row) {
#pragma GCC unroll 8
    for (int v = 0; v < kVectors; ++v) {
      Sum<T>* place = c.data + row * c.stride + v * W;
      if constexpr (update == Update::set) store(place, sums[row][v]);
      if constexpr (update == Update::add) store(place, load(place) + sums[row][v]);
      if constexpr (update == Update::scale_add) store(place, load(place) * factor[row] + sums[row][v]);
    }
  }
}

/// Computes the last rows, which are fewer than those of a register tile.
template <typename T, Update update, int kRows, int kVectors>
inline void gemm_rest(int64_t rows, int64_t depth, Strided<T> a, Rows<const T> b, Rows<Sum<T>> c,
                      const Sum<T>* factor) {
  if constexpr (kRows > 0) {
    if (rows == kRows) return gemm_tile<T, update, kRows, kVectors>(depth, a, b, c, factor);
    gemm_rest<T, update, kRows - 1, kVectors>(rows, depth, a, b, c, factor);
  }
}

/// Computes a column strip of C that is kVectors vectors wide.
template <typename T, Update update, int kVectors>
inline void gemm_columns(int64_t rows, int64_t depth, Strided<T> a, Rows<const T> b, Rows<Sum<T>> c,
                         const Sum<T>* factor) {
  int64_t row = 0;
  for (; row + kTileRows <= rows; row += kTileRows) {
    gemm_tile<T, update, kTileRows, kVectors>(depth, a.from_row(row), b, {c.data + row * c.stride, c.stride},
                                              update == Update::scale_add ? factor + row : nullptr);
  }
  gemm_rest<T, update, kTileRows - 1, kVectors>(rows - row, depth, a.from_row(row), b,
                                                {c.data + row * c.stride, c.stride},
                                                update == Update::scale_add ? factor + row : nullptr);
}

/// Computes column strips of kVectors vectors for at most kMaxRows rows, and returns the first column that is
/// not computed.
template <typename T, Update update, int kMaxRows, int kVectors>
inline int64_t gemm_strips(int64_t rows, int64_t columns, int64_t depth, Strided<T> a, Rows<const T> b,
                           Rows<Sum<T>> c, const Sum<T>* factor) {
  constexpr int64_t kStrip = kVectors * kLanes<T>;
  int64_t column = 0;
  for (; column + kStrip <= columns; column += kStrip) {
    gemm_rest<T, update, kMaxRows, kVectors>(rows, depth, a, {b.data + column, b.stride},
                                             {c.data + column, c.stride}, factor);
  }
  return column;
}

/// Computes C [rows, columns] = A [rows, depth] B [depth, columns]; `columns` must be a multiple of the
/// vector length. Each element is summed in the order of k, for all sizes.
template <typename T, Update update>
inline void gemm(int64_t rows, int64_t columns, int64_t depth, Strided<T> a, Rows<const T> b, Rows<Sum<T>> c,
                 const Sum<T>* factor = nullptr) {
  constexpr int64_t W = kLanes<T>;
  constexpr int kWide = kTileRows / 3;  // the sums of kMaxSmallRows rows fit into the registers
  int64_t column = 0;
  if (rows <= kMaxSmallRows / 2) {
    column = gemm_strips<T, update, kMaxSmallRows / 2, 2 * kWide>(rows, columns, depth, a, b, c, factor);
  } else if (rows <= kMaxSmallRows) {
    column = gemm_strips<T, update, kMaxSmallRows, kWide>(rows, columns, depth, a, b, c, factor);
  }
  for (; column + 2 * W <= columns; column += 2 * W) {
    gemm_columns<T, update, 2>(rows, depth, a, {b.data + column, b.stride}, {c.data + column, c.stride},
                               factor);
  }
  if (column < columns) {
    gemm_columns<T, update, 1>(rows, depth, a, {b.data + column, b.stride}, {c.data + column, c.stride},
                               factor);
  }
}

/// Computes `dots` for kRows rows of B, with the sums of up to kMaxSmallRows rows in registers.
template <typename T, int kRows, typename Prefetch>
inline void dots_unrolled(int64_t rows, int64_t depth, Rows<const T> a, Rows<const T> b, Rows<Sum<T>> c,
                          Prefetch prefetch) {
  constexpr int kRowsOfA = kMaxSmallRows / kRows;
  for (int64_t row = 0; row < rows; row += kRowsOfA) {
    const int64_t last = rows - 1 - row;
    for (int n = 0; n < kRowsOfA && n <= last; ++n) prefetch(row + n);
    Vec<Sum<T>> sums[kMaxSmallRows] = {};
#pragma GCC unroll 4
    for (int m = 0; m < kRowsOfA; ++m) {
      const T* a_row = a.data + (row + (m < last ? m : last)) * a.stride;
      for (int64_t k = 0; k < depth; k += kLanes<T>) {
        const auto element = load(a_row + k);
#pragma GCC unroll 4
        for (int n = 0; n < kRows; ++n)
          add_product<T>(sums[m * kRows + n], element, load(b.data + n * b.stride + k));
      }
    }
    const auto all_sums = four_sums<Sum<T>>(sums[0], sums[1], sums[2], sums[3]);
    for (int n = 0; n < kRowsOfA && n <= last; ++n) {
      Sum<T>* place = c.data + (row + n) * c.stride;
      store(place, broadcast(all_sums[n * kRows]));
      for (int column = 1; column < kRows; ++column) place[column] = all_sums[n * kRows + column];
    }
  }
}

/// Computes C = A B^T for up to kMaxSmallRows rows of B, which rows of zeros must follow up to kMaxSmallRows
/// rows. A whole vector of each row of C is written; its elements after the last column are unspecified.
/// `depth` must be a multiple of the vector length, which is at least four. prefetch(row) is called before
/// each row of A.
template <typename T, typename Prefetch>
inline void dots(int64_t rows, int64_t columns, int64_t depth, Rows<const T> a, Rows<const T> b,
                 Rows<Sum<T>> c, Prefetch prefetch) {
  if (columns == 1) return dots_unrolled<T, 1>(rows, depth, a, b, c, prefetch);
  if (columns == 2) return dots_unrolled<T, 2>(rows, depth, a, b, c, prefetch);
  return dots_unrolled<T, 4>(rows, depth, a, b, c, prefetch);
}

/// The number of consecutive terms of a dot product in a partial sum. Long sums are split into partial sums,
/// which makes the rounding error smaller. Partial sums are shorter where there is no fused multiply-add.
constexpr int64_t kDotChunk = kVectorBytes == 16 ? 16 : 64;

/// Computes C = A B, or C = C + A B, with dot products in partial sums of kDotChunk terms.
template <typename T, Update update = Update::set>
inline void gemm_dots(int64_t rows, int64_t columns, int64_t depth, Strided<T> a, Rows<const T> b,
                      Rows<Sum<T>> c) {
  gemm<T, update>(rows, columns, depth < kDotChunk ? depth : kDotChunk, a, b, c);
  for (int64_t k = kDotChunk; k < depth; k += kDotChunk) {
    const int64_t chunk = depth - k < kDotChunk ? depth - k : kDotChunk;
    gemm<T, Update::add>(rows, columns, chunk, {a.data + k * a.column_stride, a.row_stride, a.column_stride},
                         {b.data + k * b.stride, b.stride}, c);
  }
}

}  // namespace
}  // namespace attend::cpu
