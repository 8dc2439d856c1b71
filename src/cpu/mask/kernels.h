#pragma once

// The inner loops of masks, as a table of functions for each instruction set.

#include "cpu/mask/tiles.h"

namespace attend::cpu {

/// The part of a boolean mask [Lq, Lk] of one head that a tile covers: allowed[0] belongs to the tile's first
/// query and first key.
struct DenseTile {
  const uint8_t* allowed;
  int64_t query_stride, key_stride;
};

/// The parameters `allowed` and `stride` have the meaning that they have in `MaskTiles::fill`.
struct MaskKernels {
  /// Sets 1 where low <= j - i <= high, for query i and key j of the sequence.
  void (*fill_band)(const Tile& tile, int64_t low, int64_t high, uint8_t* allowed, int64_t stride);
  /// Sets 1 where j < length, for key j of the sequence.
  void (*fill_length)(const Tile& tile, int64_t length, uint8_t* allowed, int64_t stride);
  /// Returns the state of the tile, from the range of the document ids of its queries and that of its keys.
  /// Disjoint ranges make an empty tile, and ascending ids make the ranges of different documents disjoint.
  /// `offset` is the position of query 0 among the keys.
  TileState (*document_state)(const Tile& tile, const int64_t* ids, int64_t offset);
  /// Sets 1 where key i + offset and key j belong to the same document, and 0 where i + offset is negative.
  void (*fill_documents)(const Tile& tile, const int64_t* ids, int64_t offset, uint8_t* allowed,
                         int64_t stride);
  TileState (*dense_state)(const Tile& tile, const DenseTile& dense);
  void (*fill_dense)(const Tile& tile, const DenseTile& dense, uint8_t* allowed, int64_t stride);
  /// Returns the state of `count` mask elements, each 0 or 1.
  TileState (*state)(const uint8_t* allowed, int64_t count);
  /// Computes allowed = allowed & other.
  void (*intersect)(const Tile& tile, const uint8_t* other, int64_t other_stride, uint8_t* allowed,
                    int64_t stride);
  /// Computes allowed = 1 - allowed.
  void (*negate)(const Tile& tile, uint8_t* allowed, int64_t stride);
};

/// The kernels for the instruction set of this process.
const MaskKernels& mask_kernels();

}  // namespace attend::cpu
