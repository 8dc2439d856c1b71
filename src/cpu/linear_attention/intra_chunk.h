#pragma once

// The products within a chunk: at (t, s) the sum over d of row_t column_s times the decay of the steps after
// s up to t; and lower triangular matrices.

#include "cpu/linear_attention/decay.h"

namespace attend::cpu {
namespace {

/// Rows of a triangle that are multiplied at once, as far as the last of them reaches: the fewer, the less of
/// what is above the diagonal.
constexpr int64_t kTriangleRows = kTileRows == 12 ? 8 : 12;

/// Lower triangle of C [n, n] = A [n, depth] B [depth, n]; what is above it is not meant.
template <typename T>
void lower_dots(int64_t n, int64_t depth, Rows<const T> a, Rows<const T> b, Rows<T> c) {
  for (int64_t row = 0; row < n; row += kTriangleRows) {
    const int64_t rows = smaller(kTriangleRows, n - row);
    gemm_dots<T>(rows, padded<T>(row + rows), depth, {a.data + row * a.stride, a.stride, 1}, b,
                 {c.data + row * c.stride, c.stride});
  }
}

/// C [n, columns] (+)= A B for lower triangular A [n, n].
template <typename T, Update update>
void lower_times(int64_t n, int64_t columns, Rows<const T> a, Rows<const T> b, Rows<T> c) {
  for (int64_t row = 0; row < n; row += kTriangleRows) {
    const int64_t rows = smaller(kTriangleRows, n - row);
    gemm_dots<T, update>(rows, columns, row + rows, {a.data + row * a.stride, a.stride, 1}, b,
                         {c.data + row * c.stride, c.stride});
  }
}

/// C [n, columns] (+)= A^T B for lower triangular A [n, n].
template <typename T, Update update>
void lower_transposed_times(int64_t n, int64_t columns, Rows<const T> a, Rows<const T> b, Rows<T> c) {
  for (int64_t row = 0; row < n; row += kTriangleRows) {
    const int64_t rows = smaller(kTriangleRows, n - row);
    gemm_dots<T, update>(rows, columns, n - row, {a.data + row * a.stride + row, 1, a.stride},
                         {b.data + row * b.stride, b.stride}, {c.data + row * c.stride, c.stride});
  }
}

/// Zeros above the diagonal, as far as the products above read.
template <typename T>
void clear_above(int64_t n, Rows<T> a) {
  for (int64_t t = 0; t < n; ++t) fill(a.data + t * a.stride + t + 1, padded<T>(n) - t - 1, T{0});
}

// ---- a decay of each step

/// A_ts *= exp(g_{s+1} + ... + g_t), s <= t.
template <typename T>
void decay_lower(const LogDecays<T>& log, int64_t n, Rows<T> a) {
  ExactSum<T> sums[kChunk / kLanes<T>];  // at s: of the steps after s up to t
  for (int64_t t = 0; t < n; ++t) {
    T* row = a.data + t * a.stride;
    const int64_t v = t / kLanes<T>, lane = t % kLanes<T>;
    for (int64_t i = 0; i < v + (lane > 0 ? 1 : 0); ++i) {
      sums[i].add(all(*log.row(t)));
      if (i == v) {  // its later lanes have not begun
        const auto has_begun = lane_numbers<T>() < all(static_cast<T>(lane));
        sums[i] = {has_begun ? sums[i].high : Vec<T>{}, has_begun ? sums[i].low : Vec<T>{}};
      }
      T* place = row + i * kLanes<T>;
      store(place, load(place) * exp(sums[i].value()));
    }
  }
}

/// The gradients of the logarithms: to_r += sum over s < r <= t of the gradient of A_ts times A_ts.
template <typename T>
void decay_lower_backward(const LogDecays<T>& log, int64_t n, Rows<const T> a, Rows<const T> grad_a, T* to) {
  ExactSum<T> below[kChunk / kLanes<T>];  // at s: the sum over t >= r
  for (int64_t r = n - 1; r >= 0; --r) {
    const T *row = a.data + r * a.stride, *grad_row = grad_a.data + r * grad_a.stride;
    const int64_t v = r / kLanes<T>, lanes = r % kLanes<T>;
    Vec<T> of_step = {};
    for (int64_t i = 0; i <= v; ++i) {
      below[i].add(load(row + i * kLanes<T>) * load(grad_row + i * kLanes<T>));
      const auto before = below[i].value();
      of_step += i < v ? before : lane_numbers<T>() < all(static_cast<T>(lanes)) ? before : Vec<T>{};
    }
    to[r * log.stride] += sum<T>(of_step);
  }
}

// ---- a decay of each channel
//
// A chunk is halved, its halves are halved, and so on, down to single steps. At the level of blocks of 2 m
// steps the rows of a block's second half meet the columns of its first half: both are decayed to the middle,
// so that A is a product of matrices, with no factor above 1.

/// factors [steps, stride]: of a row t of a second half, of the steps from the middle up to t; of a column s
/// of a first half, of the steps after s up to the middle.
template <typename T>
void decays_to_middles(const LogDecays<T>& log, int64_t n, int64_t half, T* factors) {
  for (int64_t middle = half; middle < n; middle += 2 * half) {
    for (int64_t d = 0; d < log.stride; d += kLanes<T>) {
      ExactSum<T> after, up_to;
      for (int64_t s = middle - 1; s >= middle - half; --s) {
        store(factors + s * log.stride + d, exp(after.value()));
        after.add(load(log.row(s) + d));
      }
      for (int64_t t = middle; t < smaller(middle + half, n); ++t) {
        up_to.add(load(log.row(t) + d));
        store(factors + t * log.stride + d, exp(up_to.value()));
      }
    }
  }
}

/// The rows of second halves and the columns of first halves, each times its factor.
template <typename T>
void meet_at_middles(Rows<const T> rows, Rows<const T> columns, int64_t n, int64_t half, int64_t width,
                     const T* factors, T* to) {
  for (int64_t t = 0; t < n; ++t) {
    const auto& from = t / half % 2 == 1 ? rows : columns;
    for (int64_t d = 0; d < width; d += kLanes<T>) {
      store(to + t * width + d, load(from.data + t * from.stride + d) * load(factors + t * width + d));
    }
  }
}

/// Of two padded rows.
template <typename T>
T dot(const T* a, const T* b, int64_t width) {
  Vec<T> products = {};
  for (int64_t d = 0; d < width; d += kLanes<T>) products += load(a + d) * load(b + d);
  return sum<T>(products);
}

template <typename T>
struct ProductScratch {
  T* transposed;             ///< [d, kChunk]
  T *factors, *met, *grads;  ///< [kChunk, padded d]

