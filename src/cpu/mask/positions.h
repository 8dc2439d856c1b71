#pragma once

#include <attend/detail/position_tile.h>

#include "cpu/mask/tiles.h"

namespace attend::cpu {

/// Returns the positions of a tile, as they are passed to lambdas. `offset` is the position of query 0 among
/// the keys, Lk - Lq.
inline detail::PositionTile positions_of(const Tile& tile, int64_t offset) {
  return {{static_cast<int>(tile.batch), static_cast<int>(tile.head), static_cast<int>(tile.query + offset),
           static_cast<int>(tile.key)},
          static_cast<int>(tile.queries),
          static_cast<int>(tile.keys)};
}

}  // namespace attend::cpu
