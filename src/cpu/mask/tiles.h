#pragma once

// What the kernels ask of masks and score modifications, a tile of scores at a time.

#include <cstdint>

namespace attend::cpu {

/// A rectangle of the scores of one head: queries query ... query + queries - 1, keys likewise.
struct Tile {
  int64_t batch, head;
  int64_t query, queries;
  int64_t key, keys;
};

enum class TileState { empty, partial, full };

/// A mask bound to the shape of one call.
class MaskTiles {
 public:
  virtual ~MaskTiles() = default;
  /// Keys from here on are hidden from every query of the batch element, and are not read.
  virtual int64_t key_end(int64_t batch) const = 0;
  /// Whether the queries of the tile may attend to none, some or all of its keys; `partial` is always right.
  virtual TileState state(const Tile& tile) const = 0;
  /// Sets allowed[(j - tile.key) * stride + i - tile.query] to 1 where query i may attend to key j, else to
  /// 0.
  virtual void fill(const Tile& tile, uint8_t* allowed, int64_t stride) const = 0;
};

/// A score modification bound to one call. Scores are T = float, or double for float64 tensors; that of query
/// i and key j stands at [(j - tile.key) * stride + i - tile.query].
class ScoreTiles {
 public:
  virtual ~ScoreTiles() = default;
  virtual void forward(const Tile& tile, float* scores, int64_t stride) const = 0;
  virtual void forward(const Tile& tile, double* scores, int64_t stride) const = 0;
  /// Whether `backward` reads the scores; where it does not, what it gets as such is something else.
  virtual bool reads_scores() const = 0;
  /// Turns the gradients of the modified scores into those of the scores, and adds up those of its tensors.
  /// Calls with the same `task` never overlap, and come in the same order on every run.
  virtual void backward(const Tile& tile, int64_t task, const float* scores, float* gradients,
                        int64_t stride) const = 0;
  virtual void backward(const Tile& tile, int64_t task, const double* scores, double* gradients,
                        int64_t stride) const = 0;
};

}  // namespace attend::cpu
