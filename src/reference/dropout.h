#pragma once

#include <ATen/core/Tensor.h>

#include "core/score_shape.h"

namespace attend::reference {

/// Returns the dropout factors of the weights in the rows of `shape`, [B, H, rows, Lk]: 0 with probability p,
/// rounded to a multiple of 2^-16, otherwise 1 / (1 - p). Each factor is a function of (seed, b, h, i, j)
/// alone: that of core/philox.h, computed on the device of the seed, int64 [1].
at::Tensor dropout_factors(const at::Tensor& seed, double p, const SymScoreShape& shape,
                           at::ScalarType dtype);

}  // namespace attend::reference
