#pragma once

// The inner loops of the built-in score modifications: a table of functions for each instruction set.

#include "tiles.h"

namespace attend::cpu {

/// For scores of T = float or double, laid out as `ScoreTiles` says.
template <typename T>
struct ScoreKernels {
  /// score -> cap tanh(score / cap)
  void (*softcap)(const Tile& tile, T cap, T* scores, int64_t stride);
  /// gradient -> gradient (1 - tanh(score / cap)^2)
  void (*softcap_backward)(const Tile& tile, T cap, const T* scores, T* gradients, int64_t stride);
};

/// Those for the instruction set that ATen detected, or was told by ATEN_CPU_CAPABILITY.
template <typename T>
const ScoreKernels<T>& score_kernels();

struct ScoreTables {
  ScoreKernels<float> float32;
  ScoreKernels<double> float64;
};

}  // namespace attend::cpu
