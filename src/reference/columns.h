#pragma once

#include <ATen/Parallel.h>
#include <attend/detail/position_tile.h>

#include "core/checks.h"

namespace attend::reference {

/// Calls action(column, offset) for each key of each head. `column` holds the positions of the scores of this
/// key with the queries of `shape`, and `offset` is the index of its first score in a contiguous tensor [B,
/// H, Lk, rows].
template <typename Action>
void for_each_column(const ScoreShape& shape, const Action& action) {
  at::parallel_for(0, shape.batch * shape.heads * shape.keys, 16, [&](int64_t begin, int64_t end) {
    for (int64_t column = begin; column < end; ++column) {
      const int64_t head = column / shape.keys;
      const Position first{static_cast<int>(head / shape.heads), static_cast<int>(head % shape.heads),
                           static_cast<int>(shape.first_row + shape.keys - shape.queries),
                           static_cast<int>(column % shape.keys)};
      action(detail::PositionTile{first, static_cast<int>(shape.rows), 1}, column * shape.rows);
    }
  });
}

}  // namespace attend::reference
