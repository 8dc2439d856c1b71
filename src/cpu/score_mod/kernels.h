#pragma once

// The inner loops of the built-in score modifications, as a table of functions for each instruction set.

#include "cpu/score_mod/tiles.h"

namespace attend::cpu {

/// The kernels for scores and gradients of type T, float or double, in the layout that `ScoreTiles` defines.
/// In the comments, `a -> b` means that each element a is replaced by b.
template <typename T>
struct ScoreKernels {
  /// score -> cap tanh(score / cap)
  void (*softcap)(const Tile& tile, T cap, T* scores, int64_t stride);
  /// gradient -> gradient (1 - tanh(score / cap)^2)
  void (*softcap_backward)(const Tile& tile, T cap, const T* scores, T* gradients, int64_t stride);

  /// score -> score - slope |distance + i - j| for the tile's query i and key j
  void (*alibi)(const Tile& tile, T slope, int64_t distance, T* scores, int64_t stride);
  /// Returns the sum of gradient |distance + i - j| over the tile.
  double (*alibi_backward)(const Tile& tile, int64_t distance, const T* gradients, int64_t stride);

  /// score -> score + values[i * query_stride + j] for the tile's query i and key j
  void (*add_bias)(const Tile& tile, const T* values, int64_t query_stride, T* scores, int64_t stride);
  /// score -> score + values[i * query_stride + j * key_stride]
  void (*add_strided_bias)(const Tile& tile, const T* values, int64_t query_stride, int64_t key_stride,
                           T* scores, int64_t stride);
  /// sums[i * query_stride + j] += gradient
  void (*add_bias_gradients)(const Tile& tile, const T* gradients, int64_t stride, T* sums,
                             int64_t query_stride);
  /// sums[i * query_stride + j] = gradient
  void (*set_bias_gradients)(const Tile& tile, const T* gradients, int64_t stride, T* sums,
                             int64_t query_stride);
  /// sums[j * key_stride] += the sum of the gradients over the queries
  void (*sum_queries)(const Tile& tile, const T* gradients, int64_t stride, double* sums, int64_t key_stride);
  /// sums[i * query_stride] += the sum of the gradients over the keys
  void (*sum_keys)(const Tile& tile, const T* gradients, int64_t stride, double* sums, int64_t query_stride);
  /// *sum += the sum of all gradients of the tile
  void (*sum_tile)(const Tile& tile, const T* gradients, int64_t stride, double* sum);

  /// score -> score + values[i - j + keys - 1]
  void (*add_by_distance)(const Tile& tile, const T* values, T* scores, int64_t stride);
  /// sums[buckets[i - j + keys - 1]] += gradient; the gradients of each diagonal of the tile are summed first
  void (*sum_by_bucket)(const Tile& tile, const T* gradients, int64_t stride, const int64_t* buckets,
                        double* sums);
};

/// The kernels for the instruction set of this process.
template <typename T>
const ScoreKernels<T>& score_kernels();

/// The kernels of one instruction set.
struct ScoreTables {
  ScoreKernels<float> float32;
  ScoreKernels<double> float64;
};

}  // namespace attend::cpu
