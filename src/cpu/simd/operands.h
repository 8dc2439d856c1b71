#pragma once

// The operands of matrix products: values in the type of the computation, or pairs of bfloat16 where the
// instruction set multiplies these. A pair is two consecutive terms of a sum. Rows whose elements are summed,
// those of A in A B^T, are already stored in pairs; of matrices whose rows are summed, B in A B, each two
// rows are interleaved.

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

/// The number of operands for `terms` terms of a sum.
template <typename Element>
constexpr int64_t operands(int64_t terms) {
  return kInPairs<Element> ? divide_up(terms, 2) : terms;
}

/// The number of operands of a row whose elements are summed, padded to whole vectors.
template <typename Element>
constexpr int64_t row_operands(int64_t columns) {
  return padded<Operand<Element>>(operands<Element>(columns));
}

/// Operands of rows whose elements are summed: in place where possible, else in `copy`.
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

/// Operands of rows that are summed: in place where possible, else in `copy`.
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
