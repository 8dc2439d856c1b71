#pragma once

#include <ATen/core/Tensor.h>
#include <attend/score_mod.h>

#include "core/checks.h"

namespace attend::reference {

/// Returns the modified scores in the dtype of `scores`; differentiable. `scores` has the rows of `shape`,
/// [B, H, rows, Lk]. The score modification must already be checked against the call.
at::Tensor modify_scores(const at::Tensor& scores, const ScoreMod& score_mod, const SymScoreShape& shape,
                         int64_t query_dim);

}  // namespace attend::reference
