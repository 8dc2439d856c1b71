#pragma once

// The interface between the attention kernels and score modifications, one tile of scores at a time.

#include "cpu/mask/tiles.h"

namespace attend::cpu {

/// The score modification of one call. Scores are float, or double for float64 tensors. The score of query i
/// and key j is stored at scores[(j - tile.key) * stride + i - tile.query], with stride <= kMaxTileQueries.
class ScoreTiles {
 public:
  virtual ~ScoreTiles() = default;
  virtual void forward(const Tile& tile, float* scores, int64_t stride) const = 0;
  virtual void forward(const Tile& tile, double* scores, int64_t stride) const = 0;
  /// Whether `backward` reads the scores; if not, its argument `scores` is unspecified.
  virtual bool reads_scores() const = 0;
  /// Replaces the gradients of the modified scores by the gradients of the scores, and accumulates the
  /// gradients of the tensors of the score modification. Calls with the same `task` never overlap, and have
  /// the same order in every run.
  virtual void backward(const Tile& tile, int64_t task, const float* scores, float* gradients,
                        int64_t stride) const = 0;
  virtual void backward(const Tile& tile, int64_t task, const double* scores, double* gradients,
                        int64_t stride) const = 0;
};

}  // namespace attend::cpu