  ProductScratch(Scratch& scratch, int64_t d, int64_t decay_width) {
    const int64_t rows = decay_width > 1 ? kChunk * padded<T>(d) : 0;
    transposed = scratch.take<T>(d * kChunk);
    factors = scratch.take<T>(rows);
    met = scratch.take<T>(rows);
    grads = scratch.take<T>(rows);
  }
};

/// The second half of a block against its first.
template <typename T>
void block_products(int64_t middle, int64_t half, int64_t n, int64_t d, const ProductScratch<T>& own,
                    Rows<T> a) {
  const int64_t width = padded<T>(d), first = middle - half, rows = smaller(half, n - middle);
  if (half >= kLanes<T>) {
    transpose<T>({own.met + first * width, width}, half, d, own.transposed, kChunk);
    gemm_dots<T>(rows, half, d, {own.met + middle * width, width, 1}, {own.transposed, kChunk},
                 {a.data + middle * a.stride + first, a.stride});
    return;
  }
  for (int64_t t = middle; t < middle + rows; ++t) {
    for (int64_t s = first; s < middle; ++s) {
      a.data[t * a.stride + s] = dot<T>(own.met + t * width, own.met + s * width, width);
    }
  }
}

template <typename T>
void channel_products(const LogDecays<T>& log, int64_t n, int64_t d, Rows<const T> rows,
                      Rows<const T> columns, const ProductScratch<T>& own, Rows<T> a) {
  const int64_t width = padded<T>(d);
  for (int64_t t = 0; t < n; ++t) {
    a.data[t * a.stride + t] = dot<T>(rows.data + t * rows.stride, columns.data + t * columns.stride, width);
  }
  for (int64_t half = 1; half < n; half *= 2) {
    decays_to_middles(log, n, half, own.factors);
    meet_at_middles<T>(rows, columns, n, half, width, own.factors, own.met);
    for (int64_t middle = half; middle < n; middle += 2 * half) {
      block_products<T>(middle, half, n, d, own, a);
    }
  }
}

/// Gradients of the decayed rows and columns of a block.
template <typename T>
void block_products_backward(int64_t middle, int64_t half, int64_t n, int64_t width, Rows<const T> grad_a,
                             const ProductScratch<T>& own) {
  const int64_t first = middle - half, rows = smaller(half, n - middle);
  const T* block = grad_a.data + middle * grad_a.stride + first;
  gemm_dots<T>(rows, width, half, {block, grad_a.stride, 1}, {own.met + first * width, width},
               {own.grads + middle * width, width});
  gemm_dots<T>(half, width, rows, {block, 1, grad_a.stride}, {own.met + middle * width, width},
               {own.grads + first * width, width});
}

/// From the gradients of decayed rows and columns to their own, and to the logarithms of the decays between
/// them: that of step r is in the factors of the rows t >= r and of the columns s < r of its half.
template <typename T>
void leave_middles(int64_t middle, int64_t half, int64_t n, int64_t width, const ProductScratch<T>& own,
                   T* grad_rows, T* grad_columns, T* grad_log) {
  const int64_t first = middle - half, end = smaller(middle + half, n);
  for (int64_t d = 0; d < width; d += kLanes<T>) {
    Vec<T> above = {}, below = {};
    for (int64_t s = first; s < middle; ++s) {
      const int64_t place = s * width + d;
      const auto grad = load(own.grads + place);
      store(grad_columns + place, load(grad_columns + place) + grad * load(own.factors + place));
      store(grad_log + place, load(grad_log + place) + above);
      above += grad * load(own.met + place);
    }
    for (int64_t t = end - 1; t >= middle; --t) {
      const int64_t place = t * width + d;
      const auto grad = load(own.grads + place);
      store(grad_rows + place, load(grad_rows + place) + grad * load(own.factors + place));
      below += grad * load(own.met + place);
      store(grad_log + place, load(grad_log + place) + below);
    }
  }
}

template <typename T>
void channel_products_backward(const LogDecays<T>& log, int64_t n, int64_t d, Rows<const T> rows,
                               Rows<const T> columns, Rows<const T> grad_a, const ProductScratch<T>& own,
                               T* grad_rows, T* grad_columns, T* grad_log) {
  const int64_t width = padded<T>(d);
  for (int64_t t = 0; t < n; ++t) {
    const T grad = grad_a.data[t * grad_a.stride + t];
    for (int64_t c = 0; c < width; c += kLanes<T>) {
      T *grad_row = grad_rows + t * width + c, *grad_column = grad_columns + t * width + c;
      store(grad_row, load(grad_row) + grad * load(columns.data + t * columns.stride + c));
      store(grad_column, load(grad_column) + grad * load(rows.data + t * rows.stride + c));
    }
  }
  for (int64_t half = 1; half < n; half *= 2) {
    decays_to_middles(log, n, half, own.factors);
    meet_at_middles<T>(rows, columns, n, half, width, own.factors, own.met);
    for (int64_t middle = half; middle < n; middle += 2 * half) {
      block_products_backward<T>(middle, half, n, width, grad_a, own);
      leave_middles<T>(middle, half, n, width, own, grad_rows, grad_columns, grad_log);
    }
  }
}

// ---- any decay

/// A [n, kChunk], zeros above the diagonal.
template <typename T>
void decayed_products(const LogDecays<T>& log, int64_t n, int64_t d, Rows<const T> rows,
                      Rows<const T> columns, const ProductScratch<T>& own, Rows<T> a) {
  if (log.is_per_channel()) {
    channel_products<T>(log, n, d, rows, columns, own, a);
  } else {
    transpose<T>(columns, n, d, own.transposed, kChunk);
    lower_dots<T>(n, d, rows, {own.transposed, kChunk}, a);
    if (!log.is_none()) decay_lower<T>(log, n, a);
  }
  clear_above<T>(n, a);
}

/// Adds to the gradients of rows and columns [n, padded d] and of the logarithms; changes `grad_a`, whose
/// part above the diagonal is 0.
template <typename T>
void decayed_products_backward(const LogDecays<T>& log, int64_t n, int64_t d, Rows<const T> rows,
                               Rows<const T> columns, Rows<const T> a, Rows<T> grad_a,
                               const ProductScratch<T>& own, T* grad_rows, T* grad_columns, T* grad_log) {
  const Rows<const T> grad{grad_a.data, grad_a.stride};
  if (log.is_per_channel()) {
    return channel_products_backward<T>(log, n, d, rows, columns, grad, own, grad_rows, grad_columns,
                                        grad_log);
  }
  if (!log.is_none()) {
    decay_lower_backward<T>(log, n, a, grad, grad_log);
    decay_lower<T>(log, n, grad_a);
    clear_above<T>(n, grad_a);
  }
  const int64_t width = padded<T>(d);
  lower_times<T, Update::add>(n, width, grad, columns, {grad_rows, width});
  lower_transposed_times<T, Update::add>(n, width, grad, rows, {grad_columns, width});
}

}  // namespace
}  // namespace attend::cpu
