#pragma once

// The inner loops of masks: a table of functions for each instruction set.

#include "cpu/mask/tiles.h"

namespace attend::cpu {

/// A boolean matrix [queries, keys] of one head; the element of a tile's first query and key is allowed[0].
struct DenseTile {
  const uint8_t* allowed;
  int64_t query_stride, key_stride;
};

/// `allowed` and `stride` are those of `MaskTiles::fill`.
struct MaskKernels {
  /// 1 where low <= j - i <= high, for positions i and j in the sequences.
  void (*fill_band)(const Tile& tile, int64_t low, int64_t high, uint8_t* allowed, int64_t stride);
  /// 1 for the keys j < length, a position in the sequence.
  void (*fill_length)(const Tile& tile, int64_t length, uint8_t* allowed, int64_t stride);
  /// The state of the tile by the ranges of its queries' and its keys' ids: where ids ascend, the ranges of
  /// different documents are disjoint. `offset`: the position of query 0 among the keys.
  TileState (*document_state)(const Tile& tile, const int64_t* ids, int64_t offset);
  /// 1 where the document of position i + offset is that of key j; 0 where i + offset is negative.
  void (*fill_documents)(const Tile& tile, const int64_t* ids, int64_t offset, uint8_t* allowed,
                         int64_t stride);
  TileState (*dense_state)(const Tile& tile, const DenseTile& dense);
  void (*fill_dense)(const Tile& tile, const DenseTile& dense, uint8_t* allowed, int64_t stride);
  /// The state of `count` elements of 0 or 1.
  TileState (*state)(const uint8_t* allowed, int64_t count);
  /// allowed = allowed & other
  void (*intersect)(const Tile& tile, const uint8_t* other, int64_t other_stride, uint8_t* allowed,
                    int64_t stride);
  /// allowed = 1 - allowed
  void (*negate)(const Tile& tile, uint8_t* allowed, int64_t stride);
};

/// The kernels for the instruction set of this process.
const MaskKernels& mask_kernels();

}  // namespace attend::cpu
