#pragma once

// Products within a chunk (Yang 2023, section 4): lower triangular matrices
//
//     A_ts = sum_d row_td column_sd exp(g_{s+1,d} + ... + g_td),   s <= t,
//
// where g_t are the log decays of step t, and the gradients of these products.

#include "cpu/linear_attention/decay.h"

namespace attend::cpu {
namespace {

/// The number of rows of a triangular matrix that one product computes, for the columns up to the diagonal of
/// its last row. With fewer rows, fewer entries above the diagonal are computed in vain.
constexpr int64_t kTriangleRows = kTileRows == 12 ? 8 : 12;

/// Computes the lower triangle of C [n, n] = A [n, depth] B [depth, n]; entries of C above the diagonal are
/// unspecified.
template <typename T>
void lower_dots(int64_t n, int64_t depth, Rows<const T> a, Rows<const T> b, Rows<T> c) {
  for (int64_t row = 0; row < n; row += kTriangleRows) {
    const int64_t rows = smaller(kTriangleRows, n - row);
    gemm_dots<T>(rows, padded<T>(row + rows), depth, {a.data + row * a.stride, a.stride, 1}, b,
                 {c.data + row * c.stride, c.stride});
  }
}

/// Whether all elements are finite; `columns` is a multiple of the vector length.
template <typename T>
bool is_finite(Rows<const T> rows, int64_t count, int64_t columns) {
  VecBits<T> any = {};
  for (int64_t row = 0; row < count; ++row) {
    for (int64_t column = 0; column < columns; column += kLanes<T>) {
      const auto values = load(rows.data + row * rows.stride + column);
      any |= values - values != 0;
    }
  }
  typename VecOf<T>::Bits bits = 0;
  for (int64_t lane = 0; lane < kLanes<T>; ++lane) bits |= any[lane];
  return bits == 0;
}

/// C (+)= A B for the rows row ... row + rows - 1 of a lower triangular A. The zeros above the diagonal are
/// multiplied with, unless B has a NaN or an infinity there, which must not reach earlier rows of C.
template <typename T, Update update>
void lower_rows_times(int64_t row, int64_t rows, int64_t columns, Rows<const T> a, Rows<const T> b,
                      Rows<T> c) {
  const bool multiplies_zeros = is_finite<T>({b.data + row * b.stride, b.stride}, rows, columns);
  for (int64_t next = row; next < row + rows;) {
    const int64_t count = multiplies_zeros ? rows : 1;
    gemm_dots<T, update>(count, columns, next + count, {a.data + next * a.stride, a.stride, 1}, b,
                         {c.data + next * c.stride, c.stride});
    next += count;
  }
}

/// Sets C [n, columns] to A B (or adds A B to C, by `update`), for lower triangular A [n, n].
template <typename T, Update update>
void lower_times(int64_t n, int64_t columns, Rows<const T> a, Rows<const T> b, Rows<T> c) {
  for (int64_t row = 0; row < n; row += kTriangleRows) {
    lower_rows_times<T, update>(row, smaller(kTriangleRows, n - row), columns, a, b, c);
  }
}

/// Sets C [n, columns] to A^T B (or adds A^T B to C, by `update`), for lower triangular A [n, n].
template <typename T, Update update>
void lower_transposed_times(int64_t n, int64_t columns, Rows<const T> a, Rows<const T> b, Rows<T> c) {
  for (int64_t row = 0; row < n; row += kTriangleRows) {
    const int64_t rows = smaller(kTriangleRows, n - row);
    gemm_dots<T, update>(rows, columns, n - row, {a.data + row * a.stride + row, 1, a.stride},
                         {b.data + row * b.stride, b.stride}, {c.data + row * c.stride, c.stride});
  }
}

/// Sets the entries above the diagonal to zero, up to whole vectors.
template <typename T>
void clear_above(int64_t n, Rows<T> a) {
  for (int64_t t = 0; t < n; ++t) fill(a.data + t * a.stride + t + 1, padded<T>(n) - t - 1, T{0});
}

// ---- one decay per step

/// Multiplies A_ts by exp(g_{s+1} + ... + g_t), for s <= t.
template <typename T>
void decay_lower(const LogDecays<T>& log, int64_t n, Rows<T> a) {
  CompensatedSum<T> sums[kMaxChunk / kLanes<T>];  // at s: g_{s+1} + ... + g_t
  for (int64_t t = 0; t < n; ++t) {
    T* row = a.data + t * a.stride;
    const int64_t v = t / kLanes<T>, lane = t % kLanes<T>;
    for (int64_t i = 0; i < v + (lane > 0 ? 1 : 0); ++i) {
      sums[i].add(broadcast(*log.row(t)));
      if (i == v) {  // lanes s >= t have no terms yet
        const auto has_terms = lane_indices<T>() < broadcast(static_cast<T>(lane));
        sums[i] = {has_terms ? sums[i].high : Vec<T>{}, has_terms ? sums[i].low : Vec<T>{}};
      }
      T* place = row + i * kLanes<T>;
      store(place, load(place) * exp(sums[i].value()));
    }
  }
}

/// Adds the gradients of the log decays g_r: to_r += sum over s < r <= t of dA_ts A_ts.
template <typename T>
void decay_lower_backward(const LogDecays<T>& log, int64_t n, Rows<const T> a, Rows<const T> grad_a, T* to) {
  CompensatedSum<T> below[kMaxChunk / kLanes<T>];  // at s: the sum over t >= r of dA_ts A_ts
  for (int64_t r = n - 1; r >= 0; --r) {
    const T *row = a.data + r * a.stride, *grad_row = grad_a.data + r * grad_a.stride;
    const int64_t v = r / kLanes<T>, lanes = r % kLanes<T>;
    Vec<T> row_sum = {};
    for (int64_t i = 0; i <= v; ++i) {
      below[i].add(load(row + i * kLanes<T>) * load(grad_row + i * kLanes<T>));
      const auto before = below[i].value();
      row_sum += i < v ? before : lane_indices<T>() < broadcast(static_cast<T>(lanes)) ? before : Vec<T>{};
    }
    to[r * log.stride] += sum<T>(row_sum);
  }
}

// ---- one decay per channel
//
// A chunk is halved recursively down to single steps. For a block of 2 m steps, the entries of A with rows in
// the second half and columns in the first half are a matrix product: with rows and columns scaled by the
// decays between them and the midpoint of the block, no factor is above 1.

/// Computes `factors` [steps, stride] for blocks of 2 `half` steps. For a row t in the second half of its
/// block, the factor is the decay of the steps midpoint ... t; for a column s in the first half, it is the
/// decay of the steps s + 1 ... midpoint - 1.
template <typename T>
void decays_to_block_midpoint(const LogDecays<T>& log, int64_t n, int64_t half, T* factors) {
  for (int64_t midpoint = half; midpoint < n; midpoint += 2 * half) {
    for (int64_t d = 0; d < log.stride; d += kLanes<T>) {
      CompensatedSum<T> after, up_to;
      for (int64_t s = midpoint - 1; s >= midpoint - half; --s) {
        store(factors + s * log.stride + d, exp(after.value()));
        after.add(load(log.row(s) + d));
      }
      for (int64_t t = midpoint; t < smaller(midpoint + half, n); ++t) {
        up_to.add(load(log.row(t) + d));
        store(factors + t * log.stride + d, exp(up_to.value()));
      }
    }
  }
}

/// Sets `to` to the rows in second halves of blocks and the columns in first halves, each multiplied by its
/// factors.
template <typename T>
void scale_to_block_midpoint(Rows<const T> rows, Rows<const T> columns, int64_t n, int64_t half,
                             int64_t width, const T* factors, T* to) {
  for (int64_t t = 0; t < n; ++t) {
    const auto& from = t / half % 2 == 1 ? rows : columns;
    for (int64_t d = 0; d < width; d += kLanes<T>) {
      store(to + t * width + d, load(from.data + t * from.stride + d) * load(factors + t * width + d));
    }
  }
}

/// Returns the dot product of two padded rows.
template <typename T>
T dot(const T* a, const T* b, int64_t width) {
  Vec<T> products = {};
  for (int64_t d = 0; d < width; d += kLanes<T>) products += load(a + d) * load(b + d);
  return sum<T>(products);
}

template <typename T>
struct ProductScratch {
  T* transposed;                ///< [d, kMaxChunk]
  T *factors, *scaled, *grads;  ///< [kMaxChunk, padded d]

