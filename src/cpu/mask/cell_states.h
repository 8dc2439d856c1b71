#pragma once

// The mask states of cells, for masks whose elements must be read or evaluated to find a state. A cell is a
// rectangle of kCellQueries x kCellKeys elements. Each cell is classified only once per call, when its state
// is first needed: all heads and batch elements that share the mask use this state, in the forward and in the
// backward.

#include <ATen/core/Tensor.h>

#include <memory>
#include <vector>

#include "cpu/mask/tiles.h"

namespace attend::cpu {

/// The sizes of a mask. Each is the size of the scores, or 1 if the mask is the same for all batch elements,
/// heads, queries or keys.
struct MaskSizes {
  int64_t batch, heads, queries, keys;
};

/// The cell states of the masks of one call, in the order in which their tiles are made: for each mask a
/// uint8 tensor [batch, heads, rows of cells, columns of cells].
class MaskStates {
 public:
  /// `known` holds the states from an earlier pass over the same call, or is empty.
  explicit MaskStates(std::vector<at::Tensor> known);
  /// Returns the states of the next mask. Zeros mean that a state is unknown; without an earlier pass, all
  /// are zeros.
  at::Tensor next(const MaskSizes& sizes);
  const std::vector<at::Tensor>& all() const { return all_; }

 private:
  std::vector<at::Tensor> all_;
  size_t next_ = 0;
  bool is_known_;
};

/// Returns tiles of the same mask that look up mask states in the states of the cells.
std::unique_ptr<MaskTiles> with_cell_states(std::unique_ptr<MaskTiles> mask, const MaskSizes& sizes,
                                            MaskStates& states);

}  // namespace attend::cpu
