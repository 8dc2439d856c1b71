#pragma once

#include <ATen/TensorOperators.h>
#include <ATen/ops/rms_norm.h>

#include "core/compute_type.h"

namespace attend::nn {

/// x / sqrt(mean of x^2 over the last dimension + eps) * weight (Zhang 2019). The quotient is computed in
/// float32 (float64 for float64) and rounded to the dtype of x before it is multiplied.
inline at::Tensor rms_norm(const at::Tensor& x, const at::Tensor& weight, double eps) {
  return at::rms_norm(widen(x), {x.size(-1)}, /*weight=*/{}, eps).to(x.scalar_type()) * weight;
}

}  // namespace attend::nn
