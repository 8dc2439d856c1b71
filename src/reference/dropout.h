#pragma once

#include <ATen/core/Tensor.h>

#include "core/score_shape.h"

namespace attend::reference {

/// The factors of the weights [B, H, Lq, Lk], for the rows of `shape`: 0 with probability p, rounded to a
/// multiple of 2^-16, else 1 / (1 - p). Each factor is a function of (seed, b, h, i, j) alone. They are drawn
/// on the CPU and copied to the device of `options`.
at::Tensor dropout_factors(uint64_t seed, double p, const ScoreShape& shape,
                           const at::TensorOptions& options);

}  // namespace attend::reference
