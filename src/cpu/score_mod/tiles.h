#pragma once

// The interface between the attention kernels and score modifications, one tile of scores at a time.

#include "cpu/mask/tiles.h"

namespace attend::cpu {

/// A score modification of one call. Scores are of type T = float, or double for float64 tensors; the score
/// of query i and key j is stored at [(j - tile.key) * stride + i - tile.query], stride <= kMaxTileQueries.
class ScoreTiles {
 public:
  virtual ~ScoreTiles() = default;
  virtual void forward(const Tile& tile, float* scores, int64_t stride) const = 0;
  virtual void forward(const Tile& tile, double* scores, int64_t stride) const = 0;
  /// Whether `backward` reads the scores; where it does not, its `scores` are unspecified.
  virtual bool reads_scores() const = 0;
  /// Turns the gradients of the modified scores into the gradients of the scores, and accumulates the
  /// gradients of the modification's tensors. Calls of the same `task` never overlap, and come in the same
  /// order in every run.
  virtual void backward(const Tile& tile, int64_t task, const float* scores, float* gradients,
                        int64_t stride) const = 0;
  virtual void backward(const Tile& tile, int64_t task, const double* scores, double* gradients,
                        int64_t stride) const = 0;
};

}  // namespace attend::cpu
