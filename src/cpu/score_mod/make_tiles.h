#pragma once

#include <attend/score_mod.h>

#include <memory>

#include "core/checks.h"
#include "core/score_mod_node.h"
#include "cpu/score_mod/differentiable_tiles.h"

namespace attend::cpu {

/// Makes the tiles of a score modification that was checked against a call with tensors on the CPU, for
/// scores of `compute_type`, float32 or float64; null for an undefined score modification.
std::unique_ptr<DifferentiableScoreTiles> make_score_tiles(const ScoreMod& score_mod, const ScoreShape& shape,
                                                           int64_t query_dim, at::ScalarType compute_type);

/// Make the tiles of each kind of score modification.
std::unique_ptr<DifferentiableScoreTiles> make_tiles(const ScoreModNode::Alibi& alibi,
                                                     const ScoreShape& shape, int64_t query_dim,
                                                     at::ScalarType compute_type);
std::unique_ptr<DifferentiableScoreTiles> make_tiles(const ScoreModNode::Bias& bias, const ScoreShape& shape,
                                                     int64_t query_dim, at::ScalarType compute_type);
std::unique_ptr<DifferentiableScoreTiles> make_tiles(const ScoreModNode::RelativeBias& relative_bias,
                                                     const ScoreShape& shape, int64_t query_dim,
                                                     at::ScalarType compute_type);
std::unique_ptr<DifferentiableScoreTiles> make_tiles(const ScoreModNode::Softcap& softcap,
                                                     const ScoreShape& shape, int64_t query_dim,
                                                     at::ScalarType compute_type);
std::unique_ptr<DifferentiableScoreTiles> make_tiles(const ScoreModNode::Lambda& lambda,
                                                     const ScoreShape& shape, int64_t query_dim,
                                                     at::ScalarType compute_type);
std::unique_ptr<DifferentiableScoreTiles> make_tiles(const ScoreModNode::Composed& composed,
                                                     const ScoreShape& shape, int64_t query_dim,
                                                     at::ScalarType compute_type);

}  // namespace attend::cpu
