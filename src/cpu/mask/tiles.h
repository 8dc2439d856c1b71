#pragma once

// The interface between the attention kernels and masks, one tile of scores at a time.

#include <cstdint>

namespace attend::cpu {

/// A rectangle of the scores of one head: the queries [query, query + queries) and the keys [key, key +
/// keys).
struct Tile {
  int64_t batch, head;
  int64_t query, queries;
  int64_t key, keys;
};

/// Upper bounds of the number of queries and keys of a tile, for scratch memory of a fixed size.
/// kMaxTileQueries also bounds the stride between the scores of consecutive keys.
constexpr int64_t kMaxTileQueries = 96, kMaxTileKeys = 96;

/// The number of queries and keys of a cell. The state of a mask is found once per call for each cell, and
/// blocks and tiles of the kernels consist of whole cells.
constexpr int64_t kCellQueries = 48, kCellKeys = 96;

/// Whether a mask allows none, some or all of the pairs of a query and a key in a tile. A mask may return
/// `partial` for every tile, which is then evaluated element by element.
enum class TileState { empty, partial, full };

/// The mask of one call, evaluated tile by tile.
class MaskTiles {
 public:
  virtual ~MaskTiles() = default;
  /// Returns the end of the keys that are read: no query of the batch element may attend to this key or a
  /// later one.
  virtual int64_t key_end(int64_t batch) const = 0;
  virtual TileState state(const Tile& tile) const = 0;
  /// Sets allowed[(j - tile.key) * stride + i - tile.query] to 1 where query i may attend to key j, else to
  /// 0.
  virtual void fill(const Tile& tile, uint8_t* allowed, int64_t stride) const = 0;
};

}  // namespace attend::cpu
