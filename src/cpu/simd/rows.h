#pragma once

// The rows of a tensor in the form that matrix products read: of compute type and padded to whole vectors.

#include "cpu/simd/elements.h"
#include "cpu/simd/gemm.h"
#include "cpu/simd/strided_tensor.h"

namespace attend::cpu {
namespace {

template <typename Element>
Element* row_of(const StridedTensor& tensor, int64_t outer, int64_t inner, int64_t row) {
  return static_cast<Element*>(tensor.data) + outer * tensor.outer_stride + inner * tensor.inner_stride +
         row * tensor.row_stride;
}

/// Converts rows to the compute type; the columns [columns, to_stride) are set to zero.
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

/// Whether rows can be read in place. Rows that are reused must be copied if their stride is large: they map
/// to few sets of the first-level cache.
inline bool can_read_in_place(int64_t stride, int64_t columns, bool is_reused) {
  return !is_reused || stride <= 2 * columns;
}

/// Returns rows of compute type, padded to whole vectors: in place where possible, otherwise in `copy`.
template <typename Element>
Rows<const Compute<Element>> compute_rows(const Element* from, int64_t stride, int64_t rows, int64_t columns,
                                          Compute<Element>* copy, bool is_reused = true) {
  using T = Compute<Element>;
  const int64_t width = padded<T>(columns);
  if constexpr (sizeof(Element) == sizeof(T)) {
    if (width == columns && can_read_in_place(stride, columns, is_reused)) return {from, stride};
  }
  widen_rows(from, stride, rows, columns, copy, width);
  return {copy, width};
}

}  // namespace
}  // namespace attend::cpu
