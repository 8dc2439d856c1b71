#pragma once

// The rows of a tensor [B, H, L, D] as the products read them.

#include "cpu/runtime/heads.h"
#include "cpu/simd/elements.h"
#include "cpu/simd/gemm.h"
#include "cpu/simd/scratch.h"

namespace attend::cpu {
namespace {

template <typename Element>
Element* row_of(const Heads& tensor, int64_t b, int64_t h, int64_t row) {
  return static_cast<Element*>(tensor.data) + b * tensor.batch_stride + h * tensor.head_stride +
         row * tensor.row_stride;
}

/// Copies rows to compute type, the columns padded with zeros to whole vectors.
template <typename Element>
void widen_rows(const Element* from, int64_t from_stride, int64_t rows, int64_t columns, Compute<Element>* to,
                int64_t to_stride) {
  for (int64_t row = 0; row < rows; ++row) {
    for (int64_t column = 0; column < columns; ++column) {
      to[row * to_stride + column] = widen(from[row * from_stride + column]);
    }
    for (int64_t column = columns; column < to_stride; ++column) to[row * to_stride + column] = 0;
  }
}

/// Whether rows may be read where they are: such as lie far apart and are read `often` are copied, since they
/// would crowd into few places of the first-level cache.
inline bool can_stay(int64_t stride, int64_t columns, bool often) { return !often || stride <= 2 * columns; }

/// Rows of a key or value as the products read them: in place where they can be, else copied into `copy`.
template <typename Element>
Rows<const Compute<Element>> rows_of(const Element* from, int64_t stride, int64_t rows, int64_t columns,
                                     Compute<Element>* copy, bool often = true) {
  using T = Compute<Element>;
  const int64_t width = padded<T>(columns);
  if constexpr (sizeof(Element) == sizeof(T)) {
    if (width == columns && can_stay(stride, columns, often)) return {from, stride};
  }
  widen_rows(from, stride, rows, columns, copy, width);
  return {copy, width};
}

}  // namespace
}  // namespace attend::cpu
