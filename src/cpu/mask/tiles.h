#pragma once

// The interface between the attention kernels and masks, one tile of scores at a time.

#include <cstdint>

namespace attend::cpu {

/// A rectangle of the scores of one head: queries query ... query + queries - 1, keys likewise.
struct Tile {
  int64_t batch, head;
  int64_t query, queries;
  int64_t key, keys;
};

/// Upper bounds of the queries and keys of a tile, and of the distance (stride) between the keys' rows of
/// scores, for scratch memory of a fixed size.
constexpr int64_t kMaxTileQueries = 96, kMaxTileKeys = 96;

/// Whether the queries of a tile may attend to none, some or all of its keys; `partial` is always correct.
enum class TileState { empty, partial, full };

/// A mask of one call.
class MaskTiles {
 public:
  virtual ~MaskTiles() = default;
  /// Keys from here on are hidden from every query of the batch element, and are not read.
  virtual int64_t key_end(int64_t batch) const = 0;
  virtual TileState state(const Tile& tile) const = 0;
  /// Sets allowed[(j - tile.key) * stride + i - tile.query] to 1 where query i may attend to key j, else to
  /// 0.
  virtual void fill(const Tile& tile, uint8_t* allowed, int64_t stride) const = 0;
};

}  // namespace attend::cpu
