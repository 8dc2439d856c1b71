#pragma once

#include <c10/core/SymInt.h>

#include <cstdint>
#include <type_traits>

namespace attend {

/// The sizes of the scores [B, H, Lq, Lk], and the rows that are computed.
template <class Size>
struct ScoreShapeOf {
  Size batch;
  Size heads;
  Size queries;
  Size keys;
  /// The first query whose row of scores is computed, and the number of rows; by default all rows.
  Size first_row = 0;
  Size rows = queries;

  ScoreShapeOf part(const Size& first, const Size& count) const {
    return {batch, heads, queries, keys, first, count};
  }

  operator ScoreShapeOf<c10::SymInt>() const
    requires std::is_same_v<Size, int64_t>
  {
    return {batch, heads, queries, keys, first_row, rows};
  }
};

using ScoreShape = ScoreShapeOf<int64_t>;

/// Sizes that may be symbolic, as under torch.compile with dynamic shapes.
using SymScoreShape = ScoreShapeOf<c10::SymInt>;

/// Returns the sizes as integers. A symbolic size is thereby fixed for the whole trace.
inline ScoreShape integers_of(const SymScoreShape& shape) {
  const auto integer = [](const c10::SymInt& size) { return size.guard_int(__FILE__, __LINE__); };
  return {integer(shape.batch), integer(shape.heads),     integer(shape.queries),
          integer(shape.keys),  integer(shape.first_row), integer(shape.rows)};
}

}  // namespace attend