  ProductScratch(ScratchAllocator& allocator, int64_t d, int64_t decay_width) {
    const int64_t rows = decay_width > 1 ? kMaxChunk * padded<T>(d) : 0;
    transposed = allocator.take<T>(d * kMaxChunk);
    factors = allocator.take<T>(rows);
    scaled = allocator.take<T>(rows);
    grads = allocator.take<T>(rows);
  }
};

/// Computes the entries of A whose rows are in the second half of a block and whose columns are in the first
/// half.
template <typename T>
void block_products(int64_t midpoint, int64_t half, int64_t n, int64_t d, const ProductScratch<T>& scratch,
                    Rows<T> a) {
  const int64_t width = padded<T>(d), first = midpoint - half, rows = smaller(half, n - midpoint);
  if (half >= kLanes<T>) {
    transpose<T>({scratch.scaled + first * width, width}, half, d, scratch.transposed, kMaxChunk);
    gemm_dots<T>(rows, half, d, {scratch.scaled + midpoint * width, width, 1},
                 {scratch.transposed, kMaxChunk}, {a.data + midpoint * a.stride + first, a.stride});
    return;
  }
  for (int64_t t = midpoint; t < midpoint + rows; ++t) {
    for (int64_t s = first; s < midpoint; ++s) {
      a.data[t * a.stride + s] = dot<T>(scratch.scaled + t * width, scratch.scaled + s * width, width);
    }
  }
}

/// Computes A for one decay per channel; entries above the diagonal are unspecified.
template <typename T>
void channel_products(const LogDecays<T>& log, int64_t n, int64_t d, Rows<const T> rows,
                      Rows<const T> columns, const ProductScratch<T>& scratch, Rows<T> a) {
  const int64_t width = padded<T>(d);
  for (int64_t t = 0; t < n; ++t) {
    a.data[t * a.stride + t] = dot<T>(rows.data + t * rows.stride, columns.data + t * columns.stride, width);
  }
  for (int64_t half = 1; half < n; half *= 2) {
    decays_to_block_midpoint(log, n, half, scratch.factors);
    scale_to_block_midpoint<T>(rows, columns, n, half, width, scratch.factors, scratch.scaled);
    for (int64_t midpoint = half; midpoint < n; midpoint += 2 * half) {
      block_products<T>(midpoint, half, n, d, scratch, a);
    }
  }
}

/// Computes the gradients of the scaled rows and columns of a block.
template <typename T>
void block_products_backward(int64_t midpoint, int64_t half, int64_t n, int64_t width, Rows<const T> grad_a,
                             bool needs_rows, bool needs_columns, const ProductScratch<T>& scratch) {
  const int64_t first = midpoint - half, rows = smaller(half, n - midpoint);
  const T* block = grad_a.data + midpoint * grad_a.stride + first;
  if (needs_rows) {
    gemm_dots<T>(rows, width, half, {block, grad_a.stride, 1}, {scratch.scaled + first * width, width},
                 {scratch.grads + midpoint * width, width});
  }
  if (!needs_columns) return;
  gemm_dots<T>(half, width, rows, {block, 1, grad_a.stride}, {scratch.scaled + midpoint * width, width},
               {scratch.grads + first * width, width});
}

/// The backward of `scale_to_block_midpoint` for one block: adds to the gradients of the rows, of the columns
/// and of the log decays. The log decay of step r is a term of the factors of the rows t >= r and of the
/// columns s < r in the same half of the block.
template <typename T>
void scale_to_block_midpoint_backward(int64_t midpoint, int64_t half, int64_t n, int64_t width,
                                      const ProductScratch<T>& scratch, T* grad_rows, T* grad_columns,
                                      T* grad_log) {
  const int64_t first = midpoint - half, end = smaller(midpoint + half, n);
  for (int64_t d = 0; d < width; d += kLanes<T>) {
    Vec<T> above = {}, below = {};
    for (int64_t s = first; s < midpoint && grad_columns != nullptr; ++s) {
      const int64_t place = s * width + d;
      const auto grad = load(scratch.grads + place);
      store(grad_columns + place, load(grad_columns + place) + grad * load(scratch.factors + place));
      if (grad_log == nullptr) continue;
      store(grad_log + place, load(grad_log + place) + above);
      above += grad * load(scratch.scaled + place);
    }
    for (int64_t t = end - 1; t >= midpoint && grad_rows != nullptr; --t) {
      const int64_t place = t * width + d;
      const auto grad = load(scratch.grads + place);
      store(grad_rows + place, load(grad_rows + place) + grad * load(scratch.factors + place));
      if (grad_log == nullptr) continue;
      below += grad * load(scratch.scaled + place);
      store(grad_log + place, load(grad_log + place) + below);
    }
  }
}

template <typename T>
void channel_products_backward(const LogDecays<T>& log, int64_t n, int64_t d, Rows<const T> rows,
                               Rows<const T> columns, Rows<const T> grad_a, const ProductScratch<T>& scratch,
                               T* grad_rows, T* grad_columns, T* grad_log) {
  const int64_t width = padded<T>(d);
  for (int64_t t = 0; t < n; ++t) {
    const T grad = grad_a.data[t * grad_a.stride + t];
    for (int64_t c = 0; c < width; c += kLanes<T>) {
      const auto add = [&](T* to, Rows<const T> from) {
        if (to == nullptr) return;
        T* place = to + t * width + c;
        store(place, load(place) + grad * load(from.data + t * from.stride + c));
      };
      add(grad_rows, columns);
      add(grad_columns, rows);
    }
  }
  for (int64_t half = 1; half < n; half *= 2) {
    decays_to_block_midpoint(log, n, half, scratch.factors);
    scale_to_block_midpoint<T>(rows, columns, n, half, width, scratch.factors, scratch.scaled);
    for (int64_t midpoint = half; midpoint < n; midpoint += 2 * half) {
      block_products_backward<T>(midpoint, half, n, width, grad_a, grad_rows != nullptr,
                                 grad_columns != nullptr, scratch);
      scale_to_block_midpoint_backward<T>(midpoint, half, n, width, scratch, grad_rows, grad_columns,
                                          grad_log);
    }
  }
}

// ---- with or without decays

/// Computes A [n, kMaxChunk], with zeros above the diagonal.
template <typename T>
void decayed_products(const LogDecays<T>& log, int64_t n, int64_t d, Rows<const T> rows,
                      Rows<const T> columns, const ProductScratch<T>& scratch, Rows<T> a) {
  if (log.is_per_channel()) {
    channel_products<T>(log, n, d, rows, columns, scratch, a);
  } else {
    transpose<T>(columns, n, d, scratch.transposed, kMaxChunk);
    lower_dots<T>(n, d, rows, {scratch.transposed, kMaxChunk}, a);
    if (!log.is_none()) decay_lower<T>(log, n, a);
  }
  clear_above<T>(n, a);
}

/// The backward of `decayed_products`: adds to the gradients of the rows and columns [n, padded d] and of the
/// log decays, which are null where they are not needed; `a` is read for those of the log decays alone.
/// Overwrites `grad_a`, whose entries above the diagonal must be 0.
template <typename T>
void decayed_products_backward(const LogDecays<T>& log, int64_t n, int64_t d, Rows<const T> rows,
                               Rows<const T> columns, Rows<const T> a, Rows<T> grad_a,
                               const ProductScratch<T>& scratch, T* grad_rows, T* grad_columns, T* grad_log) {
  const Rows<const T> grad{grad_a.data, grad_a.stride};
  if (log.is_per_channel()) {
    return channel_products_backward<T>(log, n, d, rows, columns, grad, scratch, grad_rows, grad_columns,
                                        grad_log);
  }
  if (!log.is_none()) {
    if (grad_log != nullptr) decay_lower_backward<T>(log, n, a, grad, grad_log);
    decay_lower<T>(log, n, grad_a);
    clear_above<T>(n, grad_a);
  }
  const int64_t width = padded<T>(d);
  if (grad_rows != nullptr) lower_times<T, Update::add>(n, width, grad, columns, {grad_rows, width});
  if (grad_columns == nullptr) return;
  lower_transposed_times<T, Update::add>(n, width, grad, rows, {grad_columns, width});
}

}  // namespace
}  // namespace attend::cpu
