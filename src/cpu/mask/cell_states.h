#pragma once

// The states of a mask whose elements have to be read or evaluated for them: each cell is classified once per
// call, when it is first asked for, for all heads and batch elements that share it, in forward and backward.

#include <ATen/core/Tensor.h>

#include <memory>
#include <vector>

#include "cpu/mask/tiles.h"

namespace attend::cpu {

/// The numbers of batch elements, heads, queries and keys between which a mask distinguishes: those of the
/// scores, or 1 where it is the same for all.
struct MaskSizes {
  int64_t batch, heads, queries, keys;
};

/// The states of the masks of one call, in the order in which they are bound; of each a uint8 tensor [batch,
/// heads, rows of cells, columns of cells].
class MaskStates {
 public:
  /// `known`: those of an earlier pass over the same call, or none.
  explicit MaskStates(std::vector<at::Tensor> known);
  /// The states of the next mask; zeros, which mean unknown, if there was no earlier pass.
  at::Tensor next(const MaskSizes& sizes);
  const std::vector<at::Tensor>& all() const { return all_; }

 private:
  std::vector<at::Tensor> all_;
  size_t next_ = 0;
  bool is_known_;
};

/// The same mask, whose states are looked up in those of its cells.
std::unique_ptr<MaskTiles> with_cell_states(std::unique_ptr<MaskTiles> mask, const MaskSizes& sizes,
                                            MaskStates& states);

}  // namespace attend::cpu
