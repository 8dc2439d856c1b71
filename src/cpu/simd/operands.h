#pragma once

// What the products of attention multiply: the numbers that are computed with, or pairs of bfloat16 where the
// instruction set multiplies those. A pair is two terms, one after the other, of the sums that a product
// consists of. So rows that are summed along, as on the left of K Q^T, lie in pairs as they are; of rows that
// are summed over, as those of V in P V, two and two are interleaved.

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

/// Operands that so many terms of a sum are.
template <typename Element>
constexpr int64_t operands(int64_t terms) {
  return kInPairs<Element> ? divide_up(terms, 2) : terms;
}

/// Operands of a row that is summed along, padded to whole vectors.
template <typename Element>
constexpr int64_t row_operands(int64_t columns) {
  return padded<Operand<Element>>(operands<Element>(columns));
}

/// Rows that are summed along: in place where they can be, else in `copy`.
template <typename Element>
Rows<const Operand<Element>> rows_along(const Element* from, int64_t stride, int64_t rows, int64_t columns,
                                        Operand<Element>* copy, bool often) {
  if constexpr (kInPairs<Element>) {
    const int64_t width = row_operands<Element>(columns);
    if (2 * width == columns && stride % 2 == 0 && can_stay(stride, columns, often)) {
      return {reinterpret_cast<const Operand<Element>*>(from), stride / 2};
    }
    copy_pairs(from, stride, rows, columns, copy, width);
    return {copy, width};
  } else {
    return rows_of(from, stride, rows, columns, copy, often);
  }
}

/// Rows that are summed over: of numbers in place where they can be, else in `copy`.
template <typename Element>
Rows<const Operand<Element>> rows_over(const Element* from, int64_t stride, int64_t rows, int64_t columns,
                                       Operand<Element>* copy, bool often) {
  if constexpr (kInPairs<Element>) {
    const int64_t width = padded<Compute<Element>>(columns);
    interleave_rows(rows, columns, [&](int64_t row) { return from + row * stride; }, copy, width);
    return {copy, width};
  } else {
    return rows_of(from, stride, rows, columns, copy, often);
  }
}

}  // namespace
}  // namespace attend::cpu
