#pragma once

// The operands of matrix products: elements of the compute type, or pairs of bfloat16 where the instruction
// set multiplies these. A pair belongs to two consecutive terms of a dot product. If the product sums along
// the rows of a matrix (A and B in A B^T), consecutive elements form the pairs as they are stored; if it sums
// along the columns (B in A B), every two rows are interleaved.

#include "cpu/simd/bfloat16_pair.h"
#include "cpu/simd/rows.h"

namespace attend::cpu {
namespace {

template <typename Element>
struct OperandOf {
  using type = Compute<Element>;
  static constexpr bool is_pair = false;
};
#if defined(__AVX512BF16__)
template <>
struct OperandOf<BFloat16> {
  using type = BFloat16Pair;
  static constexpr bool is_pair = true;
};
#endif
template <typename Element>
using Operand = typename OperandOf<Element>::type;
template <typename Element>
constexpr bool kInPairs = OperandOf<Element>::is_pair;

/// Returns the number of operands for `terms` terms of a dot product.
template <typename Element>
constexpr int64_t operands(int64_t terms) {
  return kInPairs<Element> ? divide_up(terms, 2) : terms;
}

/// Returns the number of operands of a row in a product that sums along the rows, padded to whole vectors.
template <typename Element>
constexpr int64_t row_operands(int64_t columns) {
  return padded<Operand<Element>>(operands<Element>(columns));
}

/// Returns the operands of a matrix for a product that sums along its rows: in place where possible,
/// otherwise in `copy`.
template <typename Element>
Rows<const Operand<Element>> rows_along(const Element* from, int64_t stride, int64_t rows, int64_t columns,
                                        Operand<Element>* copy, bool is_reused) {
  if constexpr (kInPairs<Element>) {
    const int64_t width = row_operands<Element>(columns);
    if (2 * width == columns && stride % 2 == 0 && can_read_in_place(stride, columns, is_reused)) {
      return {reinterpret_cast<const Operand<Element>*>(from), stride / 2};
    }
    copy_pairs(from, stride, rows, columns, copy, width);
    return {copy, width};
  } else {
    return compute_rows(from, stride, rows, columns, copy, is_reused);
  }
}

/// Returns the operands of a matrix for a product that sums along its columns: in place where possible,
/// otherwise in `copy`.
template <typename Element>
Rows<const Operand<Element>> rows_over(const Element* from, int64_t stride, int64_t rows, int64_t columns,
                                       Operand<Element>* copy, bool is_reused) {
  if constexpr (kInPairs<Element>) {
    const int64_t width = padded<Compute<Element>>(columns);
    interleave_rows(rows, columns, [&](int64_t row) { return from + row * stride; }, copy, width);
    return {copy, width};
  } else {
    return compute_rows(from, stride, rows, columns, copy, is_reused);
  }
}

}  // namespace
}  // namespace attend::cpu
