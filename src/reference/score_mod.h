#pragma once

#include <ATen/core/Tensor.h>
#include <attend/score_mod.h>

#include "core/checks.h"

namespace attend::reference {

/// The modified scores [B, H, Lq, Lk] (the rows of `shape`), in the dtype of `scores`; differentiable. The
/// score modification was checked.
at::Tensor modify_scores(const at::Tensor& scores, const ScoreMod& score_mod, const ScoreShape& shape,
                         int64_t query_dim);

}  // namespace attend::reference
