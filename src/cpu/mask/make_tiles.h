#pragma once

#include <attend/mask.h>

#include <memory>

#include "core/checks.h"
#include "core/mask_node.h"
#include "cpu/mask/cell_states.h"
#include "cpu/mask/tiles.h"

namespace attend::cpu {

/// Makes the tiles of a mask that was checked against a call with tensors on the CPU; null for an undefined
/// mask, which allows everything. `states` holds the states of the cells that an earlier pass over the same
/// call has found.
std::unique_ptr<MaskTiles> make_mask_tiles(const Mask& mask, const ScoreShape& shape, int64_t query_dim,
                                           MaskStates& states);

/// Make the tiles of each kind of mask.
std::unique_ptr<MaskTiles> make_tiles(const MaskNode::Causal& mask, const ScoreShape& shape,
                                      int64_t query_dim, MaskStates& states);
std::unique_ptr<MaskTiles> make_tiles(const MaskNode::Window& mask, const ScoreShape& shape,
                                      int64_t query_dim, MaskStates& states);
std::unique_ptr<MaskTiles> make_tiles(const MaskNode::KeyLengths& mask, const ScoreShape& shape,
                                      int64_t query_dim, MaskStates& states);
std::unique_ptr<MaskTiles> make_tiles(const MaskNode::Prefix& mask, const ScoreShape& shape,
                                      int64_t query_dim, MaskStates& states);
std::unique_ptr<MaskTiles> make_tiles(const MaskNode::Documents& mask, const ScoreShape& shape,
                                      int64_t query_dim, MaskStates& states);
std::unique_ptr<MaskTiles> make_tiles(const MaskNode::Dense& mask, const ScoreShape& shape, int64_t query_dim,
                                      MaskStates& states);
std::unique_ptr<MaskTiles> make_tiles(const MaskNode::Lambda& mask, const ScoreShape& shape,
                                      int64_t query_dim, MaskStates& states);
std::unique_ptr<MaskTiles> make_tiles(const MaskNode::Both& mask, const ScoreShape& shape, int64_t query_dim,
                                      MaskStates& states);
std::unique_ptr<MaskTiles> make_tiles(const MaskNode::Not& mask, const ScoreShape& shape, int64_t query_dim,
                                      MaskStates& states);

}  // namespace attend::cpu
