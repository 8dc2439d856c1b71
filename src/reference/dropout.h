#pragma once

#include <ATen/core/Tensor.h>

#include "core/checks.h"

namespace attend::reference {

/// What the weights [B, H, Lq, Lk] are multiplied by: 0 with probability p, rounded to a multiple of 2^-16,
/// else 1 / (1 - p). Each factor is a function of (seed, b, h, i, j) alone.
at::Tensor dropout_factors(uint64_t seed, double p, const ScoreShape& shape,
                           const at::TensorOptions& options);

}  // namespace attend::reference
