#pragma once

#include <ATen/TensorOperators.h>
#include <ATen/ops/rsqrt.h>

#include "core/dtypes.h"

namespace attend::nn {

/// Returns x / sqrt(sum of x^2 over the last dimension + eps), computed in float32 (float64 for float64).
inline at::Tensor l2_norm(const at::Tensor& x, double eps) {
  const auto wide = widen(x);
  return (wide * at::rsqrt(wide.square().sum(-1, /*keepdim=*/true) + eps)).to(x.scalar_type());
}

}  // namespace attend::nn
