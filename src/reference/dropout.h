#pragma once

#include <ATen/core/Tensor.h>

#include "core/score_shape.h"

namespace attend::reference {

/// Returns the dropout factors of the weights in the rows of `shape`, [B, H, rows, Lk]: 0 with probability p,
/// rounded to a multiple of 2^-16, otherwise 1 / (1 - p). Each factor is a function of (seed, b, h, i, j)
/// alone. The factors are computed on the CPU and copied to the device of `options`.
at::Tensor dropout_factors(uint64_t seed, double p, const ScoreShape& shape,
                           const at::TensorOptions& options);

}  // namespace attend::reference
