#pragma once

// What lambdas on scores and masks have in common: positions.

#include <ATen/Parallel.h>
#include <attend/score_position.h>

#include <algorithm>
#include <limits>

#include "core/checks.h"
#include "cpu/mask/tiles.h"

namespace attend {

/// Fails where a position would not fit into a `Position`.
inline void check_positions(const char* function, const char* argument, const ScoreShape& shape) {
  constexpr int64_t kMost = std::numeric_limits<int>::max();
  if (std::max(shape.queries, shape.keys) > kMost) {
    checks::fail(function, argument, c10::str("at most ", kMost, " queries and keys"),
                 c10::str(shape.queries, " and ", shape.keys));
  }
}

/// `offset`: Lk - Lq.
inline detail::PositionTile positions_of(const cpu::Tile& tile, int64_t offset) {
  return {{static_cast<int>(tile.batch), static_cast<int>(tile.head), static_cast<int>(tile.query + offset),
           static_cast<int>(tile.key)},
          static_cast<int>(tile.queries),
          static_cast<int>(tile.keys)};
}

/// Calls action(column, place) for each key of each head, where the column has the rows of `shape`, and
/// stands at `place` in a tensor [B, H, Lk, rows].
template <typename Action>
void for_each_column(const ScoreShape& shape, const Action& action) {
  at::parallel_for(0, shape.batch * shape.heads * shape.keys, 16, [&](int64_t begin, int64_t end) {
    for (int64_t column = begin; column < end; ++column) {
      const int64_t key = column % shape.keys, head = column / shape.keys;
      const cpu::Tile tile{head / shape.heads, head % shape.heads, shape.first_row, shape.rows, key, 1};
      action(positions_of(tile, shape.keys - shape.queries), column * shape.rows);
    }
  });
}

}  // namespace attend
