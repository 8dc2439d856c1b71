#pragma once

#include <ATen/TensorOperators.h>
#include <ATen/ops/rsqrt.h>

#include "core/compute_type.h"

namespace attend::nn {

/// Vectors x of length 1, x / sqrt(x . x + eps), computed in float32 at least.
inline at::Tensor unit(const at::Tensor& x, double eps) {
  const auto wide = widen(x);
  return (wide * at::rsqrt(wide.square().sum(-1, /*keepdim=*/true) + eps)).to(x.scalar_type());
}

}  // namespace attend::nn
