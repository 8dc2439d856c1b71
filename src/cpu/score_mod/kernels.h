#pragma once

// The inner loops of the built-in score modifications: a table of functions for each instruction set.

#include "cpu/mask/tiles.h"

namespace attend::cpu {

/// For scores of T = float or double, laid out as `ScoreTiles` says.
template <typename T>
struct ScoreKernels {
  /// score -> cap tanh(score / cap)
  void (*softcap)(const Tile& tile, T cap, T* scores, int64_t stride);
  /// gradient -> gradient (1 - tanh(score / cap)^2)
  void (*softcap_backward)(const Tile& tile, T cap, const T* scores, T* gradients, int64_t stride);
  /// score -> score - slope |distance + i - j| for the tile's query i and key j
  void (*alibi)(const Tile& tile, T slope, int64_t distance, T* scores, int64_t stride);
  /// The sum of gradient |distance + i - j|
  double (*alibi_backward)(const Tile& tile, int64_t distance, const T* gradients, int64_t stride);
  /// Adds a bias whose value for the tile's query i and key j stands at [i * row_stride + j].
  void (*add_bias)(const Tile& tile, const T* values, int64_t row_stride, T* scores, int64_t stride);
  /// Adds the gradients to those of such a bias; or writes them there.
  void (*add_bias_gradients)(const Tile& tile, const T* gradients, int64_t stride, T* sums,
                             int64_t row_stride);
  void (*set_bias_gradients)(const Tile& tile, const T* gradients, int64_t stride, T* sums,
                             int64_t row_stride);
};

/// Those for the instruction set that ATen detected, or was told by ATEN_CPU_CAPABILITY.
template <typename T>
const ScoreKernels<T>& score_kernels();

struct ScoreTables {
  ScoreKernels<float> float32;
  ScoreKernels<double> float64;
};

}  // namespace attend::cpu
